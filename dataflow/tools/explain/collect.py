"""Reads whole input partitions and collects one user's rows, each with the job's decision about it.

Whether a row is late depends on all rows before it in its partition, also on those of other users. So every row is read
as the job reads it, and only the rows of the user are remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dataflow.clickstream.records import Event, InputRecord, Purchase
from dataflow.streaming import partition_reader
from dataflow.streaming.batches import PolledBatch, RejectedRecord
from dataflow.streaming.partition_reader import Ignored, PartitionReader, TopicDecoder, Unreadable
from dataflow.streaming.position import PART_LIMIT
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time
from dataflow.streaming.watermark import SourceProgress
from dataflow.tools.redriven_header import MessageWithHeaders, redriven_from

_MILLISECOND = 1_000  # microseconds


class Message(partition_reader.Message, MessageWithHeaders, Protocol):
    """The part of a message that `ObservedPartition` needs."""


@dataclass(frozen=True)
class MaxTimestampAt:
    """The max timestamp of a partition, and the row that set it."""

    time: Time = MIN_TIME
    offset: int | None = None  # of that row; None: the partition has no row yet
    stored: Time = MAX_TIME  # when Kafka stored that row, microseconds; MAX_TIME: not known


@dataclass(frozen=True)
class ObservedRow:
    """A readable row of the user, and whether its own partition makes it late."""

    row: InputRecord
    source: str  # "topic/partition"
    offset: int
    stored: Time  # when Kafka stored it, microseconds; MAX_TIME: not known
    max_timestamp: MaxTimestampAt  # of the partition before this row
    late: bool
    redriven: str | None  # "topic/partition/offset" of the dead letter or late event that it was
    part: int | None = None  # of a message that holds several rows

    @property
    def where(self) -> str:
        """The row's address, "topic/partition/offset", and the part if messages of the topic are taken apart."""
        return _address(self.source, self.offset, self.part)

    @property
    def event(self) -> Event:
        """The row, known to be an event."""
        assert isinstance(self.row, Event)
        return self.row

    @property
    def purchase(self) -> Purchase:
        """The row, known to be a purchase row."""
        assert isinstance(self.row, Purchase)
        return self.row


@dataclass(frozen=True)
class ObservedDeadLetter:
    """An unreadable message of the user."""

    rejected: RejectedRecord
    stored: Time  # when Kafka stored it, microseconds; MAX_TIME: not known

    @property
    def where(self) -> str:
        """The message's address, "topic/partition/offset", and the part if it is one of the message."""
        return _address(self.rejected.source, self.rejected.offset, self.rejected.part)


def _address(source: str, offset: int, part: int | None) -> str:
    return f"{source}/{offset}" if part is None else f"{source}/{offset}/{part}"


class ObservedPartition:
    """One input partition, which is read message by message from its first one.

    Args:
        source: "topic/partition".
        decoder: decodes the topic's messages.
        lateness: allowed lateness, in microseconds.
        now: the wall clock, in microseconds.
        user: the user whose rows are collected; None: no rows are.
    """

    def __init__(self, source: str, decoder: TopicDecoder, lateness: int, now: int, user: bytes | None = None) -> None:
        self.source = source
        self.max_timestamp = MaxTimestampAt()
        self.rows: list[ObservedRow] = []
        self.dead: list[ObservedDeadLetter] = []
        self._parts = decoder.parts
        # parts are read one by one, because one may make the next one late
        one_by_one = decoder if decoder.parts is None else replace(decoder, parts=lambda part: (part,))
        self._reader = PartitionReader(source, one_by_one, lateness)
        self._decode = decoder.decode
        self._progress = SourceProgress(source, MIN_TIME, now, None, ())
        self._user = user

    def read(self, message: Message) -> PolledBatch:
        """Reads the next message, and returns the rows in it as a batch."""
        parts: Sequence[Any] = self._parts(message) if self._parts is not None else (message,)
        whole = PolledBatch([], self._progress, [], [])
        for part in parts:
            batch, before = self._reader.read((part,), self._progress), self.max_timestamp
            if batch.time.max_timestamp > before.time:
                self.max_timestamp = MaxTimestampAt(batch.time.max_timestamp, message.offset(), stored(message))
            if self._user is not None:
                self._collect(message, part, batch, before)
            whole.rows += batch.rows
            whole.late += batch.late
            whole.unreadable += batch.unreadable
        return whole

    def set_clock(self, now: int) -> None:
        """Sets the wall clock, in microseconds."""
        self._progress = self._progress._replace(now=now)

    def _collect(self, message: Message, part: Any, batch: PolledBatch, before: MaxTimestampAt) -> None:
        number = part.offset() % PART_LIMIT if self._parts is not None else None
        for row in batch.rows or batch.late:
            if row.user == self._user:
                late, redriven = bool(batch.late), redriven_from(message)
                self.rows.append(
                    ObservedRow(row, self.source, message.offset(), stored(message), before, late, redriven, number)
                )
        for rejected in batch.unreadable:
            if self._is_of_user(rejected, part):
                self.dead.append(ObservedDeadLetter(rejected, stored(message)))

    def _is_of_user(self, rejected: RejectedRecord, part: Any) -> bool:
        try:  # it may be readable, but too far ahead of the clock
            return bool(self._decode(part.value(), 0, part).user == self._user)
        except (Unreadable, Ignored):
            return rejected.key == self._user


def stored(message: Message) -> Time:
    """When Kafka stored a message, in microseconds; MAX_TIME: not known."""
    milliseconds = message.timestamp()[1]
    return milliseconds * _MILLISECOND if milliseconds > 0 else MAX_TIME
