"""Looks after the input topics: how many partitions they have, where these end, and how far the job has read them."""

import threading
import time
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.kafka.client import Connection
from dataflow.kafka.job_metadata import PartitionId
from dataflow.kafka.replication_probe import ReplicationProbe

_INTERVAL = 0.3  # seconds between questions for the ends
_COUNTED_EVERY = 1.0  # seconds; a new partition must be known before its rows are older than the allowed lateness
_PATIENCE = 2.0  # seconds; a broker that answers later is asked again
_AWAY = 3_000_000  # microseconds; a partition that took no rows for so long, for all we know, was out of writers' reach


class ConfirmedEnd(NamedTuple):
    """At wall time `asked`, in microseconds, the partition held nothing at or after `offset`.

    It is `sure` that nothing older is on its way: its leader hides no rows, and those who write have had the time to come
    back if there was an outage.
    """

    asked: int
    offset: int
    sure: bool


class EndOffsetPoller:
    """Asks the brokers again and again, in a thread of its own so that no source ever waits for an answer.

    While no answer comes, or rows are hidden, nobody has caught up, nor for a while after: what was to be written during
    an outage is written after it, and must not find that the time has gone on. A process that has just started cannot
    know that there was none, so it begins with such a while. One for all workers of a process.

    Args:
        admin: asks.
        connection: hears when there was an answer.
        partitions: how many each input topic has at first.
        group: consumer group to which offsets are committed, for lag monitors only.
        grace: microseconds in which those who write are back after an outage.
    """

    def __init__(
        self, admin: AdminClient, connection: Connection, partitions: dict[str, int], group: str, grace: int
    ) -> None:
        self._admin = admin
        self._replication_probe = ReplicationProbe(connection, group)
        self._committer = Consumer({**connection.properties, "group.id": group, "enable.auto.commit": False})
        self._connection = connection
        self._grace = grace
        self._sure_from = time.time_ns() // 1_000 + grace
        self._partitions = dict(partitions)
        self._watched: dict[str, TopicPartition] = {}
        self._ends: dict[str, ConfirmedEnd] = {}
        self._reported: dict[tuple[str, int], int] = {}
        self._answered: dict[str, int] = {}  # when each was asked last and took rows, or would have
        self._returned: dict[str, int] = {}  # when the writers of one that had been away are back too
        self._lock = threading.Lock()  # guards _watched and _reported
        self._thread: threading.Thread | None = None
        self.sources = self._all_sources()

    def watch(self, source: str, partition: TopicPartition) -> None:
        """From now on asks for the end of this partition too."""
        with self._lock:
            self._watched[source] = partition
            self._answered[source] = time.time_ns() // 1_000  # as if
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
                self._thread.start()

    def unwatch(self, source: str) -> None:
        with self._lock:
            del self._watched[source]  # the thread ends with the last one

    def end(self, source: str) -> ConfirmedEnd | None:
        """The last answer for a watched partition."""
        return self._ends.get(source)

    def back_at(self, source: str) -> int:
        """The wall time, in microseconds, from which on those who write to a partition are back from any outage."""
        return max(self._sure_from, self._returned.get(source, 0))

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
        asked = time.time_ns() // 1_000
        latest = {where: OffsetSpec.latest() for where in watched.values()}
        try:
            answers = self._admin.list_offsets(latest, request_timeout=_PATIENCE)
        except KafkaException:
            return False
        ends: dict[PartitionId, int] = {}
        for where, answer in answers.items():
            try:
                offset = answer.result().offset
            except KafkaException:
                continue  # no answer, no end
            if offset >= 0:  # what librdkafka says of a broker out of reach is not always an exception
                ends[where.topic, where.partition] = offset
        if not ends:
            return False
        self._connection.answered()
        shown = self._replication_probe.fully_replicated(ends)
        for partition_id, offset in ends.items():
            self._hear(source_name(*partition_id), asked, offset, partition_id in shown)
        return True

    def _hear(self, source: str, asked: int, offset: int, all_is_shown: bool) -> None:
        last = self._ends.get(source)
        if all_is_shown or last is not None and offset > last.offset:  # if not, it may be that nothing can be written
            before, self._answered[source] = self._answered[source], asked
            if asked > before + _AWAY:
                self._returned[source] = asked + self._grace
        sure = all_is_shown and asked >= self.back_at(source)
        self._ends[source] = ConfirmedEnd(asked, offset, sure)

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
