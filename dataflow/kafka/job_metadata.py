"""What the job stores about itself in Kafka: its start offsets, its settings, and the process that runs it.

Metadata is stored as committed offsets of a consumer group without members: an offset and a note for each partition.
It needs no topic and no disk that processes share, and it outlives a job that is killed before its first snapshot.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.offsets import FORBIDDEN, TIMEOUT_S, PartitionId, end_offsets, not_allowed, retry_until_answered
from dataflow.kafka.replaceable import Admin, Replaceable
from dataflow.observability import logs
from dataflow.streaming.errors import START_OVER, UserError

log = logging.getLogger("visits")

_TELL_AFTER_S = 10.0
_POLL_INTERVAL_S = 0.2  # of processes that wait for the first one
_OPTIONAL_WAIT_S = 30.0  # how long they do so for a topic that the first one may not have found


class LeaseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process that runs the job; see `dataflow.kafka.lease`."""

    id: str  # of this start
    host: str = ""
    boot: str = ""  # which start of the host; two hosts may have one name
    namespace: str = ""  # in which the process has its number
    pid: str = ""
    started: str = ""  # when the process started; numbers are used again
    renewals: int = 0
    clock: int = 0  # the time of the last renewal by the job's clock, microseconds
    shared: dict[str, float | str] = {}  # what all processes must have in common, by name


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the job notes beside the start offset of a partition."""

    topic_id: str = ""  # Kafka's id of the topic; "": not known
    # for partition 0 only: the settings under which the topic's rows were written, and Kafka's ids of the inputs
    settings: dict[str, float | str] = {}
    inputs: dict[str, str] = {}
    lease: LeaseRecord | None = None
    drain: str = ""  # id of the lease whose processes are to drain
    # for partition 0 only: of each input, the sum of the offsets of its partitions' first rows when the job began
    firsts: dict[str, int] = {}
    since: int = 0  # the end of the partition when the settings were changed last


class MetadataEntry(NamedTuple):
    """What is stored for one partition."""

    offset: int
    note: Note = Note()


class JobMetadata:
    """Reads and writes the metadata of one job. Its methods raise KafkaException if there is no answer.

    It uses a consumer: when brokers come back, librdkafka aborts the process in which an admin client was waiting for
    the offsets of a group, or never answers it again.

    Args:
        connection: to the cluster.
        group: the consumer group that holds the metadata.
    """

    def __init__(self, connection: Connection, group: str) -> None:
        self._group = group
        properties = {**connection.properties, "group.id": group, "enable.auto.commit": False}
        self._consumer = Replaceable(lambda: Consumer(properties))

    def read(self, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, MetadataEntry]:
        """The entries of these partitions; partitions without one are left out."""
        partitions = [TopicPartition(*partition_id) for partition_id in partition_ids]
        with self._consumer.asked() as consumer:
            answers = consumer.committed(partitions, timeout=TIMEOUT_S)
        return {
            (answer.topic, answer.partition): MetadataEntry(answer.offset, _note(answer.metadata or ""))
            for answer in _checked(answers)
            if answer.offset != OFFSET_INVALID
        }

    def write(self, metadata: Mapping[PartitionId, MetadataEntry]) -> None:
        """Stores the entries of these partitions; others stay as they are."""
        commits = [
            TopicPartition(*partition_id, entry.offset, msgspec.json.encode(entry.note).decode())
            for partition_id, entry in metadata.items()
        ]
        with self._consumer.asked() as consumer:
            answers = consumer.commit(offsets=commits, asynchronous=False)
        _checked(answers)

    def poll(self) -> None:
        """Lets the client report errors. Raises UserError if the job may not use the group."""
        message = self._consumer.client.poll(0)
        error = message.error() if message is not None else None
        if error is not None and error.code() in FORBIDDEN:
            raise not_allowed(f"use the consumer group {self._group}", error)


def read_entries(
    metadata: JobMetadata,
    admin: Admin,
    partitions: Mapping[str, int],
    topic_ids: Mapping[str, str],
    is_first: bool = True,
    on_begin: Callable[[str, int], None] = lambda topic, rows: None,
    optional: Collection[str] = (),
) -> dict[PartitionId, MetadataEntry]:
    """The entries of all partitions of some topics that the job began with. Waits for brokers that are away.

    On the first start their offsets are the present ends, which are stored before there is a first row. Partitions added
    to a topic since then are left out. In an output topic, keys must stay in their partitions, or a resumed job would not
    find the rows that it has written. In an input topic, all rows of an added partition are new.

    Args:
        metadata: of the job.
        admin: asks for the ends.
        partitions: the present number of partitions of each topic.
        topic_ids: Kafka's ids of the topics, as far as they are known.
        is_first: whether this is the job's first process, which stores the entries; others wait until it has.
        on_begin: called at the first start for each topic with the number of rows that were written to it by then.
        optional: topics that the first process may have found missing when it looked. Others do then as it does: they
            leave out such a topic if it has no entries after a while, because all must have the same steps.

    Raises:
        UserError: a topic was created again since its offsets were stored.
    """
    partition_ids = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    read = partial(metadata.read, partition_ids)
    stored = retry_until_answered(read, metadata.poll)
    began, told = time.monotonic(), False
    while not is_first and (new := partitions.keys() - {topic for topic, _ in stored}):
        if new.issubset(optional) and time.monotonic() > began + _OPTIONAL_WAIT_S:
            partitions = {topic: count for topic, count in partitions.items() if topic not in new}
            break
        if not told and time.monotonic() > began + _TELL_AFTER_S:
            told = True
            log.warning(
                "waiting for the job's first process (-i 0) to begin with %s; has it the same VISITS_GROUP and topics?",
                ", ".join(sorted(new)),
                extra=logs.event("cluster"),
            )
        time.sleep(_POLL_INTERVAL_S)
        stored = retry_until_answered(read, metadata.poll)
    for (topic, _), entry in stored.items():
        known = topic_ids.get(topic, "")
        if known and entry.note.topic_id and entry.note.topic_id != known:
            raise UserError(f"topic {topic} was created again since the job began with it; {START_OVER}")
    for topic in partitions.keys() - {topic for topic, _ in stored}:
        of_topic = [partition_id for partition_id in partition_ids if partition_id[0] == topic]
        ends = retry_until_answered(partial(end_offsets, admin, of_topic), metadata.poll)
        note = Note(topic_ids.get(topic, ""))
        entries = {partition_id: MetadataEntry(end.offset, note) for partition_id, end in ends.items()}
        retry_until_answered(partial(metadata.write, entries), metadata.poll)
        stored |= entries
        on_begin(topic, sum(entry.offset for entry in entries.values()))
    return stored


def _note(text: str) -> Note:
    try:
        return msgspec.json.decode(text, type=Note) if text else Note()
    except msgspec.DecodeError:
        # version 0.1.0 noted nothing but its lease: host, namespace, process, renewals
        host, namespace, pid, renewals = [*text.split(), "", "", "", ""][:4]
        return Note(lease=LeaseRecord(text.rpartition(" ")[0], host, "", namespace, pid, "", int(renewals or 0)))


def _checked(answers: list[TopicPartition]) -> list[TopicPartition]:
    for answer in answers:
        if answer.error is not None and answer.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise not_allowed(f"read {answer.topic}", answer.error)
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers
