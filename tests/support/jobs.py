"""The job on a broker: what goes into its topics, and what it has to write."""

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, compare, expected, out_of_order, shape_of

from .logs import NOON, event, purchase
from .real_kafka import RealKafka

Kafka = EmbeddedKafka | RealKafka
Message = tuple[str, int, bytes | None, bytes | None]  # topic, partition, key, value

JOB = "bytewax.run", "dataflow:flow"
DEADLINE_S = 240  # for any condition; a busy machine takes long

# a short gap, so that there is much to write; a lateness that a broker on a busy machine does not exceed
LIVE = {"session_gap": 2.0, "match_window": 1.0, "allowed_lateness": 5.0}

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


def settings_of(kafka: Kafka, partitions: int = 8) -> Settings:
    """All topics, empty, and a group, under names that no other test has.

    Their job does not wait for writers that come back from an outage. A test that needs the grace sets it.
    """
    suffix = uuid4().hex[:8]
    fields = Settings.model_fields.items()
    names = {name: f"{field.default}-{suffix}" for name, field in fields if name.startswith("topic_")}
    for name in names.values():
        kafka.create_topic(name, partitions)
    return Settings(_env_file=None, brokers=kafka.brokers, outage_grace=0, group=f"visits-{suffix}", **names)


def with_mapping(settings: Settings, mapping: Path) -> Settings:
    """The same outputs and group for a job with a mapping, whose input topics are those in the file."""
    fields = settings.model_dump(exclude_unset=True, exclude={"topic_user_events", "topic_purchases", "mapping"})
    return Settings(_env_file=None, mapping=str(mapping), **fields)


# --- waiting ---


def wait_until(holds: Callable[[], bool], what: str, process: subprocess.Popen | None = None) -> None:
    """Waits for a condition; fails at the deadline, or as soon as the process has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert process is None or process.poll() is None, process.log.read_text()
        assert time.monotonic() < deadline, f"after {DEADLINE_S} s it still does not hold that {what}"
        time.sleep(0.1)


# --- input ---


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
                paid = round(at - delay + rng.uniform(-6, 6), 2)
                put(purchases, user, purchase(paid, round(rng.uniform(1, 99), 2), user, rng.randrange(4)))
        if rng.random() < 0.02:
            put(rng.choice([clicks, purchases]), user, rng.choice(JUNK))
    return messages


def writer(brokers: str) -> Producer:
    return Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "log_level": 0})


def write(brokers: str, messages: Sequence[Message], producer: Producer | None = None) -> None:
    """Writes messages; returns when Kafka has all of them."""
    producer = producer or writer(brokers)
    for topic, partition, key, value in messages:
        producer.produce(topic, value, key, partition)
    assert producer.flush(DEADLINE_S) == 0


def click(settings: Settings, users: range) -> None:
    """One event of each user, this moment.

    The first messages of a writer take longest, so they are junk.
    """
    producer, topic = writer(settings.brokers), settings.topic_user_events
    write(settings.brokers, [(topic, partition, None, b"hello") for partition in range(8)], producer)
    at = round(time.time() - NOON, 3)
    write(settings.brokers, [(topic, user % 8, None, event(at, "click", user)) for user in users], producer)


# --- output ---


def count_rows(settings: Settings, topic: str, first_partition: int = 0) -> int:
    """How many rows a topic holds, from one of its partitions on."""
    consumer = Consumer({"bootstrap.servers": settings.brokers, "group.id": "count", "log_level": 0})
    partitions = range(first_partition, len(consumer.list_topics(topic, timeout=30).topics[topic].partitions))
    try:
        return sum(_end(consumer, TopicPartition(topic, number)) for number in partitions)
    finally:
        consumer.close()


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    try:
        return consumer.get_watermark_offsets(partition, timeout=30)[1]
    except KafkaException:
        return 0  # a partition of this moment has no leader yet


def count_visits(settings: Settings) -> int:
    return count_rows(settings, settings.topic_visits)


def differences(settings: Settings, topics: Topics) -> list[str]:
    """Where the outputs are not the batch answer to the inputs of this moment; one line a topic."""
    found = compare(settings, topics, expected(settings, topics))
    return [f"{each.topic}: missing {each.missing.total()}, too many {each.extra.total()}" for each in found if each]


def wait_until_right(settings: Settings, process: subprocess.Popen | None = None) -> None:
    """Waits until the outputs are the batch answer, which has visits, and visits are in order.

    The answer is worked out each time: just after an outage a consumer may not see all of the inputs yet.
    """
    topics = Topics(settings)
    deadline = time.monotonic() + DEADLINE_S
    while different := differences(settings, topics):
        assert process is None or process.poll() is None, process.log.read_text()
        assert time.monotonic() < deadline, f"after {DEADLINE_S} s the outputs are not the batch answer: {different}"
        time.sleep(0.2)
    assert expected(settings, topics).visits.total() > 0
    assert out_of_order(topics, settings.topic_visits, shape_of(settings)) == 0


def assert_right(settings: Settings) -> None:
    """The outputs are the batch answer, of which every kind of row is a part, and visits are in order."""
    topics = Topics(settings)
    answer = expected(settings, topics)
    assert all(
        [
            answer.visits,
            answer.suspicious_visits,
            answer.late_events,
            answer.dead_letters,
            answer.unmatched_purchases,
            answer.sessions,
        ]
    )
    assert differences(settings, topics) == []
    assert out_of_order(topics, settings.topic_visits, shape_of(settings)) == 0
