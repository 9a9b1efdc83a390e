"""The input: a Bytewax source that reads the partitions of one topic, each with an offset to resume at.

A resumed partition goes on at its offset with its max timestamp. A new one begins where the settings say. A partition
is read no faster than the others allow (see `dataflow.streaming.alignment`), and reports its progress in event time
with every batch.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from dataflow.kafka.client import Connection, close_aside
from dataflow.kafka.end_offset_poller import ConfirmedEnd
from dataflow.kafka.messages import Message, consume
from dataflow.kafka.offsets import GONE, PartitionId, end_offsets, source_name
from dataflow.kafka.replaceable import Admin
from dataflow.kafka.stalled_reads import StallDetector
from dataflow.observability import lifecycle, liveness, logs, metrics
from dataflow.observability.clock import JobClock
from dataflow.observability.clock import clock as job_clock
from dataflow.streaming import worker_threads
from dataflow.streaming.alignment import AlignedSource, SourceAlignment
from dataflow.streaming.batches import PolledBatch
from dataflow.streaming.errors import START_OVER, UserError, inside_engine
from dataflow.streaming.partition_reader import PartitionReader, TopicDecoder
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time
from dataflow.streaming.watermark import SourceProgress

log = logging.getLogger("visits")

_SPLITS = 32  # of a topic; at most so many workers read it
_MAX_ROWS = 4_000  # of one poll
_IDLE_US = 20_000  # between polls of a partition that has nothing more; larger batches are worth the wait
_PAUSED_US = 2_000  # between looks whether a paused partition may go on
_NO_PARTITIONS = timedelta(seconds=1)  # between looks of a split without partitions for new ones
_AT_ONCE = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_REST_S = 0.01  # of a worker that has nothing to poll; its other work waits meanwhile
_END_TIMEOUT_S = 15.0

_TUNING = {
    "fetch.wait.max.ms": 500,  # of an empty answer: 16 consumers that ask ten times a second kept idle brokers busy
    "fetch.queue.backoff.ms": 10,
    "queued.min.messages": 8_000,  # two polls; more, times 16 partitions, is most of the memory of a backlog
    "queued.max.messages.kbytes": 2_048,
    "fetch.message.max.bytes": 262_144,  # as stored: 16 partitions of a compressed megabyte each took 130 MiB
}
_ESSENTIAL = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # never skip rows that are gone
    "enable.partition.eof": True,  # reports the end also after aborted transactions
}


class SourceState(msgspec.Struct, array_like=True):
    """Where to resume a partition: the next offset, and the max timestamp of the rows before it."""

    offset: int
    max_timestamp: Time


class PartitionConsumer(Protocol):
    """Reads one partition."""

    def end_offset(self) -> int:
        """The present end of the partition. Raises KafkaException if there is no answer."""

    def start(self, offset: int) -> None:
        """Begins to read at an offset; OFFSET_BEGINNING: at the first row."""

    def consume(self, limit: int) -> Sequence[Message]:
        """At most `limit` messages that are there already; never waits."""

    def close(self) -> None: ...


class EndOffsets(Protocol):
    """What is needed of `EndOffsetPoller`."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    def watch(self, partition_id: PartitionId) -> None: ...
    def unwatch(self, partition_id: PartitionId) -> None: ...
    def end(self, source: str) -> ConfirmedEnd | None: ...
    def count(self, topic: str) -> int: ...
    def report(self, offsets: dict[PartitionId, int]) -> None: ...


class PositionRecorder(Protocol):
    """What is needed of `Progress`."""

    def record_position(self, source: str, offset: int, reached_end: int | None, sure: bool = False) -> None: ...
    def forget(self, source: str) -> None: ...


