"""The output: every partition of a topic is a part of its own, and no row is called written before Kafka has it.

A full queue is waited out, and so is an outage, however long. A row that Kafka refuses stops the job. After a crash,
rows that are already there are not written again (see `dataflow.kafka.written`).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflow.kafka.client import Connection
from dataflow.kafka.deduplication import OutputDeduplicator, record_digest
from dataflow.kafka.job_metadata import PartitionId
from dataflow.kafka.lease import Lease
from dataflow.observability import lifecycle, liveness, metrics
from dataflow.streaming import worker_threads
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import UserError, inside_engine
from dataflow.streaming.state import StateCodec

_TUNING = {"linger.ms": 20, "batch.size": 1_000_000, "compression.type": "lz4"}
_ESSENTIAL = {
    "enable.idempotence": True,  # each row once and in order, however often it is sent
    "message.timeout.ms": 0,  # wait for the brokers as long as it takes
    "message.max.bytes": 100_000_000,  # how large a row may be is the topic's affair
    "delivery.report.only.error": True,
    # the room is counted here, see _ROOM: a row for which the client had none would come after its followers
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
}
_ROOM = 64 * 1024 * 1024  # bytes handed over since Kafka had last acknowledged everything
_SERVED_EVERY = 0.1  # seconds
_GRACE = 5  # seconds that a stop waits for Kafka
_ROW = 100  # bytes that a row takes beside its value


_ADVICE = {
    KafkaError.MSG_SIZE_TOO_LARGE: "; raise max.message.bytes of the topic and start again",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "; allow the job to write there and start again",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "; allow the job to write idempotently and start again",
    KafkaError.POLICY_VIOLATION: "; the cluster's policy forbids it",
}


class KafkaDelivery:
    """The one producer of a process, used by all parts of all its sinks; the job's first process has the lease."""

    def __init__(self, connection: Connection, deduplicator: OutputDeduplicator, lease: Lease | None) -> None:
        self.deduplicator = deduplicator
        self._lease = lease
        self._refused: str | None = None
        self._handed_over = 0
        self._served = 0.0  # monotonic
        self._ends: dict[PartitionId, int] = {}
        self._moved: set[PartitionId] = set()  # partitions whose end is farther than that
        self._lock = threading.Lock()  # guards _ends and _moved
        self._producer = Producer({**_TUNING, **connection.properties, **_ESSENTIAL, "on_delivery": self._on_delivery})
        lifecycle.exit_hooks.append(self.flush)
        metrics.set_function(metrics.unacknowledged, lambda: len(self._producer))

    def write(self, topic: str, partition: int, outputs: list[OutgoingRecords]) -> None:
        """Hands rows over to be sent; waits while there is no room. Raises UserError if Kafka refused a row."""
        lifecycle.block_if_stopping()
        if self._lease is not None:
            self._lease.wait_until_held()
        self._moved.add((topic, partition))
        produce = self._producer.produce  # a row at a time: produce_batch wants a dict of each, which takes longer
        try:
            for each in outputs:
                self._make_room(sum(map(len, filter(None, each.values))) + _ROW * len(each.values))
                key, headers = each.key, each.headers
                if headers is None:  # to name an argument, be it None, costs half as much again
                    for value in each.values:
                        produce(topic, value, key, partition)
                else:
                    for value in each.values:
                        produce(topic, value, key, partition, headers=headers)
        except KafkaException as error:
            raise UserError(f"{topic}/{partition}: a row cannot be sent: {error.args[0].str()}") from None
        self._serve()

    def flush(self) -> None:
        """Waits until Kafka has acknowledged every row handed over.

        Raises:
            UserError: Kafka refused a row, or the job is to stop and Kafka does not answer.
        """
        patience = _GRACE
        while unacknowledged := self._producer.flush(1):
            self._check()
            liveness.heartbeat()
            patience -= lifecycle.stop_requested.is_set()
            if not patience:
                raise UserError(f"stopped while Kafka is away; {unacknowledged} rows will be written on resume")
        self._check()

    def end(self, partition_id: PartitionId) -> int:
        """The offset after the last row of a partition, once all rows handed over are acknowledged.

        The first part that asks, asks for all that have moved: a question a part stood the whole job still.
        """
        with liveness.acquire_with_heartbeat(self._lock):
            if partition_id in self._moved or partition_id not in self._ends:
                moved, self._moved = self._moved | {partition_id}, set()
                self.flush()
                self._ends |= self.deduplicator.ends(moved)
            return self._ends[partition_id]

    def _make_room(self, size: int) -> None:
        self._handed_over += size
        if self._handed_over > _ROOM:
            self.flush()
            self._handed_over = size

    def _serve(self) -> None:
        """Hears of refused rows; now and then, since to ask takes as long as to hand over a hundred rows."""
        now = time.monotonic()
        if now > self._served + _SERVED_EVERY:
            self._served = now
            self._producer.poll(0)
        self._check()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._refused is None:
            advice = _ADVICE.get(error.code(), "")
            self._refused = f"{message.topic()}/{message.partition()}: Kafka refuses a row: {error.str()}{advice}"

    def _check(self) -> None:
        if self._refused is not None:
            raise UserError(self._refused)


