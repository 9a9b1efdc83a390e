"""Looks after the input topics: how many partitions they have, where these end, and how far the job has read them."""

import threading
import time
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.kafka.client import Connection

_INTERVAL = 0.3  # seconds between questions for the ends
_COUNTED_EVERY = 1.0  # seconds; a new partition must be known before its rows are older than the allowed lateness
_PATIENCE = 2.0  # seconds; a broker that answers later is asked again
_AWAY = 3_000_000  # microseconds; a partition that gave no answer for so long was out of everybody's reach
_RETURN = 20_000_000  # and for so long those who write to it come back with old rows: librdkafka pauses up to 15 s


class End(NamedTuple):
    """At wall time `asked`, in microseconds, the partition held nothing at or after `offset`."""

    asked: int
    offset: int


class Lookout:
    """Asks the brokers again and again, in a thread of its own so that no source ever waits for an answer.

    While no answer comes, nobody has caught up, nor for a while after: what was to be written during an outage is
    written after it, and must not find that the time has gone on. One for all workers of a process.

    Args:
        admin: asks.
        connection: hears when there was an answer.
        partitions: how many each input topic has at first.
        group: consumer group to which offsets are committed, for lag monitors only.
    """

    def __init__(self, admin: AdminClient, connection: Connection, partitions: dict[str, int], group: str) -> None:
        self._admin = admin
        self._committer = Consumer({**connection.properties, "group.id": group, "enable.auto.commit": False})
        self._connection = connection
        self._partitions = dict(partitions)
        self._watched: dict[str, TopicPartition] = {}
        self._ends: dict[str, End] = {}
        self._reported: dict[tuple[str, int], int] = {}
        self._answered: dict[str, int] = {}  # when each was asked the last question that it answered
        self._returned: dict[str, int] = {}  # when the writers of one that had been away are back too
        self._lock = threading.Lock()  # guards _watched and _reported
        self._thread: threading.Thread | None = None
        self.sources = self._all_sources()

    def watch(self, source: str, partition: TopicPartition) -> None:
        """From now on asks for the end of this partition too."""
        with self._lock:
            self._watched[source] = partition
            self._answered[source] = time.time_ns() // 1_000  # as if: who finds brokers away knows of the outage
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
                self._thread.start()

    def unwatch(self, source: str) -> None:
        with self._lock:
            del self._watched[source]  # the thread ends with the last one

    def end(self, source: str) -> End | None:
        """The last answer for a watched partition, if there is one that tells the whole truth."""
        return self._ends.get(source)

    def back_at(self, source: str) -> int | None:
        """The wall time, in microseconds, from which on a partition that had been away has its writers back."""
        return self._returned.get(source)

    def count(self, topic: str) -> int:
        """How many partitions the topic had when last looked at; they only ever become more."""
        return self._partitions[topic]

    def report(self, offsets: dict[tuple[str, int], int]) -> None:
        """The next offsets to be read, by topic and partition, as of a snapshot."""
        with self._lock:
            self._reported |= {where: offset for where, offset in offsets.items() if offset >= 0}

    def _run(self) -> None:
        counted = time.monotonic()
        while True:
            with self._lock:
                watched = dict(self._watched)
                reported, self._reported = self._reported, {}
                if not watched:
                    self._thread = None
                    return
            if not self._ask_for_ends(watched):
                self._connection.unanswered()
            elif reported:
                self._commit(reported)
            if time.monotonic() > counted + _COUNTED_EVERY:
                self._count()
                counted = time.monotonic()
            time.sleep(_INTERVAL)

    def _ask_for_ends(self, watched: dict[str, TopicPartition]) -> bool:
        """Returns whether there was any answer."""
        answered = False
        asked = time.time_ns() // 1_000
        latest = {where: OffsetSpec.latest() for where in watched.values()}
        sources = {(where.topic, where.partition): source for source, where in watched.items()}
        try:
            answers = self._admin.list_offsets(latest, request_timeout=_PATIENCE)
        except KafkaException:
            return False
        for where, answer in answers.items():
            try:
                offset = answer.result().offset
            except KafkaException:
                continue  # no answer, no end
            if offset >= 0:  # what librdkafka says of a broker out of reach is not always an exception
                self._hear(sources[where.topic, where.partition], End(asked, offset))
                self._connection.answered()
                answered = True
        return answered

    def _hear(self, source: str, end: End) -> None:
        before, self._answered[source] = self._answered[source], end.asked
        if end.asked > before + _AWAY:
            self._returned[source] = end.asked + _RETURN
        if end.asked >= self._returned.get(source, 0):
            self._ends[source] = end

    def _commit(self, reported: dict[tuple[str, int], int]) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in reported.items()]
        try:
            self._committer.commit(offsets=offsets, asynchronous=True)
            self._committer.poll(0)  # hears of the one before
        except KafkaException:
            pass  # monitors see it with the next snapshot

    def _count(self) -> None:
        for topic, known in self._partitions.items():
            try:
                found = self._admin.list_topics(topic, timeout=_PATIENCE).topics[topic]
            except KafkaException:
                return
            if found.error is None and len(found.partitions) > known:
                self._partitions[topic] = len(found.partitions)
                self.sources = self._all_sources()

    def _all_sources(self) -> tuple[str, ...]:
        return tuple(source_name(topic, number) for topic, count in self._partitions.items() for number in range(count))


def source_name(topic: str, partition: int) -> str:
    """What a partition is called as a source."""
    return f"{topic}/{partition}"
