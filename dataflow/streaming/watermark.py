"""Event time: when a row is late, and when a shard may close what it holds open.

Both are decided by the log alone. `MaxTimestamp` belongs to one partition and decides which of its rows are late.
`WatermarkTracker` belongs to one shard of users. It hears the max timestamps of all partitions, in band, each after
the rows that made it, and keeps the watermark: no row on time will arrive any more from before it.

The watermark is that of Flink and Kafka Streams (Akidau et al., "The Dataflow Model", VLDB 2015): the lowest max
timestamp of all partitions, less the allowed lateness. Idle partitions would hold it back for ever. They release it by
reporting up to which wall time they have been read to their end.
"""

from typing import Any, NamedTuple

from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time


class MaxTimestamp:
    """The highest event time of one partition, which decides the lateness of the rows after it.

    Args:
        lateness: allowed lateness, in microseconds: a row exactly this far below the max timestamp is on time.
        high: the max timestamp to go on from.
    """

    __slots__ = ("high", "lateness")

    def __init__(self, lateness: int, high: Time = MIN_TIME) -> None:
        self.lateness = lateness
        self.high = high

    def is_late(self, time: int, stored: Time) -> bool:
        """Decides whether the partition's next row is late, then lets the row raise the max timestamp.

        A row raises it at most to `stored`, the time at which Kafka stored the row (MAX_TIME if unknown), so that a
        phone with a fast clock does not make everybody else late.
        """
        high = self.high
        if time <= high:
            return time < high - self.lateness
        if stored > high:
            self.high = time if time < stored else stored
        return False


class SourceProgress(NamedTuple):
    """The progress of event time in one source, a partition, after the rows of a batch."""

    source: str  # "topic/partition"
    max_timestamp: Time  # MIN_TIME before its first row, MAX_TIME after its last
    now: int  # wall clock when the batch was read, microseconds
    caught_up_at: int | None  # everything stored before this time (as `read_at`) has been read; None: not known
    sources: tuple[str, ...]  # all sources of the job
    read_at: int | None = None  # `now` by a clock that never steps and that all processes share; None: `now` is such


class WatermarkState(NamedTuple):
    """What a snapshot holds of a tracker."""

    max_timestamps: dict[str, Time]
    high: Time
    watermark: Time


def _without_read_at(state: list[Any]) -> list[Any]:
    """Version 4 held the wall time at which `high` was read; of another process, perhaps by another clock."""
    max_timestamps, high, _, watermark = state
    return [max_timestamps, high, watermark]


WATERMARK_CONVERTERS = {4: _without_read_at}


class WatermarkTracker:
    """The watermark of one shard. It never falls, and never passes a row that can still arrive on time.

    A source that has been read to its end may have no further row for hours. Until its next row, its watermark advances
    with elapsed time, from the highest max timestamp of all sources. Time in which no process ran does not count: no
    clock has measured it.

    Args:
        lateness: allowed lateness, in microseconds.
    """

    __slots__ = ("high", "high_read_at", "lateness", "max_timestamps", "source_watermarks", "sources", "watermark")

    def __init__(self, lateness: int) -> None:
        self.lateness = lateness
        self.max_timestamps: dict[str, Time] = {}
        self.source_watermarks: dict[str, Time] = {}  # no row on time will arrive from the source from before this
        self.sources = 0  # their number; it only grows, and not all batches know of a new one at once
        self.high: Time = MIN_TIME  # the highest max timestamp of all, at most the wall clock
        self.high_read_at: int | None = None  # None: before this process ran
        self.watermark: Time = MIN_TIME

    def split(self, source: str, rows: list[Any]) -> tuple[list[Any], list[Any]]:
        """Divides a source's next rows, all on time in their own partition, into on time and late in this shard.

        A row is late here only if its source was idle and the watermark went on without it.
        """
        watermark = self.watermark
        if watermark <= self.max_timestamps.get(source, MIN_TIME) - self.lateness:
            return rows, []  # the watermark has not passed the source's own max timestamp: no need to look
        return [row for row in rows if row.time >= watermark], [row for row in rows if row.time < watermark]

    def advance(self, progress: SourceProgress) -> Time:
        """Takes in the progress of one source, after its rows, and returns the watermark."""
        source_watermark = self.max_timestamps[progress.source] = progress.max_timestamp
        # at most the wall clock: one fast clock must not move the time of idle partitions
        seen = min(source_watermark, progress.now) if source_watermark < MAX_TIME else MIN_TIME
        if seen > self.high or self.high_read_at is None:
            self.high = max(self.high, seen)
            self.high_read_at = progress.read_at if progress.read_at is not None else progress.now
        if progress.caught_up_at is not None:
            source_watermark = max(source_watermark, self.high + (progress.caught_up_at - self.high_read_at))
        self.source_watermarks[progress.source] = source_watermark
        self.sources = max(self.sources, len(progress.sources))
        if len(self.source_watermarks) >= self.sources:  # a source not heard of yet may hold any row
            self.watermark = max(self.watermark, min(self.source_watermarks.values()) - self.lateness)
        return self.watermark

    def state(self) -> WatermarkState:
        """What a resumed tracker must know. Whether a source is at its end is found out anew."""
        return WatermarkState(self.max_timestamps, self.high, self.watermark)

    def restore(self, state: WatermarkState) -> None:
        """Goes on from a snapshot."""
        self.max_timestamps, self.high, self.watermark = state
        self.source_watermarks = dict(self.max_timestamps)
