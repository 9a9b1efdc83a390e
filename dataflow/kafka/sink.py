"""The output: every partition of a topic is a part of its own, and no row is called written before Kafka has it.

A full queue is waited out, and so is an outage, however long. A row that Kafka refuses stops the job. After a crash,
rows that are already there are not written again (see `dataflow.kafka.written`).
"""

import threading
from collections import Counter
from collections.abc import Callable

import msgspec
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, Message, Producer

from dataflow import shutdown
from dataflow.batches import Output
from dataflow.errors import UserError, inside_engine
from dataflow.kafka.client import Connection
from dataflow.kafka.written import Place, Written, fingerprint
from dataflow.snapshots import Snapshots

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
_GRACE = 5  # seconds that a stop waits for Kafka
_ROW = 100  # bytes that a row takes beside its value


class Writer:
    """The one producer of a process, used by all parts of all its sinks."""

    def __init__(self, connection: Connection, written: Written) -> None:
        self.written = written
        self._refused: str | None = None
        self._handed_over = 0
        self._ends: dict[Place, int] = {}
        self._moved: set[Place] = set()  # partitions whose end is farther than that
        self._lock = threading.Lock()  # guards _ends and _moved
        self._producer = Producer({**_TUNING, **connection.properties, **_ESSENTIAL, "on_delivery": self._on_delivery})
        shutdown.last_acts.append(self.flush)

    def write(self, topic: str, partition: int, output: Output) -> None:
        """Hands rows over to be sent; waits while there is no room. Raises UserError if Kafka refused a row."""
        shutdown.stand_still_if_requested()
        key, values, headers = output.key, output.values, output.headers
        self._moved.add((topic, partition))
        self._make_room(sum(map(len, filter(None, values))) + _ROW * len(values))
        if headers is None:
            rows = [{"key": key, "value": value} for value in values]
            if self._producer.produce_batch(topic, rows, partition) < len(rows):
                error = next(row["_error"] for row in rows if "_error" in row)
                raise UserError(f"{topic}/{partition}: a row cannot be sent: {error.str()}")
        else:
            for value in values:
                self._producer.produce(topic, value, key, partition, headers=headers)
        self._serve(0)

    def flush(self) -> None:
        """Waits until Kafka has acknowledged every row handed over.

        Raises:
            UserError: Kafka refused a row, or the job is to stop and Kafka does not answer.
        """
        patience = _GRACE
        while unacknowledged := self._producer.flush(1):
            self._check()
            patience -= shutdown.requested.is_set()
            if not patience:
                raise UserError(f"stopped while Kafka is away; {unacknowledged} rows will be written on resume")
        self._check()

    def end(self, place: Place) -> int:
        """The offset after the last row of a partition, once all rows handed over are acknowledged.

        The first part that asks, asks for all that have moved: a question a part stood the whole job still.
        """
        with self._lock:
            if place in self._moved or place not in self._ends:
                moved, self._moved = self._moved | {place}, set()
                self.flush()
                self._ends |= self.written.ends(moved)
            return self._ends[place]

    def _make_room(self, size: int) -> None:
        self._handed_over += size
        if self._handed_over > _ROOM:
            self.flush()
            self._handed_over = size

    def _serve(self, seconds: float) -> None:
        self._producer.poll(seconds)
        self._check()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._refused is None:
            self._refused = f"{message.topic()}/{message.partition()}: Kafka refuses a row: {error.str()}"

    def _check(self) -> None:
        if self._refused is not None:
            raise UserError(self._refused)


class SinkState(msgspec.Struct, array_like=True):
    """A part as of a snapshot: its end, and the fingerprints of rows before it that are still to come up again."""

    end: int
    pending: list[bytes]


class KafkaSink(FixedPartitionedSink[Output, bytes]):
    """All partitions of one topic.

    Args:
        topic: its name.
        partitions: how many it has.
        partitioner: hashes a key to the number that chooses among them.
        writer: gives the process's writer.
        snapshots: packs the parts' states.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        partitioner: Callable[[bytes], int],
        writer: Callable[[], Writer],
        snapshots: Snapshots[SinkState],
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._partitioner = partitioner
        self._writer = writer
        self._snapshots = snapshots

    def list_parts(self) -> list[str]:
        return [f"{partition:05}" for partition in range(self._partitions)]  # the engine sorts them as text

    def part_fn(self, item_key: str) -> int:
        return self._partitioner(item_key.encode())

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Partition":
        place, writer = (self._topic, int(for_part)), self._writer()
        if resume_state is not None:
            state = self._snapshots.unpack(resume_state)
        else:
            state = SinkState(writer.written.beginning(place), [])
        present = Counter(state.pending) + writer.written.rows(place, state.end)
        return _Partition(place, present, writer, self._snapshots)


class _Partition(StatefulSinkPartition[Output, bytes]):
    """One output partition; `present` are the rows that stand there and have not come up again."""

    def __init__(self, place: Place, present: Counter[bytes], writer: Writer, snapshots: Snapshots[SinkState]) -> None:
        self._place = place
        self._present = present
        self._writer = writer
        self._snapshots = snapshots

    @inside_engine
    def write_batch(self, values: list[Output]) -> None:
        for output in values:
            if self._present:
                output = self._without_present(output)
            if output.values:
                self._writer.write(*self._place, output)

    @inside_engine
    def snapshot(self) -> bytes:
        return self._snapshots.pack(SinkState(self._writer.end(self._place), list(self._present.elements())))

    @inside_engine
    def close(self) -> None:
        self._writer.flush()

    def _without_present(self, output: Output) -> Output:
        return Output(output.key, [value for value in output.values if not self._take(output, value)], output.headers)

    def _take(self, output: Output, value: bytes | None) -> bool:
        """Whether the row is there already; if so, it is not there for the next one like it."""
        row = fingerprint(output.key, value, output.headers)
        if row not in self._present:
            return False
        self._present[row] -= 1
        if not self._present[row]:
            del self._present[row]
        return True
