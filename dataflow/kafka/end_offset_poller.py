"""Polls the input topics: how many partitions they have, where these end, and how far the job has read them."""

import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from dataflow.kafka.client import Connection
from dataflow.kafka.in_sync import InSyncReplicas
from dataflow.kafka.offsets import PartitionId, known_end_offsets, source_name
from dataflow.kafka.replaceable import Admin
from dataflow.kafka.replication_probe import ReplicationProbe
from dataflow.observability.clock import clock as job_clock
from dataflow.streaming.errors import inside_engine

_INTERVAL_S = 0.3  # between two questions for the ends
_TOPICS_INTERVAL_S = 1.0  # a new partition must be known before its rows are older than the allowed lateness
_TIMEOUT_S = 2.0  # a broker that answers later is asked again
# An end that a leader has reported for so long has no rows behind it, whatever the probe says or does not say: a replica
# that lags leaves the set in sync after replica.lag.time.max.ms, 30 s by default, and then consumers see all rows.
_CONFIRMED_AFTER_US = 45_000_000
_UNREACHABLE_AFTER_US = 3_000_000  # a partition that could take no rows for so long was out of its writers' reach


class ConfirmedEnd(NamedTuple):
    """At time `asked` by the job's clock, in microseconds, the partition held nothing at or after `offset`.

    With `sure`, no older record can arrive: its leader has no rows above the high watermark, enough replicas are in sync
    for writers to write, and after any outage writers have had the time to come back.
    """

    asked: int
    offset: int
    sure: bool


