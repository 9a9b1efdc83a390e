"""What already stands in the output: how a resumed job knows which rows it need not write again.

A replay makes byte for byte the same rows, so no transactions are needed for each to be there exactly once. A part, one
output partition, remembers its end as of a snapshot; when it resumes, it reads what was written after that, and leaves
out every row that is already there, as often as it is there.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TypeVar

import msgspec
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow import shutdown
from dataflow.errors import UserError
from dataflow.kafka.client import Connection

Headers = list[tuple[str, bytes]] | None
Place = tuple[str, int]  # topic and partition
Answer = TypeVar("Answer")

_PATIENCE = 5.0  # seconds for an answer, before asking again
_MOST = 1_000_000  # rows of one partition that are kept in mind: 150 MB


def fingerprint(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """16 bytes that stand for a row."""
    return blake2b(msgspec.msgpack.encode((key, value, headers or None)), digest_size=16).digest()


class Written:
    """Reads the output topics.

    Args:
        admin: asks the brokers.
        connection: what its consumers start from.
        group: consumer group in which the job notes where its output began. It is the job's identity: rows written
            since then under the same name are its own.
    """

    def __init__(self, admin: AdminClient, connection: Connection, group: str) -> None:
        self._admin = admin
        self._connection = connection
        self._group = group
        # a consumer keeps the notes: when brokers come back, librdkafka aborts the process in which the admin client had
        # waited for a group's offsets, or never answers it again
        self._keeper = Consumer({**connection.properties, "group.id": group, "enable.auto.commit": False})

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offsets after the last rows of partitions. Waits for brokers that are away."""
        asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}

        def ask() -> dict[Place, int]:
            answers = self._admin.list_offsets(asked, request_timeout=_PATIENCE)
            try:
                ends = {(where.topic, where.partition): answer.result().offset for where, answer in answers.items()}
            except KafkaException:
                for topic in {where.topic for where in asked}:  # or librdkafka goes on asking the leaders of old
                    self._admin.list_topics(topic, timeout=_PATIENCE)
                raise
            if min(ends.values(), default=0) < 0:  # what librdkafka may say of a broker out of reach
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return ends

        return self._insist(ask)

    def beginning(self, place: Place) -> int:
        """Where this job's rows begin in a partition; before it has written any, that is the present end, and noted.

        It must be noted before the first row: a job that is killed before its first snapshot has nothing else to tell
        it which rows are its own.
        """
        where = TopicPartition(*place)
        noted = self._insist(lambda: _checked(self._keeper.committed([where], timeout=_PATIENCE)))
        if noted != OFFSET_INVALID:
            return noted
        where.offset = self.ends([place])[place]
        return self._insist(lambda: _checked(self._keeper.commit(offsets=[where], asynchronous=False)))

    def rows(self, place: Place, begin: int) -> Counter[bytes]:
        """The fingerprints of a partition's rows from an offset on, and how often each is there.

        Raises:
            UserError: they are too many to be from one interval between two snapshots.
        """
        rows: Counter[bytes] = Counter()
        end = self.ends([place])[place]
        if begin >= end:
            return rows
        if end - begin > _MOST:
            raise UserError(
                f"{place[0]}/{place[1]}: {end - begin:,} rows of the job {self._group!r} are there, and nothing that says "
                "which are done; resume with its recovery store, or set VISITS_GROUP to a new name to write all again"
            )
        consumer = Consumer(
            {
                **self._connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # rows that retention has removed are not wanted
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([TopicPartition(*place, begin)])
        while True:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    rows[fingerprint(message.key(), message.value(), message.headers())] += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= end:
                        consumer.close()
                        return rows
                elif not error.retriable():
                    raise UserError(f"{place[0]}/{place[1]}: cannot be read to see what is there: {error.str()}")
            self._check_stop()

    def _insist(self, ask: Callable[[], Answer]) -> Answer:
        """Asks until there is an answer. Raises UserError if it is one that asking again does not change."""
        while True:
            try:
                return ask()
            except KafkaException as problem:
                error = problem.args[0]
                if error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
                    raise UserError(f"not allowed: {error.str()}; grant it and start again") from None
            self._keeper.poll(0)  # takes what it has to say of brokers
            self._check_stop()
            time.sleep(0.2)

    def _check_stop(self) -> None:
        if shutdown.requested.is_set():
            raise UserError("stopped while Kafka is away; what it has not acknowledged will be written on resume")


def _checked(answers: list[TopicPartition]) -> int:
    """The offset in the answer for one partition; raises KafkaException if that is an error."""
    if answers[0].error is not None:
        raise KafkaException(answers[0].error)
    return answers[0].offset
