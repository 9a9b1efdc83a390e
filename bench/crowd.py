"""A shop that is full: as many events a second as a job has to be able to take, on time.

    python -m bench.crowd --users 80000 --rate 60000 --events 1800000

`python -m producer` makes up a shop one move at a time, which is too slow for this. Here so many users are present at a
time, each for ten seconds; every hundredth of a second a bunch of events comes from some of them, in order of time, one
in ten a purchase with its row in `purchases`. Topics and brokers are as the settings (`VISITS_*`) say.
"""

import argparse
import time
from random import Random
from zlib import crc32

from confluent_kafka import Producer

from dataflow.runtime.settings import load
from producer.options import positive, whole

_STAY = 10.0  # seconds
_TICK = 0.01
_SENDING = {"log_level": 2, "linger.ms": 5, "batch.size": 1_000_000, "compression.type": "lz4"}


def run(users: int, rate: float, events: int) -> None:
    """Sends so many events; where the processor is too slow for the rate, they are late by as much."""
    settings, random = load(), Random(0).random
    producer = Producer({**settings.client, **_SENDING})
    partitions = {
        topic: len(producer.list_topics(topic, timeout=15).topics[topic].partitions) for topic in settings.inputs
    }
    began, sent, tick = time.time(), 0, 0
    while sent < events:
        tick += 1
        at = began + tick * _TICK
        if (early := at - time.time()) > 0:
            time.sleep(early)
        due = min(round(tick * _TICK * rate), events) - sent
        sent += due
        first = int(tick * _TICK * users / _STAY)  # those before have left
        rows: dict[tuple[str, int], list[dict[str, bytes]]] = {}
        for number in range(due):
            user = first + int(random() * users)
            key, page = b"%d" % user, number % 100
            event_type = b"purchase" if number % 10 == 9 else b"page-view"
            more = b',"user_id":%b,"page_id":%d,"timestamp":%.6f}' % (key, page, at - _TICK + _TICK * number / due)
            hashed = crc32(key)
            where = settings.topic_user_events, hashed % partitions[settings.topic_user_events]
            rows.setdefault(where, []).append({"key": key, "value": b'{"event_type":"%b"%b' % (event_type, more)})
            if event_type == b"purchase":
                where = settings.topic_purchases, hashed % partitions[settings.topic_purchases]
                rows.setdefault(where, []).append({"key": key, "value": b'{"amount":%d.50%b' % (page, more)})
        for (topic, partition), bunch in rows.items():
            if producer.produce_batch(topic, bunch, partition) < len(bunch):
                raise RuntimeError(next(str(row["_error"]) for row in bunch if "_error" in row))
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("Kafka does not take the rows")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=whole, required=True, help="who are present at a time")
    parser.add_argument("--rate", type=positive, required=True, help="events a second")
    parser.add_argument("--events", type=whole, required=True, help="how many in all")
    run(**vars(parser.parse_args()))