class EndOffsetPoller:
    """Asks the brokers regularly, in a thread of its own, so that no source waits for an answer.

    While no answer comes, a leader has rows above the high watermark, or too few replicas are in sync for the partition
    to take rows, no end is sure, nor for a grace period afterwards: rows that were to be written during an outage are
    written after it, and must not be late. A process that has just started cannot know of an outage, so it begins with
    such a period. One for all workers of a process.

    Args:
        admin: asks for the ends.
        connection: is told whether brokers answer.
        partitions: the number of partitions of each input topic.
        group: consumer group to which offsets are committed, for lag monitors only.
        grace: microseconds in which writers come back after an outage.
        check_topics: called about once a second; raises UserError if a topic is not what it was.
        clock: the job's clock, in microseconds.
    """

    def __init__(
        self,
        admin: Admin,
        connection: Connection,
        partitions: dict[str, int],
        group: str,
        grace: int,
        check_topics: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = job_clock.now,
    ) -> None:
        self._admin = admin
        self._check_topics = check_topics
        self._in_sync = InSyncReplicas(admin, partitions)
        self._unwritable: dict[str, set[PartitionId]] = {}  # by topic, as of the last look
        self._replication_probe = ReplicationProbe(connection, group)
        self._committer = Consumer({**connection.properties, "group.id": group, "enable.auto.commit": False})
        self._connection = connection
        self._grace = grace
        self._clock = clock
        self._sure_from = clock() + grace
        self._partitions = dict(partitions)
        self._watched: dict[str, PartitionId] = {}
        self._ends: dict[str, ConfirmedEnd] = {}
        self._reported: dict[PartitionId, int] = {}
        self._writable_at: dict[str, int] = {}  # time of the last question at which the partition took rows
        self._unchanged: dict[str, tuple[int, int, int]] = {}  # end; asked for the first time, and the last
        self._writers_back_at: dict[str, int] = {}  # of partitions that had been unreachable
        self._lock = threading.Lock()  # guards _watched and _reported
        self._thread: threading.Thread | None = None
        self.sources = self._all_sources()

    def watch(self, partition_id: PartitionId) -> None:
        """From now on asks for the end of this partition too."""
        source = source_name(*partition_id)
        with self._lock:
            self._watched[source] = partition_id
            self._writable_at[source] = self._clock()  # taken for granted
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="end-offset poller", daemon=True)
                self._thread.start()

    def unwatch(self, partition_id: PartitionId) -> None:
        """Asks for this partition no more."""
        with self._lock:
            del self._watched[source_name(*partition_id)]  # the thread ends with the last one

    def end(self, source: str) -> ConfirmedEnd | None:
        """The last known end of a watched partition."""
        return self._ends.get(source)

    def back_at(self, source: str) -> int:
        """The time by the job's clock, in microseconds, from which on a partition's writers are back from any outage."""
        return max(self._sure_from, self._writers_back_at.get(source, 0))

    def count(self, topic: str) -> int:
        """The number of partitions at the last look; it never falls."""
        return self._partitions[topic]

    def report(self, offsets: dict[PartitionId, int]) -> None:
        """Takes the next offsets to be read, as of a snapshot, for lag monitors."""
        with self._lock:
            self._reported |= {partition_id: offset for partition_id, offset in offsets.items() if offset >= 0}

    @inside_engine
    def _run(self) -> None:
        looked, answered = 0.0, True
        while True:
            with self._lock:
                watched = list(self._watched.values())
                reported, self._reported = self._reported, {}
                if not watched:
                    self._thread = None
                    return
            job_clock.report_step()
            if answered and time.monotonic() > looked + _TOPICS_INTERVAL_S and self._look_at_topics():
                self._check_topics()
                looked = time.monotonic()
            answered = self._poll(watched)
            if not answered:
                self._connection.record_no_answer()
            elif reported:
                self._commit(reported)
            time.sleep(_INTERVAL_S)

    def _poll(self, watched: Collection[PartitionId]) -> bool:
        """Asks for the ends; returns whether there was any answer."""
        asked = self._clock()
        answers = known_end_offsets(self._admin, watched, _TIMEOUT_S)
        if not answers:
            return False
        ends = {partition_id: end.offset for partition_id, end in answers.items()}
        self._connection.record_answer()
        replicated = self._replication_probe.fully_replicated(ends)
        for partition_id, offset in ends.items():
            source = source_name(*partition_id)
            is_end = self._is_confirmed(source, asked, offset) or partition_id in replicated
            takes_rows = is_end and partition_id not in self._unwritable.get(partition_id[0], ())
            self._record(source, asked, offset, takes_rows)
        return True

    def _is_confirmed(self, source: str, asked: int, offset: int) -> bool:
        """Whether the leader has reported this end for _CONFIRMED_AFTER_US, without a longer pause."""
        same, since, last = self._unchanged.get(source, (offset, asked, asked))
        if same != offset or asked > last + _UNREACHABLE_AFTER_US:
            since = asked
        self._unchanged[source] = offset, since, asked
        return asked >= since + _CONFIRMED_AFTER_US

    def _record(self, source: str, asked: int, offset: int, takes_rows: bool) -> None:
        last = self._ends.get(source)
        if takes_rows or (last is not None and offset > last.offset):  # if not, perhaps nothing can be written
            before, self._writable_at[source] = self._writable_at[source], asked
            if asked > before + _UNREACHABLE_AFTER_US:
                self._writers_back_at[source] = asked + self._grace
        sure = takes_rows and asked >= self.back_at(source)
        self._ends[source] = ConfirmedEnd(asked, offset, sure)

    def _commit(self, reported: dict[PartitionId, int]) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in reported.items()]
        try:
            self._committer.commit(offsets=offsets, asynchronous=True)
            self._committer.poll(0)  # serves the answer to the commit before
        except KafkaException:
            pass  # monitors see the offsets of the next snapshot

    def _look_at_topics(self) -> bool:
        """Looks for new partitions, and for those that take no writes; returns whether brokers answered."""
        for topic, known in self._partitions.items():
            try:
                found = self._admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
            except KafkaException:
                return False
            if found.error is None:
                self._unwritable[topic] = self._in_sync.unwritable(found)
                if len(found.partitions) > known:
                    self._partitions[topic] = len(found.partitions)
                    self.sources = self._all_sources()
        return True

    def _all_sources(self) -> tuple[str, ...]:
        return tuple(source_name(topic, number) for topic, count in self._partitions.items() for number in range(count))
