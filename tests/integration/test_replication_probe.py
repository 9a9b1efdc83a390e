"""The probe for records above the high watermark, on brokers near and far."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer

from dataflow.kafka import replication_probe as module
from dataflow.kafka.client import Connection
from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.kafka.replication_probe import ReplicationProbe
from dataflow.runtime.settings import Settings

PARTITIONS = 8


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    cluster = EmbeddedKafka()
    cluster.create_topic("visits", PARTITIONS)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("round_trip", [0, 60])  # milliseconds
def test_a_stale_response_is_not_taken_for_an_answer(cluster: EmbeddedKafka, round_trip: int) -> None:
    cluster.set_round_trip(round_trip)
    probe = ReplicationProbe(Connection(Settings(brokers=cluster.brokers).client), "group")
    producer = Producer({"bootstrap.servers": cluster.brokers, "linger.ms": 0})
    for end in range(0, 8, 2):
        ends = {("visits", number): end for number in range(PARTITIONS)}
        deadline = time.monotonic() + 60
        while probe.fully_replicated(ends) != ends.keys():
            assert time.monotonic() < deadline
        for _topic, number in ends:
            producer.produce("visits", b"one", partition=number)
            producer.produce("visits", b"two", partition=number)  # one more than is asked for
        assert producer.flush(60) == 0
        assert probe.fully_replicated(ends) == set()


def test_a_consumer_that_gets_nothing_of_a_partition_is_replaced(
    cluster: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = []

    class DeafAtFirst(Consumer):
        def __init__(self, properties: dict) -> None:
            super().__init__(properties)
            clients.append(self)

        def consume(self, *limits: float) -> list:
            heard = super().consume(*limits)
            return [each for each in heard if each.partition() != 3] if self is clients[0] else heard

    monkeypatch.setattr(module, "Consumer", DeafAtFirst)
    monkeypatch.setattr(module, "_STUCK_AFTER_S", 0.5)
    probe = ReplicationProbe(Connection(Settings(brokers=cluster.brokers).client), "group")
    ends = {("visits", number): 0 for number in range(PARTITIONS)}
    deadline = time.monotonic() + 60
    while probe.fully_replicated(ends) != ends.keys():
        assert time.monotonic() < deadline
    assert len(clients) == 2
