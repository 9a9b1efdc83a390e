"""The job on a Kafka with TLS, passwords and permissions; a missing right ends it in one line."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, ResourceType
from support.programs import PATIENCE, Programs, end_of, environment
from support.secured_kafka import PASSWORD, USER, Grant, SecuredKafka

from dataflow.runtime.settings import KAFKA_PREFIX, Settings
from dataflow.tools.verify import Topics, compare, expected

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RULES = {"session_gap": 2.0, "match_window": 1.0, "allowed_lateness": 5.0}
READ, WRITE = AclOperation.READ, AclOperation.WRITE


@pytest.fixture(scope="module")
def kafka(java: None) -> Iterator[SecuredKafka]:
    with SecuredKafka() as kafka:
        yield kafka


@pytest.fixture
def settings(kafka: SecuredKafka) -> Settings:
    """Topics on which the job has every right that it needs, and no other."""
    mark = uuid4().hex[:8]
    names = {
        name: f"{field.default}-{mark}" for name, field in Settings.model_fields.items() if name.startswith("topic_")
    }
    settings = Settings(
        _env_file=None, brokers=kafka.brokers, group=f"visits-{mark}", kafka=kafka.properties, **names, **RULES
    )
    kafka.create_topics(names.values(), partitions=2)
    kafka.grant(needed(settings))
    return settings


def needed(settings: Settings) -> list[Grant]:
    """READ and WRITE each bring DESCRIBE with them."""
    return [
        *((ResourceType.TOPIC, topic, READ) for topic in settings.inputs + settings.outputs),
        *((ResourceType.TOPIC, topic, WRITE) for topic in settings.outputs),
        *((ResourceType.GROUP, settings.group + more, READ) for more in ("", "-output")),
    ]


def told(settings: Settings, **wrong: str) -> dict[str, str]:
    """The settings as a user would give them in the environment; some of Kafka's properties may be wrong."""
    properties = {**settings.client, **{name.replace("_", "."): value for name, value in wrong.items()}}
    del properties["bootstrap.servers"]
    plain = environment(settings.model_copy(update={"kafka": {}}))
    return plain | {KAFKA_PREFIX + name.upper().replace(".", "_"): value for name, value in properties.items()}


def in_a_file(settings: Settings, file: Path) -> dict[str, str]:
    properties = settings.client
    del properties["bootstrap.servers"]
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return environment(settings.model_copy(update={"kafka": {}}), kafka_file=str(file))


def click(kafka: SecuredKafka, settings: Settings) -> None:
    """One event of each of many users, this moment; by somebody who may do everything."""
    producer = Producer({**kafka.superuser, "enable.idempotence": True, "log_level": 0})
    at = time.time()
    for user in range(50):
        row = f'{{"event_type":"click","user_id":{user},"page_id":1,"timestamp":{at:.3f}}}'
        producer.produce(settings.topic_user_events, row, str(user))
    assert producer.flush(PATIENCE) == 0


def is_right(kafka: SecuredKafka, settings: Settings) -> bool:
    """Whether the outputs are the batch answer, which is not empty."""
    settings = settings.model_copy(update={"brokers": kafka.superuser["bootstrap.servers"], "kafka": {}})
    topics = Topics(settings)
    answer = expected(settings, topics)
    return bool(answer.visits) and not any(compare(settings, topics, answer))


def until(condition: Callable[[], bool], job: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert job.poll() is None, job.log.read_text()
        assert time.monotonic() < deadline, job.log.read_text()
        time.sleep(0.3)


def stop(job: subprocess.Popen) -> None:
    job.send_signal(signal.SIGTERM)
    status, lines = end_of(job)
    assert status == 0, lines
    assert_says_no_secret(lines)


def assert_says_no_secret(lines: list[str]) -> None:
    assert PASSWORD not in "".join(lines)


def assert_ends_in_one_line(ended: tuple[int, list[str]], *parts: str) -> None:
    """Behind what it says of its start; none has a secret in it."""
    status, lines = ended
    assert status == 1, lines
    assert all(line.startswith("visits: ") for line in lines), lines
    assert all(part in lines[-1] for part in parts), lines
    assert_says_no_secret(lines)


@pytest.mark.parametrize("how", ["environment", "file"])
def test_the_job_works_with_a_password_over_tls(kafka, settings, programs: Programs, tmp_path: Path, how: str) -> None:
    variables = told(settings) if how == "environment" else in_a_file(settings, tmp_path / "kafka.properties")
    job = programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **variables)
    click(kafka, settings)
    until(lambda: is_right(kafka, settings), job)
    stop(job)


def test_a_wrong_password_ends_in_one_line(kafka, settings, programs, tmp_path) -> None:
    ended = programs.run("dataflow", "-r", str(tmp_path / "recovery"), **told(settings, sasl_password=PASSWORD + "!"))
    assert_ends_in_one_line(ended, "refuses us; check VISITS_KAFKA_*", "Authentication failed")


def test_a_broker_with_an_unknown_certificate_ends_in_one_line(kafka, settings, programs, tmp_path) -> None:
    variables = told(settings, ssl_ca_location=str(kafka.stranger))
    ended = programs.run("dataflow", "-r", str(tmp_path / "recovery"), **variables)
    assert_ends_in_one_line(ended, "refuses us; check VISITS_KAFKA_*", "certificate")


@pytest.mark.parametrize(
    ("taken", "parts"),
    [
        pytest.param(lambda names: (ResourceType.TOPIC, names.topic_visits, WRITE), ["visits-"], id="write visits"),
        pytest.param(lambda names: (ResourceType.TOPIC, names.topic_visits, READ), ["not allowed"], id="read visits"),
        pytest.param(
            lambda names: (ResourceType.TOPIC, names.topic_user_events, READ), ["user-events-"], id="read events"
        ),
    ],
)
def test_a_missing_permission_ends_in_one_line_and_nothing_is_lost(
    kafka, settings, programs, tmp_path, taken: Callable[[Settings], Grant], parts
) -> None:
    kafka.revoke([taken(settings)])
    click(kafka, settings)
    run = "dataflow", "-r", str(tmp_path / "recovery"), "-s", "1"
    assert_ends_in_one_line(programs.run(*run, **told(settings)), *parts)
    kafka.grant([taken(settings)])
    job = programs.start(*run, **told(settings))
    until(lambda: is_right(kafka, settings), job)
    stop(job)


@pytest.mark.parametrize(
    ("taken", "parts"),
    [
        pytest.param(
            lambda names: (ResourceType.TOPIC, names.topic_visits, WRITE), ["visits-", "uthoriz"], id="write visits"
        ),
        pytest.param(
            lambda names: (ResourceType.TOPIC, names.topic_user_events, READ),
            ["user-events-", "not allowed"],
            id="read events",
        ),
    ],
)
def test_a_revoked_permission_stops_the_job_and_nothing_is_lost(
    kafka, settings, programs, tmp_path, taken: Callable[[Settings], Grant], parts
) -> None:
    run = "dataflow", "-r", str(tmp_path / "recovery"), "-s", "1"
    job = programs.start(*run, **told(settings))
    click(kafka, settings)
    until(lambda: is_right(kafka, settings), job)
    kafka.revoke([taken(settings)])
    click(kafka, settings)
    assert_ends_in_one_line(end_of(job), *parts)
    kafka.grant([taken(settings)])
    click(kafka, settings)
    job = programs.start(*run, **told(settings))
    until(lambda: is_right(kafka, settings), job)
    stop(job)


def test_settings_print_no_secret(settings: Settings) -> None:
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert PASSWORD not in text
        assert USER in settings.client.values()
