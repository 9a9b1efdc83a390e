"""How far this process has come: where its partitions stand and what its shards have heard of all the others.

Sources write here with every poll; metrics, probes and the log read, each in a thread of its own and at any moment.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dataflow.observability import logs
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time

log = logging.getLogger("visits")

_MICROSECONDS = 1_000_000
_SETTLED = 2.0  # seconds without a new source; then all of this process have been opened
_RECENT = 10  # seconds
_BACKLOG = 60_000_000  # microseconds; who has been behind for so long is told of when it has caught up again


class EndOffsets(Protocol):
    """What is needed of `Lookout`."""

    sources: tuple[str, ...]  # of all processes

    def end(self, source: str) -> Any | None: ...

    def back_at(self, source: str) -> int: ...


class PartitionStatus(NamedTuple):
    """Where one partition stands; times are in microseconds."""

    source: str
    offset: int | None  # of the next row; None: not read by this process, or not yet
    end: int | None  # of the partition, as far as it is known; only this process' are
    read_to_end: int | None  # all that was written before this wall time has been read, for sure
    back_at: int  # the wall time from which on those who write to it are back from any outage
    source_watermark: (
        Time  # no row on time is to come from before it; NEVER: the shards of this process have not heard of one
    )
    blocks_watermark: bool  # the watermark waits for it

    @property
    def to_read(self) -> int | None:
        """Offsets to its end."""
        if self.end is None or self.offset is None or self.offset < 0:
            return None
        return max(0, self.end - self.offset)


class Progress:
    """What is known at this moment.

    Args:
        ends: knows all partitions, and the ends of those of this process.
        pace: knows how far in time they are.
        lateness: allowed lateness, in microseconds.
        live: whether it is worth a line in the log that all has been read.
    """

    def __init__(self, ends: EndOffsets, alignment: SourceAlignment, lateness: int, live: bool = True) -> None:
        self._ends = ends
        self._alignment = alignment
        self._lateness = lateness
        self._offsets: dict[str, int] = {}
        self._claims: dict[str, int] = {}  # wall times of the last ends that were reached
        self._sure: dict[str, int] = {}  # and of the last that moved event time
        self._opened = 0.0  # monotonic, the last one
        self._lock = threading.Lock()  # guards _behind: two workers do not say the same
        self._live = live
        self._behind = live  # and nothing has been said of it yet

    def record_position(self, source: str, offset: int, reached_end: int | None, sure: bool = False) -> None:
        """A source of this process goes on at `offset`; perhaps that is the end that it had at a wall time, for sure or not."""
        if source not in self._offsets:
            self._opened = time.monotonic()
        self._offsets[source] = offset
        if reached_end is not None:
            if sure:
                self._sure[source] = reached_end
            self._hear(source, reached_end)

    def _hear(self, source: str, caught_up: int) -> None:
        before = self._claims.get(source, caught_up)
        self._claims[source] = caught_up
        if caught_up > before + _BACKLOG:
            self._behind = self._live
        if self._behind and time.monotonic() > self._opened + _SETTLED:
            self._tell_if_caught_up()

    def _tell_if_caught_up(self) -> None:
        with self._lock:
            if self._behind and self.behind_its_end(_RECENT) is None:
                self._behind = False
                count = len(self._offsets)
                log.info("caught up: all %d partitions read to their end", count, extra=logs.event("caught-up"))

    def forget(self, source: str) -> None:
        self._offsets.pop(source, None)
        self._claims.pop(source, None)
        self._sure.pop(source, None)

    def rows_to_read(self) -> dict[str, int]:
        """How many offsets each source of this process is away from its end, as far as both are known."""
        to_read = ((status.source, status.to_read) for status in self.partition_statuses())
        return {source: rows for source, rows in to_read if rows is not None}

    def behind_its_end(self, seconds: float) -> str | None:
        """Which source of this process has not been read to its end as of so long ago, in a sentence; None if all have."""
        sources = list(self._offsets)
        if not sources:
            return "no partition has been read yet"
        source = min(sources, key=lambda each: self._claims.get(each, 0))
        claim = self._claims.get(source)
        if claim is None:
            return f"{source} has not been read to its end yet"
        age = time.time() - claim / _MICROSECONDS
        return f"{source} was last read to its end {age:.0f} s ago" if age > seconds else None

    def times(self) -> Mapping[str, float]:
        """How far each source is, in Unix seconds, as the shards of this process have heard; those that say so."""
        return {
            source: source_watermark / _MICROSECONDS
            for source, source_watermark in self._alignment.source_watermarks().items()
            if MIN_TIME < source_watermark < MAX_TIME
        }

    def watermark(self) -> float | None:
        """That of the process' shards, in Unix seconds; None while it stands nowhere."""
        slowest = self._alignment.slowest()
        return (slowest - self._lateness) / _MICROSECONDS if MIN_TIME < slowest < MAX_TIME else None

    def partition_statuses(self) -> list[PartitionStatus]:
        """Every partition, also those that other processes read."""
        bounds, holding = self._alignment.source_watermarks(), self.blocking_sources()
        standings = []
        for source in self._ends.sources:
            end = self._ends.end(source)
            standings.append(
                PartitionStatus(
                    source,
                    self._offsets.get(source),
                    end.offset if end is not None else None,
                    self._sure.get(source),
                    self._ends.back_at(source),
                    bounds.get(source, MIN_TIME),
                    source in holding,
                )
            )
        return standings

    def blocking_sources(self) -> set[str]:
        """The sources on which the watermark waits: the slowest, or those that have not been heard of at all."""
        bounds = self._alignment.source_watermarks()
        if not bounds:
            return set()
        unheard = set(self._ends.sources) - {
            source for source, source_watermark in bounds.items() if source_watermark > MIN_TIME
        }
        slowest: Time = min(bounds.values())
        return unheard or {source for source, source_watermark in bounds.items() if source_watermark == slowest}
