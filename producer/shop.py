"""The simulated shop. Pure: the same arguments give the same rows, and time is only what they carry.

A visit is a run of events of one user, near enough to each other to be one session. Visits begin on a
schedule: each takes up as many turns of 1/rate seconds as it has events, so the rate holds over all users
together however many they are. At a low rate users rest for longer between visits. At a rate above what they
make by nature the shop is busy: visits have more events, and visitors share the turns among them. A rest is
always longer than the session gap.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import msgspec

from producer.rows import Row

_PAGES = 50
_SPARE = 0.9  # part of the visits that users could make: the rest lets a schedule that fell behind catch up
_LEAD = 5000  # milliseconds of events that present visitors have still before them, where many are to be made
_EXTRA_REST = 3.0  # seconds, mean, that a rest lasts at least beyond the gap
_FAR_SHARE = 0.2  # part of the purchases rows that are outside the match window

PAGE_VIEW, CLICK, SEARCH, PURCHASE = "page-view", "click", "search", "purchase"


@dataclass(frozen=True)
class Profile:
    """How one kind of user visits; both triples are lowest, highest and most frequent value."""

    first: str  # event that every visit begins with
    then: dict[str, float]  # the other events and their weights
    events: tuple[float, float, float]  # events of a visit
    think: tuple[float, float, float]  # seconds between events

    @property
    def mean_events(self) -> float:
        return sum(self.events) / 3

    @property
    def mean_visit(self) -> float:
        """Seconds from the first event to the last."""
        return (self.mean_events - 1) * self.mean_think

    @property
    def mean_think(self) -> float:
        return sum(self.think) / 3


SHOPPER = Profile(
    first=PAGE_VIEW,
    then={PAGE_VIEW: 0.45, CLICK: 0.3, SEARCH: 0.1, PURCHASE: 0.15},
    events=(1, 9, 2),
    think=(0.5, 8, 1),
)
BOT = Profile(
    first=PAGE_VIEW,
    then={PAGE_VIEW: 0.8, CLICK: 0.2},
    events=(12, 36, 18),
    think=(0.1, 1, 0.3),
)
BLIND = Profile(  # a browser that blocks what reports page views
    first=CLICK,
    then={CLICK: 0.65, SEARCH: 0.2, PURCHASE: 0.15},
    events=(1, 6, 2),
    think=(0.5, 8, 1),
)


def profile(user_id: int) -> Profile:
    """Of every ten users one is a bot and one never views a page."""
    return {4: BLIND, 9: BOT}.get(user_id % 10, SHOPPER)


def natural_rate(users: int, gap: float = 20) -> float:
    """Events a second of so many users whose visits are as their profiles say."""
    visitors = [profile(user_id) for user_id in range(1, users + 1)]
    events = sum(visitor.mean_events for visitor in visitors)
    cycles = sum(visitor.mean_visit + gap + 1 + _EXTRA_REST for visitor in visitors)
    return _SPARE * users * events / cycles


def farthest_row(window: float) -> int:
    """Milliseconds by which a purchases row is at most before or after its event."""
    return round(2000 * window) + 5000


def simulate(
    *,
    start: float,
    rate: float,
    users: int = 20,
    seed: int = 1,
    events: int | None = None,
    gap: float = 20,
    window: float = 5,
) -> Iterator[Row]:
    """The shop's rows in order of event time.

    Args:
        start: event time at which they begin, Unix seconds; the shop is busy by then.
        rate: user-events a second, of all users together.
        users: how many; their ids count from 1.
        seed: chooses among the shops that could be.
        events: user-events after which the shop closes, never if None; their purchases rows come on top.
        gap: session gap in seconds; every rest between visits is longer.
        window: match window in seconds; four purchases rows in five are at most so far from their event.
    """
    return _rows(_Shop(users, rate, seed, gap, window).clicks(), round(start * 1000), events, farthest_row(window))


class _Click(NamedTuple):
    """A user event; times are in milliseconds after the start."""

    time: int
    user_id: int
    page_id: int
    event_type: str
    bought: int = 0  # time of the purchases row, of a purchase
    amount: float = 0


@dataclass
class _User:
    """What is known of one user between two events."""

    id: int
    profile: Profile
    page_id: int = 0
    left: int = 0  # events of the visit still to come
    arriving: bool = False  # the next event is the visit's first
    may_buy_from: float = 0  # milliseconds


class _Shop:
    """All users; times are in milliseconds after the start."""

    def __init__(self, users: int, rate: float, seed: int, gap: float, window: float) -> None:
        self._users = {user_id: _User(user_id, profile(user_id)) for user_id in range(1, users + 1)}
        self._random = Random(seed)
        self._turn = 1000 / rate
        self._crowding = max(1.0, rate / natural_rate(users, gap))
        self._busy = self._crowding > 1
        self._gap = gap * 1000
        self._window = round(window * 1000)
        # a row may stray as far as this from its purchase; the user's next purchase is farther than the match
        # window from it, so that it doesn't match that one either
        self._astray = farthest_row(window)
        self._next_purchase = self._astray + self._window + 1
        # begins long enough before the start for visits to be in full swing then
        self._began = self._now = -1000 * max(p.events[1] * p.think[1] for p in (SHOPPER, BOT, BLIND))
        self._booked = self._began - _LEAD * self._busy  # when the next visit is to begin
        self._resting = [(self._now, user_id) for user_id in self._users]  # heap: end of the rest
        self._rested: list[int] = []
        self._browsing: list[tuple[float, int]] = []  # heap: time of the next event
        self._made = 0  # events
        self._eagerness = 0.0  # events a second that the browsing users would make by nature

    def clicks(self) -> Iterator[_Click]:
        """All events in order of time."""
        while True:
            opening = max(self._booked, self._now)
            if not self._rested:
                opening = max(opening, self._resting[0][0]) if self._resting else math.inf
            if self._browsing and self._browsing[0][0] <= opening:
                self._now = self._browsing[0][0]
                yield self._next_event()
            else:
                self._now = opening
                self._begin_visit()

    def _begin_visit(self) -> None:
        while self._resting and self._resting[0][0] <= self._now:
            self._rested.append(heapq.heappop(self._resting)[1])
        chosen = self._random.randrange(len(self._rested))
        self._rested[chosen], self._rested[-1] = self._rested[-1], self._rested[chosen]
        user = self._users[self._rested.pop()]
        user.left = max(1, round(self._draw(user.profile.events) * self._crowding))
        user.arriving = True
        self._booked += user.left * self._turn
        self._eagerness += 1 / user.profile.mean_think
        heapq.heappush(self._browsing, (self._now, user.id))

    def _next_event(self) -> _Click:
        user = self._users[self._browsing[0][1]]
        click = self._act(user)
        self._made += 1
        user.left -= 1
        if not user.left and self._busy and len(self._browsing) == 1 and self._resting and not self._rested:
            # stays until somebody else comes, or there would be no events at all
            user.left = 1
            self._booked += self._turn
        if user.left:
            heapq.heapreplace(self._browsing, (self._now + self._think(user), user.id))
        else:
            self._eagerness -= 1 / user.profile.mean_think
            heapq.heappop(self._browsing)
            heapq.heappush(self._resting, (self._now + self._rest(), user.id))
        return click

    def _act(self, user: _User) -> _Click:
        time = round(self._now)
        event_type = user.profile.first
        if not user.arriving:
            choices = user.profile.then
            event_type = self._random.choices(list(choices), list(choices.values()))[0]
        if event_type == PURCHASE and time < user.may_buy_from:
            event_type = CLICK
        if user.arriving or event_type in (PAGE_VIEW, SEARCH):
            user.page_id = self._random.randint(1, _PAGES)
        user.arriving = False
        if event_type != PURCHASE:
            return _Click(time, user.id, user.page_id, event_type)
        user.may_buy_from = time + self._next_purchase
        amount = max(0.01, round(self._random.lognormvariate(3.4, 0.8), 2))
        return _Click(time, user.id, user.page_id, event_type, time + self._distance(), amount)

    def _distance(self) -> int:
        """Milliseconds from a purchase to its row; negative if the row is first."""
        if self._random.random() < _FAR_SHARE:
            return self._random.choice((-1, 1)) * self._random.randint(self._window + 1, self._astray)
        return int(self._random.uniform(-self._window, self._window))

    def _think(self, user: _User) -> float:
        """Milliseconds to the user's next event, well within the gap."""
        time = self._draw(user.profile.think) * 1000
        if self._busy:
            ahead = self._made * self._turn - (self._now - self._began)
            hurry = min(5, max(0.2, 1 + ahead / _LEAD))
            time *= self._eagerness * self._turn / 1000 * hurry
        return min(time, self._gap / 2)

    def _rest(self) -> float:
        return self._gap + 1000 + self._random.expovariate(1 / (_EXTRA_REST * 1000))

    def _draw(self, lowest_highest_mode: tuple[float, float, float]) -> float:
        return self._random.triangular(*lowest_highest_mode)


