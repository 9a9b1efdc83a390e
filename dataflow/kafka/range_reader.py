"""Reads ranges of offsets of partitions, each once: the only bounded reader of topics."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from dataflow.kafka.client import Connection, close_aside, connect, count_partitions
from dataflow.kafka.messages import Message
from dataflow.kafka.offsets import PartitionId, earliest_offsets, end_offsets, source_name
from dataflow.kafka.replaceable import Admin
from dataflow.streaming.errors import UserError

_BATCH = 10_000  # messages
_POLL_S = 0.1
_SEEK_OVER = 20_000  # rows that are not wanted: from so many on, a seek is faster than to read them
_STALLED_AFTER_S = 10.0  # without any message: then a new consumer reads on, see `dataflow.kafka.stalled_reads`
_TIMEOUT_S = 30.0  # without any message, and for offsets
_RETRY_INTERVAL_S = 0.2
_MISSING = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


class OffsetRange(NamedTuple):
    """The offsets of a partition from `begin` on, up to and without `end`."""

    begin: int
    end: int


OnProgress = Callable[[int, int], None]  # rows read and processed, and rows to be read


def raise_if_fatal(partition_id: PartitionId, error: KafkaError) -> None:
    """Raises UserError for an error that the client does not recover from by itself."""
    if not error.retriable():
        raise UserError(f"{source_name(*partition_id)} cannot be read: {error.str()}")


class RangeConsumer(Protocol):
    """The part of `confluent_kafka.Consumer` that `read_ranges` needs."""

    def assign(self, partitions: list[TopicPartition], /) -> None: ...
    def consume(self, limit: int, timeout_s: float, /) -> Sequence[Any]: ...
    def seek(self, partition: TopicPartition, /) -> None: ...
    def pause(self, partitions: list[TopicPartition], /) -> None: ...
    def close(self) -> None: ...


def range_consumer(connection: Connection, group: str, skip_missing: bool = True) -> RangeConsumer:
    """A consumer for `read_ranges`. Without `skip_missing` it reports rows that are gone, for `on_missing`."""
    return Consumer(
        {
            "fetch.wait.max.ms": 10,
            **connection.properties,
            "group.id": group,  # nothing is ever committed to it
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest" if skip_missing else "error",
            "enable.partition.eof": True,
        }
    )


def read_ranges(
    open_consumer: Callable[[], RangeConsumer],
    ranges: Mapping[PartitionId, Iterable[OffsetRange]],
    *,
    on_missing: Callable[[PartitionId, int], NoReturn] | None = None,
    on_error: Callable[[PartitionId, KafkaError], None] = raise_if_fatal,
    on_progress: OnProgress | None = None,
    while_waiting: Callable[[], None] | None = None,
    timeout_s: float | None = None,
) -> Iterator[Message]:
    """All messages of some ranges, each once; those of a partition in order.

    Args:
        open_consumer: makes the consumer, which is closed at the end.
        ranges: of each partition, ascending and apart. Far gaps between them are not read.
        on_missing: raises because a row, by its partition and offset, is no longer there or was never written; None:
            such rows are skipped.
        on_error: handles an error of a partition; raises to give up. The client retries if it returns.
        on_progress: is told the number of offsets that are done, after each message, and the number of all.
        while_waiting: called after each poll.
        timeout_s: seconds without any message after which a UserError is raised; None: waits as long as it takes.
    """
    cursors = {partition_id: _Cursor(of_partition) for partition_id, of_partition in ranges.items()}
    cursors = {partition_id: cursor for partition_id, cursor in cursors.items() if cursor.ranges}
    total, done = sum(cursor.left() for cursor in cursors.values()), 0
    if not cursors:
        return
    consumer = _open_at(open_consumer, cursors)
    last_message, stalled_after_s = time.monotonic(), _STALLED_AFTER_S
    try:
        while cursors:
            messages: Sequence[Message] = consumer.consume(_BATCH, _POLL_S)
            silent_s = time.monotonic() - last_message
            if messages:
                last_message, stalled_after_s = time.monotonic(), _STALLED_AFTER_S
            elif timeout_s is not None and silent_s > timeout_s:
                raise UserError(f"Kafka has stopped answering; {len(cursors)} partitions are not read to their end")
            elif silent_s > stalled_after_s:
                close_aside(consumer)
                consumer = _open_at(open_consumer, cursors)
                stalled_after_s *= 2
            for message in messages:
                partition_id, offset, error = (message.topic(), message.partition()), message.offset(), message.error()
                cursor = cursors.get(partition_id)
                if error is None:
                    # None: fetched before the pause; below `next`: in a gap, or repeated after a change of leaders
                    if cursor is None or offset < cursor.next:
                        continue
                    if offset > cursor.next:
                        if on_missing is not None:
                            on_missing(partition_id, cursor.next)
                        done += cursor.skip_to(offset)
                    if cursor.ranges and offset == cursor.next:
                        yield message
                        done += cursor.skip_to(offset + 1)
                elif error.code() == KafkaError._PARTITION_EOF:
                    if cursor is None:
                        continue
                    if on_missing is not None and offset <= cursor.next:
                        on_missing(partition_id, cursor.next)
                    done += cursor.skip_to(offset)  # the last offsets may be markers of transactions
                else:
                    if cursor is not None and on_missing is not None and error.code() in _MISSING:
                        on_missing(partition_id, cursor.next)
                    on_error(partition_id, error)
                    continue
                if on_progress is not None:
                    on_progress(done, total)
                if not cursor.ranges:
                    del cursors[partition_id]
                    consumer.pause([TopicPartition(*partition_id)])
                elif error is None and cursor.next > offset + _SEEK_OVER:
                    consumer.seek(TopicPartition(*partition_id, cursor.next))
            if while_waiting is not None:
                while_waiting()
    finally:
        consumer.close()


def _open_at(open_consumer: Callable[[], RangeConsumer], cursors: Mapping[PartitionId, "_Cursor"]) -> RangeConsumer:
    consumer = open_consumer()
    consumer.assign([TopicPartition(*partition_id, cursor.next) for partition_id, cursor in cursors.items()])
    return consumer


class _Cursor:
    """What is left to read of one partition; `next` is the first offset of it."""

    __slots__ = ("ranges", "next")

    def __init__(self, ranges: Iterable[OffsetRange]) -> None:
        self.ranges = deque(range_ for range_ in ranges if range_.begin < range_.end)
        self.next = self.ranges[0].begin if self.ranges else 0

    def left(self) -> int:
        return sum(end - max(begin, self.next) for begin, end in self.ranges)  # offsets

    def skip_to(self, offset: int) -> int:
        """Everything before `offset` is done; returns how many wanted offsets that were."""
        done = 0
        while self.ranges and self.next < offset:
            end = self.ranges[0].end
            reached = min(offset, end)
            done += reached - self.next
            self.next = reached
            if reached == end:
                self.ranges.popleft()
                if self.ranges:
                    self.next = self.ranges[0].begin
        return done


class RangeReader:
    """Reads topics as they are now, for commands that run while others write to them.

    Args:
        properties: librdkafka properties of all its clients.
        group: name under which it reads.
        topics: what will be read.
        optional: those of them that may be missing; `partitions` lacks them then, and there is nothing to read.
        timeout_s: seconds without an answer or message after which a UserError is raised; None: waits for ever.

    Raises:
        UserError: Kafka does not answer, or lacks one of the topics.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        group: str,
        topics: Iterable[str],
        optional: Collection[str] = (),
        timeout_s: float | None = _TIMEOUT_S,
    ) -> None:
        self.connection = Connection(properties)
        self.admin: Admin = connect(self.connection)
        self.partitions = count_partitions(self.admin, self.connection, topics, optional)
        self._group = group
        self._timeout_s = timeout_s

    def ranges(self, topics: Iterable[str]) -> dict[PartitionId, OffsetRange]:
        """What all partitions of these topics hold now."""
        partition_ids = [(topic, number) for topic in topics for number in range(self.partitions.get(topic, 0))]
        begins = self._ask(lambda: earliest_offsets(self.admin, partition_ids))
        ends = self._ask(lambda: {key: end.offset for key, end in end_offsets(self.admin, partition_ids).items()})
        return {partition_id: OffsetRange(begins[partition_id], ends[partition_id]) for partition_id in partition_ids}

    def read(
        self, ranges: Mapping[PartitionId, OffsetRange], on_progress: OnProgress | None = None
    ) -> Iterator[Message]:
        """All messages of these ranges, each partition's in order."""
        return read_ranges(
            partial(range_consumer, self.connection, self._group),
            {partition_id: [range_] for partition_id, range_ in ranges.items()},
            on_progress=on_progress,
            timeout_s=self._timeout_s,
        )

    def _ask(self, ask: Callable[[], dict[PartitionId, int]]) -> dict[PartitionId, int]:
        deadline = time.monotonic() + self._timeout_s if self._timeout_s is not None else None
        while True:
            try:
                return ask()
            except KafkaException as problem:
                if problem.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise UserError(f"not allowed: {problem.args[0].str()}; grant it and start again") from None
            if deadline is not None and time.monotonic() > deadline:
                raise UserError("Kafka does not report where its partitions begin and end; is a broker down?")
            time.sleep(_RETRY_INTERVAL_S)


def ranges_of(offsets: Collection[int]) -> Iterator[OffsetRange]:
    """Offsets, in any order, as the fewest ranges."""
    begin = end = -1
    for offset in sorted(offsets):
        if offset == end:
            end += 1
        elif offset > end:
            if begin < end:
                yield OffsetRange(begin, end)
            begin, end = offset, offset + 1
    if begin < end:
        yield OffsetRange(begin, end)
