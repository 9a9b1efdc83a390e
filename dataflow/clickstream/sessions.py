"""What becomes of a session: the rows of ``visits``, and what makes it suspicious."""

from hashlib import blake2b

import msgspec

from dataflow.clickstream.records import Event, Match
from dataflow.streaming.session_windows import Session

PAGE_VIEW = "page-view"
NO_AMOUNT = b"0"


class SessionAccumulator(msgspec.Struct, array_like=True):
    """The fold of a session: its events, and the greatest of its matches."""

    events: list[Event] = []
    best: Match | None = None

    @property
    def amount(self) -> bytes:
        """Amount of the session's last purchase event that has one, as its row wrote it."""
        return self.best.amount if self.best is not None else NO_AMOUNT


def accumulate(accumulator: SessionAccumulator, row: Event | Match) -> SessionAccumulator:
    """The folder: a session's rows are its events, and the matches that follow them."""
    if type(row) is Event:
        accumulator.events.append(row)
    elif accumulator.best is None or row > accumulator.best:
        accumulator.best = row
    return accumulator


def merge(accumulator: SessionAccumulator, other: SessionAccumulator) -> SessionAccumulator:
    """The merger: all events of both, and the greater match."""
    accumulator.events += other.events
    if other.best is not None:
        accumulate(accumulator, other.best)
    return accumulator


def session_id(session: Session) -> bytes:
    """128 bits that look random, as 32 hexadecimal digits, and are the same in every replay."""
    return blake2b(b"%b/%d" % (session.user, session.start), digest_size=16).hexdigest().encode()


TOO_MANY_EVENTS, TOO_FEW_PAGE_VIEWS = 1, 2


def suspicion(events: list[Event], max_events: int, min_page_views: int) -> int | None:
    """The `type` of a suspicious session; None if there is nothing to say of it."""
    if len(events) > max_events:
        return TOO_MANY_EVENTS
    missing = min_page_views
    for event in events:
        if missing <= 0:
            break
        missing -= event.event_type == PAGE_VIEW
    return TOO_FEW_PAGE_VIEWS if missing > 0 else None


class ClosedSession(msgspec.Struct):
    """A session that is closed: what there is to write of it."""

    user: bytes
    identity: bytes
    events: list[Event]  # in order
    amount: bytes
    suspicion: int | None


def finalize(session: Session[SessionAccumulator], max_events: int, min_page_views: int) -> ClosedSession:
    """Comes to the end of a session; more than `max_events` are suspicious, or fewer than `min_page_views`."""
    events = session.fold.events
    events.sort()
    kind = suspicion(events, max_events, min_page_views)
    return ClosedSession(session.user, session_id(session), events, session.fold.amount, kind)