def _rows(clicks: Iterator[_Click], start: int, events: int | None, horizon: int) -> Iterator[Row]:
    """`clicks` from the start on, at most `events` of them, merged with their purchases rows.

    `start` and `horizon`, how long before its event a purchases row can be, are in milliseconds.
    """
    encode = msgspec.json.Encoder().encode
    waiting: list[tuple[int, int, Row]] = []  # heap by time; the number keeps the order of equal times
    number = 0

    def hold(click: _Click, time: int, fields: dict[str, object]) -> None:
        nonlocal number
        number += 1
        moment = (start + time) / 1000
        row = Row(moment, "amount" in fields, click.user_id, encode({**fields, "timestamp": moment}))
        heapq.heappush(waiting, (time, number, row))

    left = events
    for click in clicks:
        if click.time < 0:
            continue
        if left == 0:
            break
        while waiting and waiting[0][0] < click.time - horizon:
            yield heapq.heappop(waiting)[2]
        whose = {"user_id": click.user_id, "page_id": click.page_id}
        hold(click, click.time, {"event_type": click.event_type, **whose})
        if click.event_type == PURCHASE:
            # as far after its event as it would be before, where that is before the shop opens
            bought = click.bought if click.bought >= 0 else 2 * click.time - click.bought
            hold(click, bought, {"amount": click.amount, **whose})
        if left is not None:
            left -= 1
    while waiting:
        yield heapq.heappop(waiting)[2]
