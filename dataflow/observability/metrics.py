"""The job's Prometheus metrics, served with the engine's own metrics on the engine's port.

Counters are incremented once per batch. `_ProgressCollector` computes the gauges of progress at each scrape. All
workers of a process share its metrics. No label contains a user id.
"""

from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from time import time

from prometheus_client import REGISTRY, Counter, Gauge, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dataflow.observability.progress import Progress
from dataflow.streaming.batches import OutgoingRecords, PolledBatch
from dataflow.streaming.hooks import Hooks

# values of the label `kind` of late rows: below the max timestamp of their own partition, or late because their
# partition was idle and the watermark passed them
LATE_IN_PARTITION, OVERTAKEN = "log", "overtaken"

rows_read = Counter("visits_rows_read", "Messages read from an input topic.", ["topic"])
rows_written = Counter("visits_rows_written", "Rows handed over to Kafka for an output topic.", ["topic"])
rows_left_out = Counter(
    "visits_rows_left_out", "Rows not written, because the output topic had them from before a resume.", ["topic"]
)
rows_pending = Gauge(
    "visits_rows_pending",
    "Rows that the output topic had before a resume and that the replay has not made again yet.",
    ["topic"],
)
rows_ignored = Counter("visits_rows_ignored", "Messages left out because the mapping says so.", ["topic"])
doubtful_input = Gauge(
    "visits_doubtful_input", "1 while an input can hardly be meant as it is; the log and /ready say why.", ["problem"]
)
rows_late = Counter(
    "visits_rows_late",
    "Late rows: too far below their partition's max timestamp (log), or passed by the watermark while their partition "
    "was idle (overtaken).",
    ["topic", "kind"],
)
dead_letters = Counter("visits_dead_letters", "Messages that cannot be read, by category.", ["topic", "reason"])
unmatched = Counter("visits_unmatched_purchases", "Purchase rows that no event took, not counting late rows.")
sessions_opened = Counter(
    "visits_sessions_opened", "Sessions opened. Two sessions that a later row merges into one count as two."
)
sessions_closed = Counter("visits_sessions_closed", "Sessions closed.")
sessions_open = Gauge("visits_sessions_open", "Sessions that are open.")
state_bytes = Gauge(
    "visits_state_bytes", "Bytes of a step's state in its last snapshot, all shards or partitions together.", ["step"]
)
last_snapshot = Gauge("visits_last_snapshot_timestamp_seconds", "Time of the last snapshot of a source, Unix seconds.")
resume_seconds = Gauge("visits_resume_seconds", "Seconds from the start of the process to its first poll.")
lease_held = Gauge("visits_lease_held", "1 while this process holds the job's lease; only process 0 takes it.")
kafka_up = Gauge("visits_kafka_up", "0 while no broker can be reached.")
unacknowledged = Gauge("visits_rows_unacknowledged", "Rows handed to the client that Kafka has not acknowledged yet.")

_LOADED = time()  # one or two seconds after the start of the process; only Linux reports the exact start


class InputCounters:
    """The counters of one input topic."""

    def __init__(self, topic: str) -> None:
        self._read = rows_read.labels(topic)
        self._late = rows_late.labels(topic, LATE_IN_PARTITION)
        rows_late.labels(topic, OVERTAKEN)  # so that the series exists before the first such row
        self._ignored = rows_ignored.labels(topic)
        self._topic = topic

    def count(self, batch: PolledBatch) -> None:
        self._read.inc(len(batch.rows) + len(batch.late) + len(batch.unreadable) + batch.ignored)
        if batch.ignored:
            self._ignored.inc(batch.ignored)
        if batch.late:
            self._late.inc(len(batch.late))
        if batch.unreadable:
            for kind, number in Multiset(record.kind for record in batch.unreadable).items():
                dead_letters.labels(self._topic, kind).inc(number)


