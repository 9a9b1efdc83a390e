"""Event time: when a row is late, and when a shard may close what it holds open.

Two instruments, both driven by what stands in the log. A `Mark` belongs to one partition and says which of its rows
are late. A `Clock` belongs to one shard of users; it hears the marks of all partitions, in band, each after the rows
that made it, and keeps the watermark: no row that is on time will come any more from before it.

The watermark is that of Flink and Kafka Streams (Akidau et al., "The Dataflow Model", VLDB 2015), the lowest of all
partitions' marks less the allowed lateness. Partitions that have run dry would hold it for ever; they let go by
saying up to which moment they have been read to their end.
"""

from typing import Any, NamedTuple

from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time


class MaxTimestamp:
    """The highest event time of one partition, and so the judge of its lateness.

    Args:
        lateness: how far below the mark a row is still on time, in microseconds.
        high: the mark to go on from.
    """

    __slots__ = ("high", "lateness")

    def __init__(self, lateness: int, high: Time = MIN_TIME) -> None:
        self.lateness = lateness
        self.high = high

    def is_late(self, time: int, stored: Time) -> bool:
        """Judges the next row of the partition, then lets it move the mark.

        A row moves it at most to `stored`, the time at which Kafka stored the row (END if unknown), so that a fast
        clock in one phone does not make everybody else late.
        """
        high = self.high
        if time <= high:
            return time < high - self.lateness
        if stored > high:
            self.high = time if time < stored else stored
        return False


class SourceProgress(NamedTuple):
    """What one source, a partition, says of time after the rows of a batch."""

    source: str
    max_timestamp: Time  # NEVER before its first row, END after its last
    now: int  # wall clock when the batch was read
    caught_up_at: int | None  # all that was stored before this wall time has been read; None: not known
    sources: tuple[str, ...]  # all that there are


class WatermarkState(NamedTuple):
    """A clock's part of a snapshot."""

    max_timestamps: dict[str, Time]
    high: Time
    high_read_at: int
    watermark: Time


class WatermarkTracker:
    """The watermark of one shard: never falls, and never passes a row that is still to come on time.

    A source that has just been read to its end may have nothing more to say for hours. Until its next row it is
    taken to keep step with the others: as far behind the wall clock as the highest mark of all, and never ahead of it.

    Args:
        lateness: allowed lateness, in microseconds.
    """

    __slots__ = ("lateness", "max_timestamps", "source_watermarks", "sources", "high", "high_read_at", "watermark")

    def __init__(self, lateness: int) -> None:
        self.lateness = lateness
        self.max_timestamps: dict[str, Time] = {}
        self.source_watermarks: dict[
            str, Time
        ] = {}  # no row on time is still to come from the source's part of the log before it
        self.sources = 0  # how many there are; they only become more, which not all batches know at once
        self.high: Time = MIN_TIME  # the highest mark of all, at most up to the wall clock
        self.high_read_at = 0
        self.watermark: Time = MIN_TIME

    def split(self, source: str, rows: list[Any]) -> tuple[list[Any], list[Any]]:
        """Divides a source's next rows, all on time by its own mark, into those on time here and those that are late.

        A row is late here only if its source had run dry and the watermark went on without it.
        """
        watermark = self.watermark
        if watermark <= self.max_timestamps.get(source, MIN_TIME) - self.lateness:
            return rows, []  # the watermark has not passed the source's own mark: no need to look
        return [row for row in rows if row.time >= watermark], [row for row in rows if row.time < watermark]

    def advance(self, progress: SourceProgress) -> Time:
        """Hears one source, after its rows, and returns the watermark."""
        source_watermark = self.max_timestamps[progress.source] = progress.max_timestamp
        seen = (
            min(source_watermark, progress.now) if source_watermark < MAX_TIME else MIN_TIME
        )  # one fast clock does not speak for the silent
        if seen > self.high:
            self.high, self.high_read_at = seen, progress.now
        if progress.caught_up_at is not None:
            source_watermark = max(source_watermark, self.high + (progress.caught_up_at - self.high_read_at))
        self.source_watermarks[progress.source] = source_watermark
        self.sources = max(self.sources, len(progress.sources))
        if len(self.source_watermarks) >= self.sources:  # one not heard of yet may hold anything
            self.watermark = max(self.watermark, min(self.source_watermarks.values()) - self.lateness)
        return self.watermark

    def state(self) -> WatermarkState:
        """What a resumed clock must know; that a source had been read to its end is to be found out anew."""
        return WatermarkState(self.max_timestamps, self.high, self.high_read_at, self.watermark)

    def restore(self, state: WatermarkState) -> None:
        self.max_timestamps, self.high, self.high_read_at, self.watermark = state
        self.source_watermarks = dict(self.max_timestamps)
