"""The topic `sessions` is optional: a job runs without it, and writes it from the first start on that finds it."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.jobs import LIVE, a_log, count_visits, settings_of, wait_until, write
from support.logs import NOON, event, purchase
from support.programs import Programs, end_of, environment

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools import verify
from dataflow.tools.verify import Topics, compare, expected

HOW = "has no topic {topic}, so {topic} is not written; `python -m producer --create-topics` creates it"


@pytest.fixture
def shop(embedded_kafka: EmbeddedKafka) -> Settings:
    """A deployment of seven topics. Sessions need not wait for late rows."""
    settings = settings_of(embedded_kafka)
    return settings.model_copy(update={**LIVE, "allowed_lateness": 0.5, "topic_sessions": f"later-{settings.group}"})


def run(programs: Programs, shop: Settings, store: Path, *more: str, **settings: str) -> subprocess.Popen:
    job = programs.start("dataflow", "-r", str(store), *more, **environment(shop, **settings))
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
    return job


def stop(job: subprocess.Popen) -> list[str]:
    job.terminate()
    status, lines = end_of(job)
    assert status == 0, lines
    return lines


def different(shop: Settings) -> dict[str, int]:
    """Missing rows by topic; no row is too many anywhere."""
    topics = Topics(shop)
    found = compare(shop, topics, expected(shop, topics))
    assert not any(each.extra for each in found)
    return {each.topic: each.missing.total() for each in found if each}


def sessions(shop: Settings) -> Counter[str]:
    """How many rows `sessions` has of each user."""
    return Counter(str(json.loads(message.value())["user_id"]) for message in Topics(shop).read(shop.topic_sessions))


def click_everywhere(shop: Settings, user: int, at: float) -> None:
    """An event of the user in each partition; purchase rows of somebody else, so that the log alone closes sessions."""
    clicks = [(shop.topic_user_events, partition, None, event(at, "click", user)) for partition in range(8)]
    paid = [(shop.topic_purchases, partition, None, purchase(at, 1, user=99)) for partition in range(8)]
    write(shop.brokers, clicks + paid)


def test_a_job_without_the_topic_says_how_to_get_it_and_writes_all_else(shop, programs, tmp_path):
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = run(programs, shop, tmp_path / "recovery")
    wait_until(lambda: different(shop) == {}, "the other outputs are the batch answer", job)
    lines = stop(job)
    assert len([line for line in lines if HOW.format(topic=shop.topic_sessions) in line]) == 1


def test_the_topic_gets_the_sessions_that_close_after_the_next_start(shop, embedded_kafka, programs, tmp_path):
    store = tmp_path / "recovery"
    click_everywhere(shop, 1, 0)
    click_everywhere(shop, 2, 10)
    job = run(programs, shop, store, outage_grace="600")  # the second session stays open
    wait_until(lambda: count_visits(shop) == 8, "the first session has closed", job)
    stop(job)

    embedded_kafka.create_topic(shop.topic_sessions, 8)
    job = run(programs, shop, store)
    assert HOW.format(topic=shop.topic_sessions) not in job.log.read_text()
    click_everywhere(shop, 3, 20)
    wait_until(lambda: sessions(shop) == {"2": 1, "3": 1}, "all that have closed since then have a row", job)
    assert different(shop) == {shop.topic_sessions: 1}
    stop(job)

    job = run(programs, shop, store)
    job.kill()
    job.wait()
    click_everywhere(shop, 4, 30)
    job = run(programs, shop, store)
    wait_until(lambda: "4" in sessions(shop), "another session has closed", job)
    stop(job)
    assert sessions(shop) == {"2": 1, "3": 1, "4": 1}
    assert different(shop) == {shop.topic_sessions: 1}


def test_after_a_kill_the_topic_gets_the_sessions_since_the_last_snapshot_once(
    shop, embedded_kafka, programs, tmp_path, monkeypatch, capsys
):
    store = tmp_path / "recovery"
    click_everywhere(shop, 1, 0)
    job = run(programs, shop, store)
    wait_until(lambda: count_visits(shop) == 8, "the first session has closed", job)
    stop(job)
    job = run(programs, shop, store, "-s", "3600")
    click_everywhere(shop, 2, 10)
    wait_until(lambda: count_visits(shop) == 16, "the second one, too", job)
    job.kill()
    job.wait()

    embedded_kafka.create_topic(shop.topic_sessions, 8)
    for _ in range(2):
        job = run(programs, shop, store, "-s", "3600")
        wait_until(lambda: sessions(shop)["2"] == 1, "the replay has written its row", job)
        job.kill()
        job.wait()
    job = run(programs, shop, store)
    stop(job)
    assert sessions(shop) == {"2": 1}
    assert count_visits(shop) == 16
    assert different(shop) == {shop.topic_sessions: 1}

    for name, value in environment(shop).items():
        monkeypatch.setenv(name, value)
    assert verify.main([]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 sessions had closed before its first row, and are not missed" in said


@contextmanager
def cluster_without_sessions(settings: Settings) -> Iterator[Settings]:
    """Another cluster with topics of the same names."""
    with EmbeddedKafka() as kafka:
        for topic in settings.inputs + settings.outputs:
            if topic != settings.topic_sessions:
                kafka.create_topic(topic)
        yield settings.model_copy(update={"brokers": kafka.brokers})


def test_a_topic_that_was_written_may_not_disappear(embedded_kafka, programs, tmp_path):
    with_topic = settings_of(embedded_kafka)
    write(with_topic.brokers, a_log(with_topic, NOON, keyed=True, events=50))
    job = run(programs, with_topic, tmp_path / "recovery")
    stop(job)
    with cluster_without_sessions(with_topic) as less:
        status, lines = programs.run("dataflow", "-r", str(tmp_path / "recovery"), **environment(less))
    assert status == 1
    assert lines[-1].startswith(f"visits: output topic {less.topic_sessions} is gone: was it deleted?")
    assert not any("is not written" in line for line in lines)
