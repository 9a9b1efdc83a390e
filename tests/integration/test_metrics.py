"""A scrape of the running job: it counts what the batch answer has, and shows progress and state."""

import re
import time
import urllib.request
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.deployment import queried_metrics
from support.jobs import LIVE, Message, a_log, settings_of, wait_until, wait_until_right, write
from support.programs import Programs, environment, free_port

from dataflow.clickstream.dead_letters import KINDS
from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, expected


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


class Run(NamedTuple):
    """A job that has done all its work, and what it said then."""

    settings: Settings
    log: list[Message]
    scrape: Scrape


@pytest.fixture(scope="module")
def run(_embedded_cluster: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = settings_of(_embedded_cluster).model_copy(update=LIVE)
    log = a_log(settings, time.time() - 900, keyed=False)
    write(settings.brokers, log)
    programs, store, port = Programs(tmp_path_factory.mktemp("job")), tmp_path_factory.mktemp("store"), free_port()
    api = {"BYTEWAX_DATAFLOW_API_ENABLED": "1", "BYTEWAX_DATAFLOW_API_PORT": str(port)}
    try:
        job = programs.start(
            "dataflow", "-r", str(store / "recovery"), "-s", "1", "-w", "3", **environment(settings), **api
        )
        wait_until_right(settings, job)
        right_since = time.time()

        def has_snapshot() -> bool:
            times = Scrape(port).each("visits_last_snapshot_timestamp_seconds").values()
            return min(times, default=0.0) > right_since + 1

        wait_until(has_snapshot, "a snapshot holds everything", job)
        return Run(settings, log, Scrape(port))
    finally:
        programs.kill_all()


def test_a_scrape_counts_what_the_batch_answer_holds(run):
    settings, log, scrape = run
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


def test_a_scrape_has_lag_watermark_lease_snapshot_and_state_size(run):
    settings, _, scrape = run
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


def test_every_queried_metric_exists_and_no_label_has_unbounded_values(run):
    _, _, scrape = run
    labels = {label for family in scrape.families for sample in family.samples for label in sample.labels}
    assert labels == {"topic", "partition", "kind", "reason", "step", "problem"}
    assert {reason for reason, _ in scrape.each("visits_dead_letters_total")} == set(KINDS)
    assert all(family.documentation for family in scrape.families)
    assert queried_metrics() <= scrape.names  # by alert rules and dashboard
