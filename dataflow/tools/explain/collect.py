"""Goes through whole partitions and keeps of them one user's rows, and how each was judged.

A row is late by what stands before it in its partition, whosever that is: so every row is read as the job reads it,
and nearly all are forgotten at once.
"""

from dataclasses import dataclass
from typing import Protocol

from dataflow.clickstream.records import Event, InputRecord, Purchase
from dataflow.streaming.batches import PolledBatch, RejectedRecord
from dataflow.streaming.partition_reader import Decode, PartitionReader, Unreadable
from dataflow.streaming.partition_reader import Message as Readable
from dataflow.streaming.position import PARTITION_LIMIT
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time
from dataflow.streaming.watermark import SourceProgress

REDRIVEN = "redriven-from"  # header of a row that `redrive` has put back: "topic/partition/offset" of where it was

_MILLISECOND = 1_000


class Message(Readable, Protocol):
    """What is needed of `confluent_kafka.Message`."""

    def headers(self) -> list[tuple[str, bytes]] | None: ...


@dataclass(frozen=True)
class MaxTimestampAt:
    """A partition's mark, and which row made it when."""

    time: Time = MIN_TIME
    offset: int | None = None
    stored: Time = MAX_TIME


@dataclass(frozen=True)
class ObservedRow:
    """A row of the user, and how its own partition judged it."""

    row: InputRecord
    source: str  # "topic/partition"
    offset: int
    stored: Time  # END if the record does not say when
    max_timestamp: MaxTimestampAt  # of the rows before it
    late: bool
    redriven: str | None

    @property
    def where(self) -> str:
        return f"{self.source}/{self.offset}"

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
    """A message of the user that cannot be read."""

    rejected: RejectedRecord
    stored: Time

    @property
    def where(self) -> str:
        return f"{self.rejected.source}/{self.rejected.offset}"


class ObservedPartition:
    """One input partition, which is read message by message from the first one on.

    Args:
        source: "topic/partition".
        decode: reads the topic's messages.
        lateness: allowed lateness, in microseconds.
        now: the wall clock, in microseconds.
        user: whose rows are kept; None: nobody's.
    """

    def __init__(self, source: str, decode: Decode, lateness: int, now: int, user: bytes | None = None) -> None:
        self.source = source
        self.max_timestamp = MaxTimestampAt()
        self.rows: list[ObservedRow] = []
        self.dead: list[ObservedDeadLetter] = []
        self._reader = PartitionReader(source, decode, lateness)
        self._decode = decode
        self._time = SourceProgress(source, MIN_TIME, now, None, ())
        self._user = user

    def read(self, message: Message) -> PolledBatch:
        """Reads the next message; returns what it was."""
        poll, before = self._reader.read((message,), self._time), self.max_timestamp
        if poll.time.max_timestamp > before.time:
            self.max_timestamp = MaxTimestampAt(poll.time.max_timestamp, message.offset(), stored(message))
        if self._user is not None:
            self._keep(message, poll, before)
        return poll

    def set_clock(self, now: int) -> None:
        """The wall clock has gone on, to so many microseconds."""
        self._time = self._time._replace(now=now)

    def _keep(self, message: Message, poll: PolledBatch, before: MaxTimestampAt) -> None:
        for row in poll.rows or poll.late:
            if row.user == self._user:
                late, put_back = bool(poll.late), redriven_from(message)
                self.rows.append(
                    ObservedRow(row, self.source, message.offset(), stored(message), before, late, put_back)
                )
        for rejected in poll.unreadable:
            if self._is_of_user(rejected):
                self.dead.append(ObservedDeadLetter(rejected, stored(message)))

    def _is_of_user(self, rejected: RejectedRecord) -> bool:
        if rejected.key is not None:
            return rejected.key == self._user
        try:
            return bool(self._decode(rejected.value, rejected.offset * PARTITION_LIMIT).user == self._user)
        except Unreadable:
            return False


def stored(message: Message) -> Time:
    """When Kafka stored a message, in microseconds; END if it does not say."""
    milliseconds = message.timestamp()[1]
    return milliseconds * _MILLISECOND if milliseconds > 0 else MAX_TIME


def redriven_from(message: Message) -> str | None:
    """Where a message was before it was put back, if it was."""
    for name, value in message.headers() or ():
        if name == REDRIVEN:
            return value.decode(errors="replace") if value is not None else None
    return None
