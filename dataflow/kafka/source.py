"""The input: every partition is a source of its own, which can be resumed.

A recovered partition goes on at its offset with its mark; a new one begins where the settings say. It reads no faster
than the others let it (see `dataflow.pace`), and says with every batch how far in time it has come.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.end_offsets import ConfirmedEnd, EndOffsetPoller, source_name
from dataflow.kafka.job_metadata import PartitionId
from dataflow.observability import liveness, logs, metrics
from dataflow.observability.progress import Progress
from dataflow.streaming import worker_threads
from dataflow.streaming.alignment import AlignedSource, SourceAlignment
from dataflow.streaming.batches import PolledBatch
from dataflow.streaming.errors import UserError, inside_engine
from dataflow.streaming.partition_reader import Decode, PartitionReader
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time
from dataflow.streaming.watermark import SourceProgress

log = logging.getLogger("visits")

_SPLITS = 32  # of a topic; at most so many workers read it
_ROWS = 4_000  # of one poll
_PAUSE = timedelta(milliseconds=20)  # between polls of a partition that has nothing more; batches are worth waiting for
_PAUSED_FOR = timedelta(milliseconds=2)
_NOTHING_TO_READ = timedelta(seconds=1)  # for a lane without partitions

_TUNING = {
    "fetch.wait.max.ms": 500,  # of an empty answer: 16 consumers asking ten times a second kept idle brokers busy
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 8_000,  # two polls; 16 partitions of more are most of the memory of a backlog
    "queued.max.messages.kbytes": 2_048,
    "fetch.message.max.bytes": 262_144,  # as it is stored: 16 partitions of a compressed megabyte each were 130 MiB
}
_ESSENTIAL = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # never jump over rows that are gone
    "enable.partition.eof": True,  # tells the end also behind aborted transactions
}


class SourceState(msgspec.Struct, array_like=True):
    """Where to resume a partition: the next offset, and the mark of the rows before it."""

    offset: int
    max_timestamp: Time


@dataclass(frozen=True)
class SourceContext:
    """What all sources of a process share.

    Args:
        connection: to the cluster.
        lookout: knows the partitions and their ends, and tells lag monitors how far we are.
        pace: keeps the sources in step.
        progress: hears how far they are.
        group: name under which the consumers read.
        lateness: allowed lateness, in microseconds.
        origin: whose snapshots they are.
        starts: offsets at which partitions begin that have no state; others begin with their first row.
        stop_at_end: read to the end that the partition has when it is opened, and no farther.
    """

    connection: Connection
    end_offsets: EndOffsetPoller
    alignment: SourceAlignment
    progress: Progress
    group: str
    lateness: int
    fingerprint: JobFingerprint
    starts: Mapping[PartitionId, int]
    stop_at_end: bool


class KafkaSource(FixedPartitionedSource[PolledBatch, bytes]):
    """One topic, in so many lanes; a lane has every so manieth partition.

    The engine cannot take on parts while it runs, but a lane can take on partitions. Nor can it do without one that it
    had before, so their number is nothing that can be set.
    """

    def __init__(self, topic: str, decode: Decode, context: SourceContext) -> None:
        self._topic = topic
        self._decode = decode
        self._context = context
        self._codec = StateCodec(dict[int, SourceState], context.fingerprint)

    def list_parts(self) -> list[str]:
        return [
            f"lane {split:02}" for split in range(_SPLITS)
        ]  # not by topic: a resume with another is told in one line

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Split":
        worker_threads.keep_thread_state()
        states = self._codec.unpack(resume_state) if resume_state is not None else {}
        size = metrics.StateSize(step_id)
        return _Split(self._topic, int(for_part.split()[-1]), states, self._decode, self._context, self._codec, size)


class _Split(StatefulSourcePartition[PolledBatch, bytes]):
    def __init__(
        self,
        topic: str,
        split: int,
        states: dict[int, SourceState],
        decode: Decode,
        context: SourceContext,
        codec: StateCodec[dict[int, SourceState]],
        size: metrics.StateSize,
    ) -> None:
        self._topic = topic
        self._split = split
        self._decode = decode
        self._context = context
        self._codec = codec
        self._size = size
        self._partitions: dict[int, _PartitionSource] = {}
        if states and max(states) >= context.end_offsets.count(topic):
            raise UserError(
                f"{topic} has lost partition {max(states)}; was it made anew? start with an empty recovery store"
            )
        for number in self._numbers():
            never_read = OFFSET_BEGINNING if states else context.starts.get((topic, number), OFFSET_BEGINNING)
            self._open(number, states.get(number) or SourceState(never_read, MIN_TIME))

    @inside_engine
    @liveness.monitored
    def next_batch(self) -> Sequence[PolledBatch]:
        liveness.record_poll()
        metrics.record_first_poll()
        if not self._context.stop_at_end:
            self._take_on_new()
        elif all(partition.ended for partition in self._partitions.values()):
            raise StopIteration
        return [poll for partition in self._partitions.values() if (poll := partition.poll()) is not None]

    def next_awake(self) -> datetime | None:
        awakes = [partition.awake for partition in self._partitions.values() if not partition.ended]
        if None in awakes:
            return None
        return min(awakes, default=None if self._context.stop_at_end else datetime.now(timezone.utc) + _NOTHING_TO_READ)

    def snapshot(self) -> bytes:
        states = {number: partition.state() for number, partition in self._partitions.items()}
        self._context.end_offsets.report({(self._topic, number): state.offset for number, state in states.items()})
        metrics.last_snapshot.set_to_current_time()
        return self._size.of(self._codec.pack(states))

    def close(self) -> None:
        liveness.clear_poll()
        for partition in self._partitions.values():
            partition.close()

    def _numbers(self) -> range:
        return range(self._split, self._context.end_offsets.count(self._topic), _SPLITS)

    def _take_on_new(self) -> None:
        for number in self._numbers()[len(self._partitions) :]:
            log.info("%s has a new partition: %d", self._topic, number, extra=logs.event("partition-added"))
            self._open(number, SourceState(OFFSET_BEGINNING, MIN_TIME))

    def _open(self, number: int, state: SourceState) -> None:
        self._partitions[number] = _PartitionSource(
            TopicPartition(self._topic, number), state, self._decode, self._context
        )


class _PartitionSource:
    def __init__(self, where: TopicPartition, state: SourceState, decode: Decode, context: SourceContext) -> None:
        self._where = where
        self._source = source_name(where.topic, where.partition)
        self._context = context
        self._reader = PartitionReader(self._source, decode, context.lateness, state.max_timestamp)
        self._alignment = AlignedSource(context.alignment)
        self._counts = metrics.InputCounters(where.topic)
        self._offset = state.offset  # of the next message, or where to find it
        self._progress = 0  # wall time up to which it has said that it has caught up
        self.awake: datetime | None = None  # when to poll again; None: at once
        self.ended = False
        self._consumer = Consumer({**_TUNING, **context.connection.properties, **_ESSENTIAL, "group.id": context.group})
        self._stop_at = self._present_end() if context.stop_at_end else None
        self._consumer.assign([self._at(self._offset)])
        context.end_offsets.watch(self._source, where)
        context.progress.record_position(self._source, self._offset, None)

    def poll(self) -> PolledBatch | None:
        """The next rows, or the news that there are none; None if there is nothing to say."""
        now = datetime.now(timezone.utc)
        if self.ended or (self.awake is not None and now < self.awake):
            return None
        if self._alignment.is_paused():
            self.awake = now + _PAUSED_FOR
            return None
        messages = self._consume()
        self.awake = now + _PAUSE if len(messages) < _ROWS else None
        self.ended = self._stop_at is not None and self._offset >= self._stop_at
        read_at = time.time_ns() // 1_000
        end = self._reached_end()
        reached, sure = (end.asked, end.sure) if end is not None else (None, False)
        self._context.progress.record_position(self._source, self._offset, reached, sure)
        caught_up = reached if sure else None
        if not messages and caught_up is None and not self.ended:
            return None
        progress = SourceProgress(self._source, MIN_TIME, read_at, caught_up, self._context.end_offsets.sources)
        poll = self._reader.read(messages, progress)
        self._counts.count(poll)
        self._alignment.record_read(len(messages), self._reader.max_timestamp)
        if self.ended:
            poll.time = poll.time._replace(max_timestamp=MAX_TIME)
        return poll

    def state(self) -> SourceState:
        return SourceState(self._offset, self._reader.max_timestamp)

    def close(self) -> None:
        self._context.end_offsets.unwatch(self._source)
        self._context.progress.forget(self._source)
        self._consumer.close()

    def _consume(self) -> list[Message]:
        """The next messages; moves the offset behind them."""
        messages = []
        expected, stop_at = self._offset, self._stop_at
        for message in self._consumer.consume(_ROWS, 0):
            error = message.error()
            if error is None:
                offset = message.offset()
                if offset >= expected:  # the client may hand out rows again when leaders change
                    expected = offset + 1
                    messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                expected = max(expected, message.offset())
            else:
                self._check(error)
        if stop_at is not None and expected > stop_at:
            messages = [message for message in messages if message.offset() < stop_at]
            expected = stop_at
        self._offset = expected
        return messages

    def _check(self, error: KafkaError) -> None:
        """Tells errors that time mends, which the client retries by itself, from those that it does not."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise UserError(
                f"{self._source}: offset {self._offset} is not in Kafka (any more); its rows were removed before they were "
                "read, or the topic was made anew: raise its retention, or start with an empty recovery store and another VISITS_GROUP"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise UserError(f"{self._source} is gone: was the topic deleted?")
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise UserError(f"{self._source}: not allowed to read it ({error.str()}); grant it and start again")

    def _reached_end(self) -> ConfirmedEnd | None:
        """The last end that has been told, if everything before it has been read and that is news."""
        end = self._context.end_offsets.end(self._source)
        if end is None or end.asked <= self._progress or not 0 <= end.offset <= self._offset:
            return None
        self._progress = end.asked
        return end

    def _present_end(self) -> int:
        try:
            return self._consumer.get_watermark_offsets(self._where, timeout=15)[1]
        except KafkaException as error:
            raise UserError(f"{self._source}: cannot ask for its end: {error.args[0].str()}") from None

    def _at(self, offset: int) -> TopicPartition:
        return TopicPartition(self._where.topic, self._where.partition, offset)
