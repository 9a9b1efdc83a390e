"""One user's swim lane: events, purchase rows, the matches between them, and the sessions."""

import threading
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from dataflow.clickstream.attribution import match, pair_purchases
from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.records import Event, InputRecord, Match, Purchase
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, session_id
from dataflow.clickstream.suspicion import label_of
from dataflow.observability.formatting import unix_seconds
from dataflow.streaming.interval_join import IntervalJoin
from dataflow.streaming.session_windows import Session, SessionWindows

SESSIONS = 8  # closed sessions that are remembered
EVENTS = 60  # the last events of a session
ROWS = 60  # purchase rows, and late rows

WAITING, MATCHED, UNMATCHED, LATE = "waiting", "matched", "unmatched", "late"
VIEW, CLICK, PURCHASE, OTHER = "view", "click", "purchase", "other"


class EventMark(msgspec.Struct):
    """An event; its time is in Unix seconds."""

    time: float | None
    type: str
    kind: str  # VIEW, CLICK, PURCHASE or OTHER
    page: int | str
    at: str  # its address
    late: bool


class PurchaseMark(msgspec.Struct):
    """A purchase row and its state: WAITING (to be decided), MATCHED, UNMATCHED or LATE."""

    time: float | None
    amount: str
    page: int | str | None
    at: str
    fate: str


class MatchLine(msgspec.Struct):
    """A purchase event and the row that it takes. The match is taken if it gives the session its amount."""

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
    """The last closed sessions, late rows and purchase rows of a user, since a viewer began to follow the user.

    Args:
        user: the user.
        inputs: the topics that are read.
        kinds: names of the kinds of events.
    """

    def __init__(self, user: bytes, inputs: InputTopics, kinds: Kinds = DEFAULT_KINDS) -> None:
        self.user = user
        self._inputs = inputs
        self._kinds = kinds
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

    def lane(self, sessions: Iterable[SessionWindows[SessionAccumulator]], joins: Collection[IntervalJoin]) -> SwimLane:
        """The lane as it is now.

        Args:
            sessions: the session windows of each shard of this process; open sessions are read from them.
            joins: the join of each of these shards; waiting purchase rows are read from them.
        """
        with self._lock:
            return self._lane(sessions, joins)

    def _lane(
        self, sessions: Iterable[SessionWindows[SessionAccumulator]], joins: Collection[IntervalJoin]
    ) -> SwimLane:
        undecided = [rows for join in joins if (rows := join.undecided.get(self.user))]
        waiting = {row.position: row for rows in undecided for row in list(rows.rights)}
        unmatched, late = {row.position: row for row in list(self._unmatched)}, list(self._late)
        self._purchases |= waiting | unmatched
        for position in list(self._purchases)[:-ROWS]:
            del self._purchases[position]
        fates = dict.fromkeys(self._purchases, MATCHED) | dict.fromkeys(waiting, WAITING)
        fates |= dict.fromkeys(unmatched, UNMATCHED)
        matched = [row for position, row in self._purchases.items() if fates[position] == MATCHED]
        open_parts = [
            _open_part(session, windows.retention, joins)
            for windows in sessions
            for session in list(windows.open.get(self.user, ()))
        ]
        # read after the open sessions: a session that closes meanwhile is then in both lists, not in none
        parts = list(self._closed)
        closed = {part.bar.id for part in parts}
        parts += [part for part in open_parts if part is not None and part.bar.id not in closed]
        parts.sort(key=lambda part: part.bar.start or 0)
        events = [self._event_mark(event, late=False) for part in parts for event in part.events]
        events += [self._event_mark(row, late=True) for row in late if type(row) is Event]
        purchases = [self._purchase_mark(row, fates[position]) for position, row in self._purchases.items()]
        purchases += [self._purchase_mark(row, LATE) for row in late if type(row) is Purchase]
        return SwimLane(
            hits=sorted(events, key=lambda mark: mark.time or 0),
            purchases=sorted(purchases, key=lambda mark: mark.time or 0),
            matches=_match_lines(parts, matched, max((join.window for join in joins), default=0), self._kinds),
            sessions=[part.bar for part in parts],
        )

    def _event_mark(self, event: Event, late: bool) -> EventMark:
        type, at = event.event_type, str(self._inputs.address(event))
        return EventMark(unix_seconds(event.time), type[:40], self._kind(type), event.page, at, late)

    def _kind(self, type: str) -> str:
        if type in self._kinds.page_views:
            return VIEW
        if type in self._kinds.purchases:
            return PURCHASE
        return CLICK if type == CLICK else OTHER

    def _purchase_mark(self, row: Purchase, fate: str) -> PurchaseMark:
        at = str(self._inputs.address(row))
        return PurchaseMark(unix_seconds(row.time), row.amount.decode()[:40], row.page, at, fate)


def _match_lines(parts: list[_Part], matched: list[Purchase], window: int, kinds: Kinds) -> list[MatchLine]:
    """The matches that are decided. The rows in them are known, so pairing these again gives the same pairs."""
    purchases = kinds.purchases
    events = [event for part in parts for event in part.events if event.event_type in purchases and not event.amount]
    matched = sorted(matched, key=lambda row: row.time)
    pairs = pair_purchases(events, matched, window)
    matches = {events[left].position: match(events[left], matched[right]) for left, right in pairs}
    lines = []
    for part in parts:
        of_part = [matches[event.position] for event in part.events if event.position in matches]
        best = max(of_part, default=None)
        lines += [_match_line(each, taken=each is best) for each in of_part]
    return lines


def _open_part(session: Session[SessionAccumulator], retention: int, joins: Collection[IntervalJoin]) -> _Part | None:
    events = sorted(session.fold.events[-EVENTS:])
    if not events:
        return None  # a worker is creating it at this moment
    closes = max([session.end + retention, *(join.decided_after(session.user, session.end) for join in joins)])
    bar = SessionBar(
        id=session_id(session.user, session.start).decode(),
        start=unix_seconds(session.start),
        end=unix_seconds(session.end),
        events=len(session.fold.events),
        amount=session.fold.amount.decode(),
        closes=unix_seconds(closes),
        suspicion=None,
    )
    return _Part(bar, events)


def _match_line(found: Match, taken: bool) -> MatchLine:
    return MatchLine(unix_seconds(found.time), unix_seconds(found.paid_at), found.amount.decode()[:40], taken)
