"""Reads events again of which a snapshot holds only the positions.

A resumed process hears of all of them before it needs the first, so it goes through each partition once.
"""

import threading
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from dataflow.clickstream.records import Event
from dataflow.kafka.client import Connection
from dataflow.observability import lifecycle, liveness
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import Decode
from dataflow.streaming.position import PARTITION_LIMIT

_AT_ONCE = 10_000  # messages
_LEAP = 20_000  # rows that nobody wants: from so many on it is faster to seek behind them than to read them


class KafkaEventFetcher:
    """Gets events of one topic; all shards of a process share one.

    Args:
        connection: to the cluster.
        topic: where the events are.
        decode: makes events of messages.
        group: name under which the consumer reads.
    """

    def __init__(self, connection: Connection, topic: str, decode: Decode, group: str) -> None:
        self._connection = connection
        self._topic = topic
        self._decode = decode
        self._group = group
        self._announced: list[int] = []
        self._events: dict[int, Event] = {}
        self._lock = threading.Lock()  # workers are threads

    def prefetch(self, positions: Iterable[int]) -> None:
        with self._lock:
            self._announced.extend(positions)

    def event(self, position: int) -> Event:
        """Raises UserError if Kafka no longer has it."""
        with self._lock:
            if self._announced:
                announced, self._announced = self._announced, []
                self._read(announced)
            return self._events.pop(position)

    def _read(self, positions: list[int]) -> None:
        cursors: dict[int, _Cursor] = {}
        for position in sorted(positions, reverse=True):
            offset, partition = divmod(position, PARTITION_LIMIT)
            cursors.setdefault(partition, _Cursor()).wanted.append(offset)
        consumer = Consumer(
            {
                "fetch.wait.max.ms": 10,
                **self._connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([self._at(partition, cursor.next) for partition, cursor in cursors.items()])
            while cursors:
                for message in consumer.consume(_AT_ONCE, 0.1):
                    partition = message.partition()
                    cursor = cursors.get(partition)  # None: fetched before it was paused
                    if cursor is None or not self._take(message, cursor):
                        continue
                    if not cursor.wanted:
                        del cursors[partition]
                        consumer.pause([self._at(partition)])
                    elif cursor.next > message.offset() + _LEAP:
                        consumer.seek(self._at(partition, cursor.next))
                liveness.heartbeat()
                lifecycle.block_if_stopping()
        finally:
            consumer.close()

    def _take(self, message: Message, cursor: "_Cursor") -> bool:
        """Whether it is the one that is wanted next."""
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is None and offset == cursor.next:
            position = offset * PARTITION_LIMIT + partition
            self._events[position] = self._decode(message.value(), position)
            cursor.wanted.pop()
            return True
        if error is None:
            gone = offset > cursor.next
        else:
            at_end = error.code() == KafkaError._PARTITION_EOF and offset <= cursor.next
            gone = at_end or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise UserError(
                    f"{self._topic}/{partition}: not allowed to read it ({error.str()}); grant it and start again"
                )
        if gone:
            raise UserError(
                f"{self._topic}/{partition}: row {cursor.next} of an open session is not in Kafka (any more), so it cannot "
                "be resumed; retention must be longer than sessions last and the job stands still; start with an empty "
                "recovery store"
            )
        return False

    def _at(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self._topic, partition, offset)


class _Cursor:
    """What is still wanted of a partition: offsets, the next one last."""

    def __init__(self) -> None:
        self.wanted: list[int] = []

    @property
    def next(self) -> int:
        return self.wanted[-1]
