"""An interval join over event time: pairs rows of two sides, of the same user, at most a window apart.

Which row of one side is paired with which of the other depends on all rows in their time, and on the rows in the time
of those. So rows are paired stretch by stretch. A stretch is a chain of one user's rows in which every two that could
be a pair, one of each side and at most the window apart, are linked. It is complete when the watermark has passed its
last row by more than the window: no row on time can be linked to it any more. Then the rows in it are decided, all at
once. Stretches have no rows in common that could be a pair, so each is paired on its own.

Which rows can be a pair, which pairs are made of a stretch, and what a pair is made into is defined by a `JoinSpec`;
the job's own is in `dataflow.clickstream.attribution`.
"""

from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec

from dataflow.streaming.pairing import Pairs, pair_rows
from dataflow.streaming.state import Converter
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time, TimedRow

Left = TypeVar("Left")
Right = TypeVar("Right")

_time = attrgetter("time")


def _no_converters(window: int) -> Mapping[int, Converter]:
    return {}


@dataclass(frozen=True)
class JoinSpec:
    """Which rows match.

    Args:
        left: type of the rows of the left side; all other rows are of the right side.
        probes: of a batch of left rows, those that look for a match, or as much of them as a match needs.
        probe: type of these, with a `time` and a `user`; snapshots hold them, so msgspec must be able to encode it.
        right: type of the rows of the right side, with a `time` and a `user`; snapshots hold these too.
        match: makes of a probe and a right row that are paired what is emitted.
        pair: which rows of a stretch are paired. It is called with the probes, the right rows, both in order of time,
            and the window, and returns indexes of probes and right rows. They must depend only on the rows' content, not
            on the order of rows of equal time. By default, rows are paired one to one, see `dataflow.streaming.pairing`.
        converters: makes, for a window, the converters of snapshots of earlier versions, as `StateCodec` takes them.
        own: of a batch of left rows, what is emitted beside them without a right row; None: nothing is.
        mixed: whether a batch may hold rows of both sides.
    """

    left: type
    probes: Callable[[list[Any]], list[Any]]
    probe: type
    right: type
    match: Callable[[Any, Any], Any]
    pair: Callable[[list[Any], list[Any], int], Pairs] = pair_rows
    converters: Callable[[int], Mapping[int, Converter]] = _no_converters
    own: Callable[[list[Any]], list[Any]] | None = None
    mixed: bool = False


class JoinState(msgspec.Struct, Generic[Left, Right], array_like=True):
    """What a snapshot holds of a join."""

    lefts: list[Left]
    rights: list[Right]


@dataclass
class Decided:
    """What became of the rows of complete stretches."""

    matches: list[Any] = field(default_factory=list)
    unmatched: list[Any] = field(default_factory=list)  # right rows with no left row within the window
    left_over: list[Any] = field(default_factory=list)  # right rows whose left rows are paired with other ones


class UndecidedRows:
    """A user's rows that are not decided yet, each side in order of time.

    Which rows belong to the first stretch is found out step by step, as the watermark rises; `linked_lefts` and
    `linked_rights` are how many are known to.

    Args:
        due: time of the row that the next step waits for.
    """

    __slots__ = ("due", "lefts", "linked_lefts", "linked_rights", "rights")

    def __init__(self, due: int) -> None:
        self.due = due
        self.lefts: list[Any] = []
        self.rights: list[Any] = []
        self.linked_lefts = 0
        self.linked_rights = 0

    def link(self, window: int, before: Time) -> TimedRow | None:
        """Adds rows to the first stretch, up to a time.

        Args:
            window: largest distance of rows that are linked, in microseconds.
            before: only rows from before this are added.

        Returns:
            The next row of the stretch that was not added because of its time; None: the stretch has no more rows.
        """
        lefts, rights, left, right = self.lefts, self.rights, self.linked_lefts, self.linked_rights
        if not left and not right:
            is_left = not rights or bool(lefts) and lefts[0].time <= rights[0].time
            first: TimedRow = lefts[0] if is_left else rights[0]
            if first.time >= before:
                return first
            left, right = (1, 0) if is_left else (0, 1)
        following: TimedRow | None = None
        while True:
            if left and right < len(rights) and rights[right].time <= lefts[left - 1].time + window:
                if rights[right].time >= before:
                    following = rights[right]
                    break
                right += 1
            elif right and left < len(lefts) and lefts[left].time <= rights[right - 1].time + window:
                if lefts[left].time >= before:
                    following = lefts[left]
                    break
                left += 1
            else:
                break
        self.linked_lefts, self.linked_rights = left, right
        return following

    def pop(self) -> tuple[list[Any], list[Any]]:
        """Removes the rows of the first stretch and returns them: the left and the right ones."""
        lefts, rights = self.lefts[: self.linked_lefts], self.rights[: self.linked_rights]
        del self.lefts[: self.linked_lefts], self.rights[: self.linked_rights]
        self.linked_lefts = self.linked_rights = 0
        return lefts, rights


