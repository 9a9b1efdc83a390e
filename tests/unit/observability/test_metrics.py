"""What counts for which metric. A scrape of a running job is in the integration tests."""

from types import SimpleNamespace

from dataflow.observability import metrics


def value(metric, *labels: str) -> float:
    return metric.labels(*labels)._value.get()


def test_a_batch_counts_as_read_late_and_unreadable_of_its_topic():
    topic = "test-metrics-clicks"
    unreadable = [SimpleNamespace(kind=kind) for kind in ("json", "json", "time")]
    batch = SimpleNamespace(rows=[1, 2, 3], late=[1], unreadable=unreadable, ignored=4)
    counters = metrics.InputCounters(topic)
    for _ in range(2):
        counters.count(batch)
    assert value(metrics.rows_read, topic) == 22
    assert value(metrics.rows_ignored, topic) == 8
    assert value(metrics.rows_late, topic, metrics.LATE_IN_PARTITION) == 2
    assert value(metrics.rows_late, topic, metrics.OVERTAKEN) == 0
    assert value(metrics.dead_letters, topic, "json") == 4
    assert value(metrics.dead_letters, topic, "time") == 2


def test_hooks_count_late_rows_for_the_topic_of_their_source():
    metrics.hooks().on_late("test-metrics-late/7", 3)
    assert value(metrics.rows_late, "test-metrics-late", metrics.OVERTAKEN) == 3
