"""A click stream made up for measuring, the same for the same seed, and the right answer to it.

A few users, or at most 10,000 of many, are in the shop at a time. They make sessions of eight events on average, now
and then with exactly the gap in between; one event in ten is a purchase, most of which have their row in `purchases`,
up to 5 s before or after. One row in ten comes into its partition after later ones, but none is late. A user's rows are
all in one partition. Everything happens in the past; the last row of each partition is an hour later than the others,
so that programs that know no end of a topic close all sessions too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import accumulate, count
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from confluent_kafka import Producer

from bench.answer import GAP, Answer
from dataflow.runtime.settings import Settings

START = 1_704_067_200_000  # milliseconds, as all times here
PRESENT = 10_000  # users who are in the shop at a time, at most
TAIL = 3_600_000

_EVENTS_A_SESSION = 8
_PAUSE = 40_000  # at most so much more than the gap between two sessions of a user
_DELAY = 4_500  # of rows that come out of order; 5 s would be late
_EARLY, _LATER = 3_900, 4_900  # how far a row of `purchases` is from its event
_TRIP = 1_000  # how long such a row is on its way

_CHUNK = 5_000  # rows of one partition that are handed to the producer at once
_LOADING = {
    "log_level": 2,
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "enable.idempotence": True,
    "delivery.report.only.error": True,
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 1_000_000,
}
_UNDER_WAY = 200_000  # rows not yet acknowledged, at most


class Row(NamedTuple):
    """A row of `user-events`, or, with an amount, of `purchases`."""

    arrival: int
    number: int  # in the order of making
    time: int
    user: int
    page: int
    event_type: str
    amount: bytes | None
    value: bytes


@dataclass(frozen=True)
class Workload:
    """What is to be made up.

    Args:
        skewed: the second partition gets half as many users as the first, the third a third, and so on; otherwise
            users are where the crc32 of their keys says.
    """

    events: int
    users: int
    partitions: int = 8
    skewed: bool = False
    seed: int = 0

    def rows(self) -> Iterator[Row]:
        """All rows, in the order in which they arrive."""
        waiting: list[Row] = []
        now = START
        for row in self._made():
            if row.amount is None:
                now = row.time
                while waiting and waiting[0].arrival <= now:
                    yield heappop(waiting)
            if row.arrival > now:
                heappush(waiting, row)
            else:
                yield row
        waiting.sort()
        yield from waiting
        yield from self._tail(max(waiting[-1].arrival if waiting else now, now) + TAIL)

    def partition_of(self, user: int) -> int:
        """Where a user's rows are."""
        if user >= self.users:  # of the tail
            return user - self.users
        if not self.skewed:
            return crc32(b"%d" % user) % self.partitions
        shares = [*accumulate(1 / (partition + 1) for partition in range(self.partitions))]
        place = (user + 0.5) / self.users * shares[-1]
        return next(partition for partition, share in enumerate(shares) if place < share)

    def _made(self) -> Iterator[Row]:
        """Events in order of time, rows of `purchases` after their events."""
        random = Random(self.seed).random
        present = min(self.users, PRESENT)
        resting = iter(range(present, self.users))
        gone: list[int] = []
        numbers = count()
        visitors = list(range(present))
        due = [(START + int(random() * _PAUSE), place) for place in range(present)]
        heapify(due)
        begins = [True] * present
        for _ in range(self.events):
            time, place = due[0]
            user, page = visitors[place], int(random() * 100)
            chance, early = random(), random()
            if chance < 0.5 or begins[place] and chance < 0.8:
                event_type = "page-view"
            else:
                event_type = "click" if chance < 0.9 else "purchase"
            arrival = time if early < 0.9 else time + int((early - 0.9) * 10 * _DELAY)
            value = b'{"event_type":"%b","user_id":%d,"page_id":%d,"timestamp":%d.%03d}' % (
                event_type.encode(), user, page, *divmod(time, 1000)
            )  # fmt: skip
            yield Row(arrival, next(numbers), time, user, page, event_type, None, value)
            # one purchase in twenty has no row, and one row in twenty has no purchase
            if 0.895 < chance < 0.995:
                paid_at = time + int(random() * (_EARLY + _LATER)) - _EARLY
                arrival = max(time, paid_at) + int(random() * _TRIP)
                page = page if random() < 0.7 else int(random() * 100)
                amount = b"%d.%02d" % divmod(int(random() * 20_000), 100)
                value = b'{"amount":%b,"user_id":%d,"page_id":%d,"timestamp":%d.%03d}' % (
                    amount, user, page, *divmod(paid_at, 1000)
                )  # fmt: skip
                yield Row(arrival, next(numbers), paid_at, user, page, "", amount, value)
            ends = random() * _EVENTS_A_SESSION < 1
            if ends:
                gone.append(user)
                if (following := next(resting, None)) is None:
                    resting = iter(gone)
                    gone = []
                    following = next(resting)
                visitors[place] = following
                pause = GAP + 1 + int(random() * _PAUSE)
            else:
                pause = GAP if chance < 0.01 else 1 + int(random() * random() * GAP)
            begins[place] = ends
            heapreplace(due, (time + pause, place))

    def _tail(self, time: int) -> Iterator[Row]:
        for partition in range(self.partitions):
            user, seconds = self.users + partition, time // 1000
            value = b'{"event_type":"page-view","user_id":%d,"page_id":0,"timestamp":%d}' % (user, seconds)
            yield Row(time, 0, seconds * 1000, user, 0, "page-view", None, value)
            value = b'{"amount":1,"user_id":%d,"page_id":0,"timestamp":%d}' % (user, seconds)
            yield Row(time, 0, seconds * 1000, user, 0, "", b"1", value)


def load(workload: Workload, settings: Settings, answer: Answer) -> None:
    """Writes a workload into the settings' two input topics, which are empty, and its right answer into `answer`."""
    producer = Producer({**settings.client, **_LOADING})
    partitions: dict[int, int] = {}
    chunks: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def send(topic: str, partition: int) -> None:
        rows = chunks.pop((topic, partition))
        if producer.produce_batch(topic, rows, partition) < len(rows):
            raise RuntimeError(next(row["_error"] for row in rows if "_error" in row).str())
        while len(producer) > _UNDER_WAY:
            producer.poll(0.01)

    for row in workload.rows():
        if row.amount is None:
            topic = settings.topic_user_events
            answer.add_event(row.user, row.time, row.page, row.event_type, row.value)
        else:
            topic = settings.topic_purchases
            answer.add_purchase(row.user, row.time, row.page, row.amount, row.value)
        if (partition := partitions.get(row.user)) is None:
            partition = partitions[row.user] = workload.partition_of(row.user)
        chunk = chunks.setdefault((topic, partition), [])
        chunk.append({"key": b"%d" % row.user, "value": row.value})
        if len(chunk) == _CHUNK:
            send(topic, partition)
    for place in [*chunks]:
        send(*place)
    if producer.flush(60):
        raise RuntimeError("Kafka does not take the workload")
    answer.finish()
