"""Which amount belongs to which purchase event: an interval join over event time.

A purchase event takes its amount from a row of ``purchases`` of the same user, at most the match window before or
after it. Events are never held back for it: whoever comes second finds the other waiting.
"""

from bisect import bisect_left, bisect_right, insort
from heapq import heappop, heappush
from operator import attrgetter
from typing import NamedTuple

from dataflow.rules.rows import Event, Match, Purchase, Row, Time

PURCHASE = "purchase"  # the event_type that has an amount

_time = attrgetter("time")


def _meets(purchase: Purchase) -> None:
    purchase.matched = True
    purchase.value = b""  # is only needed of those that never meet an event


def match(event: Event, purchase: Purchase) -> Match:
    """Pairs a purchase event with an amount; matches compare as the rules of choice say."""
    return Match(
        event.time,
        event.page == purchase.page,
        -abs(event.time - purchase.time),
        purchase.time,
        float(purchase.amount),
        purchase.amount,
        event.user,
    )


class JoinState(NamedTuple):
    """What a join holds, as far as the rules need it: of events their time, user and page; of purchase rows that have
    met an event not their own text."""

    events: list[tuple[int, bytes, int]]
    purchases: list[Purchase]


class IntervalJoin:
    """Both sides of the join that can still meet, by user, in order of time.

    Args:
        window: largest distance between the two, in microseconds; exactly so far apart still matches.
    """

    __slots__ = ("window", "events", "purchases", "_expiries")

    def __init__(self, window: int) -> None:
        self.window = window
        self.events: dict[bytes, list[Event]] = {}
        self.purchases: dict[bytes, list[Purchase]] = {}
        self._expiries: list[tuple[int, bytes, bool]] = []  # heap of (time, user, is it an event)

    def add(self, rows: list[Row]) -> list[Match]:
        """Takes the rows of one topic and returns their matches with all that came before them."""
        if not rows:
            return []
        if type(rows[0]) is Event:
            return [match for row in rows if row.event_type == PURCHASE for match in self._add_event(row)]
        return [match for row in rows for match in self._add_purchase(row)]

    def _add_event(self, event: Event) -> list[Match]:
        self._keep(self.events, event, True)
        found = self._near(self.purchases, event)
        for purchase in found:
            _meets(purchase)
        return [match(event, purchase) for purchase in found]

    def _add_purchase(self, purchase: Purchase) -> list[Match]:
        self._keep(self.purchases, purchase, False)
        found = self._near(self.events, purchase)
        if found:
            _meets(purchase)
        return [match(event, purchase) for event in found]

    def candidates(self, event: Event) -> list[Purchase]:
        """The purchase rows in an event's time, so far."""
        return self._near(self.purchases, event)

    def expire(self, watermark: Time) -> list[Purchase]:
        """Forgets what nothing on time can match any more; returns the purchase rows that met no event."""
        unmatched = []
        while self._expiries and self._expiries[0][0] + self.window < watermark:
            _, user, is_event = heappop(self._expiries)
            side = self.events if is_event else self.purchases
            row = side[user].pop(0)  # all of this user's earlier rows have gone before it
            if not side[user]:
                del side[user]
            if not is_event and not row.matched:
                unmatched.append(row)
        return unmatched

    def restore(self, state: JoinState) -> None:
        """Takes back what `state` returned."""
        for time, user, page in state.events:
            self._keep(self.events, Event(time, user, b"", 0, page, PURCHASE), True)
        for row in state.purchases:
            self._keep(self.purchases, row, False)

    def state(self) -> JoinState:
        """Everything held."""
        return JoinState(
            [(row.time, row.user, row.page) for rows in self.events.values() for row in rows],
            [row for rows in self.purchases.values() for row in rows],
        )

    def _keep(self, side: dict[bytes, list], row: Row, is_event: bool) -> None:
        rows = side.get(row.user)
        if rows is None:
            side[row.user] = [row]
        else:
            if rows[-1].time <= row.time:
                rows.append(row)
            else:
                insort(rows, row, key=_time)
        heappush(self._expiries, (row.time, row.user, is_event))

    def _near(self, side: dict[bytes, list], row: Row) -> list:
        rows = side.get(row.user)
        if rows is None:
            return []
        earliest, latest = row.time - self.window, row.time + self.window
        if earliest <= rows[0].time and rows[-1].time <= latest:
            return rows  # all of them, which is the rule: they are few
        return rows[bisect_left(rows, earliest, key=_time) : bisect_right(rows, latest, key=_time)]
