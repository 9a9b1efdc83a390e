"""Reads the messages of one partition into rows, and decides which of them are late."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from dataflow.streaming.batches import PolledBatch, RejectedRecord
from dataflow.streaming.position import PART_LIMIT, PARTITION_LIMIT, Place, pack
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time
from dataflow.streaming.watermark import MaxTimestamp, SourceProgress

MAX_FUTURE = 60 * SECOND  # a row farther ahead of the clocks than this is unreadable: its session would never close

_MILLISECOND = 1_000


class Unreadable(Exception):
    """A message is not a row: the text says why, and `kind` names the category, one of few, for metrics."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class NotTakenApart(Unreadable):
    """A message that may hold several rows cannot be taken apart; what is rejected is the message, not a part of it."""


class Ignored(Exception):
    """A message is not to be read, and that is as it should be."""


class Message(Protocol):
    """What is needed of `confluent_kafka.Message`."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...


# makes a row of a message's value, its position (see `dataflow.streaming.position`) and the message; raises Unreadable or
# Ignored
Decode = Callable[[bytes | None, int, Any], Any]


@dataclass(frozen=True)
class TopicDecoder:
    """How the messages of one topic become rows.

    Args:
        decode: makes a row of a message.
        parts: takes a message apart that may hold several rows, into what stands for a message each, with an offset
            times `PART_LIMIT` plus the number of the part; None: each message is one row. Of a message that cannot be
            taken apart it makes one part, of which `decode` raises NotTakenApart.
        number: of the topic among those of its kind, for positions.
    """

    decode: Decode
    parts: Callable[[Any], Sequence[Any]] | None = None
    number: int = 0


class PartitionReader:
    """Reads one partition.

    Args:
        source: "topic/partition".
        decoder: makes rows of messages.
        lateness: allowed lateness, in microseconds.
        max_timestamp: the partition's max timestamp so far, where a resume goes on.
    """

    def __init__(self, source: str, decoder: TopicDecoder, lateness: int, max_timestamp: Time = MIN_TIME) -> None:
        self.source = source
        self._partition = pack(Place(decoder.number, int(source.rpartition("/")[2]), 0))
        self._decode = decoder.decode
        self._parts = decoder.parts
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
        ignored = 0
        decode, partition, is_late = self._decode, self._partition, self._max_timestamp.is_late
        milliseconds, stored, latest = None, MAX_TIME, MAX_TIME
        if self._parts is not None:
            messages = chain.from_iterable(map(self._parts, messages))
        for message in messages:
            if (now := message.timestamp()[1]) != milliseconds:  # in a backlog, many are of one millisecond
                milliseconds = now
                stored = now * _MILLISECOND if now > 0 else MAX_TIME  # a record may have no timestamp
                latest = min(stored, time.now) + MAX_FUTURE
            try:
                row = decode(message.value(), message.offset() * PARTITION_LIMIT + partition, message)
                time_of_row = row.time
                if time_of_row > latest:
                    raise Unreadable("timestamp is more than 60 s ahead of the clock", "ahead")
            except Unreadable as error:
                offset, part = message.offset(), None
                if self._parts is not None:
                    offset, part = divmod(offset, PART_LIMIT)
                    part = None if isinstance(error, NotTakenApart) else part
                unreadable.append(
                    RejectedRecord(message.key(), message.value(), str(error), self.source, offset, error.kind, part)
                )
                continue
            except Ignored:
                ignored += 1
                continue
            if is_late(time_of_row, stored):
                late.append(row)
            else:
                rows.append(row)
        return PolledBatch(rows, time._replace(max_timestamp=self.max_timestamp), late, unreadable, ignored)