class SinkState(msgspec.Struct, array_like=True):
    """A part as of a snapshot."""

    end: int
    pending: list[bytes]  # fingerprints of rows before the end that are still to come up again
    partitions: int  # of the topic, as far as they are written to


class KafkaSink(FixedPartitionedSink[OutgoingRecords, bytes]):
    """All partitions of one topic.

    Args:
        topic: its name.
        partitions: how many of its partitions are written to.
        partitioner: hashes a key to the number that chooses among them.
        writer: gives the process's writer.
        snapshots: packs the parts' states.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        partitioner: Callable[[bytes], int],
        delivery: Callable[[], KafkaDelivery],
        codec: StateCodec[SinkState],
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._partitioner = partitioner
        self._delivery = delivery
        self._codec = codec

    def list_parts(self) -> list[str]:
        return [f"{partition:05}" for partition in range(self._partitions)]  # the engine sorts them as text

    def part_fn(self, item_key: str) -> int:
        return self._partitioner(item_key.encode())

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_PartitionSink":
        worker_threads.keep_thread_state()
        partition_id, delivery = (self._topic, int(for_part)), self._delivery()
        if resume_state is not None:
            state = self._codec.unpack(resume_state)
        else:
            state = SinkState(delivery.deduplicator.start_offsets[partition_id], [], self._partitions)
        if state.partitions != self._partitions:
            raise UserError(
                f"{self._topic} had {state.partitions} partitions when the job last ran, and Kafka has since forgotten the "
                f"job's notes; start with an empty recovery store and VISITS_GROUP set to a new name"
            )
        present = Counter(state.pending) + delivery.deduplicator.rows(partition_id, state.end)
        return _PartitionSink(
            partition_id, self._partitions, present, delivery, self._codec, metrics.StateSize(step_id)
        )


class _PartitionSink(StatefulSinkPartition[OutgoingRecords, bytes]):
    """One output partition; `present` are the rows that stand there and have not come up again."""

    def __init__(
        self,
        partition_id: PartitionId,
        partitions: int,
        present: Counter[bytes],
        delivery: KafkaDelivery,
        codec: StateCodec[SinkState],
        size: metrics.StateSize,
    ) -> None:
        self._partition_id = partition_id
        self._partitions = partitions
        self._present = present
        self._delivery = delivery
        self._codec = codec
        self._counts = metrics.OutputCounters(partition_id[0])
        self._size = size

    @inside_engine
    @liveness.monitored
    def write_batch(self, values: list[OutgoingRecords]) -> None:
        to_write = list(map(self._without_present, values)) if self._present else values
        self._delivery.write(*self._partition_id, to_write)
        self._counts.count(values, to_write)

    @inside_engine
    @liveness.monitored
    def snapshot(self) -> bytes:
        end = self._delivery.end(self._partition_id)
        return self._size.of(self._codec.pack(SinkState(end, list(self._present.elements()), self._partitions)))

    @inside_engine
    def close(self) -> None:
        self._delivery.flush()

    def _without_present(self, output: OutgoingRecords) -> OutgoingRecords:
        return OutgoingRecords(
            output.key, [value for value in output.values if not self._take(output, value)], output.headers
        )

    def _take(self, output: OutgoingRecords, value: bytes | None) -> bool:
        """Whether the row is there already; if so, it is not there for the next one like it."""
        row = record_digest(output.key, value, output.headers)
        if row not in self._present:
            return False
        self._present[row] -= 1
        if not self._present[row]:
            del self._present[row]
        return True
