"""Consumed messages, and a consumer that delivers them from memory: for tests of what reads ranges of offsets."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, TopicPartition

TOPIC = "visits"


def row(offset: int, partition: int = 0, value: bytes | None = None) -> Message:
    """A message; its value is its offset unless another is given."""
    return Message(
        topic=TOPIC, partition=partition, offset=offset, key=b"key", value=b"%d" % offset if value is None else value
    )


def event(code: int, offset: int = -1, partition: int = 0) -> Message:
    """An error of a partition, or another event that a consumer delivers in place of a message."""
    return Message(topic=TOPIC, partition=partition, offset=offset, error=KafkaError(code))


def end_of_partition(offset: int, partition: int = 0) -> Message:
    """The consumer has read a partition to its end."""
    return event(KafkaError._PARTITION_EOF, offset, partition)


class MemoryConsumer:
    """Delivers one of the given lists with each poll."""

    def __init__(self, *polls: Sequence[Message]) -> None:
        self.polls = list(polls)
        self.assigned: list[tuple[str, int, int]] = []
        self.sought: list[int] = []
        self.paused: list[int] = []
        self.closed = False

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = [(each.topic, each.partition, each.offset) for each in partitions]

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        assert self.polls, "the reader polls once more than the test has prepared"
        return self.polls.pop(0)

    def seek(self, partition: TopicPartition) -> None:
        self.sought.append(partition.offset)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused += [each.partition for each in partitions]

    def close(self) -> None:
        self.closed = True
