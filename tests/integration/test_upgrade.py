"""A recovery store of an earlier version is resumed, and each row is written once.

`data/state-N.tar.gz` is what a job of state version N left behind when it was killed: its recovery store, and what its
topics and its group in Kafka held, with the rows that came afterwards. A version is dropped only with a line in the
changelog.
"""

import base64
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.jobs import wait_until, write
from support.paths import ROOT
from support.programs import end_of, environment

from dataflow.clickstream.outputs import OTHER_ROW
from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.reference import OutputRow
from dataflow.tools.verify import Topics, compare, expected

STORED = sorted((ROOT / "tests" / "data").glob("state-*.tar.gz"))


def decoded(text: str | None) -> bytes | None:
    return base64.b64decode(text) if text is not None else None


def restore(kafka: EmbeddedKafka, found: dict, settings: Settings) -> None:
    """Puts back what the topics and the group held."""
    producer = Producer({"bootstrap.servers": kafka.brokers, "enable.idempotence": True, "log_level": 0})
    for topic in settings.inputs + settings.outputs:
        kafka.create_topic(topic, 4)
        for partition, rows in found["rows"].get(topic, {}).items():
            for number, (offset, timestamp, key, value, headers) in enumerate(rows):
                assert offset == number
                headers = [(name, decoded(text)) for name, text in headers or []]
                producer.produce(
                    topic, decoded(value), decoded(key), int(partition), timestamp=timestamp, headers=headers
                )
    assert producer.flush(60) == 0
    committer = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "visits-output", "log_level": 0})
    committer.commit(offsets=[TopicPartition(*entry) for entry in found["metadata"]], asynchronous=False)
    committer.close()


def wrong_rows(settings: Settings, topics: Topics) -> list[OutputRow]:
    """Rows that are not as in the batch answer. Until version 4, a purchase row served all events in its time; such rows
    have no other place, so those that no event is left for are not missed. `sessions` did not exist."""
    differences = compare(settings, topics, expected(settings, topics))
    left_over = "reason", OTHER_ROW.encode()
    return [
        row
        for each in differences
        if each.topic != settings.topic_sessions
        for row in [*each.missing, *each.extra]
        if left_over not in row[2]
    ]


def without_revenue(row: bytes) -> dict:
    """A row of `sessions`; of one that was open at the upgrade only the last amount is known."""
    return {name: value for name, value in json.loads(row).items() if name != "revenue"}


def assert_sessions_closed_since_then_are_right(settings: Settings, topics: Topics) -> None:
    right = [without_revenue(row) for _, row, _ in expected(settings, topics).sessions]
    written = [without_revenue(message.value()) for message in topics.read(settings.topic_sessions)]
    assert written
    assert all(written.count(row) == 1 for row in written)
    assert all(row in right for row in written)


@pytest.fixture(params=STORED, ids=lambda file: file.name.removesuffix(".tar.gz"))
def killed_job(request, tmp_path: Path):
    """A killed job of an earlier version: its settings, and the rows that came afterwards. Its store is `store`."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    found = json.loads((tmp_path / "topics.json").read_text())
    with EmbeddedKafka() as kafka:
        settings = Settings(_env_file=None, brokers=kafka.brokers, outage_grace=0, **found["settings"])
        restore(kafka, found, settings)
        yield (
            settings,
            [(topic, partition, decoded(key), decoded(value)) for topic, partition, key, value in found["rest"]],
        )


@pytest.mark.parametrize("has_sessions", [False, True], ids=["as it is", "and has the topic sessions"])
def test_a_killed_job_of_an_earlier_version_is_resumed_and_stopped_by_this_one(
    killed_job, programs, tmp_path: Path, has_sessions: bool
):
    settings, rest = killed_job
    if not has_sessions:
        settings = settings.model_copy(update={"topic_sessions": "not-there"})
    write(settings.brokers, rest)

    def start() -> subprocess.Popen:
        job = programs.start("dataflow", "-r", str(tmp_path / "store"), **environment(settings))
        wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
        assert "resuming" in job.log.read_text()
        return job

    def stop(job: subprocess.Popen) -> str:
        job.terminate()
        status, lines = end_of(job)
        assert status == 0, lines
        return lines[-2]

    topics, job = Topics(settings), start()
    wait_until(lambda: not wrong_rows(settings, topics), "the outputs are the batch answer", job)
    stop(job)
    if has_sessions:
        assert_sessions_closed_since_then_are_right(settings, topics)
    assert "read nothing; closed 0 sessions; wrote nothing" in stop(start())


def test_a_killed_job_of_an_earlier_version_is_not_resumed_under_other_settings(killed_job, programs, tmp_path: Path):
    settings, _ = killed_job
    other = environment(settings, session_gap=str(settings.session_gap + 10))
    status, lines = programs.run("dataflow", "-r", str(tmp_path / "store"), **other)
    assert status == 1
    assert f"were written with VISITS_SESSION_GAP={settings.session_gap:g} and would be written again" in lines[-1], (
        lines
    )
    assert not any("is now" in line for line in lines), lines
