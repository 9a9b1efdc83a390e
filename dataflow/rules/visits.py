"""What becomes of a session: the rows of ``visits``, and what makes it suspicious."""

from hashlib import blake2b

import msgspec

from dataflow.rules.rows import Event, Match
from dataflow.rules.session import Session

PAGE_VIEW = "page-view"
NO_AMOUNT = b"0"


class Visit(msgspec.Struct, array_like=True):
    """The fold of a session: its events, and the greatest of its matches."""

    events: list[Event] = []
    best: Match | None = None

    @property
    def amount(self) -> bytes:
        """Amount of the session's last purchase event that has one, as its row wrote it."""
        return self.best.amount if self.best is not None else NO_AMOUNT


def add_row(visit: Visit, row: Event | Match) -> Visit:
    """The folder: a session's rows are its events, and the matches that follow them."""
    if type(row) is Event:
        visit.events.append(row)
    elif visit.best is None or row > visit.best:
        visit.best = row
    return visit


def unite(visit: Visit, other: Visit) -> Visit:
    """The merger: all events of both, and the greater match."""
    visit.events += other.events
    if other.best is not None:
        add_row(visit, other.best)
    return visit


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


class Finished(msgspec.Struct):
    """A session that is closed: what there is to write of it."""

    user: bytes
    identity: bytes
    events: list[Event]  # in order
    amount: bytes
    suspicion: int | None


def finish(session: Session[Visit], max_events: int, min_page_views: int) -> Finished:
    """Comes to the end of a session; more than `max_events` are suspicious, or fewer than `min_page_views`."""
    events = session.fold.events
    events.sort()
    kind = suspicion(events, max_events, min_page_views)
    return Finished(session.user, session_id(session), events, session.fold.amount, kind)
