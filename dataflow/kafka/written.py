"""What already stands in the output: how a resumed job knows which rows it need not write again.

A replay makes byte for byte the same rows, so no transactions are needed for each to be there exactly once. A part, one
output partition, remembers its end as of a snapshot; when it resumes, it reads what was written after that, and leaves
out every row that is already there, as often as it is there.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflow import pulse, shutdown
from dataflow.errors import UserError
from dataflow.kafka.client import Connection
from dataflow.kafka.notes import End, Notes, Place, ends_of, insist

Headers = list[tuple[str, bytes]] | None

_MOST = 1_000_000  # rows of one partition that are kept in mind: 150 MB
_ANSWERED_WITHIN = 3.0  # seconds for the leaders of all partitions
_CALM = 1.0  # seconds; then brokers have taken in whatever a killed process had sent them


def fingerprint(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """16 bytes that stand for a row."""
    return blake2b(msgspec.msgpack.encode((key, value, headers or None)), digest_size=16).digest()


class Written:
    """Reads the output topics.

    Args:
        admin: asks the brokers.
        connection: what its consumers start from.
        notes: the job's.
        beginnings: where the job's own rows begin in each partition that it writes to.
        group: name under which the consumers read.
    """

    def __init__(
        self, admin: AdminClient, connection: Connection, notes: Notes, beginnings: Mapping[Place, int], group: str
    ) -> None:
        self._admin = admin
        self._connection = connection
        self._notes = notes
        self._group = group
        self.beginnings = beginnings
        self._calm_at = time.monotonic() + _CALM
        self._settled: dict[Place, int] = {}
        self._lock = threading.Lock()  # guards _settled

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offsets after the last rows of partitions. Waits for brokers that are away."""
        ends = insist(lambda: ends_of(self._admin, places), self._notes.poll)
        return {place: end.offset for place, end in ends.items()}

    def rows(self, place: Place, begin: int) -> Counter[bytes]:
        """The fingerprints of a partition's rows from an offset on, and how often each is there.

        Raises:
            UserError: they are too many to be from one interval between two snapshots.
        """
        rows: Counter[bytes] = Counter()
        end = self._settled_end(place)
        if begin >= end:
            return rows
        if end - begin > _MOST:
            raise UserError(
                f"{place[0]}/{place[1]}: {end - begin:,} rows of this job are there, and nothing that says which are "
                "done; resume with its recovery store, or set VISITS_GROUP to a new name to write all again"
            )
        consumer = self._consumer("earliest")  # rows that retention has removed are not wanted
        consumer.assign([TopicPartition(*place, begin)])
        while True:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= end:
                        consumer.close()
                        return rows
                    if error is None and message.offset() >= begin:
                        begin = message.offset() + 1  # rows may be handed out again when leaders change
                        rows[fingerprint(message.key(), message.value(), message.headers())] += 1
                elif not error.retriable():
                    raise UserError(f"{place[0]}/{place[1]}: cannot be read to see what is there: {error.str()}")
            pulse.waits()
            shutdown.stand_still_if_requested()

    def _settled_end(self, place: Place) -> int:
        """The end of a partition as this process finds it, with all that a killed one had sent.

        Consumers are told an end that leaves out what not all replicas have yet, which while a broker is down may be
        for many seconds; but it is there, in front of whatever is written next. So this waits until the leader has
        nothing more than it tells. The first part that asks, asks for all.
        """
        with self._lock:
            if not self._settled:
                time.sleep(max(0.0, self._calm_at - time.monotonic()))
                self._settled = self._settle(self.beginnings)
            if place not in self._settled:
                self._settled |= self._settle([place], insist_on_all=True)
            return self._settled[place]

    def _settle(self, places: Iterable[Place], insist_on_all: bool = False) -> dict[Place, int]:
        """The settled ends of partitions: of all, or of those that are by now (into others somebody may be writing)."""
        places, settled = set(places), {}
        began = time.monotonic()
        insist(lambda: ends_of(self._admin, places), self._notes.poll)
        if time.monotonic() > began + _CALM:
            time.sleep(_CALM)  # a broker has come back this moment, with a crowd at its door
        while True:
            ends = insist(lambda places=places: ends_of(self._admin, places), self._notes.poll)
            hidden = self._hidden(ends)
            settled |= {place: end.offset for place, end in ends.items() if place not in hidden}
            if not hidden or not insist_on_all and time.monotonic() > began + _CALM:
                return settled
            places = hidden
            pulse.waits()
            shutdown.stand_still_if_requested()

    def _hidden(self, ends: Mapping[Place, End]) -> set[Place]:
        """The partitions of which it is not certain that their leader has nothing behind the end.

        A consumer that claims to have read one row more, in the present leader's term, is told that the log is shorter
        than that (KIP-320), unless there is such a row. Brokers that do not tell the term are believed.
        """
        unsure = {place for place, end in ends.items() if end.leader_epoch is not None and end.leader_epoch >= 0}
        if not unsure:
            return unsure
        consumer = self._consumer("error")
        consumer.assign(
            [TopicPartition(*place, ends[place].offset + 1, leader_epoch=ends[place].leader_epoch) for place in unsure]
        )
        deadline = time.monotonic() + _ANSWERED_WITHIN
        while unsure and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.05):
                error = message.error()
                if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
                    unsure.discard((message.topic(), message.partition()))
        consumer.close()
        return unsure

    def _consumer(self, reset: str) -> Consumer:
        return Consumer(
            {
                "fetch.wait.max.ms": 10,
                **self._connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": reset,
                "enable.partition.eof": True,
            }
        )
