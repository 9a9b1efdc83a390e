"""Talking to the cluster: what every client is given, and what can be wrong before anything has run."""

import logging
import time
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from dataflow.observability import logs
from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_PATIENCE = 15  # seconds for the first answer of any broker
_NEWS = 3  # seconds until every broker has heard of a topic that was made this moment
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)


class Connection:
    """Notices when all brokers are gone and when one answers again, and says each once.

    Its `properties` are what every client of the process starts from.
    """

    def __init__(self, settings: Settings) -> None:
        self.properties = {
            "log_level": 2,  # librdkafka repeats itself for every broker and every attempt; errors come by error_cb
            "reconnect.backoff.max.ms": 2_000,
            **settings.client,
            "error_cb": self._on_error,
        }
        self._up: bool | None = None  # not known before the first answer
        self._suspected = False
        self._refused: str | None = None
        self.last_error = ""

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._suspected = True  # by one of many clients, which may hear of it when all is well again
        elif error.code() in _REFUSALS and error.str() != self._refused:
            self._refused = error.str()
            if self._up is not None:
                log.warning("a Kafka broker refuses us: %s", error.str(), extra=logs.event("kafka-refuses"))
        else:
            self.last_error = f" ({error.str()})"

    def answered(self) -> None:
        """A broker has just answered."""
        if self._up is False:
            log.warning("Kafka is back", extra=logs.event("kafka-back"))
        self._up = True
        self._suspected = False

    def unanswered(self) -> None:
        """All brokers have been asked, and none has answered."""
        if self._up and self._suspected:
            self._up = False
            log.warning("no Kafka broker can be reached; waiting for one to come back", extra=logs.event("kafka-lost"))

    def is_up(self) -> bool:
        """Whether brokers can be reached, as far as is known."""
        return self._up is True

    def refusal(self) -> str | None:
        """Why a broker would not talk to us, if one has said so."""
        return self._refused


def connect(connection: Connection) -> AdminClient:
    """A client for questions about the cluster. Raises UserError for a property that librdkafka does not know."""
    try:
        return AdminClient(connection.properties)
    except KafkaException as error:
        raise UserError(f"wrong Kafka setting: {error.args[0].str()}") from None


def _check_allowed(connection: Connection, topics: Iterable[str]) -> None:
    """Brokers leave out of their lists what one may not see, and say so only of a topic that is asked for by name."""
    asker = Consumer({**connection.properties, "group.id": "none", "allow.auto.create.topics": False})
    for name in topics:
        error = asker.list_topics(name, timeout=_PATIENCE).topics[name].error
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise UserError(f"{name}: not allowed to see it ({error.str()}); grant it and start again")


def count_partitions(admin: AdminClient, connection: Connection, topics: Iterable[str]) -> dict[str, int]:
    """How many partitions each topic has.

    Raises:
        UserError: no broker answers, it refuses us, or a topic is missing.
    """
    brokers = connection.properties["bootstrap.servers"]
    topics = list(topics)
    deadline = time.monotonic() + _PATIENCE
    missing_since = None
    while True:
        admin.poll(0)
        if connection.refusal():
            raise UserError(f"Kafka at {brokers} refuses us; check VISITS_KAFKA_*: {connection.refusal()}")
        try:
            found = admin.list_topics(timeout=1).topics
            missing = [name for name in topics if name not in found or found[name].error is not None]
            if not missing:
                break
            missing_since = missing_since or time.monotonic()
            if time.monotonic() > missing_since + _NEWS:
                _check_allowed(connection, missing)
                raise UserError(
                    f"Kafka at {brokers} has no topic {', '.join(missing)}; `python -m producer --create-topics` creates them"
                )
            time.sleep(0.2)
        except KafkaException:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no Kafka broker answers at {brokers}{connection.last_error}; is it running? VISITS_BROKERS says where"
                ) from None
    connection.answered()
    return {name: len(found[name].partitions) for name in topics}
