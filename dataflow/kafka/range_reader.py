"""Reads partitions from one offset to another, once: for commands that look at topics while others write to them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.kafka.job_metadata import PartitionId
from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError

_AT_ONCE = 10_000  # messages
_PATIENCE = 30.0  # seconds without any message, and for an answer; then nobody is there


class OffsetRange(NamedTuple):
    """The offsets of a partition from `begin` on, up to and without `end`."""

    begin: int
    end: int


OnProgress = Callable[[int, int], None]  # rows read and dealt with, and rows to be read


class RangeReader:
    """Raises UserError if Kafka does not answer, or lacks one of the topics.

    Args:
        settings: where it is.
        topics: what will be read.
    """

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        self.connection = Connection(settings)
        self.admin: AdminClient = connect(self.connection)
        self.partitions = count_partitions(self.admin, self.connection, topics)
        self._group = settings.group + "-look"  # nothing is ever committed to it

    def ranges(self, topics: Iterable[str]) -> dict[PartitionId, OffsetRange]:
        """What all partitions of these topics hold now."""
        partition_ids = [(topic, number) for topic in topics for number in range(self.partitions[topic])]
        begins, ends = (
            self._offsets(partition_ids, OffsetSpec.earliest()),
            self._offsets(partition_ids, OffsetSpec.latest()),
        )
        return {partition_id: OffsetRange(begins[partition_id], ends[partition_id]) for partition_id in partition_ids}

    def read(
        self, ranges: Mapping[PartitionId, OffsetRange], progress: OnProgress = lambda done, all: None
    ) -> Iterator[Message]:
        """All messages of these spans, each partition's in order."""
        unread = {partition_id: range_.end for partition_id, range_ in ranges.items() if range_.begin < range_.end}
        everything = sum(range_.end - range_.begin for range_ in ranges.values())
        reached = {partition_id: ranges[partition_id].begin for partition_id in unread}
        done = 0
        if not unread:
            return
        consumer = Consumer(
            {
                "fetch.wait.max.ms": 10,
                **self.connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([TopicPartition(*partition_id, ranges[partition_id].begin) for partition_id in unread])
            heard = time.monotonic()
            while unread:
                messages = consumer.consume(_AT_ONCE, 0.1)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() > heard + _PATIENCE:
                    raise UserError(f"Kafka has stopped answering; {len(unread)} partitions are not read to their end")
                for message in messages:
                    partition_id, error = (message.topic(), message.partition()), message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        if not error.retriable():
                            raise UserError(f"{partition_id[0]}/{partition_id[1]} cannot be read: {error.str()}")
                        continue
                    if partition_id not in unread:
                        continue
                    # behind the last row there may be marks of transactions, which are no messages
                    next_one = min(message.offset() + (error is None), unread[partition_id])
                    if error is None and message.offset() < unread[partition_id]:
                        yield message
                    done += next_one - reached[partition_id]
                    progress(done, everything)
                    reached[partition_id] = next_one
                    if next_one == unread[partition_id]:
                        del unread[partition_id]
        finally:
            consumer.close()

    def _offsets(self, partition_ids: list[PartitionId], which: OffsetSpec) -> dict[PartitionId, int]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            asked = {TopicPartition(*partition_id): which for partition_id in partition_ids}
            try:
                answers = {
                    where: answer.result().offset
                    for where, answer in self.admin.list_offsets(asked, request_timeout=5).items()
                }
                if all(offset >= 0 for offset in answers.values()):
                    return {(where.topic, where.partition): offset for where, offset in answers.items()}
            except KafkaException as problem:
                if problem.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise UserError(f"not allowed: {problem.args[0].str()}; grant it and start again") from None
            if time.monotonic() > deadline:
                raise UserError("Kafka does not say where its partitions begin and end; is a broker down?")
            time.sleep(0.2)
