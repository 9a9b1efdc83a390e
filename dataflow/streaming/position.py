"""A row's place in the topics of its kind, packed into one integer: offset, topic and partition, and part of a message.

Places are compared, and stored in snapshots. So those of a single topic with one row a message are small: offset times
65,536 plus partition.
"""

from typing import NamedTuple

PARTITION_LIMIT = 1 << 16  # of all topics together
TOPIC_LIMIT = 16
_TOPIC = PARTITION_LIMIT // TOPIC_LIMIT  # partitions of one topic; Kafka's have far fewer
PART_LIMIT = 1 << 12  # rows of one message, where messages are taken apart


class Place(NamedTuple):
    """A row's place, unpacked."""

    topic: int  # number of the topic among those of its kind
    partition: int
    offset: int
    part: int = 0  # of a message that is taken apart


def position(partition: int, offset: int) -> int:
    """Packs the place of a message of the first topic."""
    return offset * PARTITION_LIMIT + partition


def pack(place: Place, takes_apart: bool = False) -> int:
    """Packs a place; `takes_apart`: whether messages of its topic are taken apart."""
    offset = place.offset * PART_LIMIT + place.part if takes_apart else place.offset
    return position(place.topic * _TOPIC + place.partition, offset)


def topic_number(position: int) -> int:
    """The number of the topic in a place."""
    return position % PARTITION_LIMIT // _TOPIC


def unpack(position: int, takes_apart: bool = False) -> Place:
    """Unpacks a place; `takes_apart` as it was packed."""
    offset, number = divmod(position, PARTITION_LIMIT)
    topic, partition = divmod(number, _TOPIC)
    if takes_apart:
        return Place(topic, partition, *divmod(offset, PART_LIMIT))
    return Place(topic, partition, offset)
