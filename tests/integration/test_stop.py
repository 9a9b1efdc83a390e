"""A stop drains: what was read is finished and in the last snapshot, and the next start replays nothing."""

import re
import shutil
import signal
import time
from collections import Counter

import pytest
from support.jobs import JOB, LIVE, NOON, a_log, count_rows, count_visits, wait_until, wait_until_right, write
from support.programs import end_of, environment, free_port

from dataflow.streaming.errors import START_OVER

TRAFFIC = "producer", "--rate", "100", "--users", "40"
NEVER = "-s", "3600"  # no snapshot but that of the drain


@pytest.fixture
def shop(embedded_settings):
    return embedded_settings.model_copy(update=LIVE)


@pytest.fixture
def recorded(shop):
    """A shop whose rows are all there before the job starts: sessions need not wait for late rows."""
    settings = shop.model_copy(update={"allowed_lateness": 0.5})
    write(settings.brokers, a_log(settings, NOON, keyed=True, events=200))
    return settings


def rows_read(lines: list[str]) -> Counter[str]:
    """How many rows a run says it has read, by topic."""
    [line] = [line for line in lines if "; closed " in line and "; wrote " in line]
    read = Counter({topic: int(count.replace(",", "")) for count, topic in re.findall(r"([\d,]+) from ([\w-]+)", line)})
    assert read or "read nothing" in line
    return read


def stop(job) -> Counter[str]:
    """Stops a job, which must drain; returns how many rows it has read."""
    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0, lines
    assert any("stopping: finishing what has been read" in line for line in lines)
    return rows_read(lines)


@pytest.mark.parametrize("command", [("dataflow",), pytest.param(JOB, marks=pytest.mark.slow)], ids=" ".join)
def test_a_start_after_a_stop_reads_each_row_once_more_workers_or_fewer(shop, programs, tmp_path, command):
    store = tmp_path / "recovery"
    if command == JOB:  # the engine's own command does not create the store
        stop(started(shop, programs, store))
    traffic = programs.start(*TRAFFIC, **environment(shop))
    read = Counter()
    for workers in "1", "3":
        before = count_visits(shop)
        job = programs.start(*command, "-r", str(store), *NEVER, "-b", "0", "-w", workers, **environment(shop))
        wait_until(lambda before=before: count_visits(shop) > before + 50, "the job writes", job)
        read += stop(job)
    traffic.terminate()
    assert traffic.wait() == 0
    job = started(shop, programs, store)
    wait_until_right(shop, job)
    read += stop(job)
    assert read == Counter({topic: count_rows(shop, topic) for topic in shop.inputs})


def started(shop, programs, store):
    job = programs.start("dataflow", "-r", str(store), *NEVER, **environment(shop))
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
    return job


@pytest.mark.parametrize("told", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_cluster_drains_when_one_of_its_processes_is_told_to(shop, programs, tmp_path, told):
    traffic = programs.start(*TRAFFIC, **environment(shop))
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    cluster = [
        programs.start(
            "dataflow", "-r", str(tmp_path / "recovery"), *NEVER, "-i", str(each), "-a", addresses, **environment(shop)
        )
        for each in range(2)
    ]
    wait_until(lambda: count_visits(shop) > 100, "the job writes", cluster[0])
    cluster[told].send_signal(signal.SIGTERM)
    read = Counter()
    for process in cluster:
        status, lines = end_of(process)
        assert status == 0, lines
        read += rows_read(lines)
    traffic.terminate()
    assert traffic.wait() == 0
    job = started(shop, programs, tmp_path / "recovery")
    wait_until_right(shop, job)
    read += stop(job)
    assert read == Counter({topic: count_rows(shop, topic) for topic in shop.inputs})


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2], ids=["after its time", "at the second signal"])
def test_a_drain_that_cannot_end_stops_as_it_is_and_loses_nothing(shop, embedded_kafka, programs, tmp_path, signals):
    traffic = programs.start(*TRAFFIC, "--events", "300", **environment(shop))
    seconds = "2" if signals == 1 else "3600"
    job = programs.start(
        "dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **environment(shop, drain_timeout=seconds)
    )
    wait_until(lambda: count_visits(shop) > 50, "the job writes", job)
    embedded_kafka.stop_brokers()
    wait_until(lambda: "no Kafka broker can be reached" in job.log.read_text(), "the job notices", job)
    for _ in range(signals):
        job.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # signals that are pending together are one
    status, lines = end_of(job)
    assert not any("Traceback" in line for line in lines)
    assert status == 4
    assert lines[-1].startswith("visits: stopped without a last snapshot: ")
    embedded_kafka.start_brokers()
    assert traffic.wait() == 0
    job = started(shop, programs, tmp_path / "recovery")
    wait_until_right(shop, job)
    stop(job)


