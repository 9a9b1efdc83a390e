"""The job as users run it, on the embedded brokers and on real ones: always the batch answer, or one line that says why not."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from conftest import Kafka
from logs import NOON, event, purchase
from programs import PATIENCE, end_of, environment, free_port

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, compare, expected, out_of_order

JOB = "bytewax.run", "dataflow:flow"
JUNK = [
    None,
    b"",
    b"hello",
    b"{}",
    b'{"user_id":1',
    b"\xff\xfe",
    event(0, user="1"),
    event(86_400_000),
    purchase(0, '"9.50"'),
]


def until(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)


# --- what is written into the input topics ---

Message = tuple[str, int, bytes | None, bytes | None]  # topic, partition, key, value


def a_log(
    settings: Settings, start: float, keyed: bool, seed: int = 7, events: int = 1_500, users: int = 40
) -> list[Message]:
    """Clicks and purchases from `start` on, out of order, some of them late for good, and junk."""
    rng = random.Random(seed)
    messages = []

    def put(topic: str, user: int, value: bytes | None) -> None:
        partition = user % 8 if keyed else rng.randrange(8)
        messages.append((topic, partition, b"%d" % user if keyed else None, value))

    clicks, purchases = settings.inputs
    at = start - NOON
    for _ in range(events):
        at += rng.expovariate(10)
        user = int(rng.paretovariate(0.8)) % users  # some come all the time, most now and then
        delay = rng.choice([0, 0, 0, 1, 3, 5, 30, 300])
        kind = rng.choice(["page-view", "page-view", "click", "search", "purchase"])
        put(clicks, user, event(round(at - delay, rng.choice([0, 2, 6])), kind, user, rng.randrange(4)))
        if kind == "purchase":
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                put(
                    purchases,
                    user,
                    purchase(
                        round(at - delay + rng.uniform(-6, 6), 2), round(rng.uniform(1, 99), 2), user, rng.randrange(4)
                    ),
                )
        if rng.random() < 0.02:
            put(rng.choice([clicks, purchases]), user, rng.choice(JUNK))
    return messages


def writer(brokers: str) -> Producer:
    return Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "log_level": 0})


def write(brokers: str, messages: Sequence[Message], producer: Producer | None = None) -> None:
    producer = producer or writer(brokers)
    for topic, partition, key, value in messages:
        producer.produce(topic, value, key, partition)
    assert producer.flush(PATIENCE) == 0


def click(settings: Settings, users: range) -> None:
    """One event of each user, this moment. The first words of a writer, which take longest, are junk."""
    producer, topic = writer(settings.brokers), settings.topic_user_events
    write(settings.brokers, [(topic, partition, None, b"hello") for partition in range(8)], producer)
    at = round(time.time() - NOON, 3)
    write(settings.brokers, [(topic, user % 8, None, event(at, "click", user)) for user in users], producer)


# --- and what has come out ---


def until_right(settings: Settings, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while different := differences(settings):
        assert process.poll() is None, process.log.read_text()
        assert time.monotonic() < deadline, different
        time.sleep(0.2)


def differences(settings: Settings) -> list[str]:
    topics = Topics(settings)
    found = compare(settings, topics, expected(settings, topics))
    return [f"{each.topic}: missing {each.missing.total()}, too many {each.extra.total()}" for each in found if each]


def assert_right(settings: Settings) -> None:
    """The outputs are the batch answer, of which every kind of row is a part, and visits are in order."""
    topics = Topics(settings)
    answer = expected(settings, topics)
    assert all(
        [answer.visits, answer.suspicious_visits, answer.late_events, answer.dead_letters, answer.unmatched_purchases]
    )
    assert differences(settings) == []
    assert out_of_order(topics, settings.topic_visits) == 0


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


# a short gap to wait for, and a lateness that a broker on a busy machine does not exceed
LIVE = {"session_gap": 2.0, "match_window": 1.0, "allowed_lateness": 5.0}


def test_a_live_job_is_right_without_further_traffic_across_an_outage_and_a_stop(
    kafka: Kafka, topics, programs, tmp_path
):
    settings = topics.model_copy(update=LIVE)
    store = str(tmp_path / "recovery")
    write(kafka.brokers, a_log(settings, time.time() - 600, keyed=True))  # a backlog
    job = programs.start("dataflow", "-r", store, "-s", "1", **environment(settings))
    until_right(settings, job)

    click(settings, range(100))
    until_right(settings, job)

    click(settings, range(50, 150))
    kafka.stop_brokers()
    time.sleep(1)
    kafka.start_brokers()
    click(settings, range(200))
    until_right(settings, job)

    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0, lines
    click(settings, range(300))
    job = programs.start("dataflow", "-r", store, "-s", "1", **environment(settings))
    until_right(settings, job)
    assert_right(settings)


# --- what users do wrong ---

CLOSED = "127.0.0.1:1"  # nobody listens there


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        pytest.param({"brokers": CLOSED}, f"no Kafka broker answers at {CLOSED}", id="no broker"),
        pytest.param(
            {"topic_visits": "nowhere"},
            "has no topic nowhere; `python -m producer --create-topics`",
            id="missing topic",
        ),
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


@pytest.fixture
def embedded_settings(embedded_kafka: EmbeddedKafka) -> Settings:
    """All topics on an embedded cluster."""
    return with_topics(embedded_kafka)


def with_topics(kafka: EmbeddedKafka) -> Settings:
    settings = Settings(_env_file=None, brokers=kafka.brokers)
    for topic in settings.inputs + settings.outputs:
        kafka.create_topic(topic)
    return settings


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


@pytest.fixture
def store(embedded_settings, programs, tmp_path) -> Path:
    """A recovery store of a job that has read everything and was stopped."""
    directory = tmp_path / "recovery"
    settings = embedded_settings.model_copy(update=LIVE)
    write(settings.brokers, a_log(settings, NOON, keyed=True, events=300))
    job = programs.start("dataflow", "-r", str(directory), "-s", "0.5", **environment(settings))
    until_right(settings, job)
    job.send_signal(signal.SIGTERM)
    assert end_of(job)[0] == 0
    return directory


def test_a_stopped_job_resumes(store, embedded_settings, programs):
    settings = embedded_settings.model_copy(update=LIVE)
    click(settings, range(20))
    job = programs.start("dataflow", "-r", str(store), **environment(settings))
    until_right(settings, job)


def test_a_resume_with_another_number_of_shards_is_refused(store, embedded_settings, programs):
    ended = programs.run("dataflow", "-r", str(store), **environment(embedded_settings, shards="4"))
    assert_ends_in_one_line(
        ended, "the recovery store was written with 8 shards and this job has 4; set VISITS_SHARDS=8"
    )


def test_a_store_that_was_refused_can_be_resumed_as_it_was(store, embedded_settings, programs):
    settings = embedded_settings.model_copy(update=LIVE)
    refused = programs.run("dataflow", "-r", str(store), **environment(settings, shards="4"))
    assert_ends_in_one_line(refused, "set VISITS_SHARDS=8")
    click(settings, range(20))
    job = programs.start("dataflow", "-r", str(store), **environment(settings))
    until_right(settings, job)


def test_a_resume_at_offsets_that_are_gone_is_refused(store, programs):
    with EmbeddedKafka() as made_anew:
        ended = programs.run("dataflow", "-r", str(store), **environment(with_topics(made_anew)))
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
