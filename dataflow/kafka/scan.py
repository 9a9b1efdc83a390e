"""Reads partitions from one offset to another, once: for commands that look at topics while others write to them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.errors import UserError
from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.kafka.notes import Place
from dataflow.settings import Settings

_AT_ONCE = 10_000  # messages
_PATIENCE = 30.0  # seconds without any message, and for an answer; then nobody is there


class Span(NamedTuple):
    """The offsets of a partition from `begin` on, up to and without `end`."""

    begin: int
    end: int


Progress = Callable[[int, int], None]  # rows read and dealt with, and rows to be read


class Scanner:
    """Raises UserError if Kafka does not answer, or lacks one of the topics.

    Args:
        settings: where it is.
        topics: what will be read.
    """

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        self.connection = Connection(settings)
        self.admin: AdminClient = connect(self.connection)
        self.partitions = count_partitions(self.admin, self.connection, topics)
        self._group = settings.group + "-look"  # nothing is ever committed to it

    def spans(self, topics: Iterable[str]) -> dict[Place, Span]:
        """What all partitions of these topics hold now."""
        places = [(topic, number) for topic in topics for number in range(self.partitions[topic])]
        begins, ends = self._offsets(places, OffsetSpec.earliest()), self._offsets(places, OffsetSpec.latest())
        return {place: Span(begins[place], ends[place]) for place in places}

    def read(self, spans: Mapping[Place, Span], progress: Progress = lambda done, all: None) -> Iterator[Message]:
        """All messages of these spans, each partition's in order."""
        unread = {place: span.end for place, span in spans.items() if span.begin < span.end}
        everything = sum(span.end - span.begin for span in spans.values())
        reached = {place: spans[place].begin for place in unread}
        done = 0
        if not unread:
            return
        consumer = Consumer(
            {
                "fetch.wait.max.ms": 10,
                **self.connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([TopicPartition(*place, spans[place].begin) for place in unread])
            heard = time.monotonic()
            while unread:
                messages = consumer.consume(_AT_ONCE, 0.1)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() > heard + _PATIENCE:
                    raise UserError(f"Kafka has stopped answering; {len(unread)} partitions are not read to their end")
                for message in messages:
                    place, error = (message.topic(), message.partition()), message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        if not error.retriable():
                            raise UserError(f"{place[0]}/{place[1]} cannot be read: {error.str()}")
                        continue
                    if place not in unread:
                        continue
                    # behind the last row there may be marks of transactions, which are no messages
                    next_one = min(message.offset() + (error is None), unread[place])
                    if error is None and message.offset() < unread[place]:
                        yield message
                    done += next_one - reached[place]
                    progress(done, everything)
                    reached[place] = next_one
                    if next_one == unread[place]:
                        del unread[place]
        finally:
            consumer.close()

    def _offsets(self, places: list[Place], which: OffsetSpec) -> dict[Place, int]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            asked = {TopicPartition(*place): which for place in places}
            try:
                answers = {
                    where: answer.result().offset
                    for where, answer in self.admin.list_offsets(asked, request_timeout=5).items()
                }
                if all(offset >= 0 for offset in answers.values()):
                    return {(where.topic, where.partition): offset for where, offset in answers.items()}
            except KafkaException as problem:
                if problem.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise UserError(f"not allowed: {problem.args[0].str()}; grant it and start again") from None
            if time.monotonic() > deadline:
                raise UserError("Kafka does not say where its partitions begin and end; is a broker down?")
            time.sleep(0.2)
