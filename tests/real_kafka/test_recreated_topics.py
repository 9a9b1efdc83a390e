"""A topic that is deleted and created again has the same name and other rows: offsets in it mean something else."""

import time
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from support.jobs import LIVE, NOON, a_log, count_visits, settings_of, wait_until, wait_until_right, write
from support.programs import Programs, end_of, environment
from support.real_kafka import RealKafka

from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import START_OVER

pytestmark = pytest.mark.kafka


@pytest.fixture
def shop(real_kafka: RealKafka) -> Settings:
    return settings_of(real_kafka).model_copy(update=LIVE)


def create_again(kafka: RealKafka, topic: str) -> None:
    kafka.admin.delete_topics([topic])[topic].result()

    def created() -> bool:
        try:
            kafka.create_topic(topic)
        except KafkaException:  # the brokers are still deleting it
            return False
        return True

    wait_until(created, "the topic is there again")


def start(programs: Programs, shop: Settings, store: Path, *arguments: str):
    job = programs.start("dataflow", "-r", str(store), *arguments, **environment(shop))
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
    return job


def assert_refused(ended: tuple[int, list[str]], topic: str) -> None:
    status, lines = ended
    assert status == 1
    assert topic in lines[-1] and "was created again" in lines[-1] and lines[-1].endswith(START_OVER)
    assert not any("Traceback" in line for line in lines)


def test_an_input_created_again_is_refused_and_the_advice_works(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = start(programs, shop, tmp_path / "recovery")
    job.terminate()
    assert end_of(job)[0] == 0
    create_again(real_kafka, shop.topic_user_events)
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=300, seed=8))
    run = "dataflow", "-r", str(tmp_path / "recovery")
    before = count_visits(shop)
    assert_refused(programs.run(*run, **environment(shop)), shop.topic_user_events)
    assert count_visits(shop) == before

    suffix = uuid4().hex[:8]
    outputs = {
        name: f"{value}-{suffix}"
        for name, value in shop.model_dump().items()
        if name.startswith("topic_") and value in shop.outputs
    }
    real_kafka.create_topics(outputs.values())
    anew = shop.model_copy(update={**outputs, "group": f"anew-{suffix}"})
    job = start(programs, anew, tmp_path / "an empty one")
    wait_until_right(anew, job)
    job.terminate()
    assert end_of(job)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["topic_user_events", "topic_visits"], ids=["an input", "an output"])
def test_a_topic_created_again_while_the_job_runs_ends_it_within_seconds(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path, setting: str
) -> None:
    topic = getattr(shop, setting)
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = start(programs, shop, tmp_path / "recovery", "-s", "1")
    create_again(real_kafka, topic)
    began = time.monotonic()
    assert_refused(end_of(job), topic)
    assert time.monotonic() < began + 30
    assert_refused(programs.run("dataflow", "-r", str(tmp_path / "recovery"), **environment(shop)), topic)


@pytest.mark.slow
def test_an_input_created_again_is_refused_also_where_no_snapshot_knows_it(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = start(programs, shop, tmp_path / "recovery", "-s", "3600")
    wait_until(lambda: count_visits(shop) > 50, "the job writes", job)
    job.kill()
    job.wait()
    create_again(real_kafka, shop.topic_purchases)
    for command in ("dataflow", "-r", str(tmp_path / "recovery")), ("bytewax.run", "dataflow:flow"):
        assert_refused(programs.run(*command, **environment(shop)), shop.topic_purchases)


@pytest.mark.slow
def test_an_input_that_is_gone_ends_the_job_and_no_start_advises_to_create_it_only(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = start(programs, shop, tmp_path / "recovery", "-s", "1")
    wait_until(lambda: count_visits(shop) > 50, "the job writes", job)
    real_kafka.admin.delete_topics([shop.topic_purchases])[shop.topic_purchases].result()
    status, lines = end_of(job)
    assert status == 1
    assert f"{shop.topic_purchases}" in lines[-1] and "gone: was " in lines[-1]
    for command in ("dataflow", "-r", str(tmp_path / "recovery")), ("bytewax.run", "dataflow:flow"):
        status, lines = programs.run(*command, **environment(shop))
        assert status == 1
        assert lines[-1].startswith(f"visits: topic {shop.topic_purchases} is gone: was it deleted? ")
        assert lines[-1].endswith(START_OVER)


@pytest.mark.slow
def test_an_output_that_is_gone_can_be_written_again_alone(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    write(shop.brokers, a_log(shop, NOON, keyed=True, events=200))
    job = start(programs, shop, tmp_path / "recovery", "-s", "1")
    wait_until_right(shop, job)
    real_kafka.admin.delete_topics([shop.topic_visits])[shop.topic_visits].result()
    status, lines = end_of(job)
    assert status == 1
    assert lines[-1].startswith(f"visits: output topic {shop.topic_visits} is gone: was it deleted? Its rows are lost ")
    status, lines = programs.run("dataflow", "-r", str(tmp_path / "recovery"), **environment(shop))
    assert status == 1
    assert lines[-1].startswith(f"visits: output topic {shop.topic_visits} is gone: was it deleted? Its rows are lost ")
    real_kafka.create_topic(shop.topic_visits)  # as docs/recovery.md says
    job = start(programs, shop, tmp_path / "an empty one")
    wait_until_right(shop, job)
    job.terminate()
    assert end_of(job)[0] == 0


@pytest.mark.slow
def test_an_output_created_again_after_a_kill_is_refused(
    shop: Settings, real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    traffic = programs.start("producer", "--rate", "100", "--users", "40", "--events", "500", **environment(shop))
    job = start(programs, shop, tmp_path / "recovery", "-s", "1")
    wait_until(lambda: count_visits(shop) > 100, "the job writes", job)
    job.kill()
    job.wait()
    create_again(real_kafka, shop.topic_visits)
    assert_refused(programs.run("dataflow", "-r", str(tmp_path / "recovery"), **environment(shop)), shop.topic_visits)
    assert traffic.wait() == 0
