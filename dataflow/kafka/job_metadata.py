"""What the job notes about itself in Kafka: where it began to read and to write, and who runs it.

Notes are commits of a consumer group that nobody reads with: an offset and a few words for each partition. They
need no topic, no disk that processes share, and outlive a job that is killed before its first snapshot.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.kafka.client import Connection
from dataflow.observability import lifecycle, liveness
from dataflow.streaming.errors import UserError

PartitionId = tuple[str, int]  # topic and partition
Answer = TypeVar("Answer")

_PATIENCE = 5.0  # seconds for an answer
_FORBIDDEN = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_PAUSE = 0.2  # seconds before asking again


class MetadataEntry(NamedTuple):
    offset: int
    text: str = ""


class JobMetadata:
    """Reads and writes the notes of one job; raises KafkaException if there is no answer.

    A consumer does it: when brokers come back, librdkafka aborts the process in which the admin client had waited for a
    group's offsets, or never answers it again.

    Args:
        connection: to the cluster.
        group: the job's own consumer group.
    """

    def __init__(self, connection: Connection, group: str) -> None:
        self._group = group
        self._consumer = Consumer({**connection.properties, "group.id": group, "enable.auto.commit": False})

    def read(self, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, MetadataEntry]:
        """The notes that there are on these places."""
        answers = self._consumer.committed(
            [TopicPartition(*partition_id) for partition_id in partition_ids], timeout=_PATIENCE
        )
        return {
            (answer.topic, answer.partition): MetadataEntry(answer.offset, answer.metadata or "")
            for answer in _checked(answers)
            if answer.offset != OFFSET_INVALID
        }

    def write(self, metadata: Mapping[PartitionId, MetadataEntry]) -> None:
        commits = [TopicPartition(*partition_id, note.offset, note.text) for partition_id, note in metadata.items()]
        _checked(self._consumer.commit(offsets=commits, asynchronous=False))

    def poll(self) -> None:
        """Lets the client say what it has to say. Raises UserError if the job may not keep notes."""
        told = self._consumer.poll(0)
        error = told.error() if told is not None else None
        if error is not None and error.code() in _FORBIDDEN:
            raise _not_allowed(f"use the consumer group {self._group}", error)


def start_offsets(
    metadata: JobMetadata, admin: AdminClient, partitions: Mapping[str, int], is_first: bool = True
) -> dict[PartitionId, int]:
    """Where the job began in each partition of some topics. Waits for brokers that are away.

    When it is started for the first time that is their present ends, and noted, before there is a first row. Partitions
    that a topic has got since then are left out. Of an output, keys must go where they went, or a resumed job would not
    find the rows that it has written; of an input, all rows are new.

    Args:
        partitions: how many each topic has now.
        is_first: whether this is the job's first process, which notes them; others wait until it has.
    """
    partition_ids = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    noted = retry_until_answered(lambda: metadata.read(partition_ids), metadata.poll)
    while not is_first and partitions.keys() > {topic for topic, _ in noted}:
        time.sleep(_PAUSE)
        noted = retry_until_answered(lambda: metadata.read(partition_ids), metadata.poll)
    for topic in partitions.keys() - {topic for topic, _ in noted}:
        new = [partition_id for partition_id in partition_ids if partition_id[0] == topic]
        ends = retry_until_answered(lambda new=new: ends_of(admin, new), metadata.poll)
        fresh = {partition_id: MetadataEntry(end.offset) for partition_id, end in ends.items()}
        retry_until_answered(lambda fresh=fresh: metadata.write(fresh), metadata.poll)
        noted |= fresh
    return {partition_id: note.offset for partition_id, note in noted.items()}


class EndOffset(NamedTuple):
    """The offset after a partition's last row, and the term of its leader (None: not told)."""

    offset: int
    leader_epoch: int | None


def ends_of(admin: AdminClient, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, EndOffset]:
    """Asks for the ends of partitions; raises KafkaException unless all are told."""
    asked = {TopicPartition(*partition_id): OffsetSpec.latest() for partition_id in partition_ids}
    try:
        answers = {
            where: answer.result() for where, answer in admin.list_offsets(asked, request_timeout=_PATIENCE).items()
        }
    except KafkaException:
        for topic in {where.topic for where in asked}:  # or librdkafka goes on asking the leaders of old
            admin.list_topics(topic, timeout=_PATIENCE)
        raise
    if min((answer.offset for answer in answers.values()), default=0) < 0:  # may be said of a broker out of reach
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return {
        (where.topic, where.partition): EndOffset(answer.offset, answer.leader_epoch)
        for where, answer in answers.items()
    }


def retry_until_answered(ask: Callable[[], Answer], meanwhile: Callable[[], None]) -> Answer:
    """Asks until there is an answer. Raises UserError if it is one that asking again does not change."""
    while True:
        try:
            return ask()
        except KafkaException as problem:
            error = problem.args[0]
            if error.code() in _FORBIDDEN:
                raise _not_allowed("look after the output topics and the job's consumer groups", error) from None
        meanwhile()
        liveness.heartbeat()
        lifecycle.block_if_stopping()
        time.sleep(_PAUSE)


def _checked(answers: list[TopicPartition]) -> list[TopicPartition]:
    for answer in answers:
        if answer.error is not None and answer.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise _not_allowed(f"read {answer.topic}", answer.error)
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers


def _not_allowed(what: str, error: KafkaError) -> UserError:
    return UserError(f"not allowed to {what} ({error.str()}); grant it and start again")
