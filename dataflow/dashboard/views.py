"""The data of the page at one moment, and the stream of updates for a viewer."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import msgspec

from dataflow.dashboard.probe import DashboardProbe, RowLists
from dataflow.dashboard.swim_lane import SwimLane
from dataflow.dashboard.watermark_status import blocking_partitions, partition_state, reason, summary
from dataflow.observability import health, lifecycle, metrics
from dataflow.observability.clock import clock
from dataflow.observability.formatting import unix_seconds
from dataflow.observability.progress import PartitionStatus, Progress
from dataflow.streaming.time import MIN_TIME, SECOND

PARTITIONS = 64  # shown: first those that hold the watermark back, then those with the most rows to read
_EXPLAINED = 3  # partitions with a reason; more would say the same
_RATE_WINDOW_S = 10.0
_MAX_AGE_S = 0.8  # of a view that viewers share


class Rate(msgspec.Struct):
    """A count since the start of the process, and its present rate."""

    name: str
    total: int
    a_second: float | None  # None: not known yet


class PartitionView(msgspec.Struct):
    """One partition; times are Unix seconds."""

    source: str
    state: str
    offset: int | None
    end: int | None
    to_read: int | None
    mark: float | None  # its max timestamp
    reached: float | None  # its watermark: the max timestamp, or later if the partition is idle
    holds: bool  # it holds the watermark back
    why: str


class JobView(msgspec.Struct):
    """The job as this process knows it; times are Unix seconds."""

    now: float
    process: int
    processes: int
    shards: list[int]  # of this process
    all_shards: int  # number of shards of the job
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
    doubts: list[str]  # why an input can hardly be meant as it is


class FollowedUser(msgspec.Struct):
    """A user that a viewer follows, with the swim lane."""

    user: str
    shard: int
    here: bool  # whether the shard belongs to this process
    lane: SwimLane


class Update(msgspec.Struct, omit_defaults=True):
    """One message of a stream."""

    picture: JobView
    lists: RowLists | None = None  # only if they have changed since the message before
    followed: FollowedUser | None = None


class Rates:
    """Rates of some counts over the last _RATE_WINDOW_S seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def take(self, now: float, totals: dict[str, float]) -> list[Rate]:
        """The present rates.

        Args:
            now: monotonic time, seconds.
            totals: the counts, by name.
        """
        samples = self._samples
        samples.append((now, totals))
        while samples[0][0] < now - _RATE_WINDOW_S:
            samples.popleft()
        then, before = samples[0]
        return [
            Rate(name, int(total), (total - before.get(name, 0)) / (now - then) if now > then else None)
            for name, total in totals.items()
        ]


