"""Where partitions end, with all that was sent before: also what Kafka still hides, and while others write."""

import math
import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflow.kafka.client import Connection
from dataflow.kafka.job_metadata import EndOffset, PartitionId, ends_of, retry_until_answered
from dataflow.observability import lifecycle, liveness

_QUIET_S = 1.0  # seconds; then brokers have taken in whatever a killed process had sent them
_ANSWER_TIMEOUT_S = 1.0  # seconds for the leaders of all partitions
_PATIENCE = 40.0  # seconds; Kafka itself waits for a replica no longer than 30, then it counts without it
_MARGINS = 1_000, 1_000_000  # rows that may be hidden, or written while we ask


def stable_end_offsets(
    admin: AdminClient,
    connection: Connection,
    group: str,
    partition_ids: Collection[PartitionId],
    meanwhile: Callable[[], None],
) -> dict[PartitionId, int]:
    """Ends of partitions, behind everything that a process which is dead by now had sent them. Waits for brokers.

    Consumers are told an end that leaves out what not all replicas have yet. So this finds out how long the leader's
    log is at most, and waits until consumers are told of so much; or until Kafka would long have told it.
    """
    retry_until_answered(
        lambda: ends_of(admin, partition_ids), meanwhile
    )  # all brokers are there, perhaps this moment, with a crowd at the door
    time.sleep(_QUIET_S)
    deadline = time.monotonic() + _PATIENCE
    longest: dict[PartitionId, int] = {}  # the leader's log was no longer than this, after the calm
    while True:
        ends = retry_until_answered(lambda: ends_of(admin, partition_ids), meanwhile)
        for partition_id, end in ends.items():
            if end.leader_epoch is None or end.leader_epoch < 0:
                longest.setdefault(partition_id, end.offset)  # brokers that do not tell the leader's term are believed
        unsure = {
            partition_id: end for partition_id, end in ends.items() if longest.get(partition_id, math.inf) > end.offset
        }
        if not unsure or time.monotonic() > deadline:
            return {partition_id: end.offset for partition_id, end in ends.items()}
        liveness.heartbeat()
        lifecycle.block_if_stopping()
        for partition_id in _no_longer(connection, group, unsure, 0):
            longest[partition_id] = unsure[partition_id].offset
        for margin in _MARGINS:
            unbounded = {partition_id: end for partition_id, end in unsure.items() if partition_id not in longest}
            for partition_id in _no_longer(connection, group, unbounded, margin):
                longest[partition_id] = unbounded[partition_id].offset + margin


def _no_longer(
    connection: Connection, group: str, ends: Mapping[PartitionId, EndOffset], margin: int
) -> set[PartitionId]:
    """The partitions whose leader certainly has no more than so many rows behind the end.

    A consumer that claims to have read one row more, in the present leader's term, is told that the log is shorter
    than that (KIP-320), unless there is such a row.
    """
    told: set[PartitionId] = set()
    if not ends:
        return told
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
        while len(told) < len(ends) and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.05):
                error = message.error()
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                    told.add((message.topic(), message.partition()))
    finally:
        consumer.close()
    return told
