"""A probe for records above the high watermark, which leaders have and consumers cannot see.

Consumers see a row only once all in-sync replicas have it. If one replica stands still, nothing new becomes visible for
some ten seconds. The end that brokers report does not move in that time, and looks like an idle partition.
"""

import ctypes
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.messages import consume, partition_of
from dataflow.kafka.offsets import PartitionId

# for an answer; near brokers take milliseconds, distant ones several round trips
_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = 0.2, 1.6
_STUCK_AFTER_S = 10.0  # a leader that has just reported its end answers sooner, unless the client is stuck
_FAR_OFFSET = 1 << 62  # an offset that no log reaches

_TUNING = {
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 0,
    "fetch.queue.backoff.ms": 0,
    "fetch.message.max.bytes": 1,  # one batch at most: its rows are not needed
    "queued.max.messages.kbytes": 1_024,
}
_ESSENTIAL = {"enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": False}


class ReplicationProbe:
    """Fetches at end + 1: "out of range" proves that the leader has nothing at or after the end.

    The client may deliver such an answer twice or late, and nothing in it tells two equal questions apart. So each
    probe first fetches at an offset that was never used before. Its answer drains stale responses.

    Args:
        connection: to the cluster.
        group: name under which the consumer reads.
    """

    def __init__(self, connection: Connection, group: str) -> None:
        self._properties = {**_TUNING, **connection.properties, **_ESSENTIAL, "group.id": group}
        self._consumer = self._new_consumer()
        self._far_offset = _FAR_OFFSET
        self._timeout_s = _MIN_TIMEOUT_S
        self._silent_since: dict[PartitionId, float] = {}  # partitions without an answer; monotonic
        self._stuck_after_s = _STUCK_AFTER_S

    def fully_replicated(self, ends: Mapping[PartitionId, int]) -> set[PartitionId]:
        """The partitions whose leader certainly has nothing at or after the end that it has just reported.

        Args:
            ends: the ends reported for each partition.
        """
        self._far_offset += 1
        asked = time.monotonic()
        drained, silent = self._out_of_range(dict.fromkeys(ends, self._far_offset))
        replicated, undecided = self._out_of_range({partition_id: ends[partition_id] + 1 for partition_id in drained})
        all_answered = len(drained) == len(ends) and not undecided
        timeout_s = 3 * (time.monotonic() - asked) if all_answered else 2 * self._timeout_s
        self._timeout_s = min(max(_MIN_TIMEOUT_S, timeout_s), _MAX_TIMEOUT_S)
        self._replace_if_stuck(silent)
        return replicated

    def _replace_if_stuck(self, silent: set[PartitionId]) -> None:
        now = time.monotonic()
        self._silent_since = {partition_id: self._silent_since.get(partition_id, now) for partition_id in silent}
        if not silent:
            self._stuck_after_s = _STUCK_AFTER_S
        elif now > min(self._silent_since.values()) + self._stuck_after_s:
            self._consumer = self._new_consumer()
            self._silent_since.clear()
            self._stuck_after_s *= 2  # since old consumers stay, see below

    def _new_consumer(self) -> Consumer:
        consumer = Consumer(self._properties)
        # never destroyed: librdkafka may hang when it destroys a consumer that was used like this
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(consumer))
        return consumer

    def _out_of_range(self, offsets: Mapping[PartitionId, int]) -> tuple[set[PartitionId], set[PartitionId]]:
        """The partitions whose leader reports an offset as out of range, and those without an answer."""
        out_of_range: set[PartitionId] = set()
        undecided = set(offsets)
        self._consumer.assign([TopicPartition(*partition_id, offset) for partition_id, offset in offsets.items()])
        deadline = time.monotonic() + self._timeout_s
        while undecided and (left := deadline - time.monotonic()) > 0:
            for message in consume(self._consumer, len(undecided), left):
                partition_id, error = partition_of(message), message.error()
                if error is None:
                    undecided.discard(partition_id)
                elif error.code() == KafkaError._AUTO_OFFSET_RESET and message.offset() == offsets.get(partition_id):
                    undecided.discard(partition_id)
                    out_of_range.add(partition_id)
        return out_of_range, undecided
