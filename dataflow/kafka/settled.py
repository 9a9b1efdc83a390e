"""Where partitions end, with all that was sent before: also what Kafka still hides, and while others write."""

import math
import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflow import pulse, shutdown
from dataflow.kafka.client import Connection
from dataflow.kafka.notes import End, Place, ends_of, insist

_CALM = 1.0  # seconds; then brokers have taken in whatever a killed process had sent them
_ANSWERED_WITHIN = 1.0  # seconds for the leaders of all partitions
_PATIENCE = 40.0  # seconds; Kafka itself waits for a replica no longer than 30, then it counts without it
_ROOMS = 1_000, 1_000_000  # rows that may be hidden, or written while we ask


def settled_ends(
    admin: AdminClient, connection: Connection, group: str, places: Collection[Place], meanwhile: Callable[[], None]
) -> dict[Place, int]:
    """Ends of partitions, behind everything that a process which is dead by now had sent them. Waits for brokers.

    Consumers are told an end that leaves out what not all replicas have yet. So this finds out how long the leader's
    log is at most, and waits until consumers are told of so much; or until Kafka would long have told it.
    """
    insist(
        lambda: ends_of(admin, places), meanwhile
    )  # all brokers are there, perhaps this moment, with a crowd at the door
    time.sleep(_CALM)
    deadline = time.monotonic() + _PATIENCE
    longest: dict[Place, int] = {}  # the leader's log was no longer than this, after the calm
    while True:
        ends = insist(lambda: ends_of(admin, places), meanwhile)
        for place, end in ends.items():
            if end.leader_epoch is None or end.leader_epoch < 0:
                longest.setdefault(place, end.offset)  # brokers that do not tell the leader's term are believed
        unsure = {place: end for place, end in ends.items() if longest.get(place, math.inf) > end.offset}
        if not unsure or time.monotonic() > deadline:
            return {place: end.offset for place, end in ends.items()}
        pulse.waits()
        shutdown.stand_still_if_requested()
        for place in _no_longer(connection, group, unsure, 0):
            longest[place] = unsure[place].offset
        for room in _ROOMS:
            unbounded = {place: end for place, end in unsure.items() if place not in longest}
            for place in _no_longer(connection, group, unbounded, room):
                longest[place] = unbounded[place].offset + room


def _no_longer(connection: Connection, group: str, ends: Mapping[Place, End], room: int) -> set[Place]:
    """The partitions whose leader certainly has no more than so many rows behind the end.

    A consumer that claims to have read one row more, in the present leader's term, is told that the log is shorter
    than that (KIP-320), unless there is such a row.
    """
    told: set[Place] = set()
    if not ends:
        return told
    properties = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error"}
    consumer = Consumer({"fetch.wait.max.ms": 10, **connection.properties, **properties})
    try:
        consumer.assign(
            [
                TopicPartition(*place, end.offset + room + 1, leader_epoch=end.leader_epoch)
                for place, end in ends.items()
            ]
        )
        deadline = time.monotonic() + _ANSWERED_WITHIN
        while len(told) < len(ends) and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.05):
                error = message.error()
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                    told.add((message.topic(), message.partition()))
    finally:
        consumer.close()
    return told
