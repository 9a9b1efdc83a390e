"""Source alignment: keeps the sources of one process at about the same event time while they read a backlog.

Without it the fastest partition would run ahead of the slowest, and everything it reads would have to be held open
until the others have come as far. Flink calls this watermark alignment. The shards of a process see the progress of
every source in band, in a cluster too, so the sources of a process only have to look here; nothing goes over the network.
"""

from collections import deque

from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

MAX_DRIFT = 60 * SECOND  # of event time, ahead of the slowest source
MAX_ROWS_AHEAD = 8_000  # rows beyond that drift before a source pauses: a sparse one need not stop at every minute


class SourceAlignment:
    """The watermark of each source, as the shards of this process last saw it."""

    def __init__(self) -> None:
        self._source_watermarks: dict[str, Time] = {}
        self._sources = 0

    def update(self, source: str, source_watermark: Time, sources: int) -> None:
        """Records a source's watermark; `sources` is the number of all sources of the job."""
        self._source_watermarks[source] = source_watermark
        self._sources = sources

    def source_watermarks(self) -> dict[str, Time]:
        """The sources heard of so far, "topic/partition", and their watermarks."""
        return dict(self._source_watermarks)  # one step under the interpreter lock: workers are threads

    def slowest(self) -> Time:
        """The lowest watermark of all sources; MIN_TIME while one has not been heard of."""
        if not self._sources:
            return MAX_TIME  # no shard lives in this process, or none has seen a batch yet
        if len(self._source_watermarks) < self._sources:
            return MIN_TIME
        return min(self._source_watermarks.values())


class AlignedSource:
    """One source that pauses when it is too far ahead of the slowest."""

    __slots__ = ("_alignment", "_polls", "_rows")

    def __init__(self, alignment: SourceAlignment) -> None:
        self._alignment = alignment
        self._polls: deque[tuple[Time, int]] = deque()  # polls that may be ahead: max timestamp after each, its rows
        self._rows = 0  # of all of them

    def is_paused(self) -> bool:
        """Whether more than MAX_ROWS_AHEAD of the rows read lie more than MAX_DRIFT ahead of the slowest source."""
        if self._rows < MAX_ROWS_AHEAD:
            return False
        limit = self._alignment.slowest() + MAX_DRIFT
        while self._polls and self._polls[0][0] <= limit:
            self._rows -= self._polls.popleft()[1]
        return self._rows >= MAX_ROWS_AHEAD

    def record_read(self, rows: int, max_timestamp: Time) -> None:
        """Records a poll: the number of its rows, and the partition's max timestamp after it."""
        if rows:
            self._polls.append((max_timestamp, rows))
            self._rows += rows
