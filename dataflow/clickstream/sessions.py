"""What a session is made into: its accumulator while it is open, and what is written of it once it is closed."""

from decimal import Decimal
from hashlib import blake2b

import msgspec

from dataflow.clickstream.records import TEXT_USER, Event, Match
from dataflow.clickstream.revenue import NO_REVENUE, add_amount
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.suspicion import suspicion_of
from dataflow.clickstream.users import user_json
from dataflow.streaming.session_windows import Session

NO_AMOUNT = b"0"


class SessionAccumulator(msgspec.Struct, array_like=True):
    """The fold of a session: its events, the greatest of its matches, and the sum of their amounts."""

    events: list[Event] = []
    best: Match | None = None
    revenue: Decimal = NO_REVENUE

    @property
    def amount(self) -> bytes:
        """Amount of the session's last purchase event that has one, as its purchase row wrote it."""
        return self.best.amount if self.best is not None else NO_AMOUNT


def accumulate(accumulator: SessionAccumulator, row: Event | Match) -> SessionAccumulator:
    """The folder. The rows of a session are its events, and the matches that follow them."""
    if isinstance(row, Event):
        accumulator.events.append(row)
    else:
        accumulator.revenue = add_amount(accumulator.revenue, row.size)
        if accumulator.best is None or row > accumulator.best:
            accumulator.best = row
    return accumulator


def merge(accumulator: SessionAccumulator, later: SessionAccumulator) -> SessionAccumulator:
    """The merger: all events of both, the greater match, and both sums."""
    accumulator.events += later.events
    if later.best is not None:
        accumulator.best = max(accumulator.best or later.best, later.best)
        accumulator.revenue = add_amount(accumulator.revenue, later.revenue)
    return accumulator


def session_id(user: bytes, start: int) -> bytes:
    """128 bits as 32 hexadecimal digits. They look random, and are the same in every replay.

    Args:
        user: the user's id as text.
        start: time of the session's first event, in microseconds.
    """
    return blake2b(b"%b/%d" % (user, start), digest_size=16).hexdigest().encode()


class ClosedSession(msgspec.Struct):
    """A closed session: everything that outputs are made of."""

    user: bytes
    identity: bytes
    events: list[Event]  # in order of time
    amount: bytes
    revenue: Decimal  # exact sum of the amounts of its purchase events
    suspicion: int | None  # type of the suspicion rule that holds, see `dataflow.clickstream.suspicion`

    @property
    def user_json(self) -> bytes:
        """The user's id as JSON, as it came in the session's first event."""
        return user_json(self.user, self.events[0].form & TEXT_USER != 0)


def finalize(session: Session[SessionAccumulator], rules: Rules = Rules()) -> ClosedSession:
    """Makes the result of a session that has closed."""
    events = session.fold.events
    events.sort()
    return ClosedSession(
        session.user,
        session_id(session.user, session.start),
        events,
        session.fold.amount,
        session.fold.revenue,
        suspicion_of(events, rules.thresholds, rules.kinds),
    )
