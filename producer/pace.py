"""When a row is sent. Knows neither Kafka nor the machine's clock: the time is asked of whoever is given."""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from random import Random

import msgspec

from producer.rows import Row

AT_ONCE = math.inf  # a speed


class Pace:
    """Turns a point of event time into the time at which it is the turn of a row.

    The first row's turn is when this is made; from there event time runs `speed` times as fast as `clock`.
    Where rows are made up, `live` keeps every row until its event time has come.
    """

    def __init__(self, speed: float, first: float, *, live: bool, clock: Callable[[], float]) -> None:
        self._speed = speed
        self._first = first
        self._live = live
        self._clock = clock
        self.began = clock()

    def due(self, time: float) -> float:
        """Clock time at which a row of event time `time` is to be sent; all Unix seconds."""
        due = self.began + (time - self._first) / self._speed
        return max(due, time) if self._live else due

    def wait_for(self, time: float) -> float:
        """Seconds still to wait; none are left when it is 0 or less."""
        return self.due(time) - self._clock()


def delayed(rows: Iterable[Row], disorder: float, seed: int) -> Iterator[tuple[float, Row]]:
    """Every row of `rows`, in order of event time, with the event time at which it leaves, and in order of that.

    A row leaves up to `disorder` seconds late, at random; `seed` chooses.
    """
    if not disorder:
        yield from ((row.time, row) for row in rows)
        return
    random = Random(seed)
    held: list[tuple[float, int, Row]] = []  # the number keeps rows themselves from being compared
    for number, row in enumerate(rows):
        while held and held[0][0] <= row.time:
            leaves, _, ready = heapq.heappop(held)
            yield leaves, ready
        heapq.heappush(held, (row.time + random.uniform(0, disorder), number, row))
    while held:
        leaves, _, ready = heapq.heappop(held)
        yield leaves, ready


def shifted(rows: Iterable[Row], seconds: int) -> Iterator[Row]:
    """`rows` with all timestamps moved by whole seconds, so that distances stay exactly what they are."""
    for row in rows:
        fields = msgspec.json.decode(row.value)
        fields["timestamp"] = round(fields["timestamp"] + seconds, 6)
        yield row._replace(time=fields["timestamp"], value=msgspec.json.encode(fields))
