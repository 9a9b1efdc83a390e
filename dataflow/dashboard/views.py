"""Everything that the page shows, at one moment."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from prometheus_client import Counter, Gauge

from dataflow.dashboard.probe import DashboardProbe, RowLists
from dataflow.dashboard.swim_lane import SwimLane
from dataflow.dashboard.watermark_status import blocking_partitions, partition_state, reason, summary
from dataflow.observability import health, lifecycle, metrics
from dataflow.observability.formatting import unix_seconds
from dataflow.observability.progress import PartitionStatus, Progress
from dataflow.streaming.time import MIN_TIME, SECOND

PARTITIONS = 64  # that are shown: those that hold the watermark, then those with the most rows to read
EXPLAINED = 3  # of those that hold it; more say the same
_OVER = 10.0  # seconds over which rates are taken
_FRESH = 0.8  # seconds; several who look at once see the same


class Rate(msgspec.Struct):
    """A count since the start of the process, and how fast it grows now; None: not known yet."""

    name: str
    total: int
    a_second: float | None


class PartitionView(msgspec.Struct):
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


class JobView(msgspec.Struct):
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
    partitions: list[PartitionView]
    more_partitions: int
    users: list[str]


class FollowedUser(msgspec.Struct):
    """A user, and what there is to draw of them."""

    user: str
    shard: int
    here: bool  # whether this process has that shard
    lane: SwimLane


class Update(msgspec.Struct, omit_defaults=True):
    """What one who looks is told at once; lists only if they have changed."""

    picture: JobView
    lists: RowLists | None = None
    followed: FollowedUser | None = None


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


class DashboardFeed:
    """Takes pictures, once for all who look at about the same time.

    Args:
        process_id: number of this process in its cluster.
        processes: number of processes in it.
        probe: sees the state of the shards.
        progress: knows how far the partitions have been read.
        kafka_is_up: whether brokers can be reached.
    """

    def __init__(
        self,
        process_id: int,
        processes: int,
        probe: DashboardProbe,
        progress: Progress,
        kafka_is_up: Callable[[], bool],
    ) -> None:
        self._process_id = process_id
        self._processes = processes
        self._probe = probe
        self._progress = progress
        self._kafka_is_up = kafka_is_up
        self._sessions, self._read, self._written = Rates(), Rates(), Rates()
        self._lock = threading.Lock()
        self._taken_at = -_FRESH
        self._taken: JobView | None = None

    @contextmanager
    def stream(self, user: bytes | None) -> Iterator[Callable[[], bytes]]:
        """Gives what makes the news at each moment, as JSON; if a user is said, with their lane."""
        if user is None:
            yield _Viewer(self, self._probe, None).news
            return
        with self._probe.follow(user) as lane:
            shard = self._probe.shard_of(user)

            def followed() -> FollowedUser:
                return FollowedUser(user.decode(), shard, shard in self._probe.here, lane())

            yield _Viewer(self, self._probe, followed).news

    def picture(self) -> JobView:
        """The last one, if it has just been taken, or a new one."""
        with self._lock:
            now = time.monotonic()
            if self._taken is None or now >= self._taken_at + _FRESH:
                self._taken, self._taken_at = self._take(now), now
            return self._taken

    def _take(self, monotonic: float) -> JobView:
        now, kafka_is_up = time.time_ns() // 1_000, self._kafka_is_up()
        statuses, marks = self._progress.partition_statuses(), self._probe.max_timestamps()
        held = blocking_partitions(statuses, now)
        explained = {each.source for each in held[:EXPLAINED]}
        slowest = min((each.source_watermark for each in statuses), default=MIN_TIME)
        shown = sorted(statuses, key=lambda each: (not each.blocks_watermark, -(each.to_read or 0)))[:PARTITIONS]
        order = {source: place for place, source in enumerate(each.source for each in statuses)}
        condition, state_reason = self._state(kafka_is_up)

        def partition(each: PartitionStatus) -> PartitionView:
            return PartitionView(
                source=each.source,
                state=partition_state(each, slowest, now),
                offset=each.offset if each.offset is not None and each.offset >= 0 else None,
                end=each.end,
                to_read=each.to_read,
                mark=unix_seconds(marks.get(each.source, MIN_TIME)),
                reached=unix_seconds(each.source_watermark),
                holds=each in held,
                why=reason(each, now, kafka_is_up) if each.source in explained else "",
            )

        return JobView(
            now=now / SECOND,
            process=self._process_id,
            processes=self._processes,
            shards=sorted(self._probe.here),
            all_shards=self._probe.shards,
            state=condition,
            state_why=state_reason,
            watermark=unix_seconds(self._probe.watermark()),
            waits=summary(statuses, held, now, kafka_is_up),
            holding=[each.source for each in held],
            sessions_open=int(_value(metrics.sessions_open)),
            sessions=self._sessions.take(
                monotonic, {"opened": _value(metrics.sessions_opened), "closed": _value(metrics.sessions_closed)}
            ),
            read=self._read.take(monotonic, _by_topic(metrics.rows_read)),
            written=self._written.take(monotonic, _by_topic(metrics.rows_written)),
            snapshot=_value(metrics.last_snapshot) or None,
            partitions=[partition(each) for each in sorted(shown, key=lambda each: order[each.source])],
            more_partitions=len(statuses) - len(shown),
            users=self._probe.newest_users(),
        )

    def _state(self, kafka_is_up: bool) -> tuple[str, str]:
        if lifecycle.stop_requested.is_set():
            return "stopping", "told to stop"
        behind = self._progress.behind_its_end(health.BEHIND_AFTER_S)
        if kafka_is_up:
            return ("catching up", behind) if behind else ("live", "every partition is read to its end")
        return (
            ("starting", behind or "")
            if self._probe.watermark() == MIN_TIME
            else ("Kafka is away", "no broker answers")
        )


class _Viewer:
    """One who looks: knows what they have been told."""

    def __init__(
        self, pictures: DashboardFeed, probe: DashboardProbe, followed: Callable[[], FollowedUser] | None
    ) -> None:
        self._pictures = pictures
        self._probe = probe
        self._followed = followed
        self._told = -1

    def news(self) -> bytes:
        changes = self._probe.changes
        lists = self._probe.lists() if changes != self._told else None
        self._told = changes
        return msgspec.json.encode(
            Update(self._pictures.picture(), lists, self._followed() if self._followed is not None else None)
        )


def _value(metric: Counter | Gauge) -> float:
    """Of one without labels."""
    return sum(_by_topic(metric).values())


def _by_topic(metric: Counter | Gauge) -> dict[str, float]:
    samples = (sample for family in metric.collect() for sample in family.samples)
    return {each.labels.get("topic", ""): each.value for each in samples if not each.name.endswith("_created")}
