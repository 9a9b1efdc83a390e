"""Sessions: runs of one user's rows with at most the gap between neighbours.

`Sessions` knows when a session begins, grows, merges with its neighbour and ends. What a session is made into is
said by a fold, three functions as in Bytewax's ``fold_window``: `builder()` starts it, `folder(fold, row)` adds a
row, `merger(fold, other)` unites two when a row between them shows that they were one.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from typing import Any, Generic, TypeVar

from dataflow.streaming.time import Time, TimedRow

Fold = TypeVar("Fold")


class Session(Generic[Fold]):
    """A user's session from its first to its last row so far, both in microseconds, and what was folded of them.

    Whoever takes snapshots may put here what was `kept` of it in the last one, and its `entry` there; the next row takes
    the entry away.
    """

    __slots__ = ("user", "start", "end", "fold", "references", "entry", "merged")

    def __init__(self, user: bytes, start: int, end: int, fold: Fold, references: Any = None) -> None:
        self.user = user
        self.start = start
        self.end = end
        self.fold = fold
        self.references = references
        self.entry: Any = None
        self.merged = False  # into an earlier one, which holds all of it


_start = attrgetter("start")


class SessionWindows(Generic[Fold]):
    """All open sessions of one shard. Work per row does not grow with the number of users.

    Args:
        gap: longest pause inside a session, in microseconds; exactly so long is still the same session.
        hold: how long a session is kept beyond its end, if longer than the gap (for rows that know of it later).
    """

    __slots__ = ("gap", "retention", "open", "count", "opened", "builder", "folder", "merger", "_timers", "_serial")

    def __init__(
        self,
        gap: int,
        retention: int,
        builder: Callable[[], Fold],
        folder: Callable[[Fold, Any], Fold],
        merger: Callable[[Fold, Fold], Fold],
    ) -> None:
        self.gap = gap
        self.retention = max(gap, retention)
        self.builder, self.folder, self.merger = builder, folder, merger
        self.open: dict[bytes, list[Session[Fold]]] = {}  # by user, in order of time
        self.count = 0  # of sessions that are open
        self.opened = 0  # that have ever begun, those that turned out to be part of an earlier one too
        self._timers: list[tuple[int, int, Session[Fold]]] = []  # heap, one a session: not due before this time
        self._serial = count()  # so that equal times never compare sessions

    def add(self, rows: Iterable[TimedRow]) -> None:
        """Folds rows into the sessions they belong to."""
        open_sessions, gap, folder = self.open, self.gap, self.folder
        for row in rows:
            user, time = row.user, row.time
            sessions = open_sessions.get(user)
            if sessions is None:
                session = self._begin(user, time)
                open_sessions[user] = [session]
            else:
                session = sessions[-1]
                if session.end < time <= session.end + gap:
                    session.end = time
                elif not session.start <= time <= session.end:
                    session = self._find(sessions, user, time)
            session.fold = folder(session.fold, row)
            session.entry = None

    def close(self, watermark: Time) -> list[Session[Fold]]:
        """Ends and returns the sessions which no row on time can reach any more."""
        closed = []
        timers, retention = self._timers, self.retention
        while timers and timers[0][0] < watermark:
            _, serial, session = heappop(timers)
            if session.merged:
                continue
            due = session.end + retention
            if due >= watermark:  # it has grown since its timer was set
                heappush(timers, (due, serial, session))
                continue
            sessions = self.open[session.user]
            sessions.remove(session)
            if not sessions:
                del self.open[session.user]
            closed.append(session)
        self.count -= len(closed)
        return closed

    def restore(self, sessions: Iterable[Session[Fold]]) -> None:
        """Takes back sessions that were open."""
        for session in sessions:
            insort(self.open.setdefault(session.user, []), session, key=_start)
            self.count += 1
            self._set_timer(session)

    def _begin(self, user: bytes, time: int) -> Session[Fold]:
        session = Session(user, time, time, self.builder())
        self.count += 1
        self.opened += 1
        self._set_timer(session)
        return session

    def _set_timer(self, session: Session[Fold]) -> None:
        heappush(self._timers, (session.end + self.retention, next(self._serial), session))

    def _find(self, sessions: list[Session[Fold]], user: bytes, time: int) -> Session[Fold]:
        """The session that a row belongs to which does not simply continue the last one."""
        after = bisect_right(sessions, time, key=_start)
        earlier = sessions[after - 1] if after else None
        later = sessions[after] if after < len(sessions) else None
        follows = earlier is not None and time <= earlier.end + self.gap
        leads = later is not None and later.start - self.gap <= time
        if follows and leads:
            earlier.end = later.end
            earlier.fold = self.merger(earlier.fold, later.fold)
            later.merged = True
            self.count -= 1
            del sessions[after]
            return earlier
        if follows:
            earlier.end = max(earlier.end, time)
            return earlier
        if leads:
            later.start = time
            return later
        session = self._begin(user, time)
        sessions.insert(after, session)
        return session
