"""What leaders are asked about rows that consumers are not told of is answered of now, however far away they are."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from dataflow.embedded import EmbeddedKafka
from dataflow.kafka.client import Connection
from dataflow.kafka.hidden import Hidden
from dataflow.settings import Settings

PARTITIONS = 8


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    cluster = EmbeddedKafka()
    cluster.create_topic("visits", PARTITIONS)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("round_trip", [0, 30, 120])  # milliseconds
def test_an_answer_to_one_question_is_not_taken_for_one_to_the_next(cluster: EmbeddedKafka, round_trip: int) -> None:
    cluster.set_round_trip(round_trip)
    hidden = Hidden(Connection(Settings(brokers=cluster.brokers)), "group")
    producer = Producer({"bootstrap.servers": cluster.brokers, "linger.ms": 0})
    for end in range(0, 8, 2):
        ends = {("visits", number): end for number in range(PARTITIONS)}
        deadline = time.monotonic() + 60
        while hidden.none_behind(ends) != ends.keys():
            assert time.monotonic() < deadline
        for _topic, number in ends:
            producer.produce("visits", b"one", partition=number)
            producer.produce("visits", b"two", partition=number)  # one more than is asked for
        assert producer.flush(60) == 0
        assert hidden.none_behind(ends) == set()
