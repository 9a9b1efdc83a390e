"""Puts dead letters back into their input partitions, each once, however often the command runs.

What a mapping reads of a record's key and headers is not in a dead letter or late event, whose key is the user's, so
these are taken from the message that was rejected. An event of a message that held several is put back as a message with
that event alone.

Each row that is put back has a header that names its dead letter. The command first reads the input topics from
beginning to end, and skips the dead letters that are named there. So it needs no state of its own, and may be killed at
any time. A lease prevents two instances from running at the same time.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from dataflow.kafka.client import Connection
from dataflow.kafka.lease import Lease
from dataflow.kafka.messages import Message
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.observability.formatting import duration, utc_text
from dataflow.runtime.settings import Settings
from dataflow.tools.explain.collect import ObservedPartition
from dataflow.tools.redrive.dead_letters import DeadLetter, OutcomeCounter
from dataflow.tools.redrive.repair import LeftOut, NotRepaired, Repair
from dataflow.tools.redriven_header import REDRIVEN, redriven_from

# outcomes of a dead letter, as they are printed
SENT = "put back"
SENT_BEFORE = "put back before"
FOREIGN = "not of this job"
NOT_REPAIRED = "not repaired"
LEFT_OUT = "left out by the repair command"
UNREADABLE = "still unreadable"
LATE_AGAIN = "would be late"
IGNORED = "left out by the mapping"
NOT_ALONE = "not alone in its message"
FAILED = "not delivered"
FAILURES = (NOT_REPAIRED, FAILED)  # outcomes for which the command should run again

_TUNING = {"linger.ms": 20, "message.timeout.ms": 60_000}
_ESSENTIAL = {"enable.idempotence": True, "message.max.bytes": 100_000_000}
_MILLISECOND = 1_000  # microseconds


class Envelope(NamedTuple):
    """What a record has around its value."""

    key: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True)
class _RedriveRecord:
    """A row that is to be put back, as a message for the partition reader."""

    dead_letter: DeadLetter
    envelope: Envelope
    new_value: bytes | None
    now: int  # microseconds

    def topic(self) -> str:
        return self.dead_letter.origin.topic if self.dead_letter.origin is not None else ""

    def key(self) -> bytes | None:
        return self.envelope.key

    def value(self) -> bytes | None:
        return self.new_value

    def offset(self) -> int:
        return 0  # not known before it is written

    def timestamp(self) -> tuple[int, int]:
        return 1, self.now // _MILLISECOND

    def headers(self) -> list[tuple[str, bytes]]:
        return self.envelope.headers


class InputTopics:
    """The max timestamps of the input partitions, and the dead letters that have been put back into them.

    Args:
        settings: give the names of the topics.
        partition_ids: all partitions of the input topics.
        lateness: allowed lateness, in microseconds.
        origins: messages whose keys and headers are needed.
    """

    def __init__(
        self,
        settings: Settings,
        partition_ids: Iterable[PartitionId],
        lateness: int,
        origins: Collection[tuple[str, int, int]] = (),
    ) -> None:
        self._lateness = lateness
        self._settings = settings
        self._origins = origins
        self._envelopes: dict[tuple[str, int, int], Envelope] = {}
        now = time.time_ns() // 1_000
        self._partitions = {
            partition_id: ObservedPartition(
                source_name(*partition_id),
                settings.input_topics.decoder_of(partition_id[0]),
                lateness,
                now,
            )
            for partition_id in partition_ids
        }
        self._put_back: set[str] = set()

    def read(self, message: Message) -> None:
        """Reads the next message of its partition."""
        self._partitions[message.topic(), message.partition()].read(message)
        dead_letter = redriven_from(message)
        if dead_letter is not None:
            self._put_back.add(dead_letter)
        at = message.topic(), message.partition(), message.offset()
        if at in self._origins:
            headers = [header for header in message.headers() or () if header[0] != REDRIVEN]
            self._envelopes[at] = Envelope(message.key(), headers)

    def __contains__(self, partition_id: PartitionId) -> bool:
        return partition_id in self._partitions

    def has(self, dead_letter: DeadLetter) -> bool:
        """Whether a dead letter has been put back."""
        return str(dead_letter.at) in self._put_back

    def envelope(self, dead_letter: DeadLetter) -> Envelope:
        """Key and headers of a row that is put back: those of its message, or, if that is not needed or gone, its own."""
        origin = dead_letter.origin
        found = self._envelopes.get(origin[:3]) if origin is not None else None
        return found or Envelope(dead_letter.key, [])

    def is_alone(self, dead_letter: DeadLetter) -> bool:
        """Whether a dead letter holds only what was rejected.

        Not if a function of the user's reads its topic: only the function knows how to write a message with one event of
        several.
        """
        origin = dead_letter.origin
        if origin is None or origin.part is None or dead_letter.at.topic != self._settings.topic_dead_letters:
            return True
        mapping = self._settings.mapping_file
        role = mapping.role_of(origin.topic) if mapping is not None else None
        return role is None or not role.decode

    def problem_of(self, dead_letter: DeadLetter, value: bytes | None, allow_late: bool) -> tuple[str, str] | None:
        """What the job would object to if the row came next in its partition.

        Args:
            dead_letter: which has an origin.
            value: the row's value after the repair.
            allow_late: whether lateness is no problem.

        Returns:
            The outcome UNREADABLE, LATE_AGAIN or IGNORED, and its detail; None: no problem.
        """
        assert dead_letter.origin is not None
        now = time.time_ns() // 1_000
        partition = self._partitions[dead_letter.origin[:2]]
        partition.set_clock(now)
        highest = partition.max_timestamp
        batch = partition.read(_RedriveRecord(dead_letter, self.envelope(dead_letter), value, now))
        if batch.unreadable:
            return UNREADABLE, batch.unreadable[0].reason
        if batch.late and not allow_late:
            below = duration(int(highest.time - batch.late[0].time))
            return LATE_AGAIN, (
                f"{below} below the highest time of {partition.source}, {utc_text(highest.time)}; "
                f"{duration(self._lateness)} are allowed"
            )
        if not batch.rows and not batch.late:
            return IGNORED, "only, ignore, no_user or no_value"
        return None


class Sender:
    """Puts dead letters back, or only counts what would become of them.

    Args:
        connection: to the cluster.
        targets: the input topics, which have been read.
        repair: repairs values.
        allow_late: whether to send rows that will be late.
        outcomes: counts the outcome of each dead letter.
        lease: held while rows are sent; None: nothing is sent.
    """

    def __init__(
        self,
        connection: Connection,
        targets: InputTopics,
        repair: Repair,
        allow_late: bool,
        outcomes: OutcomeCounter,
        lease: Lease | None,
    ) -> None:
        self._targets = targets
        self._repair = repair
        self._allow_late = allow_late
        self._outcomes = outcomes
        self._lease = lease
        self._producer = Producer({**_TUNING, **connection.properties, **_ESSENTIAL}) if lease is not None else None

    def send(self, dead_letter: DeadLetter) -> bytes | None:
        """Handles one dead letter; returns the value that is put back, or None. Raises CannotRun."""
        origin = dead_letter.origin
        if origin is None or origin[:2] not in self._targets:
            where = f"it came from {origin}" if origin is not None else "it does not say where it came from"
            self._outcomes.add(FOREIGN, dead_letter, where)
            return None
        if self._targets.has(dead_letter):
            self._outcomes.add(SENT_BEFORE, dead_letter)
            return None
        if not self._targets.is_alone(dead_letter):
            self._outcomes.add(
                NOT_ALONE, dead_letter, "its value is the whole message, whose other events would be read a second time"
            )
            return None
        try:
            value = self._repair(dead_letter.value)
        except LeftOut:
            self._outcomes.add(LEFT_OUT, dead_letter)
            return None
        except NotRepaired as error:
            self._outcomes.add(NOT_REPAIRED, dead_letter, str(error))
            return None
        problem = self._targets.problem_of(dead_letter, value, self._allow_late)
        if problem is not None:
            outcome, detail = problem
            self._outcomes.add(outcome, dead_letter, detail)
            return None
        if self._producer is None:
            self._outcomes.add(SENT, dead_letter)
        else:
            self._produce(self._producer, dead_letter, value)
        return value

    def finish(self) -> None:
        """Waits until every row has been delivered or has failed."""
        while self._producer is not None and self._producer.flush(1):
            pass

    def _produce(self, producer: Producer, dead_letter: DeadLetter, value: bytes | None) -> None:
        def on_delivery(error: KafkaError | None, message: Any) -> None:
            if error is None:
                self._outcomes.add(SENT, dead_letter)
            else:
                self._outcomes.add(FAILED, dead_letter, error.str())

        assert self._lease is not None and dead_letter.origin is not None  # `send` has checked both
        self._lease.wait_until_held()
        envelope = self._targets.envelope(dead_letter)
        headers: Any = [*envelope.headers, (REDRIVEN, str(dead_letter.at).encode())]
        topic, partition = dead_letter.origin[:2]
        while True:
            try:
                producer.produce(topic, value, envelope.key, partition, on_delivery=on_delivery, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as problem:
                self._outcomes.add(FAILED, dead_letter, problem.args[0].str())
                break
        producer.poll(0)
