"""The right answer to a workload, computed from its own rows while they are made, and quick to compare.

The rules once more, in their simplest form: a user's rows up to a long silence are sorted, cut into sessions, and the
purchase events paired with the rows of `purchases` as the reference pairs them. What comes out is kept as a number of rows
and a sum of hashes a topic, which is all that it takes to see whether a topic holds just these rows.
`dataflow.tools.reference` knows about late and unreadable rows as well, but takes many times longer; the tests hold the
two against each other.
"""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from operator import itemgetter

from dataflow.tools import reference_pairing

GAP = 20_000  # milliseconds, as all times here
WINDOW = 5_000
MAX_EVENTS = 5

_SILENCE = 40_000  # more than gap, window on both sides and lateness together: nothing reaches across it

_time = itemgetter(0)

_Amount = tuple[int, bool, int, int, Decimal, bytes]  # of a session's the greatest counts; the last item is its text


@dataclass
class Digest:
    """Some rows in any order: equal if and, but for a chance of 1 in 2**64, only if they are the same.

    Hashes are Python's own, of one process.
    """

    rows: int = 0
    total: int = 0

    def add(self, key: bytes | None, value: bytes | None) -> None:
        self.rows += 1
        self.total += hash((key, value))


@dataclass(frozen=True)
class SessionSeen:
    """A session as a program without our ids sees it too."""

    user: int
    start: int
    end: int
    events: int
    amount: float


class _Block:
    """A user's rows that no silence divides."""

    __slots__ = ("last", "events", "purchases")

    def __init__(self) -> None:
        self.last = 0
        self.events: list[tuple[int, int, str, bytes]] = []
        self.purchases: list[tuple[int, int, bytes, bytes]] = []


@dataclass
class Answer:
    """What belongs into the output topics; the two others stay empty.

    Takes rows in the order in which they arrive in their partitions, none late.
    """

    visits: Digest = field(default_factory=Digest)
    suspicious_visits: Digest = field(default_factory=Digest)
    late_events: Digest = field(default_factory=Digest)
    dead_letters: Digest = field(default_factory=Digest)
    unmatched_purchases: Digest = field(default_factory=Digest)
    sessions: Counter[SessionSeen] | None = None  # counted too, if there is a counter

    def __post_init__(self) -> None:
        self._blocks: dict[int, _Block] = {}  # the one longest silent first

    def add_event(self, user: int, time: int, page: int, event_type: str, value: bytes) -> None:
        self._block(user, time).events.append((time, page, event_type, value))

    def add_purchase(self, user: int, time: int, page: int, amount: bytes, value: bytes) -> None:
        self._block(user, time).purchases.append((time, page, amount, value))

    def finish(self) -> None:
        """There are no more rows."""
        for user, block in self._blocks.items():
            self._close(user, block)
        self._blocks.clear()

    def _block(self, user: int, time: int) -> _Block:
        block = self._blocks.pop(user, None)
        if block is not None and time > block.last + _SILENCE:
            self._close(user, block)
            block = None
        if block is None:
            block = _Block()
        block.last = max(block.last, time)
        self._blocks[user] = block
        longest_silent = next(iter(self._blocks))
        if self._blocks[longest_silent].last < time - 2 * _SILENCE:
            self._close(longest_silent, self._blocks.pop(longest_silent))
        return block

    def _close(self, user: int, block: _Block) -> None:
        events, key = block.events, b"%d" % user
        events.sort(key=_time)
        amounts, taken = self._amounts(events, block.purchases)
        begin = 0
        for after, event in enumerate(events, 1):
            if after == len(events) or events[after][0] - event[0] > GAP:
                self._add_session(user, key, events[begin:after], amounts[begin:after])
                begin = after
        for number, (_, _, _, value) in enumerate(block.purchases):
            if number not in taken:
                self.unmatched_purchases.add(key, value)

    def _amounts(
        self, events: list[tuple[int, int, str, bytes]], purchases: list[tuple[int, int, bytes, bytes]]
    ) -> tuple[list[_Amount | None], set[int]]:
        """What each event takes, if it does, and the numbers of the rows that are taken."""
        amounts: list[_Amount | None] = [None] * len(events)
        buying = [number for number, event in enumerate(events) if event[2] == "purchase"]
        pairs = reference_pairing.pair(
            [reference_pairing.Event(*events[number][:2]) for number in buying],
            [
                reference_pairing.Row(time, Decimal(amount.decode()), amount, value, (number, 0), page)
                for number, (time, page, amount, value) in enumerate(purchases)
            ],
            WINDOW,
        )
        for bought, paid in pairs:
            time, page, _, _ = events[buying[bought]]
            paid_at, paid_for, amount, _ = purchases[paid]
            size = Decimal(amount.decode())
            amounts[buying[bought]] = (time, paid_for == page, -abs(paid_at - time), paid_at, size, amount)
        return amounts, {paid for _, paid in pairs}

    def _add_session(
        self, user: int, key: bytes, events: list[tuple[int, int, str, bytes]], amounts: list[_Amount | None]
    ) -> None:
        amount = max((each for each in amounts if each is not None), default=(b"0",))[-1]
        start = events[0][0]
        identity = blake2b(b"%d/%d" % (user, start * 1000), digest_size=16).hexdigest().encode()
        for event in events:
            self.visits.add(key, b'%b,"session_id":"%b","amount":%b}' % (event[3][:-1], identity, amount))
        if len(events) > MAX_EVENTS:
            kind = 1
        elif all(event[2] != "page-view" for event in events):
            kind = 2
        else:
            kind = None
        if kind is not None:
            self.suspicious_visits.add(key, b'{"session_id":"%b","user_id":%d,"type":%d}' % (identity, user, kind))
        if self.sessions is not None:
            self.sessions[SessionSeen(user, start, events[-1][0], len(events), float(amount))] += 1
