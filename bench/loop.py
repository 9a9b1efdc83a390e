"""The least that any program between the same topics has to do: ``python -m bench.loop copy|decode``.

``copy`` takes the messages of `user-events` as they are to `visits`; ``decode`` also decodes each event and adds two
fields to it. They read to the present end, with the job's settings (`VISITS_*`), and set the Kafka clients as the job
does. Nothing is kept between messages, nothing is joined, in order, or resumed: it is here to be measured against.
"""

import gc
import sys
from collections.abc import Callable

import msgspec
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from dataflow.runtime.settings import Settings, load

_ROWS = 10_000  # of one poll
_UNDER_WAY = 500_000  # rows not yet acknowledged, at most

_READING = {
    "log_level": 2,
    "group.id": "bench-loop",
    "enable.auto.commit": False,
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,
}
_WRITING = {
    "log_level": 2,
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "enable.idempotence": True,
    "delivery.report.only.error": True,
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
}

Rows = list[dict[str, bytes | None]]


class Event(msgspec.Struct, gc=False):
    event_type: str
    user_id: int
    page_id: int
    timestamp: float


_decode = msgspec.json.Decoder(Event).decode


def copied(messages: list[Message]) -> Rows:
    return [{"key": message.key(), "value": message.value()} for message in messages]


def decoded(messages: list[Message]) -> Rows:
    rows = []
    for message in messages:
        value = message.value() or b""
        event = _decode(value)
        value = b'%b,"session_id":"%032x","amount":0}' % (value[:-1], event.page_id)
        rows.append({"key": message.key(), "value": value})
    return rows


def run(settings: Settings, work: Callable[[list[Message]], Rows]) -> None:
    """Reads, works, writes, until all that was there at the start is written and acknowledged."""
    topic, client = settings.topic_user_events, settings.client
    consumer, producer = Consumer({**client, **_READING}), Producer({**client, **_WRITING})
    partitions = consumer.list_topics(topic, timeout=15).topics[topic].partitions
    assigned = [TopicPartition(topic, partition, 0) for partition in partitions]
    unread = sum(consumer.get_watermark_offsets(where, timeout=15)[1] for where in assigned)
    consumer.assign(assigned)
    while unread:
        messages = consumer.consume(_ROWS, 0.1)
        for message in messages:
            error = message.error()
            if error is not None:
                raise RuntimeError(error.str())
        unread -= len(messages)
        rows = work(messages)
        if producer.produce_batch(settings.topic_visits, rows) < len(rows):
            raise RuntimeError("a row cannot be sent")
        producer.poll(0)
        while len(producer) > _UNDER_WAY:
            producer.poll(0.01)
    consumer.close()
    if producer.flush(60):
        raise RuntimeError("Kafka does not take the rows")


if __name__ == "__main__":
    gc.disable()  # there are no cycles here to be found
    run(load(), {"copy": copied, "decode": decoded}[sys.argv[1]])
