"""Events of open sessions are fetched all together, or the user is told why they cannot be."""

import pytest
from confluent_kafka import KafkaError
from support.consumed import TOPIC, MemoryConsumer, end_of_partition, event, row

from dataflow.kafka import event_restorer as module
from dataflow.kafka.event_restorer import KafkaEventRestorer
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import TopicDecoder
from dataflow.streaming.position import position


@pytest.fixture
def fetcher(monkeypatch):
    """Of the messages that the test gives, one list for each poll; it also says which consumers were opened."""

    def fetch_from(*polls) -> tuple[KafkaEventRestorer, list[MemoryConsumer]]:
        opened = []

        def range_consumer(connection, group, skip_missing):
            assert not skip_missing
            opened.append(MemoryConsumer(*polls))
            return opened[-1]

        monkeypatch.setattr(module, "range_consumer", range_consumer)
        return KafkaEventRestorer(None, {TOPIC: TopicDecoder(lambda value, at, message: (value, at))}, "group"), opened

    return fetch_from


def test_announced_events_are_fetched_together_from_the_first_one_on(fetcher):
    events, opened = fetcher([row(5), row(6), row(7), row(8)], [row(2, partition=1)])
    events.prefetch([position(0, 8), position(0, 5)])
    events.prefetch([position(1, 2)])
    assert opened == []
    assert events.event(position(0, 5)) == (b"5", position(0, 5))
    assert events.event(position(1, 2)) == (b"2", position(1, 2))
    assert events.event(position(0, 8)) == (b"8", position(0, 8))
    assert len(opened) == 1
    assert sorted(opened[0].assigned) == [(TOPIC, 0, 5), (TOPIC, 1, 2)]


@pytest.mark.parametrize(
    "poll",
    [
        pytest.param([row(6)], id="removed"),
        pytest.param([end_of_partition(3)], id="topic created again"),
        pytest.param([event(KafkaError._AUTO_OFFSET_RESET)], id="out of range"),
    ],
)
def test_an_event_that_kafka_no_longer_has_ends_the_resume_in_one_line(fetcher, poll):
    events, _ = fetcher(poll)
    events.prefetch([position(0, 5)])
    with pytest.raises(
        UserError, match=r"^visits/0: row 5 of an open session is not in Kafka .* start over: an empty recovery store, "
    ):
        events.event(position(0, 5))


def test_a_missing_permission_is_told_and_other_errors_are_waited_out(fetcher):
    events, _ = fetcher([event(KafkaError._TRANSPORT)], [event(KafkaError.TOPIC_AUTHORIZATION_FAILED)])
    events.prefetch([position(0, 5)])
    with pytest.raises(UserError, match=r"^visits/0: not allowed to read it .*; grant it and start again$"):
        events.event(position(0, 5))
