"""A small shop whose every oddity is counted, so that a test knows what must come out without computing it.

Users click in visits with rests between them. What is bought is paid near enough to match, except that every fifth
user never buys, so that whatever he pays is *stray*: it finds no event. Rows come in order of time, and what a test
adds to them it marks with a kind of its own.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from dataflow.runtime.settings import Settings

STRAY, LATE, DEAD = "stray", "late", "dead"

_THINK = 0.3, 2.0  # seconds between the events of a visit
_PAID = -3.0, 4.0  # seconds from a purchase event to its row, well inside the match window
_EVENTS = 1, 9  # of a visit


class Row(NamedTuple):
    """A message to be."""

    due: float  # when it is sent, Unix seconds
    time: float  # what it carries as its timestamp
    user: int
    fields: dict[str, object]
    kind: str = ""  # what is odd about it

    @property
    def is_purchase(self) -> bool:
        return "amount" in self.fields

    @property
    def key(self) -> bytes:
        return b"%d" % self.user

    @property
    def value(self) -> bytes:
        return json.dumps({**self.fields, "user_id": self.user, "timestamp": round(self.time, 3)}).encode()


def event(user: int, time: float, kind: str = "") -> Row:
    """A click that is sent at once."""
    return Row(0, time, user, {"event_type": "click", "page_id": 1}, kind)


def clicks(
    seed: int, users: Iterable[int], start: float, gap: float, fast: Mapping[int, float] | None = None
) -> Iterator[Row]:
    """Rows without end, in the order in which they are sent; `fast` says whose clock is how many seconds ahead."""
    random = Random(seed)
    number = count()
    waiting: list[tuple[float, int, Row]] = []  # heap
    left = dict.fromkeys(users, 0)  # events of the visit
    next_events = [(start + random.uniform(0, gap), user) for user in left]
    next_events.sort()

    def hold(due: float, time: float, user: int, fields: dict[str, object], kind: str = "") -> None:
        ahead = (fast or {}).get(user, 0)
        heappush(
            waiting,
            (due, next(number), Row(due, time + ahead, user, {**fields, "page_id": random.randint(1, 9)}, kind)),
        )

    while True:
        now, user = heappop(next_events)
        while waiting and waiting[0][0] <= now:
            yield heappop(waiting)[2]
        if not left[user]:
            left[user] = random.randint(*_EVENTS)
        left[user] -= 1
        event_type = random.choice(("page-view", "page-view", "click", "search", "purchase"))
        amount = {"amount": random.randint(1, 9999) / 100}
        if event_type == "purchase" and user % 5 == 0:
            event_type = "click"
            hold(now, now, user, amount, STRAY)
        elif event_type == "purchase":
            paid = now + random.uniform(*_PAID)
            # never before its event: a shop may close between the two, and the row would be a stray
            hold(max(now, paid), paid, user, amount)
        yield Row(
            now, now + (fast or {}).get(user, 0), user, {"event_type": event_type, "page_id": random.randint(1, 9)}
        )
        pause = random.uniform(*_THINK) if left[user] else gap + random.uniform(1, gap)
        heappush(next_events, (now + pause, user))


class Shop:
    """Sends rows to Kafka when they are due, between `open` and `close`, with a client like anybody's."""

    def __init__(self, settings: Settings, keyed: bool = True) -> None:
        self._settings = settings
        self._keyed = keyed
        self._failed: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": settings.brokers,
                "log_level": 0,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "sticky.partitioning.linger.ms": 0,  # rows without a key: another partition for each
                "on_delivery": self._on_delivery,
            }
        )
        self._stopping = threading.Event()
        self._clerk: threading.Thread | None = None
        self.sent: list[Row] = []

    @property
    def kinds(self) -> Counter[str]:
        """How many rows of each kind have been sent."""
        return Counter(row.kind for row in self.sent)

    @property
    def unsent(self) -> int:
        """Rows that Kafka has not acknowledged."""
        return len(self._producer)

    def send(self, row: Row) -> None:
        topic = self._settings.topic_purchases if row.is_purchase else self._settings.topic_user_events
        self._producer.produce(topic, row.value, row.key if self._keyed else None)
        self.sent.append(row)

    def open(self, rows: Iterator[Row]) -> None:
        """Begins to send `rows`, each when it is due."""
        self._stopping.clear()
        self._clerk = threading.Thread(target=self._serve, args=(rows,), name="shop")
        self._clerk.start()

    def close(self) -> None:
        """Sends no more; all that was sent is in Kafka after it."""
        self._stopping.set()
        if self._clerk is not None:
            self._clerk.join()
        self.flush()

    def flush(self) -> None:
        """Waits until Kafka has all that was sent."""
        assert self._producer.flush(120) == 0, "the shop's rows do not reach Kafka"
        assert not self._failed

    def _serve(self, rows: Iterator[Row]) -> None:
        for row in rows:
            while (left := row.due - time.time()) > 0:
                self._producer.poll(0)
                if self._stopping.wait(min(left, 0.1)):
                    return
            self.send(row)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def abandon(self) -> None:
        """Ends at once, whatever has not been sent."""
        self._stopping.set()
        if self._clerk is not None:
            self._clerk.join()
        self._producer.purge()
