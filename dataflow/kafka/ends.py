"""Knows where the input partitions end, and since when: what a source needs to say that it has caught up."""

import threading
from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec

from dataflow.kafka.client import Connection
from dataflow.rules.rows import SECOND

_INTERVAL = 3 * SECOND // 10
_PATIENCE = 2.0  # seconds; a broker that answers later is asked again


class End(NamedTuple):
    """At wall time `asked` the partition held nothing at or after `offset`."""

    asked: int
    offset: int


class LogEnds:
    """Asks the brokers for the ends of all partitions that this process reads, several times a second.

    Nobody waits for an answer; while none comes, nobody has caught up. Used by all workers of the process.
    """

    def __init__(self, admin: AdminClient, connection: Connection) -> None:
        self._admin = admin
        self._connection = connection
        self._watched: dict[str, TopicPartition] = {}
        self._ends: dict[str, End] = {}
        self._asked = 0
        self._answers: list[tuple[str, Future[ListOffsetsResultInfo]]] = []
        self._lock = threading.Lock()

    def watch(self, source: str, partition: TopicPartition) -> None:
        with self._lock:
            self._watched[source] = partition

    def unwatch(self, source: str) -> None:
        with self._lock:
            self._watched.pop(source, None)

    def latest(self, source: str, now: int) -> End | None:
        """The last answer for a partition, if there is one; asks again when it is time."""
        if self._lock.acquire(blocking=False):  # another worker is at it otherwise
            try:
                self._collect()
                if not self._answers and now >= self._asked + _INTERVAL:
                    self._asked = now
                    self._answers = self._request()
            finally:
                self._lock.release()
        return self._ends.get(source)

    def _collect(self) -> None:
        if not self._answers or not all(answer.done() for _, answer in self._answers):
            return
        for source, answer in self._answers:
            if answer.exception() is None:
                self._ends[source] = End(self._asked, answer.result().offset)
                self._connection.answered()
        self._answers = []

    def _request(self) -> list[tuple[str, Future[ListOffsetsResultInfo]]]:
        sources = {(where.topic, where.partition): source for source, where in self._watched.items()}
        latest = {where: OffsetSpec.latest() for where in self._watched.values()}
        try:
            answers = self._admin.list_offsets(latest, request_timeout=_PATIENCE) if latest else {}
        except KafkaException:
            return []  # the client's own queue; the next try will do
        return [(sources[where.topic, where.partition], answer) for where, answer in answers.items()]
