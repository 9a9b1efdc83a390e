"""One line an event of the job's life, for people or for machines, and each once."""

import json
import logging
import signal
import time

import pytest
from conftest import Kafka
from programs import end_of, environment
from test_contract import LIVE, a_log, until, write

from dataflow.observability import logs

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)


def events(lines: list[str]) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


def test_a_life_with_an_outage_is_told_in_json_lines_each_event_once(kafka: Kafka, topics, programs, tmp_path):
    settings = topics.model_copy(update=LIVE)
    write(kafka.brokers, a_log(settings, time.time() - 600, keyed=True, events=200))
    run = "dataflow", "-r", str(tmp_path / "store"), "-s", "1"
    job = programs.start(*run, **environment(settings, log_format="auto"))  # which is no terminal
    until(lambda: "caught-up" in job.log.read_text(), job)
    kafka.stop_brokers()
    until(lambda: "kafka-lost" in job.log.read_text(), job)
    kafka.start_brokers()
    until(lambda: "kafka-back" in job.log.read_text(), job)
    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0
    assert events(lines) == ["starting", "caught-up", "kafka-lost", "kafka-back", "stopped"]
    assert {tuple(json.loads(line)) for line in lines} == {("time", "level", "event", "message")}

    job = programs.start(*run, **environment(settings, log_format="text"))
    until(lambda: "caught up" in job.log.read_text(), job)
    job.send_signal(signal.SIGTERM)
    _, lines = end_of(job)
    assert lines[0].startswith(f"visits: recovery store {tmp_path / 'store'}: resuming from epoch ")
    assert lines[1:] == ["visits: caught up: all 16 partitions read to their end", "visits: stopped"]


@pytest.mark.parametrize("command", [("bytewax.run", "dataflow:flow"), ("dataflow",)], ids=" ".join)
def test_a_mistake_is_one_line_in_json_too(kafka: Kafka, programs, command):
    status, lines = programs.run(*command, VISITS_SESSION_GAP="-1", VISITS_LOG_FORMAT="json")
    assert status != 0
    [line] = map(json.loads, lines)
    assert (line["level"], line["event"]) == ("error", "failed")
    assert line["message"].startswith("wrong setting: VISITS_SESSION_GAP: ")


def test_the_level_says_what_is_left_out(kafka: Kafka, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setenv("VISITS_LOG_LEVEL", "warning")
    level = root.level
    logs.start()
    assert not logging.getLogger("visits").isEnabledFor(logging.INFO)
    root.setLevel(level)


def test_a_job_says_where_its_threads_are_when_it_is_asked_to_and_goes_on(kafka: Kafka, topics, programs, tmp_path):
    job = programs.start("dataflow", "-r", str(tmp_path / "store"), **environment(topics))
    until(lambda: "caught up" in job.log.read_text(), job)
    job.send_signal(signal.SIGUSR1)
    until(lambda: "in main" in job.log.read_text(), job)
    assert "lookout.py" in job.log.read_text()
    job.send_signal(signal.SIGTERM)
    assert end_of(job)[0] == 0
