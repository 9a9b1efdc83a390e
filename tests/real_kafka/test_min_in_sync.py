"""Partitions that take no writes although their leaders answer: too few replicas are in sync."""

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic
from support.jobs import LIVE, count_rows, count_visits, settings_of, wait_until, wait_until_right
from support.programs import Programs, end_of, environment
from support.real_kafka import RealKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

AWAY_S = 20


def test_rows_that_could_not_be_written_while_a_replica_was_away_are_not_late(
    real_kafka: RealKafka, programs: Programs, tmp_path: Path
) -> None:
    shop = settings_of(real_kafka).model_copy(update=LIVE)
    inputs = {
        name: f"{value}-on-two"
        for name, value in shop.model_dump().items()
        if name.startswith("topic_") and value in shop.inputs
    }
    new = [
        NewTopic(name, 8, replica_assignment=[[1, 2]] * 8, config={"min.insync.replicas": "2"})
        for name in inputs.values()
    ]
    for made in real_kafka.admin.create_topics(new).values():
        made.result()
    shop = shop.model_copy(update={**inputs, "outage_grace": 10.0})
    writer = Producer({"bootstrap.servers": shop.brokers, "enable.idempotence": True, "log_level": 0})

    def click(user: int) -> None:
        row = {"event_type": "page-view", "user_id": user, "page_id": 1, "timestamp": time.time()}
        writer.produce(shop.topic_user_events, json.dumps(row), str(user), user % 8)

    for user in range(8):
        click(user)
    assert writer.flush(60) == 0
    job = programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **environment(shop))
    wait_until(lambda: count_visits(shop) == 8, "the job closes sessions without further rows", job)

    real_kafka.stop_brokers(2)
    deadline = time.monotonic() + AWAY_S  # so long a time must not count; it cannot be had in less
    user = 8
    while time.monotonic() < deadline:
        click(user)
        user += 1
        writer.poll(0.5)
    assert len(writer), "nothing can be written"
    real_kafka.start_brokers()
    assert writer.flush(120) == 0
    wait_until_right(shop, job)
    assert count_visits(shop) == user
    assert count_rows(shop, shop.topic_late_events) == 0
    job.terminate()
    assert end_of(job)[0] == 0
