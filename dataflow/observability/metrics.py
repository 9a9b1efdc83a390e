"""The job's metrics for Prometheus, beside the engine's own and on the engine's port.

Counters grow by whole batches. Values that matter only at the moment of a scrape are looked up then, by
`_ProgressCollector`. Metrics belong to the process and are shared by its workers; no label has a user in it.
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
from dataflow.streaming.hooks import Hooks

IN_ITS_LOG, OVERTAKEN = "log", "overtaken"  # kinds of late rows

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
    """Counts the messages of one input topic."""

    def __init__(self, topic: str) -> None:
        self._read = rows_read.labels(topic)
        self._late = rows_late.labels(topic, IN_ITS_LOG)
        rows_late.labels(topic, OVERTAKEN)  # so that the series exists before the first such row
        self._topic = topic

    def count(self, batch: PolledBatch) -> None:
        self._read.inc(len(batch.rows) + len(batch.late) + len(batch.unreadable))
        if batch.late:
            self._late.inc(len(batch.late))
        if batch.unreadable:
            for kind, times in Tally(each.kind for each in batch.unreadable).items():
                dead_letters.labels(self._topic, kind).inc(times)


def hooks() -> Hooks:
    """What the operators call, for the metrics."""
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
    """Counts the records of one output topic."""

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


class StateSize:
    """The bytes of one part's state in its last snapshot; the parts of a step add up."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._last = 0

    def of(self, state: bytes) -> bytes:
        """Records a snapshot, and returns it."""
        _on_snapshot(self._step, self._last, len(state))
        self._last = len(state)
        return state


@cache
def record_first_poll() -> None:
    """Called at every poll; the first one ends the start of the process."""
    began = REGISTRY.get_sample_value("process_start_time_seconds")
    resume_seconds.set(time() - (began or _LOADED))


class _ProgressCollector(Collector):
    """Reports the progress of partitions and of event time at the moment of a scrape."""

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


_progress_collector = _ProgressCollector()
REGISTRY.register(_progress_collector)


def watch(progress: Progress) -> None:
    """From now on a scrape reports this progress."""
    _progress_collector.progress = progress


def set_function(gauge: Gauge, ask: Callable[[], float]) -> None:
    """A scrape calls `ask` for the value."""
    gauge.set_function(ask)
