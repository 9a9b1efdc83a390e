"""Whether leaders hold rows of which consumers are not told yet.

A row is shown only once all replicas in sync have it. If one of them stands still, nothing new is shown for some ten
seconds, while the end that brokers tell stays where it was and looks like silence.
"""

import ctypes
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.job_metadata import PartitionId

_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = (
    0.2,
    1.6,
)  # seconds for an answer; near brokers take milliseconds, far ones several round trips
_STUCK_AFTER_S = 10.0  # seconds; a leader that has just told its end answers sooner, unless the client is stuck
_FAR_OFFSET = 1 << 62  # an offset that no log reaches

_TUNING = {
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 0,
    "fetch.queue.backoff.ms": 0,
    "fetch.message.max.bytes": 1,  # one batch at most: its rows are not wanted
    "queued.max.messages.kbytes": 1_024,
}
_ESSENTIAL = {"enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": False}


class ReplicationProbe:
    """Asks leaders for the row after the next: only one whose log is shorter says that this is out of range.

    The client may give such an answer twice, or late, and nothing in it tells to which of two equal questions. So an
    offset that was never asked for before is asked for first: behind the answer to that, none is left of earlier ones.

    Args:
        connection: to the cluster.
        group: name under which the consumer reads.
    """

    def __init__(self, connection: Connection, group: str) -> None:
        self._properties = {**_TUNING, **connection.properties, **_ESSENTIAL, "group.id": group}
        self._consumer = self._new_consumer()
        self._beyond = _FAR_OFFSET
        self._timeout_s = _MIN_TIMEOUT_S
        self._silent: dict[PartitionId, float] = {}  # partitions of which nothing is heard, and since when; monotonic
        self._bearable = _STUCK_AFTER_S

    def fully_replicated(self, ends: Mapping[PartitionId, int]) -> set[PartitionId]:
        """The partitions whose leader has certainly nothing at or after an offset, which it has just told."""
        self._beyond += 1
        asked = time.monotonic()
        reached, silent = self._out_of_range(dict.fromkeys(ends, self._beyond))
        told, undecided = self._out_of_range({partition_id: ends[partition_id] + 1 for partition_id in reached})
        all_answered = len(reached) == len(ends) and not undecided
        wanted = 3 * (time.monotonic() - asked) if all_answered else 2 * self._timeout_s
        self._timeout_s = min(max(_MIN_TIMEOUT_S, wanted), _MAX_TIMEOUT_S)
        self._renew_if_stuck(silent)
        return told

    def _renew_if_stuck(self, silent: set[PartitionId]) -> None:
        now = time.monotonic()
        self._silent = {partition_id: self._silent.get(partition_id, now) for partition_id in silent}
        if not silent:
            self._bearable = _STUCK_AFTER_S
        elif now > min(self._silent.values()) + self._bearable:
            self._consumer = self._new_consumer()
            self._silent.clear()
            self._bearable *= 2  # since the old one stays, see below

    def _new_consumer(self) -> Consumer:
        consumer = Consumer(self._properties)
        # for ever: librdkafka may hang when it is to destroy a consumer that has been used like this
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(consumer))
        return consumer

    def _out_of_range(self, offsets: Mapping[PartitionId, int]) -> tuple[set[PartitionId], set[PartitionId]]:
        """The partitions whose leader is heard to say so of an offset, and those of which nothing is heard."""
        told: set[PartitionId] = set()
        undecided = set(offsets)
        self._consumer.assign([TopicPartition(*partition_id, offset) for partition_id, offset in offsets.items()])
        deadline = time.monotonic() + self._timeout_s
        while undecided and (left := deadline - time.monotonic()) > 0:
            for message in self._consumer.consume(len(undecided), left):
                partition_id, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    undecided.discard(partition_id)
                elif error.code() == KafkaError._AUTO_OFFSET_RESET and message.offset() == offsets.get(partition_id):
                    undecided.discard(partition_id)
                    told.add(partition_id)
        return told, undecided
