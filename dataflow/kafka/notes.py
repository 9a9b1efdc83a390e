"""What the job notes about itself in Kafka: where it began to read and to write, and who runs it.

Notes are commits of a consumer group that nobody reads with: an offset and a few words for each partition. They
need no topic, no disk that processes share, and outlive a job that is killed before its first snapshot.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow import pulse, shutdown
from dataflow.errors import UserError
from dataflow.kafka.client import Connection

Place = tuple[str, int]  # topic and partition
Answer = TypeVar("Answer")

_PATIENCE = 5.0  # seconds for an answer
_FORBIDDEN = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_PAUSE = 0.2  # seconds before asking again


class Note(NamedTuple):
    offset: int
    text: str = ""


class Notes:
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

    def read(self, places: Iterable[Place]) -> dict[Place, Note]:
        """The notes that there are on these places."""
        answers = self._consumer.committed([TopicPartition(*place) for place in places], timeout=_PATIENCE)
        return {
            (answer.topic, answer.partition): Note(answer.offset, answer.metadata or "")
            for answer in _checked(answers)
            if answer.offset != OFFSET_INVALID
        }

    def write(self, notes: Mapping[Place, Note]) -> None:
        commits = [TopicPartition(*place, note.offset, note.text) for place, note in notes.items()]
        _checked(self._consumer.commit(offsets=commits, asynchronous=False))

    def poll(self) -> None:
        """Lets the client say what it has to say. Raises UserError if the job may not keep notes."""
        told = self._consumer.poll(0)
        error = told.error() if told is not None else None
        if error is not None and error.code() in _FORBIDDEN:
            raise _not_allowed(f"use the consumer group {self._group}", error)


def beginnings(
    notes: Notes, admin: AdminClient, partitions: Mapping[str, int], is_first: bool = True
) -> dict[Place, int]:
    """Where the job began in each partition of some topics. Waits for brokers that are away.

    When it is started for the first time that is their present ends, and noted, before there is a first row. Partitions
    that a topic has got since then are left out. Of an output, keys must go where they went, or a resumed job would not
    find the rows that it has written; of an input, all rows are new.

    Args:
        partitions: how many each topic has now.
        is_first: whether this is the job's first process, which notes them; others wait until it has.
    """
    places = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    noted = insist(lambda: notes.read(places), notes.poll)
    while not is_first and partitions.keys() > {topic for topic, _ in noted}:
        time.sleep(_PAUSE)
        noted = insist(lambda: notes.read(places), notes.poll)
    for topic in partitions.keys() - {topic for topic, _ in noted}:
        new = [place for place in places if place[0] == topic]
        ends = insist(lambda new=new: ends_of(admin, new), notes.poll)
        fresh = {place: Note(end.offset) for place, end in ends.items()}
        insist(lambda fresh=fresh: notes.write(fresh), notes.poll)
        noted |= fresh
    return {place: note.offset for place, note in noted.items()}


class End(NamedTuple):
    """The offset after a partition's last row, and the term of its leader (None: not told)."""

    offset: int
    leader_epoch: int | None


def ends_of(admin: AdminClient, places: Iterable[Place]) -> dict[Place, End]:
    """Asks for the ends of partitions; raises KafkaException unless all are told."""
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
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
        (where.topic, where.partition): End(answer.offset, answer.leader_epoch) for where, answer in answers.items()
    }


def insist(ask: Callable[[], Answer], meanwhile: Callable[[], None]) -> Answer:
    """Asks until there is an answer. Raises UserError if it is one that asking again does not change."""
    while True:
        try:
            return ask()
        except KafkaException as problem:
            error = problem.args[0]
            if error.code() in _FORBIDDEN:
                raise _not_allowed("look after the output topics and the job's consumer groups", error) from None
        meanwhile()
        pulse.waits()
        shutdown.stand_still_if_requested()
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