def test_settings_may_change_after_a_stop_and_not_after_a_kill(recorded, programs, tmp_path):
    job = started(recorded, programs, tmp_path / "recovery")
    wait_until(lambda: count_visits(recorded) > 50, "the job writes", job)
    job.kill()
    job.wait()
    before = count_visits(recorded)
    changed = recorded.model_copy(update={"session_gap": 3.5, "partitioner": "murmur2", "max_events": 3})
    for command in ("dataflow", "-r", str(tmp_path / "recovery")), JOB:  # the second one has no store at all
        status, lines = programs.run(*command, **environment(changed))
        assert status == 1
        was = "VISITS_SESSION_GAP=2, VISITS_PARTITIONER=crc32, VISITS_MAX_EVENTS=5"
        assert f"rows in the outputs were written with {was} and would be written again" in lines[-1]
        assert lines[-1].endswith(START_OVER)
    assert count_visits(recorded) == before
    job = started(recorded, programs, tmp_path / "recovery")  # as the line advises
    wait_until_right(recorded, job)
    stop(job)
    before = count_visits(recorded)
    job = started(changed, programs, tmp_path / "recovery")
    assert "VISITS_SESSION_GAP is now 3.5 and was 2: " in job.log.read_text()
    assert not stop(job)
    assert count_visits(recorded) == before


@pytest.mark.parametrize("command", [("dataflow", "-r", "{store}"), JOB], ids=" ".join)
def test_a_run_to_the_end_that_can_read_nothing_ends_with_code_3_and_says_so(shop, programs, tmp_path, command):
    write(shop.brokers, [(shop.topic_user_events, 0, None, b'{"event":"Page Viewed"}')] * 7)
    run = [word.format(store=tmp_path / "recovery") for word in command]
    status, lines = programs.run(*run, **environment(shop, stop_at_end="1"))
    assert status == 3
    assert any(line.startswith("visits: most of what was read became no visit: read 7 from ") for line in lines)


def test_a_live_job_that_could_read_nothing_is_stopped_with_code_0(shop, programs, tmp_path):
    write(shop.brokers, [(shop.topic_user_events, 0, None, b'{"event":"Page Viewed"}')] * 7)
    assert stop(started(shop, programs, tmp_path / "recovery")) == {shop.topic_user_events: 7}


def test_a_stop_before_a_replay_is_complete_says_how_many_rows_are_pending(recorded, programs, tmp_path):
    job = started(recorded, programs, tmp_path / "recovery")
    wait_until_right(recorded, job)
    job.kill()
    job.wait()
    # its last sessions stay open
    job = started(recorded.model_copy(update={"outage_grace": 600.0}), programs, tmp_path / "recovery")
    stop(job)
    pending = "in the outputs from before this run are still to be made again"
    assert any(pending in line for line in job.log.read_text().splitlines())
    job = started(recorded, programs, tmp_path / "recovery")
    time.sleep(recorded.session_gap + recorded.allowed_lateness + 2)
    stop(job)
    assert pending not in job.log.read_text()
    wait_until_right(recorded)


def test_a_row_that_a_replay_does_not_make_is_told_at_the_end_and_what_was_there_is_no_loss(recorded, programs):
    run = programs.run(*JOB, **environment(recorded, stop_at_end="1"))
    assert any("most of what was read became no visit" in line for line in run[1])
    write(recorded.brokers, [(recorded.topic_visits, 0, b"somebody", b"else's")])
    status, lines = programs.run(*JOB, **environment(recorded, stop_at_end="1"))
    assert status == 0
    told, totals = lines
    assert (
        told
        == f"visits: {recorded.topic_visits}/0: 1 rows of the run before were not made again; they stay beside what is written now"
    )
    assert totals.startswith("visits: read ")
    assert "; wrote nothing; " in totals
    assert totals.endswith("not written, because the outputs had them")


@pytest.mark.parametrize("at_once", [True, False], ids=["while it runs", "at the stop"])
def test_a_store_that_is_deleted_under_the_job_ends_it_in_one_line(shop, programs, tmp_path, at_once):
    job = started(shop, programs, tmp_path / "recovery")
    shutil.rmtree(tmp_path / "recovery")
    if not at_once:
        job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 1
    assert lines[-1].startswith(
        f"visits: the recovery store {tmp_path / 'recovery'} is gone: part-0.sqlite3 was deleted, "
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_its_cluster_stops_at_once(shop, programs, tmp_path, number):
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    job = programs.start("dataflow", "-r", str(tmp_path / "r"), "-i", "0", "-a", addresses, **environment(shop))
    wait_until(lambda: "waiting for the other processes of the cluster" in job.log.read_text(), "it says so", job)
    job.send_signal(number)
    status, lines = end_of(job)
    assert (status, lines[-1]) == (0, "visits: stopped before anything was read")
