"""Exactly-once delivery of rows to output partitions: the port that the sink is written against, and Kafka behind it."""

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflow.kafka.client import Connection, while_waiting
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.observability import lifecycle, liveness
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import UserError

_TUNING = {"linger.ms": 20, "batch.size": 1_000_000, "compression.type": "lz4"}
_ESSENTIAL = {
    "enable.idempotence": True,  # each row once and in order, however often it is sent
    # less than a successor waits before it takes the ends of the outputs for stable (see stable_end_offsets)
    "reconnect.backoff.max.ms": 500,
    "message.timeout.ms": 0,  # wait for brokers as long as it takes
    "message.max.bytes": 100_000_000,  # the topic limits the size
    "delivery.report.only.error": True,
    # the limit is _MAX_UNACKNOWLEDGED_BYTES: retrying after a BufferError would reorder rows
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
}
_MAX_UNACKNOWLEDGED_BYTES = 64 * 1024 * 1024  # handed over since Kafka last acknowledged everything
_OVERHEAD_BYTES = 100  # that a row takes beside its value
_POLL_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 5  # how long a stop waits for acknowledgements

_ADVICE = {
    KafkaError.MSG_SIZE_TOO_LARGE: "; raise max.message.bytes of the topic and start again",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "; allow the job to write there and start again",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "; allow the job to write idempotently and start again",
    KafkaError.POLICY_VIOLATION: "; the cluster's policy forbids it",
}


class Delivery(Protocol):
    """Where the sink writes its rows; one for all output partitions of a process.

    Workers are threads. Each partition belongs to one of them, and only that one calls `resume`, `write` and
    `checkpoint` for it.
    """

    def acquire(self) -> None:
        """Makes this job the only writer. Raises UserError if another one is."""

    def resume(self, partition_id: PartitionId, begin: int | None) -> Iterator[tuple[int, bytes]]:
        """The rows that are in the partition: the offset of each, and its digest (see `record_digest`).

        Args:
            partition_id: topic and partition.
            begin: offset of the first row; None: this job's first row.
        """

    def write(self, partition_id: PartitionId, records: Sequence[OutgoingRecords]) -> None:
        """Hands rows over, in order. Raises UserError if any row of this process was refused."""

    def checkpoint(self, partition_id: PartitionId) -> int:
        """The offset after the last row of the partition, once every row handed over before is acknowledged."""

    def flush(self) -> None:
        """Returns once every row handed over is acknowledged. Raises UserError if one was refused."""


class OutputReader(Protocol):
    """What is needed of `OutputDeduplicator`."""

    @property
    def start_offsets(self) -> Mapping[PartitionId, int]: ...

    def ends(self, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, int]: ...
    def rows(self, partition_id: PartitionId, begin: int) -> Iterator[tuple[int, bytes]]: ...


class WriterLease(Protocol):
    """What is needed of `Lease` or `LeaseFollower`."""

    def take(self) -> None: ...
    def join(self) -> None: ...
    def wait_until_held(self) -> None: ...
    def release(self) -> None: ...


