"""Reads the messages of one partition into rows, and decides which of them are late."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from dataflow.streaming.batches import PolledBatch, RejectedRecord
from dataflow.streaming.position import PARTITION_LIMIT
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time
from dataflow.streaming.watermark import MaxTimestamp, SourceProgress

MAX_FUTURE = 60 * SECOND  # a row farther ahead of the clocks than this is unreadable: its session would never close

_MILLISECOND = 1_000


class Unreadable(Exception):
    """A message is not a row: the text says why, and `kind` names the category, one of few, for metrics."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


# of a message's value and position (see `dataflow.streaming.position`) into a row; raises Unreadable
Decode = Callable[[bytes | None, int], Any]


class Message(Protocol):
    """What is needed of `confluent_kafka.Message`."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...


class PartitionReader:
    """Reads one partition.

    Args:
        source: "topic/partition".
        decode: makes rows of messages.
        lateness: allowed lateness, in microseconds.
        max_timestamp: the partition's max timestamp so far, where a resume goes on.
    """

    def __init__(self, source: str, decode: Decode, lateness: int, max_timestamp: Time = MIN_TIME) -> None:
        self.source = source
        self._partition = int(source.rpartition("/")[2])
        self._decode = decode
        self._max_timestamp = MaxTimestamp(lateness, max_timestamp)

    @property
    def max_timestamp(self) -> Time:
        """The partition's max timestamp after everything that has been read."""
        return self._max_timestamp.high

    def read(self, messages: Iterable[Message], time: SourceProgress) -> PolledBatch:
        """Reads the next messages; `time` is the source's progress with them, all but its max timestamp.

        Raises nothing: what cannot be read is in the batch, with the reason.
        """
        rows: list[Any] = []
        late: list[Any] = []
        unreadable: list[RejectedRecord] = []
        decode, partition, is_late = self._decode, self._partition, self._max_timestamp.is_late
        milliseconds, stored, latest = None, MAX_TIME, MAX_TIME
        for message in messages:
            if (now := message.timestamp()[1]) != milliseconds:  # in a backlog, many are of one millisecond
                milliseconds = now
                stored = now * _MILLISECOND if now > 0 else MAX_TIME  # a record may have no timestamp
                latest = min(stored, time.now) + MAX_FUTURE
            try:
                row = decode(message.value(), message.offset() * PARTITION_LIMIT + partition)
                time_of_row = row.time
                if time_of_row > latest:
                    raise Unreadable("timestamp is more than 60 s ahead of the clock", "ahead")
            except Unreadable as error:
                unreadable.append(
                    RejectedRecord(
                        message.key(), message.value(), str(error), self.source, message.offset(), error.kind
                    )
                )
                continue
            if is_late(time_of_row, stored):
                late.append(row)
            else:
                rows.append(row)
        return PolledBatch(rows, time._replace(max_timestamp=self.max_timestamp), late, unreadable)