class IntervalJoin:
    """The rows of both sides that are not decided yet, by user.

    The work for a row grows neither with the number of users nor with the length of its stretch, but for what `pair`
    of the spec does.

    Args:
        window: largest distance between two rows, in microseconds; exactly this far apart still matches.
        spec: which rows match.
        retention: for how long after a left row its match is waited for anyhow, in microseconds, at least twice the
            window. Users with a left row that is undecided for longer are in `held`.
    """

    __slots__ = ("_timers", "held", "retention", "spec", "undecided", "window")

    def __init__(self, window: int, spec: JoinSpec, retention: Time = MAX_TIME) -> None:
        self.window = window
        self.spec = spec
        self.retention = retention
        self.undecided: dict[bytes, UndecidedRows] = {}
        self.held: Mapping[bytes, int] = {}  # by user, the time of the first left row; replaced at each change
        self._timers: list[tuple[int, bytes]] = []  # heap of times at which users are due; others are out of date

    def add(self, rows: list[Any]) -> None:
        """Takes rows of one side."""
        if not rows:
            return
        if type(rows[0]) is self.spec.left:
            for probe in self.spec.probes(rows):
                _insert(self._rows_of(probe).lefts, probe)
        else:
            for right in rows:
                _insert(self._rows_of(right).rights, right)

    def decide(self, watermark: Time) -> Decided:
        """Decides the rows of all stretches that are complete."""
        decided = Decided()
        timers, undecided, before = self._timers, self.undecided, watermark - self.window
        while timers and timers[0][0] < before:
            due, user = heappop(timers)
            rows = undecided.get(user)
            if rows is not None and rows.due == due:
                self._decide(user, rows, before, decided)
        return decided

    def decided_after(self, user: bytes, until: int) -> Time:
        """The watermark past which all left rows of a user up to some time are decided, by the rows so far.

        Returns:
            MIN_TIME if all are decided.
        """
        undecided = self.undecided.get(user)
        if undecided is None:
            return MIN_TIME
        rows, latest = UndecidedRows(0), MIN_TIME
        rows.lefts, rows.rights = list(undecided.lefts), list(undecided.rights)
        while rows.lefts and rows.lefts[0].time <= until:
            rows.link(self.window, MAX_TIME)
            lefts, rights = rows.pop()
            if lefts:
                latest = max(row.time for row in lefts[-1:] + rights[-1:]) + self.window
        return latest

    def restore(self, state: JoinState[Any, Any]) -> None:
        """Goes on from a snapshot."""
        for row in state.lefts:
            _insert(self._rows_of(row).lefts, row)
        for row in state.rights:
            _insert(self._rows_of(row).rights, row)

    def state(self) -> JoinState[Any, Any]:
        """All rows that are not decided yet."""
        every = self.undecided.values()
        return JoinState([row for rows in every for row in rows.lefts], [row for rows in every for row in rows.rights])

    def _rows_of(self, row: TimedRow) -> UndecidedRows:
        """The rows of a new row's user, who is due by then."""
        time, user = row.time, row.user
        rows = self.undecided.get(user)
        if rows is None:
            rows = self.undecided[user] = UndecidedRows(time)
        elif rows.due <= time:
            return rows
        rows.due = time
        heappush(self._timers, (time, user))
        return rows

    def _decide(self, user: bytes, rows: UndecidedRows, before: Time, decided: Decided) -> None:
        """Decides a user's complete stretches: those that have no row at or after `before`."""
        while (following := rows.link(self.window, before)) is None:
            if user in self.held:
                self.held = {held: since for held, since in self.held.items() if held != user}
            if rows.linked_lefts == len(rows.lefts) and rows.linked_rights == len(rows.rights):
                del self.undecided[user]
                self._pair(rows.lefts, rows.rights, decided)
                return
            self._pair(*rows.pop(), decided)
        rows.due = following.time
        heappush(self._timers, (following.time, user))
        if rows.linked_lefts:
            since = rows.lefts[0].time
            # the next step comes when the watermark has passed `following` by more than the window: in time for `since`?
            if following.time > since + self.retention - self.window and self.held.get(user) != since:
                self.held = {**self.held, user: since}

    def _pair(self, lefts: list[Any], rights: list[Any], decided: Decided) -> None:
        if not lefts:
            decided.unmatched += rights
            return
        if not rights:
            return
        match = self.spec.match
        if len(lefts) == len(rights) == 1:  # the usual case: nothing to choose
            decided.matches.append(match(lefts[0], rights[0]))
            return
        pairs = self.spec.pair(lefts, rights, self.window)
        decided.matches += [match(lefts[left], rights[right]) for left, right in pairs]
        paired = {right for _, right in pairs}
        decided.left_over += [row for number, row in enumerate(rights) if number not in paired]


def _insert(rows: list[Any], row: TimedRow) -> None:
    if rows and row.time < rows[-1].time:
        insort(rows, row, key=_time)
    else:
        rows.append(row)
