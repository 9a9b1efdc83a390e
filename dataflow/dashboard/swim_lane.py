"""One user's swim lane: hits, purchase rows, what matches what, and the sessions that come of it."""

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

SESSIONS = 8  # that have been closed
HITS = 60  # of a session, the last ones
ROWS = 60  # purchase rows, and late ones

WAITING, MATCHED, UNMATCHED, LATE = "waiting", "matched", "unmatched", "late"


class EventMark(msgspec.Struct):
    """An event; times are Unix seconds."""

    time: float | None
    type: str
    page: int
    at: str  # partition/offset
    late: bool


class PurchaseMark(msgspec.Struct):
    """A row of purchases, and what has become of it."""

    time: float | None
    amount: str
    page: int
    at: str
    fate: str


class MatchLine(msgspec.Struct):
    """A purchase event and a purchase row that match; the one that gives its session's amount is taken."""

    event: float | None
    paid: float | None
    amount: str
    taken: bool


class SessionBar(msgspec.Struct):
    """A session so far, or closed."""

    id: str
    start: float | None
    end: float | None
    events: int
    amount: str
    closes: float | None  # an open one closes when the watermark has passed this; None: it is closed
    suspicion: str | None  # label of the suspicion rule that holds


class SwimLane(msgspec.Struct):
    """What there is to draw, each kind in order of time."""

    hits: list[EventMark]
    purchases: list[PurchaseMark]
    matches: list[MatchLine]
    sessions: list[SessionBar]


class _Part(NamedTuple):
    span: SessionBar
    events: list[Event]  # the last ones


class UserHistory:
    """What has been seen of a user since somebody follows them; it remembers the last of it."""

    def __init__(self, user: bytes) -> None:
        self.user = user
        self.followers = 0
        self._closed: deque[_Part] = deque(maxlen=SESSIONS)
        self._late: deque[InputRecord] = deque(maxlen=ROWS)
        self._purchases: dict[int, Purchase] = {}  # by position
        self._unmatched: deque[Purchase] = deque(maxlen=ROWS)
        self._lock = threading.Lock()  # several may look at once

    def see_finished(self, finished: ClosedSession) -> None:
        events = finished.events
        span = SessionBar(
            id=finished.identity.decode(),
            start=unix_seconds(events[0].time),
            end=unix_seconds(events[-1].time),
            events=len(events),
            amount=finished.amount.decode(),
            closes=None,
            suspicion=label_of(finished.suspicion) if finished.suspicion is not None else None,
        )
        self._closed.append(_Part(span, events[-HITS:]))

    def see_late(self, row: InputRecord) -> None:
        self._late.append(row)

    def see_unmatched(self, row: Purchase) -> None:
        self._unmatched.append(row)

    def lane(self, sessions: Iterable[SessionWindows[SessionAccumulator]], joins: Iterable[IntervalJoin]) -> SwimLane:
        """As it is now; looks up what is open where it is held."""
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
        opened = [
            _open(session, shard.retention) for shard in sessions for session in list(shard.open.get(self.user, ()))
        ]  # fmt: skip
        parts = list(self._closed)  # after the open ones: one that has just been closed is rather shown twice than not
        closed = {part.span.id for part in parts}
        parts += [part for part in opened if part is not None and part.span.id not in closed]
        parts.sort(key=lambda part: part.span.start or 0)
        late_hits = [row for row in late if type(row) is Event]
        hits = [_hit(event, False) for part in parts for event in part.events] + [_hit(row, True) for row in late_hits]
        met_nobody = {row.position for row in unmatched}
        paid = [_paid(row, UNMATCHED if row.position in met_nobody else None) for row in self._purchases.values()]
        paid += [_paid(row, LATE) for row in late if type(row) is Purchase]
        return SwimLane(
            hits=sorted(hits, key=lambda hit: hit.time or 0),
            purchases=sorted(paid, key=lambda row: row.time or 0),
            matches=[met for part in parts for met in self._matches(part, joins)],
            sessions=[part.span for part in parts],
        )

    def _matches(self, part: _Part, joins: Iterable[IntervalJoin]) -> list[MatchLine]:
        window = max((join.window for join in joins), default=0)
        found = [
            match(event, row)
            for event in part.events
            if event.event_type == PURCHASE
            for row in self._purchases.values()
            if abs(event.time - row.time) <= window
        ]
        best = max(found, default=None)
        return [_met(each, each is best) for each in found]


def _open(session: Session[SessionAccumulator], hold: int) -> _Part | None:
    events = sorted(session.fold.events[-HITS:])
    if not events:
        return None  # it is just being made
    span = SessionBar(
        id=session_id(session.user, session.start).decode(),
        start=unix_seconds(session.start),
        end=unix_seconds(session.end),
        events=len(session.fold.events),
        amount=session.fold.amount.decode(),
        closes=unix_seconds(session.end + hold),
        suspicion=None,
    )
    return _Part(span, events)


def _hit(event: Event, late: bool) -> EventMark:
    return EventMark(unix_seconds(event.time), event.event_type[:40], event.page, where(event), late)


def _paid(row: Purchase, fate: str | None) -> PurchaseMark:
    fate = fate or (MATCHED if row.matched else WAITING)
    return PurchaseMark(unix_seconds(row.time), row.amount.decode()[:40], row.page, where(row), fate)


def _met(found: Match, taken: bool) -> MatchLine:
    return MatchLine(unix_seconds(found.time), unix_seconds(found.paid_at), found.amount.decode()[:40], taken)


def where(row: InputRecord) -> str:
    """A row's partition and offset in its topic."""
    offset, partition = divmod(row.position, PARTITION_LIMIT)
    return f"{partition}/{offset}"
