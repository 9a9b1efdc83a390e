"""Reads visits as they come: how soon after a start there are new ones, and whether one comes twice."""

import threading
from collections.abc import Callable
from hashlib import blake2b

from confluent_kafka import Consumer, Message, TopicPartition

from dataflow.runtime.settings import Settings

_MANY = 5  # rows that come twice are told one by one up to here


class Watch:
    """A thread that reads one topic from its start. It is quick, not the judge: `chaos.verdict` is."""

    def __init__(self, settings: Settings, partitions: int, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._topic = settings.topic_visits
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.brokers,
                "group.id": f"{settings.group}-watch",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
                "reconnect.backoff.max.ms": 1_000,
            }
        )
        self._consumer.assign([TopicPartition(self._topic, partition, 0) for partition in range(partitions)])
        self._seen: dict[bytes, tuple[float, str]] = {}
        self._next = [0] * partitions  # offsets
        self._started: float | None = None  # the start that no row has come after yet
        self._closing = False
        self.rows = 0
        self.twice = 0
        self.resumes: list[float] = []  # seconds from a start to the first new row
        self.fruitless = 0  # starts that were over before there was any
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def started(self, at: float) -> None:
        """The job is started, at this wall time."""
        with self._lock:
            self.fruitless += self._started is not None
            self._started = at

    def writes(self) -> bool:
        """Whether there are rows of the last start."""
        return self._started is None

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._closing:
            for message in self._consumer.consume(1_000, 0.1):
                if message.error() is None:
                    self._hear(message)

    def _hear(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if offset < self._next[partition]:
            self._tell(f"the client hands out {self._topic}/{partition} offset {offset} again")
            return
        self._next[partition] = offset + 1
        self.rows += 1
        written = message.timestamp()[1] / 1_000
        with self._lock:
            if self._started is not None and written >= self._started:
                self.resumes.append(written - self._started)
                self._started = None
        row = blake2b(message.value(), digest_size=16).digest()
        place = f"{partition}@{offset} of {written:.3f}"
        before, first = self._seen.setdefault(row, (written, place))
        if before != written:  # the same event may have come twice, but then both are written at once
            self.twice += 1
            if self.twice <= _MANY:
                self._tell(f"A ROW IS THERE TWICE: {first} and {place}: {message.value().decode()}")
