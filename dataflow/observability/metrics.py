"""What the job tells Prometheus, beside the engine's own metrics and on the engine's own port.

Counters grow by whole batches. What is only worth knowing at the moment of a scrape is looked up then, in `_Standing`.
They belong to the process, as Prometheus' own do, and its workers share them; none has a user in it.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from time import time

from prometheus_client import REGISTRY, Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dataflow.observability.progress import Progress
from dataflow.streaming.batches import OutgoingRecords, PolledBatch

IN_ITS_LOG, OVERTAKEN = "log", "overtaken"
UNREADABLE = ("json", "fields", "time", "ahead", "amount", "encoding", "empty")  # kinds of mistakes in messages

rows_read = Counter("visits_rows_read", "Messages read from an input topic.", ["topic"])
rows_written = Counter("visits_rows_written", "Rows handed over to Kafka for an output topic.", ["topic"])
rows_left_out = Counter(
    "visits_rows_left_out", "Rows not written to an output topic, because they stood there from before.", ["topic"]
)
rows_late = Counter(
    "visits_rows_late",
    "Rows that came too late: below the mark of their own log, or overtaken, their partition having run dry.",
    ["topic", "kind"],
)
dead_letters = Counter("visits_dead_letters", "Messages that cannot be read, by what is wrong.", ["topic", "reason"])
unmatched = Counter("visits_unmatched_purchases", "Purchase rows that met no event in their time (late ones aside).")
sessions_opened = Counter(
    "visits_sessions_opened", "Sessions that have begun; those that a later row joined to another one are in it twice."
)
sessions_closed = Counter("visits_sessions_closed", "Sessions that have been closed.")
sessions_open = Gauge("visits_sessions_open", "Sessions that are open.")
state_bytes = Gauge("visits_state_bytes", "Bytes of a step's state in the last snapshots of all its parts.", ["step"])
last_snapshot = Gauge("visits_last_snapshot_timestamp_seconds", "When the sources' state was last taken.")
resume_seconds = Gauge("visits_resume_seconds", "From the start of the process to its first poll.")
lease_held = Gauge("visits_lease_held", "1 while this process may write for the job; only its first process has it.")
kafka_up = Gauge("visits_kafka_up", "0 while no broker can be reached.")
unacknowledged = Gauge("visits_rows_unacknowledged", "Rows handed over that Kafka has not acknowledged yet.")


_LOADED = time()  # a second or two after the start of the process, which only Linux tells


class InputCounters:
    """What is counted of one input topic."""

    def __init__(self, topic: str) -> None:
        self._read = rows_read.labels(topic)
        self._late = rows_late.labels(topic, IN_ITS_LOG)
        rows_late.labels(topic, OVERTAKEN)  # so that it is there before there is one
        self._unreadable = {kind: dead_letters.labels(topic, kind) for kind in UNREADABLE}

    def count(self, poll: PolledBatch) -> None:
        self._read.inc(len(poll.rows) + len(poll.late) + len(poll.unreadable))
        if poll.late:
            self._late.inc(len(poll.late))
        if poll.unreadable:
            for kind, times in Tally(each.kind for each in poll.unreadable).items():
                self._unreadable[kind].inc(times)


def count_overtaken(source: str, rows: int) -> None:
    rows_late.labels(source.rpartition("/")[0], OVERTAKEN).inc(rows)


class OutputCounters:
    """What is counted of one output topic."""

    def __init__(self, topic: str) -> None:
        self._written = rows_written.labels(topic)
        self._left_out = rows_left_out.labels(topic)

    def count(self, offered: Iterable[OutgoingRecords], written: Iterable[OutgoingRecords]) -> None:
        rows = _rows(written)
        self._written.inc(rows)
        if offered is not written:
            self._left_out.inc(_rows(offered) - rows)


def _rows(outputs: Iterable[OutgoingRecords]) -> int:
    return sum(len(output.values) for output in outputs)


class OpenSessions:
    """How many sessions one shard has open; all shards of a process add up."""

    def __init__(self) -> None:
        self._last = 0
        self._opened = 0

    def are(self, count: int, opened: int = 0) -> None:
        """There are so many now, and so many have ever been opened here."""
        if opened != self._opened:
            sessions_opened.inc(opened - self._opened)
            self._opened = opened
        if count != self._last:
            sessions_open.inc(count - self._last)
            self._last = count


class StateSize:
    """How large the state of one part of a step is; all parts add up."""

    def __init__(self, step: str) -> None:
        self._all = state_bytes.labels(step)
        self._last = 0

    def of(self, state: bytes) -> bytes:
        """Takes note of a snapshot, and returns it."""
        self._all.inc(len(state) - self._last)
        self._last = len(state)
        return state


@cache
def record_first_poll() -> None:
    """To be called at every poll; the first one ends the start."""
    began = REGISTRY.get_sample_value("process_start_time_seconds")
    resume_seconds.set(time() - (began or _LOADED))


class _Standing(Collector):
    """Where everything stands at the moment of a scrape."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if self.progress is None:
            return
        now, progress = time(), self.progress
        yield _by_partition(
            "visits_lag_rows", "Offsets from where a partition is read to its end.", progress.rows_to_read().items()
        )
        yield _by_partition(
            "visits_time_lag_seconds",
            "How far the event time that a partition has reached is behind the wall clock.",
            ((source, now - reached) for source, reached in progress.times().items()),
        )
        yield _by_partition(
            "visits_holds_watermark",
            "1 for the partitions on which the watermark waits.",
            ((source, 1) for source in progress.blocking_sources()),
        )
        watermark = progress.watermark()
        if watermark is not None:
            yield GaugeMetricFamily(
                "visits_watermark_timestamp_seconds", "Sessions that end before it are closed.", watermark
            )
            yield GaugeMetricFamily(
                "visits_watermark_lag_seconds", "How far the watermark is behind the wall clock.", now - watermark
            )


def _by_partition(name: str, help: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["topic", "partition"])
    for source, value in values:
        topic, _, partition = source.rpartition("/")
        family.add_metric([topic, partition], value)
    return family


_standing = _Standing()
REGISTRY.register(_standing)


def watch(progress: Progress) -> None:
    """From now on a scrape says how far this has come."""
    _standing.progress = progress


def set_function(gauge: Gauge, ask: Callable[[], float]) -> None:
    """A scrape asks for the value."""
    gauge.set_function(ask)
