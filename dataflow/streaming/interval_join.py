"""An interval join over event time: rows of two sides, of the same user, at most a window apart.

Rows are never held back for it: whoever comes second finds the other waiting. What meets whom, and what a pair is made
into, is said by `Sides`; for this job's own see `dataflow.rules.amounts`.
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
    """And of the rows from the right."""

    matched: bool

    def mark_matched(self) -> None:
        """Hears that it has met someone; `matched` from now on."""


@dataclass(frozen=True)
class JoinSpec:
    """Who meets whom.

    Args:
        left: type of the rows that come from the left; all others come from the right.
        seekers: of a batch of such rows, those that look for a partner, or as much of them as a match needs.
        seeker: the type of these, a `Row`; snapshots hold them, so msgspec has to know it.
        right: the type of the rows from the right, a `Met`; snapshots hold these too.
        match: makes of a seeker and a row from the right what is sent on.
    """

    left: type
    probes: Callable[[list], list[Any]]
    probe: type
    right: type
    match: Callable[[Any, Any], Any]


class JoinState(msgspec.Struct, Generic[Left, Right], array_like=True):
    """What a join holds."""

    lefts: list[Left]
    rights: list[Right]


class IntervalJoin:
    """Both sides of the join that can still meet, by user, in order of time.

    Args:
        window: largest distance between the two, in microseconds; exactly so far apart still matches.
    """

    __slots__ = ("window", "spec", "lefts", "rights", "_expiries")

    def __init__(self, window: int, spec: JoinSpec) -> None:
        self.window = window
        self.spec = spec
        self.lefts: dict[bytes, list[TimedRow]] = {}
        self.rights: dict[bytes, list[Matchable]] = {}
        self._expiries: list[tuple[int, bytes, bool]] = []  # heap of (time, user, is it of the left)

    def add(self, rows: list) -> list:
        """Takes rows of one side and returns their matches with all that came before them."""
        matches: list = []
        if not rows:
            return matches
        spec, match = self.spec, self.spec.match
        if type(rows[0]) is spec.left:
            for row in spec.probes(rows):
                self._keep(self.lefts, row, True)
                for other in self._near(self.rights, row):
                    other.mark_matched()
                    matches.append(match(row, other))
        else:
            for row in rows:
                self._keep(self.rights, row, False)
                found = self._near(self.lefts, row)
                if found:
                    row.mark_matched()
                    matches += [match(other, row) for other in found]
        return matches

    def candidates(self, row: TimedRow) -> list:
        """The rows from the right in the time of one from the left, so far."""
        return self._near(self.rights, row)

    def expire(self, watermark: Time) -> list:
        """Forgets what nothing on time can match any more; returns the rows from the right that met nobody."""
        unmatched = []
        expiries, oldest = self._expiries, watermark - self.window
        while expiries and expiries[0][0] < oldest:
            _, user, is_left = heappop(expiries)
            side = self.lefts if is_left else self.rights
            rows = side[user]
            row = rows.pop(0)  # all of this user's earlier rows have gone before it
            if not rows:
                del side[user]
            if not is_left and not row.matched:
                unmatched.append(row)
        return unmatched

    def restore(self, state: JoinState) -> None:
        """Takes back what `state` returned."""
        for row in state.lefts:
            self._keep(self.lefts, row, True)
        for row in state.rights:
            self._keep(self.rights, row, False)

    def state(self) -> JoinState:
        """Everything held."""
        return JoinState(
            [row for rows in self.lefts.values() for row in rows],
            [row for rows in self.rights.values() for row in rows],
        )

    def _keep(self, side: dict[bytes, list], row: TimedRow, is_left: bool) -> None:
        rows = side.get(row.user)
        if rows is None:
            side[row.user] = [row]
        elif rows[-1].time <= row.time:
            rows.append(row)
        else:
            insort(rows, row, key=_time)
        heappush(self._expiries, (row.time, row.user, is_left))

    def _near(self, side: dict[bytes, list], row: TimedRow) -> list:
        rows = side.get(row.user)
        if rows is None:
            return []
        earliest, latest = row.time - self.window, row.time + self.window
        if earliest <= rows[0].time and rows[-1].time <= latest:
            return rows  # all of them, which is the rule: they are few
        return rows[bisect_left(rows, earliest, key=_time) : bisect_right(rows, latest, key=_time)]
