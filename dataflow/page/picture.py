"""Everything that the page shows, at one moment."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from prometheus_client import Counter, Gauge

from dataflow import health, metrics, shutdown
from dataflow.cluster import Place
from dataflow.page.lane import Lane
from dataflow.page.onlooker import Lists, Onlooker
from dataflow.page.waiting import holding, state, summary, why
from dataflow.progress import Progress, Standing
from dataflow.rules.rows import NEVER, SECOND
from dataflow.words import number

PARTITIONS = 64  # that are shown: those that hold the watermark, then those with the most rows to read
EXPLAINED = 3  # of those that hold it; more say the same
_OVER = 10.0  # seconds over which rates are taken
_FRESH = 0.8  # seconds; several who look at once see the same


class Rate(msgspec.Struct):
    """A count since the start of the process, and how fast it grows now; None: not known yet."""

    name: str
    total: int
    a_second: float | None


class Partition(msgspec.Struct):
    """Where one stands; times are Unix seconds."""

    source: str
    state: str
    offset: int | None
    end: int | None
    to_read: int | None
    mark: float | None
    reached: float | None  # its mark, or beyond it if it is at its end: no row on time is to come from before
    holds: bool
    why: str


class Picture(msgspec.Struct):
    """The job, as this process sees it."""

    now: float
    process: int
    processes: int
    shards: list[int]  # that are here
    all_shards: int
    state: str
    state_why: str
    watermark: float | None
    waits: str
    holding: list[str]
    sessions_open: int
    sessions: list[Rate]
    read: list[Rate]
    written: list[Rate]
    snapshot: float | None
    partitions: list[Partition]
    more_partitions: int
    users: list[str]


class Followed(msgspec.Struct):
    """A user, and what there is to draw of them."""

    user: str
    shard: int
    here: bool  # whether this process has that shard
    lane: Lane


class News(msgspec.Struct, omit_defaults=True):
    """What one who looks is told at once; lists only if they have changed."""

    picture: Picture
    lists: Lists | None = None
    followed: Followed | None = None


class Rates:
    """How fast counts grow, over the last seconds in which somebody has looked."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def take(self, now: float, totals: dict[str, float]) -> list[Rate]:
        """The rates at this moment, which is monotonic."""
        samples = self._samples
        samples.append((now, totals))
        while samples[0][0] < now - _OVER:
            samples.popleft()
        then, before = samples[0]
        return [
            Rate(name, int(total), (total - before.get(name, 0)) / (now - then) if now > then else None)
            for name, total in totals.items()
        ]


class Pictures:
    """Takes pictures, once for all who look at about the same time.

    Args:
        place: of this process in its cluster.
        onlooker: sees what is in the shards.
        progress: knows how far the partitions are.
        kafka_is_up: whether brokers can be reached.
    """

    def __init__(self, place: Place, onlooker: Onlooker, progress: Progress, kafka_is_up: Callable[[], bool]) -> None:
        self._place = place
        self._onlooker = onlooker
        self._progress = progress
        self._kafka_is_up = kafka_is_up
        self._sessions, self._read, self._written = Rates(), Rates(), Rates()
        self._lock = threading.Lock()
        self._taken_at = -_FRESH
        self._taken: Picture | None = None

    @contextmanager
    def stream(self, user: bytes | None) -> Iterator[Callable[[], bytes]]:
        """Gives what makes the news at each moment, as JSON; if a user is said, with their lane."""
        if user is None:
            yield _Looking(self, self._onlooker, None).news
            return
        with self._onlooker.follow(user) as lane:
            shard = self._onlooker.shard_of(user)

            def followed() -> Followed:
                return Followed(user.decode(), shard, shard in self._onlooker.here, lane())

            yield _Looking(self, self._onlooker, followed).news

    def picture(self) -> Picture:
        """The last one, if it has just been taken, or a new one."""
        with self._lock:
            now = time.monotonic()
            if self._taken is None or now >= self._taken_at + _FRESH:
                self._taken, self._taken_at = self._take(now), now
            return self._taken

    def _take(self, monotonic: float) -> Picture:
        now, kafka_is_up = time.time_ns() // 1_000, self._kafka_is_up()
        standings, marks = self._progress.standings(), self._onlooker.marks()
        held = holding(standings, now)
        explained = {each.source for each in held[:EXPLAINED]}
        slowest = min((each.bound for each in standings), default=NEVER)
        shown = sorted(standings, key=lambda each: (not each.holds, -(each.to_read or 0)))[:PARTITIONS]
        order = {source: place for place, source in enumerate(each.source for each in standings)}
        condition, reason = self._state(kafka_is_up)

        def partition(each: Standing) -> Partition:
            return Partition(
                source=each.source,
                state=state(each, slowest, now),
                offset=each.offset if each.offset is not None and each.offset >= 0 else None,
                end=each.end,
                to_read=each.to_read,
                mark=number(marks.get(each.source, NEVER)),
                reached=number(each.bound),
                holds=each in held,
                why=why(each, now, kafka_is_up) if each.source in explained else "",
            )

        return Picture(
            now=now / SECOND,
            process=self._place.process_id,
            processes=self._place.processes,
            shards=sorted(self._onlooker.here),
            all_shards=self._onlooker.shards,
            state=condition,
            state_why=reason,
            watermark=number(self._onlooker.watermark()),
            waits=summary(standings, held, now, kafka_is_up),
            holding=[each.source for each in held],
            sessions_open=int(_value(metrics.sessions_open)),
            sessions=self._sessions.take(
                monotonic, {"opened": _value(metrics.sessions_opened), "closed": _value(metrics.sessions_closed)}
            ),
            read=self._read.take(monotonic, _by_topic(metrics.rows_read)),
            written=self._written.take(monotonic, _by_topic(metrics.rows_written)),
            snapshot=_value(metrics.last_snapshot) or None,
            partitions=[partition(each) for each in sorted(shown, key=lambda each: order[each.source])],
            more_partitions=len(standings) - len(shown),
            users=self._onlooker.newest_users(),
        )

    def _state(self, kafka_is_up: bool) -> tuple[str, str]:
        if shutdown.requested.is_set():
            return "stopping", "told to stop"
        behind = self._progress.behind_its_end(health.BEHIND)
        if kafka_is_up:
            return ("catching up", behind) if behind else ("live", "every partition is read to its end")
        return ("starting", behind) if self._onlooker.watermark() == NEVER else ("Kafka is away", "no broker answers")


class _Looking:
    """One who looks: knows what they have been told."""

    def __init__(self, pictures: Pictures, onlooker: Onlooker, followed: Callable[[], Followed] | None) -> None:
        self._pictures = pictures
        self._onlooker = onlooker
        self._followed = followed
        self._told = -1

    def news(self) -> bytes:
        changes = self._onlooker.changes
        lists = self._onlooker.lists() if changes != self._told else None
        self._told = changes
        return msgspec.json.encode(
            News(self._pictures.picture(), lists, self._followed() if self._followed is not None else None)
        )


def _value(metric: Counter | Gauge) -> float:
    """Of one without labels."""
    return sum(_by_topic(metric).values())


def _by_topic(metric: Counter | Gauge) -> dict[str, float]:
    samples = (sample for family in metric.collect() for sample in family.samples)
    return {each.labels.get("topic", ""): each.value for each in samples if not each.name.endswith("_created")}
