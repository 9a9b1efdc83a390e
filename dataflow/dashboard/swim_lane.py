"""One user's swim lane: events, purchase rows, the matches between them, and the sessions."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from dataflow.clickstream.attribution import PURCHASE, match
from dataflow.clickstream.records import Event, InputRecord, Match, Purchase
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, session_id
from dataflow.clickstream.suspicion import label_of
from dataflow.observability.formatting import unix_seconds
from dataflow.streaming.interval_join import IntervalJoin
from dataflow.streaming.position import PARTITION_LIMIT
from dataflow.streaming.session_windows import Session, SessionWindows

SESSIONS = 8  # closed sessions that are remembered
EVENTS = 60  # the last events of a session
ROWS = 60  # purchase rows, and late rows

WAITING, MATCHED, UNMATCHED, LATE = "waiting", "matched", "unmatched", "late"


class EventMark(msgspec.Struct):
    """An event; its time is in Unix seconds."""

    time: float | None
    type: str
    page: int
    at: str  # "partition/offset"
    late: bool


class PurchaseMark(msgspec.Struct):
    """A purchase row and its state: WAITING, MATCHED, UNMATCHED or LATE."""

    time: float | None
    amount: str
    page: int
    at: str
    fate: str


class MatchLine(msgspec.Struct):
    """A match of a purchase event and a purchase row. It is taken if it gives the session its amount."""

    event: float | None
    paid: float | None
    amount: str
    taken: bool


class SessionBar(msgspec.Struct):
    """A session, open or closed."""

    id: str
    start: float | None
    end: float | None
    events: int
    amount: str
    closes: float | None  # an open session closes when the watermark passes this time; None: it is closed
    suspicion: str | None  # label of the suspicion rule that applies


class SwimLane(msgspec.Struct):
    """Everything to draw; each list is in order of time."""

    hits: list[EventMark]
    purchases: list[PurchaseMark]
    matches: list[MatchLine]
    sessions: list[SessionBar]


class _Part(NamedTuple):
    bar: SessionBar
    events: list[Event]  # the last EVENTS


class UserHistory:
    """The last closed sessions, late rows and purchase rows of a user, since a viewer began to follow the user."""

    def __init__(self, user: bytes) -> None:
        self.user = user
        self.followers = 0
        self._closed: deque[_Part] = deque(maxlen=SESSIONS)
        self._late: deque[InputRecord] = deque(maxlen=ROWS)
        self._purchases: dict[int, Purchase] = {}  # by position
        self._unmatched: deque[Purchase] = deque(maxlen=ROWS)
        self._lock = threading.Lock()  # several viewers may follow one user

    def add_closed(self, session: ClosedSession) -> None:
        events = session.events
        bar = SessionBar(
            id=session.identity.decode(),
            start=unix_seconds(events[0].time),
            end=unix_seconds(events[-1].time),
            events=len(events),
            amount=session.amount.decode(),
            closes=None,
            suspicion=label_of(session.suspicion) if session.suspicion is not None else None,
        )
        self._closed.append(_Part(bar, events[-EVENTS:]))

    def add_late(self, row: InputRecord) -> None:
        self._late.append(row)

    def add_unmatched(self, row: Purchase) -> None:
        self._unmatched.append(row)

    def lane(self, sessions: Iterable[SessionWindows[SessionAccumulator]], joins: Iterable[IntervalJoin]) -> SwimLane:
        """The lane as it is now.

        Args:
            sessions: the session windows of each shard of this process; open sessions are read from them.
            joins: the join of each of these shards; waiting and matched purchase rows are read from them.
        """
        with self._lock:
            return self._lane(sessions, joins)

    def _lane(self, sessions: Iterable[SessionWindows[SessionAccumulator]], joins: Iterable[IntervalJoin]) -> SwimLane:
        for join in joins:
            for row in list(join.rights.get(self.user, ())):
                self._purchases[row.position] = row
        unmatched, late = list(self._unmatched), list(self._late)
        self._purchases |= {row.position: row for row in unmatched}
        for position in list(self._purchases)[:-ROWS]:
            del self._purchases[position]
        open_parts = [
            _open_part(session, windows.retention)
            for windows in sessions
            for session in list(windows.open.get(self.user, ()))
        ]
        # read after the open sessions: a session that closes meanwhile is then in both lists, not in none
        parts = list(self._closed)
        closed = {part.bar.id for part in parts}
        parts += [part for part in open_parts if part is not None and part.bar.id not in closed]
        parts.sort(key=lambda part: part.bar.start or 0)
        events = [_event_mark(event, late=False) for part in parts for event in part.events]
        events += [_event_mark(row, late=True) for row in late if type(row) is Event]
        without_match = {row.position for row in unmatched}
        purchases = [
            _purchase_mark(row, UNMATCHED if row.position in without_match else None)
            for row in self._purchases.values()
        ]
        purchases += [_purchase_mark(row, LATE) for row in late if type(row) is Purchase]
        return SwimLane(
            hits=sorted(events, key=lambda mark: mark.time or 0),
            purchases=sorted(purchases, key=lambda mark: mark.time or 0),
            matches=[line for part in parts for line in self._matches(part, joins)],
            sessions=[part.bar for part in parts],
        )

    def _matches(self, part: _Part, joins: Iterable[IntervalJoin]) -> list[MatchLine]:
        window = max((join.window for join in joins), default=0)
        matches = [
            match(event, row)
            for event in part.events
            if event.event_type == PURCHASE
            for row in self._purchases.values()
            if abs(event.time - row.time) <= window
        ]
        best = max(matches, default=None)
        return [_match_line(each, taken=each is best) for each in matches]


def _open_part(session: Session[SessionAccumulator], retention: int) -> _Part | None:
    events = sorted(session.fold.events[-EVENTS:])
    if not events:
        return None  # a worker is creating it at this moment
    bar = SessionBar(
        id=session_id(session.user, session.start).decode(),
        start=unix_seconds(session.start),
        end=unix_seconds(session.end),
        events=len(session.fold.events),
        amount=session.fold.amount.decode(),
        closes=unix_seconds(session.end + retention),
        suspicion=None,
    )
    return _Part(bar, events)


def _event_mark(event: Event, late: bool) -> EventMark:
    return EventMark(unix_seconds(event.time), event.event_type[:40], event.page, where(event), late)


def _purchase_mark(row: Purchase, fate: str | None) -> PurchaseMark:
    fate = fate or (MATCHED if row.matched else WAITING)
    return PurchaseMark(unix_seconds(row.time), row.amount.decode()[:40], row.page, where(row), fate)


def _match_line(found: Match, taken: bool) -> MatchLine:
    return MatchLine(unix_seconds(found.time), unix_seconds(found.paid_at), found.amount.decode()[:40], taken)


def where(row: InputRecord) -> str:
    """A row's address in its topic: "partition/offset"."""
    offset, partition = divmod(row.position, PARTITION_LIMIT)
    return f"{partition}/{offset}"
