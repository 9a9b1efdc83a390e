"""The log of a running job: one line per event, as text or JSON."""

import json
import signal
import time

import pytest
from support.jobs import LIVE, a_log, wait_until, write
from support.programs import end_of, environment


def events(lines: list[str]) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


def test_a_run_with_an_outage_logs_each_event_once_as_json(embedded_kafka, embedded_settings, programs, tmp_path):
    settings = embedded_settings.model_copy(update=LIVE)
    write(settings.brokers, a_log(settings, time.time() - 600, keyed=True, events=200))
    run = "dataflow", "-r", str(tmp_path / "store"), "-s", "1"
    job = programs.start(*run, **environment(settings, log_format="auto"))  # which is no terminal
    wait_until(lambda: "caught-up" in job.log.read_text(), "the log says caught-up", job)
    embedded_kafka.stop_brokers()
    wait_until(lambda: "kafka-lost" in job.log.read_text(), "the log says kafka-lost", job)
    embedded_kafka.start_brokers()
    wait_until(lambda: "kafka-back" in job.log.read_text(), "the log says kafka-back", job)
    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0
    assert events(lines) == ["starting", "caught-up", "kafka-lost", "kafka-back", "draining", "totals", "stopped"]
    assert {tuple(json.loads(line)) for line in lines} == {("time", "level", "event", "message")}

    job = programs.start(*run, **environment(settings, log_format="text"))
    wait_until(lambda: "caught up" in job.log.read_text(), "the log says caught up", job)
    job.send_signal(signal.SIGTERM)
    _, lines = end_of(job)
    assert lines[0].startswith(f"visits: recovery store {tmp_path / 'store'}: resuming from epoch ")
    caught_up, draining, totals, stopped = lines[1:]
    assert caught_up == "visits: caught up: all 16 partitions read to their end"
    assert draining == "visits: stopping: finishing what has been read"
    assert totals.startswith("visits: read nothing; closed ")
    assert stopped == "visits: stopped"


@pytest.mark.parametrize("command", [("bytewax.run", "dataflow:flow"), ("dataflow",)], ids=" ".join)
def test_an_error_is_one_line_of_json(programs, command):
    status, lines = programs.run(*command, VISITS_SESSION_GAP="-1", VISITS_LOG_FORMAT="json")
    assert status != 0
    [line] = map(json.loads, lines)
    assert (line["level"], line["event"]) == ("error", "failed")
    assert line["message"].startswith("wrong setting: VISITS_SESSION_GAP: ")


def test_sigusr1_logs_the_stacks_of_all_threads_and_the_job_goes_on(
    embedded_kafka, embedded_settings, programs, tmp_path
):
    job = programs.start("dataflow", "-r", str(tmp_path / "store"), **environment(embedded_settings))
    wait_until(lambda: "caught up" in job.log.read_text(), "the log says caught up", job)
    job.send_signal(signal.SIGUSR1)
    wait_until(lambda: "in main" in job.log.read_text(), "the log says in main", job)
    assert "end_offset_poller.py" in job.log.read_text()
    job.send_signal(signal.SIGTERM)
    assert end_of(job)[0] == 0
