"""Stable end offsets: after all rows that were sent before, also those that consumers cannot see yet."""

import math
import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from dataflow.kafka.client import Connection, while_waiting
from dataflow.kafka.messages import consume, partition_of
from dataflow.kafka.offsets import EndOffset, PartitionId, end_offsets, retry_until_answered
from dataflow.kafka.replaceable import Admin

_QUIET_S = 1.0  # then brokers have processed whatever a killed process had sent them
_ANSWER_TIMEOUT_S = 1.0  # for the leaders of all partitions
_GIVE_UP_AFTER_S = 40.0  # Kafka itself waits for a replica no longer than 30 s, then it goes on without it
_MARGINS = 1_000, 1_000_000  # rows that may be invisible, or be written by others meanwhile


def stable_end_offsets(
    admin: Admin,
    connection: Connection,
    group: str,
    partition_ids: Collection[PartitionId],
    on_retry: Callable[[], None],
) -> dict[PartitionId, int]:
    """Ends of partitions, after everything that a process which is dead by now had sent. Waits for brokers.

    The end that brokers report leaves out rows that not all replicas have yet. So this finds an upper bound of each
    leader's log, and waits until the reported end reaches it, or until Kafka would have given up the replica.

    Args:
        admin: asks for the ends.
        connection: to the cluster.
        group: name under which a consumer probes the leaders.
        partition_ids: the partitions.
        on_retry: called before each further attempt while brokers are away.
    """

    def reported_ends() -> dict[PartitionId, EndOffset]:
        return retry_until_answered(lambda: end_offsets(admin, partition_ids), on_retry)

    reported_ends()  # now all brokers are up, perhaps this moment; clients may be retrying queued writes
    time.sleep(_QUIET_S)
    deadline = time.monotonic() + _GIVE_UP_AFTER_S
    upper_bounds: dict[PartitionId, int] = {}  # of the leader's log, after the quiet time
    while True:
        ends = reported_ends()
        for partition_id, end in ends.items():
            if end.leader_epoch is None or end.leader_epoch < 0:
                upper_bounds.setdefault(partition_id, end.offset)  # without an epoch leaders cannot be probed
        unsure = {
            partition_id: end
            for partition_id, end in ends.items()
            if upper_bounds.get(partition_id, math.inf) > end.offset
        }
        if not unsure or time.monotonic() > deadline:
            return {partition_id: end.offset for partition_id, end in ends.items()}
        while_waiting()
        for partition_id in _not_longer(connection, group, unsure, 0):
            upper_bounds[partition_id] = unsure[partition_id].offset
        for margin in _MARGINS:
            unbounded = {partition_id: end for partition_id, end in unsure.items() if partition_id not in upper_bounds}
            for partition_id in _not_longer(connection, group, unbounded, margin):
                upper_bounds[partition_id] = unbounded[partition_id].offset + margin


def _not_longer(
    connection: Connection, group: str, ends: Mapping[PartitionId, EndOffset], margin: int
) -> set[PartitionId]:
    """The partitions whose leader certainly has at most `margin` rows after the end.

    A consumer that claims to have read one row more, in the leader's present epoch, is told that the log is shorter
    than that (KIP-320), unless there is such a row.
    """
    shorter: set[PartitionId] = set()
    if not ends:
        return shorter
    properties = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error"}
    consumer = Consumer({"fetch.wait.max.ms": 10, **connection.properties, **properties})
    try:
        consumer.assign(
            [
                TopicPartition(*partition_id, end.offset + margin + 1, leader_epoch=end.leader_epoch)
                for partition_id, end in ends.items()
            ]
        )
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while len(shorter) < len(ends) and time.monotonic() < deadline:
            for message in consume(consumer, 1_000, 0.05):
                error = message.error()
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                    shorter.add(partition_of(message))
    finally:
        consumer.close()
    return shorter