class DashboardFeed:
    """Makes the updates. Viewers share a view for _MAX_AGE_S seconds.

    Args:
        process_id: number of this process in the cluster, from 0.
        processes: number of processes of the cluster.
        probe: reads the state of the shards.
        progress: how far the partitions have been read.
        kafka_is_up: whether a broker can be reached.
        doubts: why inputs can hardly be meant as they are.
    """

    def __init__(
        self,
        process_id: int,
        processes: int,
        probe: DashboardProbe,
        progress: Progress,
        kafka_is_up: Callable[[], bool],
        doubts: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._doubts = doubts
        self._process_id = process_id
        self._processes = processes
        self._probe = probe
        self._progress = progress
        self._kafka_is_up = kafka_is_up
        self._sessions, self._read, self._written = Rates(), Rates(), Rates()
        self._lock = threading.Lock()
        self._made_at = 0.0  # monotonic
        self._view: JobView | None = None

    @contextmanager
    def stream(self, user: bytes | None) -> Iterator[Callable[[], bytes]]:
        """Yields the function that makes a viewer's next update, as JSON.

        Args:
            user: the user to follow; None: updates have no swim lane.
        """
        if user is None:
            yield _Viewer(self, self._probe, None).next_update
            return
        with self._probe.follow(user) as lane:
            shard = self._probe.shard_of(user)

            def followed() -> FollowedUser:
                return FollowedUser(user.decode(), shard, shard in self._probe.here, lane())

            yield _Viewer(self, self._probe, followed).next_update

    def view(self) -> JobView:
        """The present view; the last one if it is younger than _MAX_AGE_S."""
        with self._lock:
            now = time.monotonic()
            if self._view is None or now >= self._made_at + _MAX_AGE_S:
                self._view, self._made_at = self._make_view(now), now
            return self._view

    def _make_view(self, monotonic: float) -> JobView:
        now, kafka_is_up = clock.now(), self._kafka_is_up()
        statuses, max_timestamps = self._progress.partition_statuses(), self._probe.max_timestamps()
        blocking = blocking_partitions(statuses, now)
        explained = {status.source for status in blocking[:_EXPLAINED]}
        slowest = min((status.source_watermark for status in statuses), default=MIN_TIME)
        shown = sorted(statuses, key=lambda status: (not status.blocks_watermark, -(status.to_read or 0)))[:PARTITIONS]
        order = {status.source: rank for rank, status in enumerate(statuses)}
        state, state_reason = self._state(kafka_is_up)

        def partition(status: PartitionStatus) -> PartitionView:
            return PartitionView(
                source=status.source,
                state=partition_state(status, slowest, now),
                offset=status.offset if status.offset is not None and status.offset >= 0 else None,
                end=status.end,
                to_read=status.to_read,
                mark=unix_seconds(max_timestamps.get(status.source, MIN_TIME)),
                reached=unix_seconds(status.source_watermark),
                holds=status in blocking,
                why=reason(status, now, kafka_is_up) if status.source in explained else "",
            )

        return JobView(
            now=now / SECOND,
            process=self._process_id,
            processes=self._processes,
            shards=sorted(self._probe.here),
            all_shards=self._probe.shards,
            state=state,
            state_why=state_reason,
            watermark=unix_seconds(self._probe.watermark()),
            waits=summary(statuses, blocking, now, kafka_is_up),
            holding=[status.source for status in blocking],
            sessions_open=int(metrics.value(metrics.sessions_open)),
            sessions=self._sessions.take(
                monotonic,
                {"opened": metrics.value(metrics.sessions_opened), "closed": metrics.value(metrics.sessions_closed)},
            ),
            read=self._read.take(monotonic, metrics.by_topic(metrics.rows_read)),
            written=self._written.take(monotonic, metrics.by_topic(metrics.rows_written)),
            snapshot=metrics.value(metrics.last_snapshot) or None,
            partitions=[partition(status) for status in sorted(shown, key=lambda status: order[status.source])],
            more_partitions=len(statuses) - len(shown),
            users=self._probe.newest_users(),
            doubts=list(self._doubts()),
        )

    def _state(self, kafka_is_up: bool) -> tuple[str, str]:
        if lifecycle.is_ending():
            return "stopping", "a stop was requested"
        behind = self._progress.behind_its_end(health.BEHIND_AFTER_S)
        if kafka_is_up:
            return ("catching up", behind) if behind else ("live", "every partition is read to its end")
        return (
            ("starting", behind or "")
            if self._probe.watermark() == MIN_TIME
            else ("Kafka is away", "no broker answers")
        )


class _Viewer:
    """One viewer; knows which version of the lists it has sent."""

    def __init__(self, feed: DashboardFeed, probe: DashboardProbe, followed: Callable[[], FollowedUser] | None) -> None:
        self._feed = feed
        self._probe = probe
        self._followed = followed
        self._sent_changes = -1

    def next_update(self) -> bytes:
        changes = self._probe.changes
        lists = self._probe.lists() if changes != self._sent_changes else None
        self._sent_changes = changes
        followed = self._followed() if self._followed is not None else None
        return msgspec.json.encode(Update(self._feed.view(), lists, followed))
