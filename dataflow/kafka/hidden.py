"""Whether leaders hold rows of which consumers are not told yet.

A row is shown only once all replicas in sync have it. If one of them stands still, nothing new is shown for some ten
seconds, while the end that brokers tell stays where it was and looks like silence.
"""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.notes import Place

_PATIENCE = 0.2  # seconds; brokers that are well answer in a few milliseconds

_TUNING = {
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 0,
    "fetch.queue.backoff.ms": 0,
    "fetch.message.max.bytes": 1,  # one batch at most: its rows are not wanted
    "queued.max.messages.kbytes": 1_024,
}
_ESSENTIAL = {"enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": False}


class Hidden:
    """Asks leaders for the row after the next: only one whose log is shorter says that this is out of range.

    Args:
        connection: to the cluster.
        group: name under which the consumer reads.
    """

    def __init__(self, connection: Connection, group: str) -> None:
        self._consumer = Consumer({**_TUNING, **connection.properties, **_ESSENTIAL, "group.id": group})

    def none_behind(self, ends: Mapping[Place, int]) -> set[Place]:
        """The partitions whose leader has certainly nothing at or after an offset."""
        told: set[Place] = set()
        undecided = set(ends)
        self._consumer.assign([TopicPartition(*place, end + 1) for place, end in ends.items()])
        deadline = time.monotonic() + _PATIENCE
        while undecided and (left := deadline - time.monotonic()) > 0:
            for message in self._consumer.consume(len(undecided), left):
                place, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    undecided.discard(place)
                elif error.code() == KafkaError._AUTO_OFFSET_RESET and message.offset() == ends.get(place, -1) + 1:
                    undecided.discard(place)
                    told.add(place)
        return told
