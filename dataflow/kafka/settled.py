"""Where partitions end, with all that was sent before: also what Kafka still hides, and while others write."""

import math
import time
from collections.abc import Callable, Collection
from contextlib import closing

from confluent_kafka.admin import AdminClient

from dataflow import pulse, shutdown
from dataflow.kafka.client import Connection
from dataflow.kafka.hidden import Hidden
from dataflow.kafka.notes import Place, ends_of, insist

_CALM = 1.0  # seconds; then brokers have taken in whatever a killed process had sent them
_PATIENCE = 40.0  # seconds; Kafka itself waits for a replica no longer than 30, then it counts without it
_ROOMS = 0, 1_000, 1_000_000  # rows that may be hidden, or written while we ask


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
    with closing(Hidden(connection, group)) as hidden:
        while True:
            ends = insist(lambda: ends_of(admin, places), meanwhile)
            unsure = {place: end for place, end in ends.items() if longest.get(place, math.inf) > end}
            for room in _ROOMS:
                unbounded = {place: end + room for place, end in unsure.items() if room == 0 or place not in longest}
                longest |= {place: unbounded[place] for place in hidden.none_behind(unbounded)}
            if all(longest.get(place, math.inf) <= end for place, end in ends.items()) or time.monotonic() > deadline:
                return ends
            pulse.waits()
            shutdown.stand_still_if_requested()