class KafkaPartitionConsumer:
    """Reads one partition of a Kafka topic.

    Args:
        connection: to the cluster.
        admin: asks for the end.
        group: name under which the consumer reads.
        partition_id: topic and partition.
    """

    def __init__(self, connection: Connection, admin: Admin, group: str, partition_id: PartitionId) -> None:
        properties = {**_TUNING, **connection.properties, **_ESSENTIAL, "group.id": group}
        self._committed_only = properties.get("isolation.level", "read_committed") == "read_committed"
        self._admin = admin
        self._partition_id = partition_id
        self._consumer = Consumer(properties)

    def end_offset(self) -> int:
        """Asks for 15 s. Raises KafkaException if there is no answer by then."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while True:
            try:
                ends = end_offsets(self._admin, [self._partition_id], committed_only=self._committed_only)
                return ends[self._partition_id].offset
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def start(self, offset: int) -> None:
        self._consumer.assign([TopicPartition(*self._partition_id, offset)])

    def consume(self, limit: int) -> Sequence[Message]:
        return consume(self._consumer, limit, 0)

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True)
class SourceContext:
    """What all sources of a process share.

    Args:
        open_consumer: makes a consumer of one partition.
        end_offsets: knows the partitions and their ends, and takes the job's offsets for lag monitors.
        alignment: keeps the sources in step.
        progress: is told the position of each source.
        lateness: allowed lateness, in microseconds.
        fingerprint: of the job, for its snapshots.
        starts: offsets at which partitions without a state begin; others begin at their first row.
        stop_at_end: whether to read no farther than the end that each partition has when it is opened.
        on_start: called before the first partition is opened, when the engine runs.
        on_batch: called with what each poll has read.
        clock: the job's.
    """

    open_consumer: Callable[[PartitionId], PartitionConsumer]
    end_offsets: EndOffsets
    alignment: SourceAlignment
    progress: PositionRecorder
    lateness: int
    fingerprint: JobFingerprint
    starts: Mapping[PartitionId, int]
    stop_at_end: bool
    on_start: Callable[[], None] = lambda: None
    on_batch: Callable[[PolledBatch], None] = lambda batch: None
    clock: JobClock = job_clock


class KafkaSource(FixedPartitionedSource[PolledBatch, bytes]):
    """One topic in 32 splits. Split i reads partitions i, i + 32, ...

    The engine cannot add parts while it runs, but a split can add partitions. Nor can the engine resume without a part
    that it had before, so the number of splits is no setting.

    Args:
        topic: its name.
        decoder: makes rows of messages.
        context: shared by all sources of the process.
    """

    def __init__(self, topic: str, decoder: TopicDecoder, context: SourceContext) -> None:
        self._topic = topic
        self._decoder = decoder
        self._context = context
        self._codec: StateCodec[dict[int, SourceState]] = StateCodec(dict[int, SourceState], context.fingerprint)

    def list_parts(self) -> list[str]:
        """The splits. They are not named after the topic: so a resume with another topic gets our one-line error."""
        return [f"lane {split:02}" for split in range(_SPLITS)]  # part of the snapshots' format

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Split":
        """Resumes a split. Raises UserError if the topic has fewer partitions than before."""
        worker_threads.keep_thread_state()
        self._context.on_start()
        states = self._codec.unpack(resume_state) if resume_state is not None else {}
        size = metrics.StateSize(step_id)
        return _Split(
            self._topic, int(for_part.rpartition(" ")[2]), states, self._decoder, self._context, self._codec, size
        )


class _Rest(threading.local):
    """Lets a worker rest while none of its splits has anything to poll.

    The engine could wait until a time of the host's clock; but then it reads nothing for as long as that clock is set
    back. So splits ask to be polled at once, and the first one of each round rests until the next poll is due.
    """

    def __init__(self) -> None:
        self._first: object = None  # the split that begins a round
        self._poll_at = 0  # of this round's splits: when the next poll is due, microseconds; 0: at once

    def take(self, split: object, now: int) -> None:
        """Rests if the split begins a round and nothing is due."""
        if self._first is None:
            self._first = split
        if self._first is split:
            if self._poll_at > now:
                time.sleep(min((self._poll_at - now) / SECOND, _MAX_REST_S))
            self._poll_at = now + SECOND

    def poll_again_at(self, time: int) -> None:
        self._poll_at = min(self._poll_at, time)

    def leave(self, split: object) -> None:
        """The split is closed."""
        if self._first is split:
            self._first = None


_rest = _Rest()  # of each worker, which is a thread


class _Split(StatefulSourcePartition[PolledBatch, bytes]):
    """Every 32nd partition of a topic."""

    def __init__(
        self,
        topic: str,
        split: int,
        states: dict[int, SourceState],
        decoder: TopicDecoder,
        context: SourceContext,
        codec: StateCodec[dict[int, SourceState]],
        size: metrics.StateSize,
    ) -> None:
        self._topic = topic
        self._split = split
        self._decoder = decoder
        self._context = context
        self._codec = codec
        self._size = size
        self._partitions: dict[int, _PartitionSource] = {}
        if states and max(states) >= context.end_offsets.count(topic):
            raise UserError(f"{topic} has lost partition {max(states)}; was the topic created again? {START_OVER}")
        for number in self._numbers():
            start = OFFSET_BEGINNING if states else context.starts.get((topic, number), OFFSET_BEGINNING)
            self._open(number, states.get(number) or SourceState(start, MIN_TIME))

    @inside_engine
    @liveness.monitored
    def next_batch(self) -> Sequence[PolledBatch]:
        liveness.record_poll()
        metrics.record_first_poll()
        if lifecycle.drain_requested.is_set():
            raise StopIteration
        if not self._context.stop_at_end:
            self._open_new()
        elif all(partition.ended for partition in self._partitions.values()):
            raise StopIteration
        if not self._partitions:
            return []
        _rest.take(self, self._context.clock.now())
        batches = [batch for partition in self._partitions.values() if (batch := partition.poll()) is not None]
        _rest.poll_again_at(min((each.poll_at for each in self._partitions.values() if not each.ended), default=0))
        return batches

    def next_awake(self) -> datetime:
        """When to poll again: at once, see `_Rest`; or when to look for a first partition."""
        # not None: after an empty batch the engine would add a millisecond to the host's time
        return _AT_ONCE if self._partitions else datetime.now(timezone.utc) + _NO_PARTITIONS

    def snapshot(self) -> bytes:
        states = {number: partition.state() for number, partition in self._partitions.items()}
        self._context.end_offsets.report({(self._topic, number): state.offset for number, state in states.items()})
        metrics.last_snapshot.set_to_current_time()
        return self._size.of(self._codec.pack(states))

    def close(self) -> None:
        _rest.leave(self)
        liveness.clear_poll()
        for partition in self._partitions.values():
            partition.close()

    def _numbers(self) -> range:
        return range(self._split, self._context.end_offsets.count(self._topic), _SPLITS)

    def _open_new(self) -> None:
        for number in self._numbers()[len(self._partitions) :]:
            log.info("%s has a new partition: %d", self._topic, number, extra=logs.event("partition-added"))
            self._open(number, SourceState(OFFSET_BEGINNING, MIN_TIME))

    def _open(self, number: int, state: SourceState) -> None:
        consumer = self._context.open_consumer((self._topic, number))
        self._partitions[number] = _PartitionSource(
            (self._topic, number), consumer, state, self._decoder, self._context
        )


class _PartitionSource:
    """One partition: its offset, its end and its progress in event time."""

    def __init__(
        self,
        partition_id: PartitionId,
        consumer: PartitionConsumer,
        state: SourceState,
        decoder: TopicDecoder,
        context: SourceContext,
    ) -> None:
        self._partition_id = partition_id
        self._source = source_name(*partition_id)
        self._consumer = consumer
        self._context = context
        self._reader = PartitionReader(self._source, decoder, context.lateness, state.max_timestamp)
        self._alignment = AlignedSource(context.alignment)
        self._counters = metrics.InputCounters(partition_id[0])
        self._stall_detector = StallDetector(self._source)
        self._offset = state.offset  # of the next message, or OFFSET_BEGINNING
        self._caught_up_at = 0  # time of the last end that was reached, in microseconds
        self.poll_at = 0  # time of the next poll, in microseconds; 0: at once
        self.ended = False
        self._stop_at = self._present_end() if context.stop_at_end else None
        consumer.start(self._offset)
        context.end_offsets.watch(partition_id)
        context.progress.record_position(self._source, self._offset, None)

    def poll(self) -> PolledBatch | None:
        """The next rows, or the progress without rows; None if there is nothing new."""
        clock = self._context.clock
        now = clock.now()
        if self.ended or now < self.poll_at:
            return None
        if self._alignment.is_paused():
            self.poll_at = now + _PAUSED_US
            return None
        messages = self._consume()
        if messages:
            self._stall_detector.record_delivery()
        elif self._stall_detector.is_stalled(now, self._offset, self._context.end_offsets.end(self._source)):
            self._replace_consumer()
        self.poll_at = now + _IDLE_US if len(messages) < _MAX_ROWS else 0
        self.ended = self._stop_at is not None and self._offset >= self._stop_at
        read_at = clock.now()
        end = self._newly_reached_end()
        reached, sure = (end.asked, end.sure) if end is not None else (None, False)
        self._context.progress.record_position(self._source, self._offset, reached, sure)
        caught_up_at = reached if sure else None
        if not messages and caught_up_at is None and not self.ended:
            return None
        sources = self._context.end_offsets.sources
        progress = SourceProgress(self._source, MIN_TIME, clock.wall(), caught_up_at, sources, read_at)
        batch = self._reader.read(messages, progress)
        self._counters.count(batch)
        self._context.on_batch(batch)
        self._alignment.record_read(len(messages), self._reader.max_timestamp)
        if self.ended:
            batch.time = batch.time._replace(max_timestamp=MAX_TIME)
        return batch

    def state(self) -> SourceState:
        return SourceState(self._offset, self._reader.max_timestamp)

    def close(self) -> None:
        self._context.end_offsets.unwatch(self._partition_id)
        self._context.progress.forget(self._source)
        self._consumer.close()

    def _replace_consumer(self) -> None:
        close_aside(self._consumer)
        self._consumer = self._context.open_consumer(self._partition_id)
        self._consumer.start(self._offset)

    def _consume(self) -> list[Message]:
        """The next messages; moves the offset past them."""
        messages = []
        expected, stop_at = self._offset, self._stop_at
        for message in self._consumer.consume(_MAX_ROWS):
            error = message.error()
            if error is None:
                offset = message.offset()
                if offset >= expected:  # the client may deliver rows again when leaders change
                    expected = offset + 1
                    messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                expected = max(expected, message.offset())
            else:
                self._raise_if_fatal(error)
        if stop_at is not None and expected > stop_at:
            messages = [message for message in messages if message.offset() < stop_at]
            expected = stop_at
        self._offset = expected
        return messages

    def _raise_if_fatal(self, error: KafkaError) -> None:
        """Raises UserError for an error that the client does not recover from by itself."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise UserError(
                f"{self._source}: offset {self._offset} is not in Kafka (any more); its rows were removed before they were "
                f"read, or the topic was created again. Raise its retention, and {START_OVER}"
            )
        if error.code() in GONE:
            raise UserError(f"{self._source} is gone: was the topic deleted?")
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise UserError(f"{self._source}: not allowed to read it ({error.str()}); grant it and start again")

    def _newly_reached_end(self) -> ConfirmedEnd | None:
        """The last known end, if everything before it has been read and that has not been reported yet."""
        end = self._context.end_offsets.end(self._source)
        if end is None or end.asked <= self._caught_up_at or not 0 <= end.offset <= self._offset:
            return None
        self._caught_up_at = end.asked
        return end

    def _present_end(self) -> int:
        try:
            return self._consumer.end_offset()
        except KafkaException as error:
            raise UserError(f"{self._source}: cannot ask for its end: {error.args[0].str()}") from None
