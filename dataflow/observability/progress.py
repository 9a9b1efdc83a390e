"""Progress of this process: the positions of its partitions, and the event time of all sources as its shards know it.

Sources report here at every poll. Metrics, probes and the dashboard read from their own threads at any time.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dataflow.observability import logs
from dataflow.observability.clock import clock
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time

log = logging.getLogger("visits")

_MICROSECONDS = 1_000_000
_ALL_OPENED_AFTER_S = 2.0  # without a new source: then all sources of this process are open
_CAUGHT_UP_S = 10  # every partition was read to its end so recently
_BACKLOG = 60_000_000  # microseconds between two reached ends: from so many on, catching up is logged again


class EndOffsets(Protocol):
    """The part of `EndOffsetPoller` that `Progress` needs."""

    sources: tuple[str, ...]  # of all processes

    def end(self, source: str) -> Any | None: ...

    def back_at(self, source: str) -> int: ...


class PartitionStatus(NamedTuple):
    """The status of one partition; times are in microseconds."""

    source: str  # "topic/partition"
    offset: int | None  # of the next row to read; None: this process does not read the partition, or not yet
    end: int | None  # end offset; None: not known. Known only for the partitions of this process
    read_to_end: (
        int | None
    )  # everything stored before this wall time has been read, which is confirmed; None: not known
    back_at: int  # wall time at which the grace period after the last outage ends
    source_watermark: Time  # no row on time can arrive from before it; MIN_TIME: no shard of this process knows one
    blocks_watermark: bool  # it holds the watermark back

    @property
    def to_read(self) -> int | None:
        """Number of offsets from the position to the end; None: not known."""
        if self.end is None or self.offset is None or self.offset < 0:
            return None
        return max(0, self.end - self.offset)


class Progress:
    """The progress of all sources as this process knows it.

    Args:
        ends: knows all partitions, and the end offsets of this process' partitions.
        alignment: knows the watermark of each source.
        lateness: allowed lateness, in microseconds.
        live: whether to log a line when every partition has been read to its end.
    """

    def __init__(self, ends: EndOffsets, alignment: SourceAlignment, lateness: int, live: bool = True) -> None:
        self._ends = ends
        self._alignment = alignment
        self._lateness = lateness
        self._offsets: dict[str, int] = {}
        self._reached_ends: dict[str, int] = {}  # by source: wall time of the last end that was reached
        self._confirmed_ends: dict[str, int] = {}  # the same for confirmed ends, which are those that move event time
        self._opened_at = 0.0  # when the last source was opened, monotonic
        self._lock = threading.Lock()  # guards _behind, so that two workers do not log the same line
        self._live = live
        self._behind = live  # not caught up yet, and no line logged about it

    def record_position(self, source: str, offset: int, reached_end: int | None, sure: bool = False) -> None:
        """Records the position of a source of this process.

        Args:
            source: "topic/partition".
            offset: of the next row to read.
            reached_end: wall time in microseconds as of which the source has been read to its end; None: it has not.
            sure: whether that end is confirmed.
        """
        if source not in self._offsets:
            self._opened_at = time.monotonic()
        self._offsets[source] = offset
        if reached_end is not None:
            if sure:
                self._confirmed_ends[source] = reached_end
            self._record_reached_end(source, reached_end)

    def _record_reached_end(self, source: str, reached_at: int) -> None:
        before = self._reached_ends.get(source, reached_at)
        self._reached_ends[source] = reached_at
        if reached_at > before + _BACKLOG:
            self._behind = self._live
        if self._behind and time.monotonic() > self._opened_at + _ALL_OPENED_AFTER_S:
            self._log_if_caught_up()

    def _log_if_caught_up(self) -> None:
        with self._lock:
            if self._behind and self.behind_its_end(_CAUGHT_UP_S) is None:
                self._behind = False
                count = len(self._offsets)
                log.info("caught up: all %d partitions read to their end", count, extra=logs.event("caught-up"))

    def forget(self, source: str) -> None:
        """Removes a source that this process has closed."""
        self._offsets.pop(source, None)
        self._reached_ends.pop(source, None)
        self._confirmed_ends.pop(source, None)

    def rows_to_read(self) -> dict[str, int]:
        """By source of this process: number of offsets left to read to its end, where both are known."""
        to_read = ((status.source, status.to_read) for status in self.partition_statuses())
        return {source: rows for source, rows in to_read if rows is not None}

    def behind_its_end(self, seconds: float) -> str | None:
        """Why this process is behind, as a sentence; None if each source was read to its end in the last `seconds`."""
        sources = list(self._offsets)
        if not sources:
            return "no partition has been read yet"
        source = min(sources, key=lambda source: self._reached_ends.get(source, 0))
        reached_at = self._reached_ends.get(source)
        if reached_at is None:
            return f"{source} has not been read to its end yet"
        age = (clock.now() - reached_at) / _MICROSECONDS
        return f"{source} was last read to its end {age:.0f} s ago" if age > seconds else None

    def times(self) -> Mapping[str, float]:
        """The watermark of each source in Unix seconds, where the shards of this process know one."""
        return {
            source: source_watermark / _MICROSECONDS
            for source, source_watermark in self._alignment.source_watermarks().items()
            if MIN_TIME < source_watermark < MAX_TIME
        }

    def watermark(self) -> float | None:
        """The lowest watermark of this process' shards, Unix seconds; None before event time begins or after it ends."""
        slowest = self._alignment.slowest()
        return (slowest - self._lateness) / _MICROSECONDS if MIN_TIME < slowest < MAX_TIME else None

    def partition_statuses(self) -> list[PartitionStatus]:
        """The status of every partition, including those that other processes read."""
        watermarks, blocking = self._alignment.source_watermarks(), self.blocking_sources()
        statuses = []
        for source in self._ends.sources:
            end = self._ends.end(source)
            statuses.append(
                PartitionStatus(
                    source,
                    self._offsets.get(source),
                    end.offset if end is not None else None,
                    self._confirmed_ends.get(source),
                    self._ends.back_at(source),
                    watermarks.get(source, MIN_TIME),
                    source in blocking,
                )
            )
        return statuses

    def blocking_sources(self) -> set[str]:
        """The sources that hold the watermark back: those without a watermark, or else the slowest."""
        watermarks = self._alignment.source_watermarks()
        if not watermarks:
            return set()
        known = {source for source, watermark in watermarks.items() if watermark > MIN_TIME}
        unknown = set(self._ends.sources) - known
        slowest: Time = min(watermarks.values())
        return unknown or {source for source, watermark in watermarks.items() if watermark == slowest}
