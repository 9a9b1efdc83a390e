"""The job as users run it, on both backends: it writes the batch answer, or ends in one line that says why."""

import signal
import time

import pytest
from support.jobs import JOB, LIVE, Kafka, a_log, assert_right, click, wait_until_right, write
from support.logs import NOON
from support.programs import end_of, environment, free_port, said_only_totals

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.streaming.errors import START_OVER


@pytest.mark.parametrize(
    ("arguments", "keyed"),
    [
        pytest.param(["-w", "1"], True, id="one worker, keys"),
        pytest.param(["-w", "4"], False, id="four workers, no keys"),
    ],
)
def test_a_run_to_the_end_writes_the_batch_answer(topics, programs, arguments, keyed):
    write(topics.brokers, a_log(topics, NOON, keyed))
    assert said_only_totals(programs.run(*JOB, *arguments, **environment(topics, stop_at_end="1")))
    assert_right(topics)


def test_a_cluster_of_two_processes_writes_the_batch_answer(topics, programs):
    write(topics.brokers, a_log(topics, NOON, keyed=False))
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    cluster = [
        programs.start(*JOB, "-i", str(number), "-a", addresses, **environment(topics, stop_at_end="1"))
        for number in range(2)
    ]
    assert all(said_only_totals(end_of(process)) for process in cluster)
    assert_right(topics)


def test_a_live_job_is_right_without_traffic_after_an_outage_and_a_restart(kafka: Kafka, topics, programs, tmp_path):
    settings = topics.model_copy(update=LIVE)
    store = str(tmp_path / "recovery")
    write(kafka.brokers, a_log(settings, time.time() - 600, keyed=True))  # a backlog
    job = programs.start("dataflow", "-r", store, "-s", "1", **environment(settings))
    wait_until_right(settings, job)

    click(settings, range(100))
    wait_until_right(settings, job)

    click(settings, range(50, 150))
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
def test_a_wrong_setting_ends_in_one_line_that_says_what_to_do(embedded_settings, programs, wrong, line):
    status, lines = programs.run(*JOB, **environment(embedded_settings, **wrong))
    assert status != 0
    assert len(lines) == 1, lines
    assert lines[0].startswith("visits: ")
    assert line in lines[0]


def test_the_production_command_ends_in_the_same_one_line(embedded_settings, programs, tmp_path):
    run = "dataflow", "-r", str(tmp_path / "recovery")
    status, lines = programs.run(*run, **environment(embedded_settings, topic_visits="nowhere"))
    assert status == 1
    assert lines == [
        f"visits: Kafka at {embedded_settings.brokers} has no topic nowhere; `python -m producer --create-topics` creates them"
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["-r", "none", "-s", "10", "-b", "0"],
            "the directory none does not exist (-r); `python -m dataflow -r none` creates",
        ),
        (
            ["-r", "tests", "-s", "10", "-b", "0"],
            "the directory tests holds no recovery store (-r); `python -m dataflow",
        ),
        (
            ["-r", "README.md", "-s", "10", "-b", "0"],
            "the recovery store README.md has to be a directory, and is a file",
        ),
        (["-r", "none", "-s", "-5", "-b", "0"], "argument -s/--snapshot-interval: not a number of seconds from 0 to"),
    ],
)
def test_a_store_that_the_engine_could_not_use_ends_in_one_line(embedded_settings, programs, options, line):
    status, lines = programs.run(*JOB, *options, **environment(embedded_settings))
    assert status == 1
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"visits: {line}")


def test_a_topic_that_the_job_has_used_is_not_to_be_created_again(embedded_settings, programs, tmp_path):
    write(embedded_settings.brokers, a_log(embedded_settings, NOON, keyed=True, events=50))
    run = "dataflow", "-r", str(tmp_path / "recovery")
    assert programs.run(*run, **environment(embedded_settings, stop_at_end="1"))[0] == 0
    with EmbeddedKafka() as kafka:  # where one topic is missing
        *others, missing = [*embedded_settings.outputs, *embedded_settings.inputs]
        for topic in others:
            kafka.create_topic(topic)
        less = embedded_settings.model_copy(update={"brokers": kafka.brokers})
        status, lines = programs.run(*run, **environment(less))
        assert status == 1
        assert len(lines) == 1
        assert lines[0].startswith(
            f"visits: topic {missing} is gone: was it deleted? Another topic of its name has other "
        )
        assert lines[0].endswith(START_OVER)
        _, lines = programs.run("dataflow", "-r", str(tmp_path / "an empty one"), **environment(less))
        assert lines[-1].endswith(f"has no topic {missing}; `python -m producer --create-topics` creates them")
