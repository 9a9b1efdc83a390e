"""Fetches the events of open sessions, of which a snapshot holds only the positions.

A resumed process announces all positions before it needs the first event, so each partition is read once.
"""

import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

from confluent_kafka import KafkaError

from dataflow.kafka.client import Connection, while_waiting
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.kafka.range_reader import range_consumer, ranges_of, read_ranges
from dataflow.streaming.errors import START_OVER, UserError
from dataflow.streaming.partition_reader import TopicDecoder
from dataflow.streaming.position import PARTITION_LIMIT, Place, pack, topic_number, unpack


class KafkaEventRestorer:
    """Fetches events; all shards of a process share one.

    Args:
        connection: to the cluster.
        topics: names of the topics that hold events, and how their messages become rows.
        group: name under which the consumer reads.
    """

    def __init__(self, connection: Connection, topics: Mapping[str, TopicDecoder], group: str) -> None:
        self._connection = connection
        self._topics = topics
        self._names = {decoder.number: name for name, decoder in topics.items()}
        self._group = group
        self._announced: list[int] = []
        self._events: dict[int, Any] = {}
        self._lock = threading.Lock()  # workers are threads

    def prefetch(self, positions: Iterable[int]) -> None:
        """Announces events that will be needed (see `dataflow.streaming.position`)."""
        with self._lock:
            self._announced.extend(positions)

    def event(self, position: int) -> Any:
        """An announced event; each can be had once. Raises UserError if Kafka no longer has it."""
        with self._lock:
            if self._announced:
                announced, self._announced = self._announced, []
                self._read(announced)
            return self._events.pop(position)

    def _read(self, positions: list[int]) -> None:
        offsets: dict[PartitionId, set[int]] = {}
        for position in positions:
            topic = self._names[topic_number(position)]
            place = unpack(position, self._topics[topic].parts is not None)
            offsets.setdefault((topic, place.partition), set()).add(place.offset)
        wanted = set(positions)
        for message in read_ranges(
            partial(range_consumer, self._connection, self._group, skip_missing=False),
            {partition_id: ranges_of(of_partition) for partition_id, of_partition in offsets.items()},
            on_missing=_raise_missing,
            on_error=_raise_if_forbidden,
            while_waiting=while_waiting,
        ):
            decoder = self._topics[message.topic()]
            first = pack(Place(decoder.number, message.partition(), 0))
            for part in decoder.parts(message) if decoder.parts is not None else (message,):
                position = first + part.offset() * PARTITION_LIMIT
                if position in wanted:
                    self._events[position] = decoder.decode(part.value(), position, part)


def _raise_missing(partition_id: PartitionId, offset: int) -> NoReturn:
    raise UserError(
        f"{source_name(*partition_id)}: row {offset} of an open session is not in Kafka (any more), so it cannot "
        "be resumed: retention must be longer than sessions last and the job stands still. Raise it, and "
        f"{START_OVER}"
    )


def _raise_if_forbidden(partition_id: PartitionId, error: KafkaError) -> None:
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise UserError(
            f"{source_name(*partition_id)}: not allowed to read it ({error.str()}); grant it and start again"
        )
