"""What a scrape of the running job says: exactly what the batch answer says, and where everything stands."""

import re
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.deployment import queried_metrics
from support.jobs import LIVE, a_log, wait_until_right, write
from support.programs import environment, free_port

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.observability.metrics import UNREADABLE
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, expected

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)  # nothing here depends on the broker


class Scrape:
    """The job's samples at one moment."""

    def __init__(self, port: int) -> None:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
        everything = list(text_string_to_metric_families(text))
        self.names = {sample.name for family in everything for sample in family.samples}
        self.families = [family for family in everything if family.name.startswith("visits_")]
        self._samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name which have these labels."""
        return sum(self.each(name, **labels).values())

    def each(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """By the values of all labels, in the order of their names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }


@pytest.fixture
def run(topics: Settings, programs, tmp_path: Path):
    """Starts the job with its metrics, on topics that have a log, and waits until all of it is done."""
    settings = topics.model_copy(update=LIVE)

    def start(workers: int) -> tuple[Settings, Scrape]:
        port = free_port()
        api = {"BYTEWAX_DATAFLOW_API_ENABLED": "1", "BYTEWAX_DATAFLOW_API_PORT": str(port)}
        job = programs.start(
            "dataflow", "-r", str(tmp_path / "store"), "-s", "1", "-w", str(workers), **environment(settings), **api
        )
        wait_until_right(settings, job)
        time.sleep(2.5)  # a snapshot more
        return settings, Scrape(port)

    return start


@pytest.mark.parametrize("workers", [1, 3])
def test_a_scrape_counts_what_the_batch_answer_holds(kafka: EmbeddedKafka, topics, run, workers):
    log = a_log(topics, time.time() - 900, keyed=False)
    write(topics.brokers, log)
    settings, scrape = run(workers)
    answer = expected(settings, Topics(settings))

    for topic in settings.inputs:
        assert scrape("visits_rows_read_total", topic=topic) == sum(message[0] == topic for message in log)
    for topic, rows in (
        (settings.topic_visits, answer.visits),
        (settings.topic_suspicious_visits, answer.suspicious_visits),
        (settings.topic_late_events, answer.late_events),
        (settings.topic_dead_letters, answer.dead_letters),
        (settings.topic_unmatched_purchases, answer.unmatched_purchases),
    ):
        assert scrape("visits_rows_written_total", topic=topic) == rows.total() > 0
        assert scrape("visits_rows_left_out_total", topic=topic) == 0
    assert scrape("visits_rows_late_total", topic=settings.topic_user_events) == answer.late_events.total()
    assert scrape("visits_dead_letters_total") == answer.dead_letters.total()
    late_purchases = scrape("visits_rows_late_total", topic=settings.topic_purchases)
    assert late_purchases + scrape("visits_unmatched_purchases_total") == answer.unmatched_purchases.total()
    sessions = {re.search(rb'"session_id":"(\w+)"', value)[1] for _, value, _ in answer.visits}
    assert scrape("visits_sessions_closed_total") == len(sessions)
    assert scrape("visits_sessions_opened_total") >= len(sessions)  # those that merged were two
    assert scrape("visits_sessions_open") == 0


def test_a_scrape_tells_where_everything_stands(kafka: EmbeddedKafka, topics, run):
    write(topics.brokers, a_log(topics, time.time() - 900, keyed=True, events=300))
    settings, scrape = run(workers=1)
    partitions = {(str(number), topic) for topic in settings.inputs for number in range(8)}

    assert scrape.each("visits_lag_rows") == dict.fromkeys(partitions, 0)
    assert scrape.each("visits_time_lag_seconds").keys() == partitions
    assert set(scrape.each("visits_holds_watermark")) <= partitions
    assert set(scrape.each("visits_holds_watermark").values()) == {1}
    assert 0 < scrape("visits_watermark_lag_seconds") < 900
    assert abs(scrape("visits_watermark_timestamp_seconds") + scrape("visits_watermark_lag_seconds") - time.time()) < 60
    assert scrape("visits_kafka_up") == 1
    assert scrape("visits_lease_held") == 1
    assert scrape("visits_rows_unacknowledged") == 0
    assert 0 < scrape("visits_resume_seconds") < 120
    assert 0 <= time.time() - scrape("visits_last_snapshot_timestamp_seconds") < 60
    steps = {labels[0] for labels, size in scrape.each("visits_state_bytes").items() if size > 0}
    assert steps >= {"visits." + step for step in ("read_events", "read_purchases", "clock", "join_purchases")}
    assert steps >= {"visits." + step for step in ("session_window", "write_visits", "write_dead_letters")}


def test_every_metric_that_is_asked_for_exists_and_no_label_can_have_many_values(kafka: EmbeddedKafka, topics, run):
    write(topics.brokers, a_log(topics, time.time() - 900, keyed=True, events=300))
    _, scrape = run(workers=1)
    labels = {label for family in scrape.families for sample in family.samples for label in sample.labels}
    assert labels == {"topic", "partition", "kind", "reason", "step"}
    assert {reason for reason, _ in scrape.each("visits_dead_letters_total")} == set(UNREADABLE)
    assert all(family.documentation for family in scrape.families)
    assert queried_metrics() <= scrape.names  # by alert rules and dashboard
