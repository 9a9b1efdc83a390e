"""An interval join over event time: rows of two sides, of the same user, at most a window apart.

No row is held back for it: whichever row arrives second finds the other one waiting. Which rows can match, and what a
match is, is defined by a `JoinSpec`; the job's own is in `dataflow.clickstream.attribution`.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from dataflow.streaming.time import Time, TimedRow

Left = TypeVar("Left")
Right = TypeVar("Right")

_time = attrgetter("time")


class Matchable(TimedRow, Protocol):
    """A row of the right side."""

    matched: bool

    def mark_matched(self) -> None:
        """Called at each match; `matched` is true from then on."""


@dataclass(frozen=True)
class JoinSpec:
    """Which rows match.

    Args:
        left: type of the rows of the left side; all other rows are of the right side.
        probes: of a batch of left rows, those that look for a match, or as much of them as a match needs.
        probe: type of these, with a `time` and a `user`; snapshots hold them, so msgspec must be able to encode it.
        right: type of the rows of the right side, a `Matchable`; snapshots hold these too.
        match: makes of a probe and a right row what is emitted.
    """

    left: type
    probes: Callable[[list[Any]], list[Any]]
    probe: type
    right: type
    match: Callable[[Any, Any], Any]


class JoinState(msgspec.Struct, Generic[Left, Right], array_like=True):
    """What a snapshot holds of a join."""

    lefts: list[Left]
    rights: list[Right]


class IntervalJoin:
    """The rows of both sides that can still match, by user, in order of time.

    Args:
        window: largest distance between two rows, in microseconds; exactly this far apart still matches.
        spec: which rows match.
    """

    __slots__ = ("_expiries", "lefts", "rights", "spec", "window")

    def __init__(self, window: int, spec: JoinSpec) -> None:
        self.window = window
        self.spec = spec
        self.lefts: dict[bytes, list[Any]] = {}
        self.rights: dict[bytes, list[Any]] = {}
        self._expiries: list[tuple[int, bytes, bool]] = []  # heap of (time, user, is it of the left side)

    def add(self, rows: list[Any]) -> list[Any]:
        """Takes rows of one side, and returns their matches with all rows that came before them."""
        matches: list[Any] = []
        if not rows:
            return matches
        spec, match = self.spec, self.spec.match
        if type(rows[0]) is spec.left:
            for probe in spec.probes(rows):
                self._keep(self.lefts, probe, True)
                for right in self._in_window(self.rights, probe):
                    right.mark_matched()
                    matches.append(match(probe, right))
        else:
            for right in rows:
                self._keep(self.rights, right, False)
                probes = self._in_window(self.lefts, right)
                if probes:
                    right.mark_matched()
                    matches += [match(probe, right) for probe in probes]
        return matches

    def candidates(self, row: TimedRow) -> list[Any]:
        """The right rows within the window of a left row, so far."""
        return self._in_window(self.rights, row)

    def expire(self, watermark: Time) -> list[Any]:
        """Forgets rows that no row on time can match any more; returns those of the right side that never matched."""
        unmatched = []
        expiries, oldest = self._expiries, watermark - self.window
        while expiries and expiries[0][0] < oldest:
            _, user, is_left = heappop(expiries)
            side = self.lefts if is_left else self.rights
            rows = side[user]
            row = rows.pop(0)  # the user's earlier rows have expired before it
            if not rows:
                del side[user]
            if not is_left and not row.matched:
                unmatched.append(row)
        return unmatched

    def restore(self, state: JoinState[Any, Any]) -> None:
        """Goes on from a snapshot."""
        for row in state.lefts:
            self._keep(self.lefts, row, True)
        for row in state.rights:
            self._keep(self.rights, row, False)

    def state(self) -> JoinState[Any, Any]:
        """All rows that can still match."""
        return JoinState(
            [row for rows in self.lefts.values() for row in rows],
            [row for rows in self.rights.values() for row in rows],
        )

    def _keep(self, side: dict[bytes, list[Any]], row: TimedRow, is_left: bool) -> None:
        rows = side.get(row.user)
        if rows is None:
            side[row.user] = [row]
        elif rows[-1].time <= row.time:
            rows.append(row)
        else:
            insort(rows, row, key=_time)
        heappush(self._expiries, (row.time, row.user, is_left))

    def _in_window(self, side: dict[bytes, list[Any]], row: TimedRow) -> list[Any]:
        rows = side.get(row.user)
        if rows is None:
            return []
        earliest, latest = row.time - self.window, row.time + self.window
        if earliest <= rows[0].time and rows[-1].time <= latest:
            return rows  # all of them, which is the usual case: they are few
        return rows[bisect_left(rows, earliest, key=_time) : bisect_right(rows, latest, key=_time)]
