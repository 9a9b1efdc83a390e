"""Consumed messages, typed: the client's stubs call optional what every consumed message has."""

from collections.abc import Sequence
from typing import Protocol, cast

from confluent_kafka import Consumer, KafkaError

from dataflow.kafka.offsets import PartitionId
from dataflow.streaming import partition_reader

Headers = list[tuple[str, bytes]] | None


class Message(partition_reader.Message, Protocol):
    """A message of a consumer, or, if it has an error, an event such as the end of a partition."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def headers(self) -> Headers: ...
    def error(self) -> KafkaError | None: ...


def consume(consumer: Consumer, limit: int, timeout_s: float) -> Sequence[Message]:
    """At most `limit` messages; returns early once there are so many."""
    return cast(Sequence[Message], consumer.consume(limit, timeout_s))


def partition_of(message: Message) -> PartitionId:
    """The partition that a message came from."""
    return message.topic(), message.partition()
