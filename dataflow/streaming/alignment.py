"""Keeps the sources of one process in step while they read a backlog.

Without it the fastest partition would run ahead of the slowest, and all that it brings would have to be held open
until the others have come as far. The shards of this process hear every source's time in band, in a cluster too, so
the sources of this process need only look here.
"""

from collections import deque

from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

MAX_DRIFT = 60 * SECOND  # of event time
MAX_ROWS_AHEAD = (
    8_000  # so many rows may be farther ahead than that: a sparse stream need not stop at every minute of it
)


class SourceAlignment:
    """How far each source has come, as the shards of this process have heard."""

    def __init__(self) -> None:
        self._bounds: dict[str, Time] = {}
        self._sources = 0

    def hear(self, source: str, source_watermark: Time, sources: int) -> None:
        """A clock has moved: no more rows from before `bound` are to come from `source`, one of so many `sources`."""
        self._bounds[source] = source_watermark
        self._sources = sources

    def source_watermarks(self) -> dict[str, Time]:
        """Where each source stands that has been heard of."""
        return dict(self._bounds)  # in one step, since workers are threads

    def slowest(self) -> Time:
        """Where the last of all sources stands."""
        if not self._sources:
            return MAX_TIME  # no shard lives in this process, or none has heard anything yet
        if len(self._bounds) < self._sources:
            return MIN_TIME
        return min(self._bounds.values())


class AlignedSource:
    """One source's place in the race."""

    __slots__ = ("_alignment", "_polls", "_rows")

    def __init__(self, alignment: SourceAlignment) -> None:
        self._alignment = alignment
        self._polls: deque[tuple[Time, int]] = deque()  # the mark after each, and its rows; those that may be ahead
        self._rows = 0  # of all these

    def is_paused(self) -> bool:
        """Whether too many of the rows that it has read are too far ahead in time for it to read on."""
        if self._rows < MAX_ROWS_AHEAD:
            return False
        near = self._alignment.slowest() + MAX_DRIFT
        while self._polls and self._polls[0][0] <= near:
            self._rows -= self._polls.popleft()[1]
        return self._rows >= MAX_ROWS_AHEAD

    def record_read(self, rows: int, mark: Time) -> None:
        if rows:
            self._polls.append((mark, rows))
            self._rows += rows
