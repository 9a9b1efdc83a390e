"""What a shop does not send by itself: rows that are late for good, and messages that cannot be read."""

import json
import threading
import time

from confluent_kafka import Producer

from dataflow.runtime.settings import Settings

_EVERY = 0.2  # seconds
_LATE_BY = 600  # seconds
_USERS = 10


class Oddities:
    """Puts one of each into the input topics now and then, so that all output topics have rows."""

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.inputs
        self._producer = Producer(
            {"bootstrap.servers": settings.brokers, "log_level": 0, "enable.idempotence": True, "message.timeout.ms": 0}
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oddities", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """What has been sent is in Kafka after it."""
        self._closing.set()
        self._thread.join()
        self._producer.flush()

    def _run(self) -> None:
        number = 0
        while not self._closing.wait(_EVERY):
            number += 1
            user = number % _USERS + 1
            at = {"user_id": user, "page_id": number, "timestamp": round(time.time() - _LATE_BY, 3)}
            for topic, fields in zip(self._topics, ({"event_type": "click"}, {"amount": number}), strict=True):
                self._producer.produce(topic, json.dumps({**fields, **at}), str(user))
                self._producer.produce(topic, f"unreadable {number}", str(user))
            self._producer.poll(0)
