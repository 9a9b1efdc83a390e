"""The input: every partition is a source of its own, which can be resumed.

A recovered partition goes on at its offset with its mark; a new one begins where the settings say. It reads no faster
than the others let it (see `dataflow.pace`), and says with every batch how far in time it has come.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from dataflow.batches import Poll
from dataflow.codec import Decode
from dataflow.errors import UserError, inside_engine
from dataflow.kafka.client import Connection
from dataflow.kafka.ends import LogEnds
from dataflow.pace import Pace, Runner
from dataflow.reader import Reader
from dataflow.rules.rows import END, NEVER, Time
from dataflow.rules.time import SourceTime
from dataflow.snapshots import Snapshots

_ROWS = 4_000  # of one poll
_PAUSE = timedelta(milliseconds=20)  # between polls of a partition that has nothing more; batches are worth waiting for
_HELD_BACK = timedelta(milliseconds=2)

_TUNING = {
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 8_192,
}
_ESSENTIAL = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # never jump over rows that are gone
    "enable.partition.eof": True,  # tells the end also behind aborted transactions
}


def start_offset(start: str) -> int:
    """The offset that stands for "earliest" or "latest"."""
    return {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}[start]


class SourceState(msgspec.Struct, array_like=True):
    """Where to resume a partition: the next offset, and the mark of the rows before it."""

    offset: int
    mark: Time


@dataclass(frozen=True)
class Reading:
    """What all sources of a process share.

    Args:
        connection: to the cluster.
        ends: where the partitions end.
        pace: keeps them in step.
        sources: the names of all sources, "topic/partition".
        group: consumer group that offsets are committed to, for lag monitors.
        lateness: allowed lateness, in microseconds.
        shards: how many there are; a resume with another number is refused.
        start: offset at which a partition that has no state begins.
        stop_at_end: read to the end that the partition has when it is opened, and no farther.
    """

    connection: Connection
    ends: LogEnds
    pace: Pace
    sources: tuple[str, ...]
    group: str
    lateness: int
    shards: int
    start: int
    stop_at_end: bool


class KafkaSource(FixedPartitionedSource[Poll, bytes]):
    """All partitions of one topic."""

    def __init__(self, topic: str, partitions: int, decode: Decode, reading: Reading) -> None:
        self._topic = topic
        self._partitions = partitions
        self._decode = decode
        self._reading = reading
        self._snapshots = Snapshots(SourceState, reading.shards)

    def list_parts(self) -> list[str]:
        return source_names(self._topic, self._partitions)

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Partition":
        state = self._snapshots.unpack(resume_state) if resume_state is not None else None
        partition = int(for_part.rpartition("/")[2])
        where = TopicPartition(self._topic, partition)
        return _Partition(for_part, where, self._decode, self._reading, state, self._snapshots)


def source_names(topic: str, partitions: int) -> list[str]:
    """The sources of a topic, as they are called everywhere: "topic/partition"."""
    return [f"{topic}/{partition}" for partition in range(partitions)]


class _Partition(StatefulSourcePartition[Poll, bytes]):
    def __init__(
        self,
        source: str,
        where: TopicPartition,
        decode: Decode,
        reading: Reading,
        state: SourceState | None,
        snapshots: Snapshots[SourceState],
    ) -> None:
        self._source = source
        self._where = where
        self._reading = reading
        self._snapshots = snapshots
        self._reader = Reader(source, decode, reading.lateness, state.mark if state else NEVER)
        self._runner = Runner(reading.pace)
        self._offset = state.offset if state else reading.start  # of the next message, or where to find it
        self._said = 0  # wall time up to which the source has said that it has caught up
        self._awake: datetime | None = None
        self._ended = False
        self._consumer = Consumer({**_TUNING, **reading.connection.properties, **_ESSENTIAL, "group.id": reading.group})
        if self._offset == OFFSET_END:
            self._offset = self._present_end()  # a number, so that a resume finds what came meanwhile
        self._stop_at = self._present_end() if reading.stop_at_end else None
        self._consumer.assign([TopicPartition(where.topic, where.partition, self._offset)])
        reading.ends.watch(source, where)

    @inside_engine
    def next_batch(self) -> Sequence[Poll]:
        if self._ended:
            raise StopIteration
        if self._runner.must_wait(self._reader.mark):
            return self._pause(_HELD_BACK)
        messages = self._consume()
        now = time.time_ns() // 1_000
        if self._stop_at is not None and self._offset >= self._stop_at:
            self._ended = True
        caught_up = self._caught_up(now)
        if not messages and caught_up is None and not self._ended:
            return self._pause(_PAUSE)
        self._awake = None if len(messages) == _ROWS else datetime.now(timezone.utc) + _PAUSE
        poll = self._reader.read(messages, SourceTime(self._source, NEVER, now, caught_up, self._reading.sources))
        if self._ended:
            poll.time = poll.time._replace(mark=END)
        self._runner.has_read(len(messages))
        return [poll]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> bytes:
        self._commit()
        return self._snapshots.pack(SourceState(self._offset, self._reader.mark))

    def close(self) -> None:
        self._reading.ends.unwatch(self._source)
        self._consumer.close()

    def _pause(self, pause: timedelta) -> Sequence[Poll]:
        self._awake = datetime.now(timezone.utc) + pause
        return []

    def _consume(self) -> list[Message]:
        """The next messages; moves the offset behind them."""
        messages = []
        for message in self._consumer.consume(_ROWS, 0):
            error = message.error()
            if error is None:
                if self._stop_at is not None and message.offset() >= self._stop_at:
                    self._offset = self._stop_at
                    break
                messages.append(message)
                self._offset = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                self._offset = max(self._offset, message.offset())
            else:
                self._check(error)
        if messages:
            self._reading.connection.answered()
        return messages

    def _check(self, error: KafkaError) -> None:
        """Tells errors that time mends, which the client retries by itself, from those that it does not."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise UserError(
                f"{self._source}: offset {self._offset} is not in Kafka (any more); its rows were removed before they were "
                "read, or the topic was made anew: raise its retention, or start with an empty recovery store"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise UserError(f"{self._source} is gone: was the topic deleted?")
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise UserError(f"{self._source}: not allowed to read it ({error.str()}); grant it and start again")

    def _caught_up(self, now: int) -> int | None:
        """The wall time up to which everything stored has been read, if that is news."""
        end = self._reading.ends.latest(self._source, now)
        if end is None or end.asked <= self._said or not 0 <= end.offset <= self._offset:
            return None
        self._said = end.asked
        return end.asked

    def _present_end(self) -> int:
        try:
            return self._consumer.get_watermark_offsets(self._where, timeout=15)[1]
        except KafkaException as error:
            raise UserError(f"{self._source}: cannot ask for its end: {error.args[0].str()}") from None

    def _commit(self) -> None:
        """For lag monitors only, so that a failure is nobody's concern."""
        if self._offset >= 0:
            try:
                self._consumer.commit(offsets=[self._at(self._offset)], asynchronous=True)
            except KafkaException:
                pass

    def _at(self, offset: int) -> TopicPartition:
        return TopicPartition(self._where.topic, self._where.partition, offset)