def hooks() -> Hooks:
    """Hooks of the operators that update the metrics."""
    return Hooks(on_late=_on_late, on_unmatched=unmatched.inc, on_sessions=_on_sessions, on_snapshot=_on_snapshot)


def _on_late(source: str, rows: int) -> None:
    rows_late.labels(source.rpartition("/")[0], OVERTAKEN).inc(rows)


def _on_sessions(open_change: int, begun: int, closed: int) -> None:
    sessions_open.inc(open_change)
    sessions_opened.inc(begun)
    sessions_closed.inc(closed)


def _on_snapshot(step: str, before: int, now: int) -> None:
    state_bytes.labels(step).inc(now - before)


class OutputCounters:
    """The counters of one output topic."""

    def __init__(self, topic: str) -> None:
        self._written = rows_written.labels(topic)
        self._left_out = rows_left_out.labels(topic)
        self._pending = rows_pending.labels(topic)

    def count(self, offered: Iterable[OutgoingRecords], written: Iterable[OutgoingRecords]) -> None:
        rows = _rows(written)
        self._written.inc(rows)
        if offered is not written:
            self._left_out.inc(_rows(offered) - rows)

    def change_pending(self, rows: int) -> None:
        """Counts rows that a replay has to make again; negative: that it has made, or will never make."""
        self._pending.inc(rows)


def _rows(outputs: Iterable[OutgoingRecords]) -> int:
    return sum(len(output.values) for output in outputs)


class StateSize:
    """Size in bytes of one shard's or partition's state in its last snapshot. The gauge is the sum over a step."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._last = 0

    def of(self, state: bytes) -> bytes:
        """Records the size of a snapshot, and returns the snapshot."""
        _on_snapshot(self._step, self._last, len(state))
        self._last = len(state)
        return state


@cache
def record_first_poll() -> None:
    """Records the time that the start took, at the first call. Called at every poll."""
    began = REGISTRY.get_sample_value("process_start_time_seconds")
    resume_seconds.set(time() - (began or _LOADED))


class _ProgressCollector(Collector):
    """Computes the progress of partitions and of event time at each scrape."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if self.progress is None:
            return
        now, progress = time(), self.progress
        yield _by_partition(
            "visits_lag_rows", "Offsets left to read to a partition's end.", progress.rows_to_read().items()
        )
        yield _by_partition(
            "visits_time_lag_seconds",
            "Seconds that a partition's watermark is behind the wall clock.",
            ((source, now - reached) for source, reached in progress.times().items()),
        )
        yield _by_partition(
            "visits_holds_watermark",
            "1 for each partition that holds the watermark back.",
            ((source, 1) for source in progress.blocking_sources()),
        )
        watermark = progress.watermark()
        if watermark is not None:
            yield GaugeMetricFamily(
                "visits_watermark_timestamp_seconds",
                "Lowest watermark of this process' shards, Unix seconds.",
                watermark,
            )
            yield GaugeMetricFamily(
                "visits_watermark_lag_seconds", "Seconds that the watermark is behind the wall clock.", now - watermark
            )


def _by_partition(name: str, help: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["topic", "partition"])
    for source, value in values:
        topic, _, partition = source.rpartition("/")
        family.add_metric([topic, partition], value)
    return family


_progress_collector = _ProgressCollector()
REGISTRY.register(_progress_collector)


def watch(progress: Progress) -> None:
    """Makes scrapes report this progress."""
    _progress_collector.progress = progress


def set_function(gauge: Gauge, read: Callable[[], float]) -> None:
    """Makes each scrape call `read` for the gauge's value."""
    gauge.set_function(read)


def value(metric: Counter | Gauge) -> float:
    """The present value of a metric, all labels together."""
    return sum(by_topic(metric).values())


def by_topic(metric: Counter | Gauge) -> dict[str, float]:
    """The present values of a metric by its label `topic`."""
    values: dict[str, float] = {}
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                topic = sample.labels.get("topic", "")
                values[topic] = values.get(topic, 0) + sample.value
    return values
