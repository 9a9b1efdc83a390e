"""The job as users run it, on the embedded brokers and on real ones: always the batch answer, or one line that says why not."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.jobs import JOB, LIVE, Kafka, a_log, assert_right, click, settings_of, wait_until, wait_until_right, write
from support.logs import NOON
from support.programs import Programs, end_of, environment, free_port

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "keyed"),
    [
        pytest.param(["-w", "1"], True, id="one worker, keys"),
        pytest.param(["-w", "4"], False, id="four workers, no keys"),
    ],
)
def test_a_run_to_the_end_gives_the_batch_answer(topics, programs, arguments, keyed):
    write(topics.brokers, a_log(topics, NOON, keyed))
    assert programs.run(*JOB, *arguments, **environment(topics, stop_at_end="1")) == (0, [])
    assert_right(topics)


def test_a_cluster_of_two_processes_gives_the_batch_answer(topics, programs):
    write(topics.brokers, a_log(topics, NOON, keyed=False))
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    cluster = [
        programs.start(*JOB, "-i", str(number), "-a", addresses, **environment(topics, stop_at_end="1"))
        for number in range(2)
    ]
    assert [end_of(process) for process in cluster] == [(0, []), (0, [])]
    assert_right(topics)


def test_a_live_job_is_right_without_further_traffic_across_an_outage_and_a_stop(
    kafka: Kafka, topics, programs, tmp_path
):
    settings = topics.model_copy(update=LIVE)
    store = str(tmp_path / "recovery")
    write(kafka.brokers, a_log(settings, time.time() - 600, keyed=True))  # a backlog
    job = programs.start("dataflow", "-r", store, "-s", "1", **environment(settings))
    wait_until_right(settings, job)

    click(settings, range(150))
    kafka.stop_brokers()
    time.sleep(1)
    kafka.start_brokers()
    click(settings, range(200))
    wait_until_right(settings, job)

    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0, lines
    click(settings, range(300))
    job = programs.start("dataflow", "-r", store, "-s", "1", **environment(settings))
    wait_until_right(settings, job)
    assert_right(settings)


# --- what users do wrong ---


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        pytest.param(
            {"topic_purchases": "no-1", "topic_visits": "no-2"}, "has no topic no-1, no-2;", id="two missing topics"
        ),
        pytest.param(
            {"session_gap": "-20"},
            "wrong setting: VISITS_SESSION_GAP: Input should be greater than 0",
            id="wrong value",
        ),
        pytest.param(
            {"shard": "8"}, "there is no setting VISITS_SHARD; did you mean VISITS_SHARDS?", id="unknown setting"
        ),
        pytest.param(
            {"kafka_sasl_sword": "x"},
            'wrong Kafka setting: No such configuration property: "sasl.sword"',
            id="unknown property",
        ),
        pytest.param({"kafka_acks": "some"}, "wrong Kafka setting: ", id="wrong property"),
    ],
)
def test_a_mistake_ends_in_one_line_that_says_what_to_do(embedded_settings, programs, wrong, line):
    status, lines = programs.run(*JOB, **environment(embedded_settings, **wrong))
    assert status != 0
    assert len(lines) == 1, lines
    assert lines[0].startswith("visits: ")
    assert line in lines[0]


def test_the_command_for_production_says_the_same(embedded_settings, programs, tmp_path):
    run = "dataflow", "-r", str(tmp_path / "recovery")
    status, lines = programs.run(*run, **environment(embedded_settings, topic_visits="nowhere"))
    assert status == 1
    assert lines == [
        f"visits: Kafka at {embedded_settings.brokers} has no topic nowhere; `python -m producer --create-topics` creates them"
    ]


def assert_ends_in_one_line(ended: tuple[int, list[str]], line: str) -> None:
    """Behind what it says of its start."""
    status, lines = ended
    assert status != 0
    assert all(each.startswith("visits: ") for each in lines), lines
    assert line in lines[-1]


# one job makes the recovery store for both tests, each of which has a copy
in_one_process = pytest.mark.xdist_group("recovery-store")


@pytest.fixture(scope="module")
def stopped(_embedded_cluster: EmbeddedKafka, tmp_path_factory) -> Iterator[tuple[Settings, Path]]:
    """The settings and the recovery store of a job that had read everything when it was stopped."""
    settings = settings_of(_embedded_cluster).model_copy(update=LIVE)
    programs, store = Programs(tmp_path_factory.mktemp("job")), tmp_path_factory.mktemp("store") / "recovery"
    write(settings.brokers, a_log(settings, NOON, keyed=True, events=300))
    job = programs.start("dataflow", "-r", str(store), "-s", "0.5", **environment(settings))
    try:
        wait_until(lambda: "caught up" in job.log.read_text(), "the job has read everything", job)
        job.send_signal(signal.SIGTERM)
        assert end_of(job)[0] == 0
        yield settings, store
    finally:
        programs.kill_all()


@pytest.fixture
def store(stopped: tuple[Settings, Path], tmp_path: Path) -> Path:
    return shutil.copytree(stopped[1], tmp_path / "recovery")


@in_one_process
def test_a_resume_with_other_shards_is_refused_and_the_store_stays_usable(stopped, store, programs):
    settings, _ = stopped
    refused = programs.run("dataflow", "-r", str(store), **environment(settings, shards="4"))
    assert_ends_in_one_line(
        refused, "the recovery store was written with 8 shards and this job has 4; set VISITS_SHARDS=8"
    )
    click(settings, range(20))
    job = programs.start("dataflow", "-r", str(store), **environment(settings))
    wait_until_right(settings, job)


@in_one_process
def test_a_resume_at_offsets_that_are_gone_is_refused(stopped, store, programs):
    settings, _ = stopped
    with EmbeddedKafka() as emptied:
        for topic in settings.inputs + settings.outputs:
            emptied.create_topic(topic)
        ended = programs.run("dataflow", "-r", str(store), **environment(settings, brokers=emptied.brokers))
    assert_ends_in_one_line(ended, "is not in Kafka (any more)")


def test_a_resume_of_a_run_that_stopped_at_the_end_is_refused(embedded_settings, programs, tmp_path):
    write(embedded_settings.brokers, a_log(embedded_settings, NOON, keyed=True, events=50))
    run = "dataflow", "-r", str(tmp_path / "recovery")
    assert programs.run(*run, **environment(embedded_settings, stop_at_end="1"))[0] == 0
    ended = programs.run(*run, **environment(embedded_settings))
    assert_ends_in_one_line(ended, "the recovery store is of a run that stopped at the end; start with an empty one")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        pytest.param(lambda path: path.write_text(""), "cannot be used: ", id="a file"),
        pytest.param(
            lambda path: (path.mkdir(), (path / "part-0.sqlite3").write_text("something else")),
            "cannot be used: file is not a database",
            id="not a store",
        ),
    ],
)
def test_a_recovery_store_that_cannot_be_used_is_refused(embedded_settings, programs, tmp_path, make, line):
    make(tmp_path / "store")
    ended = programs.run("dataflow", "-r", str(tmp_path / "store"), **environment(embedded_settings))
    assert_ends_in_one_line(ended, line)
