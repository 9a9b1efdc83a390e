"""A job that is killed, again and again, writes every row once; partitions that come later are read."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from programs import Programs, environment

from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, compare, expected, out_of_order

# short gaps, so that there is much to write; lateness that a broker on a busy machine does not exceed
RULES = {"session_gap": 2.0, "match_window": 1.0, "allowed_lateness": 5.0}
PATIENCE = 240  # seconds


@pytest.fixture
def shop(topics: Settings) -> Settings:
    return topics.model_copy(update={**RULES, "group": topics.topic_visits})


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"in {PATIENCE} s it did not come about that {what}"
        time.sleep(0.1)


def rows_in(settings: Settings, topic: str, first_partition: int = 0) -> int:
    """How many rows a topic holds, from one of its partitions on."""
    consumer = Consumer({"bootstrap.servers": settings.brokers, "group.id": "count", "log_level": 0})
    partitions = range(first_partition, len(consumer.list_topics(topic, timeout=30).topics[topic].partitions))
    try:
        return sum(_end(consumer, TopicPartition(topic, number)) for number in partitions)
    finally:
        consumer.close()


def _end(consumer: Consumer, where: TopicPartition) -> int:
    try:
        return consumer.get_watermark_offsets(where, timeout=30)[1]
    except KafkaException:
        return 0  # made this moment, it has no leader yet


def assert_right_in_the_end(settings: Settings) -> None:
    topics = Topics(settings)
    right = expected(settings, topics)
    assert right.visits.total() > 0
    wait_until(lambda: not any(compare(settings, topics, right)), "the outputs equal the batch answer")
    assert not out_of_order(topics, settings.topic_visits)


def test_a_job_that_is_killed_again_and_again_on_other_numbers_of_workers_writes_every_row_once(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    traffic = programs.start(
        "producer", "--rate", "200", "--users", "60", "--disorder", "0.3", "--seed", "5", **environment(shop)
    )
    for workers in (1, 2, 1, 3):
        before = rows_in(shop, shop.topic_visits)
        job = programs.start(
            "dataflow", "-r", str(tmp_path / "recovery"), "-s", "2", "-w", str(workers), **environment(shop)
        )
        wait_until(lambda before=before: rows_in(shop, shop.topic_visits) > before + 50, "the job writes")
        job.kill()
        job.wait()
    traffic.terminate()
    assert traffic.wait() == 0
    job = programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "2", **environment(shop))
    assert_right_in_the_end(shop)
    job.terminate()
    assert job.wait() == 0


def test_a_second_run_over_the_same_topics_finds_every_row_there_and_writes_none(
    shop: Settings, programs: Programs
) -> None:
    traffic = programs.start("producer", "--events", "500", "--speed", "max", "--users", "30", **environment(shop))
    assert traffic.wait() == 0
    for _ in range(2):
        assert programs.run("bytewax.run", "dataflow:flow", **environment(shop, stop_at_end="1")) == (0, [])
        assert rows_in(shop, shop.topic_visits) == 500
    assert_right_in_the_end(shop)


@pytest.mark.parametrize("kafka", [pytest.param("real", marks=pytest.mark.kafka)], indirect=True)
def test_partitions_added_to_the_inputs_while_the_job_runs_are_read_from_their_start(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **environment(shop))
    old_traffic = programs.start("producer", "--rate", "100", "--users", "40", **environment(shop))
    wait_until(lambda: rows_in(shop, shop.topic_visits) > 50, "the job writes")
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    for grown in admin.create_partitions([NewPartitions(topic, 11) for topic in shop.inputs]).values():
        grown.result()
    new_traffic = programs.start(
        "producer", "--rate", "100", "--users", "40", "--seed", "9", **environment(shop)
    )  # knows of all eleven
    wait_until(lambda: rows_in(shop, shop.topic_user_events, 8) > 30, "the shop writes into new partitions")
    counted = rows_in(shop, shop.topic_visits)
    wait_until(lambda: rows_in(shop, shop.topic_visits) > counted + 100, "the job goes on")
    for traffic in (old_traffic, new_traffic):
        traffic.terminate()
        assert traffic.wait() == 0
    assert_right_in_the_end(shop)
