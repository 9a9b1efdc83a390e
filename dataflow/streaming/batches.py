"""What travels between the steps: many rows at a time, each batch with the time it brings.

Rows and time take the same road. A batch's time counts only after its rows, or it would make them late.
"""

from functools import cache
from typing import Any

import msgspec

from dataflow.streaming.time import Time
from dataflow.streaming.watermark import SourceProgress


class RejectedRecord(msgspec.Struct, array_like=True, gc=False):
    """A record that becomes no row: its own bytes, why it was rejected and where it came from."""

    key: bytes | None
    value: bytes | None
    reason: str
    source: str  # "topic/partition"
    offset: int
    kind: str = ""  # a category of unreadable records, one of few: a label of metrics


class PolledBatch(msgspec.Struct):
    """What one poll of one partition gave."""

    rows: list  # readable and on time
    time: SourceProgress
    late: list
    unreadable: list[RejectedRecord]


class ShardBatch(msgspec.Struct):
    """A shard's part of a poll, so all its rows are of one side; it may be empty, its time counts all the same."""

    rows: list
    time: SourceProgress

    def __reduce__(self) -> tuple[Any, ...]:
        """Rows of a type that is in `messagepack_types` cross processes as MessagePack: a pickle takes four times as long."""
        kinds = set(map(type, self.rows))
        if len(kinds) == 1 and (kind := kinds.pop()) in messagepack_types:
            return _from_messagepack, (kind, _encode(self.rows), self.time)
        return ShardBatch, (self.rows, self.time)


# types of rows that msgspec restores exactly as they were; a module that defines such rows adds them
messagepack_types: set[type[msgspec.Struct]] = set()

_encode = msgspec.msgpack.Encoder().encode


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[list[Any]]:
    return msgspec.msgpack.Decoder(list[kind])  # type: ignore[valid-type]


def _from_messagepack(kind: type[msgspec.Struct], rows: bytes, time: SourceProgress) -> ShardBatch:
    return ShardBatch(_decoder(kind).decode(rows), time)


class WatermarkedBatch(msgspec.Struct):
    """Rows of a shard that are on time, and its watermark once they are in.

    This is what `session_window` takes, from whatever flow: rows need a `time` and a `user`.
    """

    rows: list
    watermark: Time


class OnTimeBatch(WatermarkedBatch):
    """A shard's batch after its clock has heard it."""

    late: list  # on time in their own partition, but it had run dry and the others went on without it


class JoinedBatch(WatermarkedBatch):
    """A shard's batch after the join: its rows from the left, then the matches."""

    unmatched: list  # rows from the right whose time is over and that met nobody


class OutgoingRecords(msgspec.Struct):
    """Rows for one topic, all of one key, in order; headers, if any, are each row's."""

    key: bytes | None
    values: list[bytes | None]
    headers: list[tuple[str, bytes]] | None = None
