"""The elements of the stream: batches of rows, each with the progress of event time that it brings.

Watermarks travel in band, after their rows: a batch's progress counts only once its rows are in, or it would make them
late.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from dataflow.streaming.time import Time
from dataflow.streaming.watermark import SourceProgress


class RejectedRecord(msgspec.Struct, array_like=True, gc=False):
    """A record that becomes no row of the main output: its own bytes, where it came from, and why."""

    key: bytes | None
    value: bytes | None
    reason: str
    source: str  # "topic/partition"
    offset: int
    kind: str = ""  # category of an unreadable record, one of few: a label of metrics
    part: int | None = None  # of a message that holds several records


class PolledBatch(msgspec.Struct):
    """The records of one poll of one partition."""

    rows: list[Any]  # readable and on time
    time: SourceProgress
    late: list[Any]
    unreadable: list[RejectedRecord]
    ignored: int = 0  # messages that are not meant to be read


# types of rows that msgspec restores exactly as they were; a module that defines such rows adds them here
messagepack_types: set[type[msgspec.Struct]] = set()

_encode = msgspec.msgpack.Encoder().encode


class ShardBatch(msgspec.Struct):
    """One shard's part of a polled batch. It may be empty: its progress counts all the same.

    All rows are of one side of a join.
    """

    rows: list[Any]
    time: SourceProgress

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles for another process. MessagePack, for types that allow it, takes a quarter of the time of a pickle."""
        types = set(map(type, self.rows))
        if len(types) == 1 and (row_type := types.pop()) in messagepack_types:
            return _from_messagepack, (row_type, _encode(self.rows), self.time)
        return ShardBatch, (self.rows, self.time)


@cache
def _decoder(row_type: Any) -> msgspec.msgpack.Decoder[list[Any]]:
    return msgspec.msgpack.Decoder(list[row_type])


def _from_messagepack(row_type: type[msgspec.Struct], rows: bytes, time: SourceProgress) -> ShardBatch:
    return ShardBatch(_decoder(row_type).decode(rows), time)


class WatermarkedBatch(msgspec.Struct):
    """Rows of one shard, and the shard's watermark once they are in. Rows have a `time` and a `user`."""

    rows: list[Any]
    watermark: Time


class OnTimeBatch(WatermarkedBatch):
    """A shard's batch after the watermark tracker."""

    late: list[Any]  # on time in their own partition, but it had been idle and the watermark went on without it


class JoinedBatch(WatermarkedBatch):
    """A shard's batch after the join: its rows of the left side, then the matches."""

    unmatched: list[Any]  # rows of the right side with no row of the left side in their time
    left_over: list[Any]  # rows of the right side whose left rows are paired with other ones
    held: Mapping[bytes, int]  # see `IntervalJoin`


class OutgoingRecords(msgspec.Struct):
    """Records for one topic, all with one key, in order; headers, if any, are those of each record."""

    key: bytes | None
    values: list[bytes | None]
    headers: list[tuple[str, bytes]] | None = None
