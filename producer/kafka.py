"""The Kafka end: rows are queued here, and counted when Kafka has acknowledged them."""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError
from producer import topics
from producer.rows import Row

_LAST_WAIT = 5.0  # seconds that rows still queued are given when the user wants to stop

# what librdkafka logs comes as errors too, as far as it matters here
_silence = logging.getLogger("producer.librdkafka")
_silence.addHandler(logging.NullHandler())
_silence.propagate = False


class Sender:
    """Sends rows. `tell` shows the user a line; `stopping` says whether the user wants to stop.

    Raises:
        UserError: the client properties are wrong.
    """

    def __init__(
        self, settings: Settings, *, keyed: bool, tell: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        self._settings = settings
        inputs = settings.input_topics
        self._events = next(topic.name for topic in inputs if topic.has_events)
        self._purchases = next((topic.name for topic in reversed(inputs) if topic.has_purchases), self._events)
        self._keyed = keyed
        self._tell = tell
        self._stopping = stopping
        self._connected = self._away = False
        self._last_error = ""
        self._queued = 0  # ever
        self.user_events = 0  # acknowledged
        self.purchases = 0  # acknowledged
        self.failed = 0
        self.failure = ""  # why the first failed
        self.broken = False  # no row can be sent any more
        try:
            self._producer = Producer(
                {
                    # without a key, another partition for every row and not only for every 10 ms
                    "sticky.partitioning.linger.ms": 0,
                    "message.timeout.ms": 0,  # a broker that is away is waited for
                    "reconnect.backoff.max.ms": 1000,
                    "enable.idempotence": True,
                    **settings.client,
                    "error_cb": self._on_error,
                },
                logger=_silence,
            )
            self._admin = AdminClient({**settings.client}, logger=_silence)
        except (KafkaException, ValueError, TypeError) as error:
            cause = error.args[0].str() if isinstance(error, KafkaException) else error
            raise UserError(f"wrong Kafka client property: {cause}") from None

    @property
    def unacknowledged(self) -> int:
        """Rows queued or on their way."""
        return self._queued - self.user_events - self.purchases - self.failed

    def create_topics(self, names: Collection[str]) -> list[str]:
        """Makes the topics that are missing and returns their names; a UserError says why it cannot."""
        known = topics.cluster(self._producer, self._settings.brokers, lambda: self._last_error)
        self._connected = True
        return topics.create_missing(self._admin, names, known, self._settings.brokers)

    def send(self, row: Row) -> None:
        """Queues a row; while the queue is full, waits, unless the user wants to stop: then the row is dropped."""
        topic = self._purchases if row.purchase else self._events
        key = str(row.user_id) if self._keyed else None
        on_delivery = self._on_purchase if row.purchase else self._on_user_event
        while not self._stopping():
            try:
                self._producer.produce(topic, row.value, key, on_delivery=on_delivery)
                self._queued += 1
                return
            except BufferError:
                self.wait(0.1)
            except KafkaException as error:  # too large, or the producer is broken
                self._queued += 1
                self._fail(error.args[0])
                return

    def wait(self, seconds: float) -> None:
        """Lets time pass, at most `seconds`, and takes in what Kafka says meanwhile."""
        self._producer.poll(seconds)

    def flush(self, each: Callable[[], None]) -> None:
        """Waits until every row is acknowledged, calling `each` now and then; rows that stay unsent count as failed."""
        deadline = None
        while self._producer.flush(0.1) and not self.broken:
            each()
            if deadline is None and self._stopping():
                deadline = time.monotonic() + _LAST_WAIT
            if deadline is not None and time.monotonic() > deadline:
                break
        if self.unacknowledged:
            self.failure = self.failure or "Kafka did not acknowledge them before the end"
            self._producer.purge()
            self._producer.flush(1)

    def _on_user_event(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.user_events += 1
            self._is_back()
        else:
            self._fail(error)

    def _on_purchase(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.purchases += 1
            self._is_back()
        else:
            self._fail(error)

    def _fail(self, error: KafkaError) -> None:
        self.failed += 1
        self.failure = self.failure or error.str()
        self.broken = self.broken or error.fatal()

    def _is_back(self) -> None:
        if self._away:
            self._away = False
            self._tell("Kafka is back")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.broken = True
            self.failure = self.failure or error.str()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self._connected and not self._away:  # before the first answer, create_topics tells it
                self._away = True
                self._tell("no Kafka broker answers; waiting for one")
        else:
            self._last_error = error.str()
