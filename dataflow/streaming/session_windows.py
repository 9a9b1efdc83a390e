"""Session windows: runs of one user's rows with at most the gap between neighbours.

`SessionWindows` knows when a session begins, grows, merges with its neighbour and closes. What a session is made into
is a fold: three functions, as in Bytewax's ``fold_window``. `builder()` starts it, `folder(fold, row)` adds a row,
`merger(fold, later)` merges two folds when a row between their sessions shows that they are one.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from typing import Any, Generic, TypeVar

from dataflow.streaming.time import MAX_TIME, Time, TimedRow

Fold = TypeVar("Fold")


class Session(Generic[Fold]):
    """A user's session: the times of its first and last row so far, in microseconds, and its fold.

    `packed` and `snapshot_entry` belong to whoever takes snapshots: what the last snapshot held of the fold, and its
    whole encoded entry. A new row invalidates the entry.
    """

    __slots__ = ("end", "fold", "merged", "packed", "snapshot_entry", "start", "user")

    def __init__(self, user: bytes, start: int, end: int, fold: Fold, packed: Any = None) -> None:
        self.user = user
        self.start = start
        self.end = end
        self.fold = fold
        self.packed = packed
        self.snapshot_entry: Any = None
        self.merged = False  # into an earlier session, which holds all of it


_start = attrgetter("start")


class SessionWindows(Generic[Fold]):
    """All open sessions of one shard. The work for a row does not grow with the number of users.

    Args:
        gap: longest pause within a session, in microseconds; exactly this long is still the same session.
        retention: keep a session open for this long after its last row, if longer than the gap, in microseconds; for
            rows that belong to a session but arrive after its events, such as matches of a join.
        builder: starts a fold.
        folder: adds a row to a fold and returns it.
        merger: adds the fold of the next session to a fold and returns it.
    """

    __slots__ = (
        "_held",
        "_serial",
        "_timers",
        "begun",
        "builder",
        "count",
        "folder",
        "gap",
        "merger",
        "open",
        "retention",
    )

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
        self.count = 0  # of open sessions
        self.begun = 0  # sessions ever begun, including those that were merged later
        self._timers: list[tuple[int, int, Session[Fold]]] = []  # heap, one a session: closes no earlier than this
        self._held: dict[bytes, list[Session[Fold]]] = {}  # by user, sessions that are due and wait, in order
        self._serial = count()  # so that equal times never compare sessions

    def add(self, rows: Iterable[TimedRow]) -> None:
        """Folds rows into the sessions that they belong to."""
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
            session.snapshot_entry = None

    def close(self, watermark: Time, held: Mapping[bytes, int] = {}) -> list[Session[Fold]]:
        """Removes and returns the sessions that no row on time can reach any more.

        Args:
            watermark: no row from before this will come, but for rows that belong to sessions that are held.
            held: by user, a time; the user's sessions that end then or later wait.
        """
        closed: list[Session[Fold]] = []
        timers, retention = self._timers, self.retention
        if self._held:
            self._release(held)
        while timers and timers[0][0] < watermark:
            _, serial, session = heappop(timers)
            if session.merged:
                continue
            due = session.end + retention
            if due >= watermark:  # the session has grown since its timer was set
                heappush(timers, (due, serial, session))
                continue
            if session.user in held and held[session.user] <= session.end:
                self._held.setdefault(session.user, []).append(session)
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
        self.begun += 1
        self._set_timer(session)
        return session

    def _set_timer(self, session: Session[Fold]) -> None:
        heappush(self._timers, (session.end + self.retention, next(self._serial), session))

    def _release(self, held: Mapping[bytes, int]) -> None:
        """Gives the sessions of users of which one need not wait any more their timers back."""
        for user in [user for user, sessions in self._held.items() if sessions[0].end < held.get(user, MAX_TIME)]:
            for session in self._held.pop(user):
                self._set_timer(session)

    def _find(self, sessions: list[Session[Fold]], user: bytes, time: int) -> Session[Fold]:
        """The session of a row that does not simply continue the user's last one."""
        after = bisect_right(sessions, time, key=_start)
        earlier = sessions[after - 1] if after else None
        later = sessions[after] if after < len(sessions) else None
        if earlier is not None and time > earlier.end + self.gap:
            earlier = None
        if later is not None and time < later.start - self.gap:
            later = None
        if earlier is not None and later is not None:
            earlier.end = later.end
            earlier.fold = self.merger(earlier.fold, later.fold)
            later.merged = True
            self.count -= 1
            del sessions[after]
            return earlier
        if earlier is not None:
            earlier.end = max(earlier.end, time)
            return earlier
        if later is not None:
            later.start = time
            return later
        session = self._begin(user, time)
        sessions.insert(after, session)
        return session