class RowProducer(Protocol):
    """The part of `confluent_kafka.Producer` that is needed."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        /,
        *,
        headers: Any = ...,
    ) -> None: ...
    def poll(self, timeout_s: float, /) -> int: ...
    def flush(self, timeout_s: float, /) -> int: ...
    def __len__(self) -> int: ...


class KafkaDelivery:
    """Delivers to Kafka with one idempotent producer.

    A full queue is waited out, and so is an outage, however long. A row that Kafka refuses stops the job.

    Args:
        connection: to the cluster.
        output: reads the output topics.
        lease: says whether this process may write.
        new_producer: makes the producer, of librdkafka properties.

    Raises:
        UserError: the properties do not go with exactly-once delivery.
    """

    def __init__(
        self,
        connection: Connection,
        output: OutputReader,
        lease: WriterLease,
        new_producer: Callable[[dict[str, Any]], RowProducer] = Producer,
    ) -> None:
        self._output = output
        self._lease = lease
        self._refusal: str | None = None
        self._unacknowledged_bytes = 0  # at most; reset when all rows are acknowledged
        self._polled = 0.0  # monotonic
        # Batches handed over for each partition. Only the partition's worker writes its number, and only after its rows
        # are handed over: so a checkpoint that counts a batch flushes all its rows.
        self._batches: dict[PartitionId, int] = {}
        self._ends: dict[PartitionId, int] = {}
        self._batches_at_end: dict[PartitionId, int] = {}  # how many of the batches are before that end
        self._lock = threading.Lock()  # guards _ends and _batches_at_end
        properties = {**_TUNING, **connection.properties, **_ESSENTIAL, "on_delivery": self._on_delivery}
        try:
            self._producer = new_producer(properties)
        except (KafkaException, ValueError, TypeError) as error:
            why = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise UserError(f"wrong Kafka setting (VISITS_KAFKA_*): {why}") from None
        lifecycle.exit_hooks.append(self._flush_before_exit)

    def acquire(self) -> None:
        """Takes the lease, and releases it when the process ends. Raises UserError if another copy is running."""
        self._lease.take()
        lifecycle.exit_hooks.append(self._release_before_exit)
        atexit.register(self._lease.release)

    def resume(self, partition_id: PartitionId, begin: int | None) -> Iterator[tuple[int, bytes]]:
        """Reads the rows. Waits for brokers."""
        self._lease.join()
        return self._output.rows(partition_id, self._output.start_offsets[partition_id] if begin is None else begin)

    def write(self, partition_id: PartitionId, records: Sequence[OutgoingRecords]) -> None:
        """Hands rows over to the producer. Waits while it has no room, and while the lease is not held."""
        lifecycle.block_if_stopping()
        self._lease.wait_until_held()
        try:
            self._produce(*partition_id, records)
        except KafkaException as error:
            raise UserError(f"{source_name(*partition_id)}: a row cannot be sent: {error.args[0].str()}") from None
        finally:
            self._batches[partition_id] = self._batches.get(partition_id, 0) + 1
        self._poll()

    def checkpoint(self, partition_id: PartitionId) -> int:
        """Flushes, then asks for the ends of all partitions written to since their last end was asked for.

        One request serves the checkpoints of all partitions: a request for each would hold up the whole job.
        """
        with liveness.acquire_with_heartbeat(self._lock):
            batches = self._batches.copy()  # before the flush; in one step, since workers are threads
            if partition_id not in self._ends or self._has_moved(partition_id, batches):
                moved = {each for each in batches if self._has_moved(each, batches)} | {partition_id}
                self.flush()
                self._ends |= self._output.ends(moved)
                self._batches_at_end |= {each: batches.get(each, 0) for each in moved}
            return self._ends[partition_id]

    def flush(self) -> None:
        """Waits until Kafka has acknowledged every row handed over. Raises UserError if Kafka refused one."""
        while self._producer.flush(1):
            self._raise_if_refused()
            while_waiting()
        self._raise_if_refused()

    def _flush_before_exit(self) -> None:
        """The same for a process that stops, and for a few seconds only: rows without an answer are written on resume."""
        for _ in range(_STOP_TIMEOUT_S):
            if not self._producer.flush(1):
                break
        self._raise_if_refused()

    def _release_before_exit(self) -> None:
        if not self.unacknowledged():  # otherwise some may still arrive: a successor waits until the lease has run out
            self._lease.release()

    def unacknowledged(self) -> int:
        """The number of rows handed over that Kafka has not acknowledged."""
        return len(self._producer)

    def _has_moved(self, partition_id: PartitionId, batches: Mapping[PartitionId, int]) -> bool:
        return batches.get(partition_id, 0) != self._batches_at_end.get(partition_id, 0)

    def _produce(self, topic: str, partition: int, records: Sequence[OutgoingRecords]) -> None:
        produce = self._producer.produce  # a row at a time: produce_batch needs a dict for each, which takes longer
        for each in records:
            self._make_room(sum(map(len, filter(None, each.values))) + _OVERHEAD_BYTES * len(each.values))
            key, headers = each.key, each.headers
            if headers is None:  # an argument by name, even None, costs half as much again
                for value in each.values:
                    produce(topic, value, key, partition)
            else:
                for value in each.values:
                    produce(topic, value, key, partition, headers=headers)

    def _make_room(self, size: int) -> None:
        self._unacknowledged_bytes += size
        if self._unacknowledged_bytes > _MAX_UNACKNOWLEDGED_BYTES:
            self.flush()
            self._unacknowledged_bytes = size

    def _poll(self) -> None:
        """Serves reports of refused rows; not after each batch, since a poll costs as much as a hundred rows."""
        now = time.monotonic()
        if now > self._polled + _POLL_INTERVAL_S:
            self._polled = now
            self._producer.poll(0)
        self._raise_if_refused()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._refusal is None:
            advice = _ADVICE.get(error.code(), "")
            self._refusal = f"{message.topic()}/{message.partition()}: Kafka refuses a row: {error.str()}{advice}"

    def _raise_if_refused(self) -> None:
        if self._refusal is not None:
            raise UserError(self._refusal)
