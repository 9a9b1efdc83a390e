"""The topics that are read, and how the messages of each become events and purchase rows."""

from dataclasses import dataclass
from typing import NamedTuple

from dataflow.clickstream.mapping.decoder import MappedDecoder
from dataflow.clickstream.mapping.spec import Mapping
from dataflow.clickstream.records import Event, InputRecord
from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.streaming.partition_reader import TopicDecoder
from dataflow.streaming.position import topic_number, unpack

EVENTS, PURCHASES = "user-events", "purchases"  # what the topics are called, if nothing says otherwise


@dataclass(frozen=True)
class InputTopic:
    """One topic that is read.

    Args:
        name: the topic's.
        decoder: makes rows of its messages.
        has_events: whether these may be events.
        has_purchases: whether these may be purchase rows.
        own_amounts: whether events may tell their amounts themselves.
    """

    name: str
    decoder: TopicDecoder
    has_events: bool
    has_purchases: bool
    own_amounts: bool = False


class RecordAddress(NamedTuple):
    """Where a row is in Kafka."""

    topic: str
    partition: int
    offset: int
    part: int | None  # of a message that holds several rows

    def __str__(self) -> str:
        where = f"{self.topic}/{self.partition}/{self.offset}"
        return where if self.part is None else f"{where}/{self.part}"


class InputTopics(tuple[InputTopic, ...]):
    """All topics that are read, those with events first."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all topics."""
        return tuple(topic.name for topic in self)

    @property
    def own_amounts(self) -> bool:
        """Whether events may tell their amounts themselves."""
        return any(topic.own_amounts for topic in self)

    @property
    def mixed(self) -> bool:
        """Whether a topic has both events and purchase rows."""
        return any(topic.has_events and topic.has_purchases for topic in self)

    def decoder_of(self, name: str) -> TopicDecoder:
        """How the messages of a topic become rows."""
        return next(topic.decoder for topic in self if topic.name == name)

    def decoders_of_events(self) -> dict[str, TopicDecoder]:
        """How the messages of the topics with events become rows, by the topics' names."""
        return {topic.name: topic.decoder for topic in self if topic.has_events}

    def address(self, row: InputRecord) -> RecordAddress:
        """Where a row came from."""
        number, is_event = topic_number(row.position), type(row) is Event
        topic = next(
            topic
            for topic in self
            if topic.decoder.number == number and (topic.has_events if is_event else topic.has_purchases)
        )
        takes_apart = topic.decoder.parts is not None
        place = unpack(row.position, takes_apart)
        return RecordAddress(topic.name, place.partition, place.offset, place.part if takes_apart else None)


def default_inputs(events: str = EVENTS, purchases: str = PURCHASES) -> InputTopics:
    """The two topics of the default shape, see `dataflow.clickstream.serde`."""
    return InputTopics(
        (
            InputTopic(events, TopicDecoder(decode_event), True, False),
            InputTopic(purchases, TopicDecoder(decode_purchase), False, True),
        )
    )


def mapped_inputs(mapping: Mapping) -> InputTopics:
    """The topics of a mapping."""
    events = mapping.events.topic_names
    purchases = mapping.purchases.topic_names if mapping.purchases is not None else ()
    only_purchases = [name for name in purchases if name not in events]
    # purchase rows of topics that have both kinds are numbered among the events' topics
    first = len(events) if len(only_purchases) < len(purchases) else 0
    topics = [_topic(mapping, name, number, True, name in purchases) for number, name in enumerate(events)]
    topics += [_topic(mapping, name, first + number, False, True) for number, name in enumerate(only_purchases)]
    return InputTopics(topics)


def _topic(mapping: Mapping, name: str, number: int, has_events: bool, has_purchases: bool) -> InputTopic:
    decoder = MappedDecoder(mapping, name)
    parts = decoder.parts if decoder.takes_apart else None
    own_amounts = has_events and bool(mapping.events.amount)
    return InputTopic(name, TopicDecoder(decoder.decode, parts, number), has_events, has_purchases, own_amounts)
