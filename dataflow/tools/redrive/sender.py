"""Puts letters back, each once, however often it is tried.

A row that is put back says in a header which letter it was. Whoever puts letters back reads the input topics first,
from their beginning to their end, and leaves out those that are there already. So nothing has to be remembered
anywhere, and a kill at any moment does no harm; a lease keeps two from doing it at once.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.kafka.client import Connection
from dataflow.kafka.lease import Lease
from dataflow.kafka.messages import Message
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.observability.formatting import duration, utc_text
from dataflow.runtime.settings import Settings
from dataflow.tools.explain.collect import ObservedPartition
from dataflow.tools.redrive.dead_letters import DeadLetter, OutcomeCounter
from dataflow.tools.redrive.repair import LeftOut, NotRepaired, Repair
from dataflow.tools.redriven import REDRIVEN, redriven_from

SENT = "put back"
SENT_BEFORE = "put back before"
STRANGE = "not of this job"
NOT_REPAIRED = "not repaired"
LEFT_OUT = "left out by the repair command"
UNREADABLE = "still unreadable"
LATE_AGAIN = "would be late"
FAILED = "not delivered"
BAD_ENDS = (NOT_REPAIRED, FAILED)

_TUNING = {"linger.ms": 20, "message.timeout.ms": 60_000}
_ESSENTIAL = {"enable.idempotence": True, "message.max.bytes": 100_000_000}
_MILLISECOND = 1_000


@dataclass(frozen=True)
class _RedriveRecord:
    """A row that is to be put back, as the reader would find it."""

    letter: DeadLetter
    row_value: bytes | None
    now: int  # microseconds

    def key(self) -> bytes | None:
        return self.letter.key

    def value(self) -> bytes | None:
        return self.row_value

    def offset(self) -> int:
        return 0  # nobody knows yet

    def timestamp(self) -> tuple[int, int]:
        return 1, self.now // _MILLISECOND

    def headers(self) -> None:
        return None


class InputTopics:
    """The input topics as they are: how far the marks are, and which letters have been put back.

    Args:
        settings: name the topics.
        places: all their partitions.
        lateness: allowed lateness, in microseconds.
    """

    def __init__(self, settings: Settings, partition_ids: Iterable[PartitionId], lateness: int) -> None:
        self._lateness = lateness
        now = time.time_ns() // 1_000
        self._partitions = {
            partition_id: ObservedPartition(
                source_name(*partition_id),
                decode_event if partition_id[0] == settings.topic_user_events else decode_purchase,
                lateness,
                now,
            )
            for partition_id in partition_ids
        }
        self._put_back: set[str] = set()

    def read(self, message: Message) -> None:
        """Takes in what stands in an input topic, in order."""
        self._partitions[message.topic(), message.partition()].read(message)
        letter = redriven_from(message)
        if letter is not None:
            self._put_back.add(letter)

    def lacks(self, partition_id: PartitionId) -> bool:
        """Whether there is no such partition."""
        return partition_id not in self._partitions

    def has(self, letter: DeadLetter) -> bool:
        """Whether it has been put back."""
        return str(letter.at) in self._put_back

    def judge(self, letter: DeadLetter, value: bytes | None, even_if_late: bool) -> tuple[str, str] | None:
        """How the job would take it as the next row of the partition it came from; None: well."""
        assert letter.origin is not None  # `send` has looked
        now = time.time_ns() // 1_000
        partition = self._partitions[letter.origin[:2]]
        partition.set_clock(now)
        mark = partition.max_timestamp
        poll = partition.read(_RedriveRecord(letter, value, now))
        if poll.unreadable:
            return UNREADABLE, poll.unreadable[0].reason
        if poll.late and not even_if_late:
            below = duration(int(mark.time - poll.late[0].time))
            return LATE_AGAIN, (
                f"{below} below the mark of {letter.origin.topic}/{letter.origin.partition}, "
                f"{utc_text(mark.time)}; {duration(self._lateness)} are allowed"
            )
        return None


class Sender:
    """Sends letters, or only says what would become of them.

    Args:
        connection: to the cluster.
        targets: has read the input topics.
        repair: mends values.
        even_if_late: whether to send what will be late.
        tally: is told how each has ended.
        lease: is held while something is sent; None: nothing is sent.
    """

    def __init__(
        self,
        connection: Connection,
        targets: InputTopics,
        repair: Repair,
        even_if_late: bool,
        tally: OutcomeCounter,
        lease: Lease | None,
    ) -> None:
        self._targets = targets
        self._repair = repair
        self._even_if_late = even_if_late
        self._tally = tally
        self._lease = lease
        self._producer = Producer({**_TUNING, **connection.properties, **_ESSENTIAL}) if lease is not None else None

    def send(self, letter: DeadLetter) -> bytes | None:
        """Deals with one letter; returns the value that is put back, if it is. Raises CannotRun."""
        if letter.origin is None or self._targets.lacks(letter.origin[:2]):
            where = (
                f"it came from {letter.origin}" if letter.origin is not None else "it does not say where it came from"
            )
            self._tally.add(STRANGE, letter, where)
            return None
        if self._targets.has(letter):
            self._tally.add(SENT_BEFORE, letter)
            return None
        try:
            value = self._repair(letter.value)
        except LeftOut:
            self._tally.add(LEFT_OUT, letter)
            return None
        except NotRepaired as error:
            self._tally.add(NOT_REPAIRED, letter, str(error))
            return None
        problem = self._targets.judge(letter, value, self._even_if_late)
        if problem is not None:
            self._tally.add(problem[0], letter, problem[1])
            return None
        if self._producer is None:
            self._tally.add(SENT, letter)
        else:
            self._produce(self._producer, letter, value)
        return value

    def finish(self) -> None:
        """Waits until each row has arrived or is known not to."""
        while self._producer is not None and self._producer.flush(1):
            pass

    def _produce(self, producer: Producer, letter: DeadLetter, value: bytes | None) -> None:
        def on_delivery(error: KafkaError | None, message: Any) -> None:
            if error is None:
                self._tally.add(SENT, letter)
            else:
                self._tally.add(FAILED, letter, error.str())

        assert self._lease is not None and letter.origin is not None  # or nothing is sent
        self._lease.wait_until_held()
        headers: Any = [(REDRIVEN, str(letter.at).encode())]
        topic, partition, _ = letter.origin
        while True:
            try:
                producer.produce(topic, value, letter.key, partition, on_delivery=on_delivery, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as problem:
                self._tally.add(FAILED, letter, problem.args[0].str())
                break
        producer.poll(0)
