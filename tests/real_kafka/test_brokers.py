"""The brokers of docker-compose.yml as real processes, which other tests rely on."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from support.real_kafka import RealKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(real_kafka: RealKafka, request: pytest.FixtureRequest) -> str:
    real_kafka.create_topic(request.node.name)
    return request.node.name


def write(kafka: RealKafka, topic: str, value: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0, "enable.idempotence": True})
    producer.produce(topic, value, partition=0)
    assert producer.flush(60) == 0


def read(kafka: RealKafka, topic: str, count: int) -> list[str]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.brokers, "log_level": 0, "group.id": "test", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(count, timeout=60)
    consumer.close()
    return [message.value().decode() for message in messages]


def test_topic_has_eight_partitions_on_three_brokers(real_kafka, topic):
    metadata = AdminClient({"bootstrap.servers": real_kafka.brokers}).list_topics(topic, timeout=10)
    assert set(metadata.brokers) == {1, 2, 3}
    assert {number: sorted(partition.replicas) for number, partition in metadata.topics[topic].partitions.items()} == {
        number: [1, 2, 3] for number in range(8)
    }


def test_row_that_is_written_can_be_read(real_kafka, topic):
    write(real_kafka, topic, "a row")
    assert read(real_kafka, topic, 1) == ["a row"]


@pytest.mark.slow
def test_rows_outlive_a_killed_broker_and_it_comes_back(real_kafka, topic):
    write(real_kafka, topic, "before")
    real_kafka.kill_brokers(1)
    write(real_kafka, topic, "without it")
    real_kafka.start_brokers(1)
    assert read(real_kafka, topic, 2) == ["before", "without it"]
    metadata = AdminClient({"bootstrap.servers": real_kafka.brokers}).list_topics(topic, timeout=10)
    assert all(sorted(partition.isrs) == [1, 2, 3] for partition in metadata.topics[topic].partitions.values())


@pytest.mark.slow
def test_row_waits_for_brokers_that_are_paused(real_kafka, topic):
    producer = Producer({"bootstrap.servers": real_kafka.brokers, "log_level": 0, "enable.idempotence": True})
    real_kafka.pause_brokers()
    producer.produce(topic, "patient", partition=0)
    assert producer.flush(2) == 1
    real_kafka.resume_brokers()
    assert producer.flush(60) == 0
    assert read(real_kafka, topic, 1) == ["patient"]


@pytest.mark.slow
def test_rows_outlive_a_stop_of_all_brokers(real_kafka, topic):
    write(real_kafka, topic, "kept")
    real_kafka.stop_brokers()
    real_kafka.start_brokers()
    assert read(real_kafka, topic, 1) == ["kept"]
