"""Turns the messages of one partition into rows, and judges which of them are late."""

from collections.abc import Iterable
from typing import Protocol

from dataflow.batches import Poll
from dataflow.codec import Decode, Unreadable
from dataflow.rules.rows import END, NEVER, PARTITIONS, SECOND, Rejected, Row, Time
from dataflow.rules.time import Mark, SourceTime

FUTURE = 60 * SECOND  # a row farther ahead of the clocks than this is unreadable: its session would never close

_MILLISECOND = 1_000


class Message(Protocol):
    """What is needed of `confluent_kafka.Message`."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...


class Reader:
    """Reads one partition, `source` ("topic/partition"), from the first message on or from where its `mark` stood."""

    def __init__(self, source: str, decode: Decode, lateness: int, mark: Time = NEVER) -> None:
        self.source = source
        self._partition = int(source.rpartition("/")[2])
        self._decode = decode
        self._mark = Mark(lateness, mark)

    @property
    def mark(self) -> Time:
        """The partition's mark after all that has been read."""
        return self._mark.high

    def read(self, messages: Iterable[Message], time: SourceTime) -> Poll:
        """Reads the next messages; `time` is what the source says with them, its mark aside.

        Raises nothing: what cannot be read is in the poll, with the reason.
        """
        rows: list[Row] = []
        late: list[Row] = []
        unreadable: list[Rejected] = []
        decode, partition, is_late = self._decode, self._partition, self._mark.is_late
        milliseconds, stored, latest = None, END, END
        for message in messages:
            if (now := message.timestamp()[1]) != milliseconds:  # those of one millisecond are many in a backlog
                milliseconds = now
                stored = now * _MILLISECOND if now > 0 else END  # it may not say when it was
                latest = min(stored, time.now) + FUTURE
            try:
                row = decode(message.value(), message.offset() * PARTITIONS + partition)
                time_of_row = row.time
                if time_of_row > latest:
                    raise Unreadable("timestamp is more than 60 s ahead of the clock", "ahead")
            except Unreadable as error:
                unreadable.append(
                    Rejected(message.key(), message.value(), str(error), self.source, message.offset(), error.kind)
                )
                continue
            if is_late(time_of_row, stored):
                late.append(row)
            else:
                rows.append(row)
        return Poll(rows, time._replace(mark=self.mark), late, unreadable)
