"""Turns the messages of one partition into rows, and judges which of them are late."""

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
    """Reads one partition, `source` ("topic/partition"), from the first message on or from where its `mark` stood."""

    def __init__(self, source: str, decode: Decode, lateness: int, mark: Time = MIN_TIME) -> None:
        self.source = source
        self._partition = int(source.rpartition("/")[2])
        self._decode = decode
        self._mark = MaxTimestamp(lateness, mark)

    @property
    def max_timestamp(self) -> Time:
        """The partition's mark after all that has been read."""
        return self._mark.high

    def read(self, messages: Iterable[Message], time: SourceProgress) -> PolledBatch:
        """Reads the next messages; `time` is what the source says with them, its mark aside.

        Raises nothing: what cannot be read is in the poll, with the reason.
        """
        rows: list[Any] = []
        late: list[Any] = []
        unreadable: list[RejectedRecord] = []
        decode, partition, is_late = self._decode, self._partition, self._mark.is_late
        milliseconds, stored, latest = None, MAX_TIME, MAX_TIME
        for message in messages:
            if (now := message.timestamp()[1]) != milliseconds:  # those of one millisecond are many in a backlog
                milliseconds = now
                stored = now * _MILLISECOND if now > 0 else MAX_TIME  # it may not say when it was
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
