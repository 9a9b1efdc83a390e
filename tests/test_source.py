"""The input reads on whatever becomes of the Kafka client underneath."""

import time
from datetime import timedelta

import pytest
from confluent_kafka import OFFSET_BEGINNING, Producer, TopicPartition
from conftest import Kafka

from dataflow.codec import decode_event
from dataflow.kafka import source
from dataflow.kafka.client import Connection, connect
from dataflow.kafka.lookout import Lookout
from dataflow.kafka.source import KafkaSource, Reading
from dataflow.pace import Pace
from dataflow.progress import Progress
from dataflow.settings import Settings
from dataflow.snapshots import Origin

EVENT = b'{"event_type":"page-view","user_id":1,"page_id":1,"timestamp":1}'


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_a_client_that_has_lost_its_partition_is_replaced_and_each_row_is_read_once(
    kafka: Kafka, topics: Settings, monkeypatch
) -> None:
    monkeypatch.setattr(source, "_STALLED", timedelta(seconds=1))
    connection, pace = Connection(topics), Pace()
    topic = topics.topic_user_events
    lookout = Lookout(connect(connection), connection, {topic: 8}, topics.group, grace=0)
    reading = Reading(
        connection=connection,
        lookout=lookout,
        pace=pace,
        progress=Progress(lookout, pace, lateness=0),
        group=topics.group,
        lateness=0,
        origin=Origin(8),
        start=OFFSET_BEGINNING,
        stop_at_end=False,
    )
    lane = KafkaSource(topic, decode_event, reading).build_part("read", "lane 03", None)
    offsets = []

    def read(count: int) -> None:
        producer = Producer({"bootstrap.servers": topics.brokers})
        for _ in range(count):
            producer.produce(topic, EVENT, partition=3)
        assert producer.flush(30) == 0
        expected, deadline = len(offsets) + count, time.monotonic() + 60
        while len(offsets) < expected:
            assert time.monotonic() < deadline
            offsets.extend(row.position >> 16 for poll in lane.next_batch() for row in poll.rows)

    read(5)
    lost = lane._partitions[3]._consumer
    lost.pause([TopicPartition(topic, 3)])  # as if: from now on it hands out nothing
    read(5)
    assert lane._partitions[3]._consumer is not lost
    assert offsets == list(range(10))
    lane.close()
