"""The connection to the cluster: what every client starts from, and the checks before anything runs."""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from dataflow.kafka.replaceable import Admin
from dataflow.observability import lifecycle, liveness, logs
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_TIMEOUT_S = 15.0  # for the first answer of any broker
_NEW_TOPIC_S = 3.0  # until every broker knows of a topic that has just been created
_RETRY_INTERVAL_S = 0.2
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)


class MissingTopics(UserError):
    """Kafka lacks topics.

    Args:
        brokers: that were asked.
        topics: their names.
    """

    def __init__(self, brokers: str, topics: Sequence[str]) -> None:
        super().__init__(
            f"Kafka at {brokers} has no topic {', '.join(topics)}; `python -m producer --create-topics` creates them"
        )
        self.topics = topics


class Connection:
    """What all clients of a process share: their properties, and whether brokers can be reached.

    Logs once when all brokers are gone, and once when one answers again.

    Args:
        properties: librdkafka properties; `bootstrap.servers` is one of them.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.properties: dict[str, Any] = {
            "log_level": 2,  # librdkafka repeats itself for every broker and every attempt; errors come by error_cb
            "reconnect.backoff.max.ms": 2_000,
            **properties,
            "error_cb": self._on_error,
        }
        self._is_up: bool | None = None  # None: not known before the first answer
        self._may_be_down = False
        self._refusal: str | None = None
        self.last_error = ""

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._may_be_down = True  # reported by one of many clients, perhaps after recovery
        elif error.code() in _REFUSALS and error.str() != self._refusal:
            self._refusal = error.str()
            if self._is_up is not None:
                log.warning("a Kafka broker refuses us: %s", error.str(), extra=logs.event("kafka-refuses"))
        else:
            self.last_error = f" ({error.str()})"

    def record_answer(self) -> None:
        """A broker has just answered."""
        if self._is_up is False:
            log.warning("Kafka is back", extra=logs.event("kafka-back"))
        self._is_up = True
        self._may_be_down = False

    def record_no_answer(self) -> None:
        """All brokers were asked, and none answered."""
        if self._is_up and self._may_be_down:
            self._is_up = False
            log.warning("no Kafka broker can be reached; waiting for one to come back", extra=logs.event("kafka-lost"))

    def is_up(self) -> bool:
        """Whether brokers can be reached, as far as is known."""
        return self._is_up is True

    def refusal(self) -> str | None:
        """Why a broker refused a connection; None if none did."""
        return self._refusal


def connect(connection: Connection) -> Admin:
    """A client for questions about the cluster. Raises UserError for a property that librdkafka does not know."""
    try:
        return Admin(lambda: AdminClient(connection.properties))
    except KafkaException as error:
        raise UserError(f"wrong Kafka setting: {error.args[0].str()}") from None


def is_mock(admin: Admin) -> bool:
    """Whether the cluster is librdkafka's mock. It has no controller, for which some questions wait in vain."""
    try:
        return str(admin.list_topics(timeout=_TIMEOUT_S).cluster_id).startswith("mockCluster")
    except KafkaException:
        return False


def while_waiting() -> None:
    """Called in every loop that waits for brokers: the worker is alive. Never returns if the process is to stop."""
    liveness.heartbeat()
    lifecycle.block_if_stopping()


def count_partitions(
    admin: Admin, connection: Connection, topics: Iterable[str], optional: Collection[str] = ()
) -> dict[str, int]:
    """The number of partitions of each topic.

    Args:
        admin: asks the brokers.
        connection: is told that a broker has answered.
        topics: their names.
        optional: those of them that may be missing, or that we may not see; these are left out then.

    Raises:
        MissingTopics: a topic is not there.
        UserError: no broker answers, or a broker refuses us.
    """
    brokers = connection.properties["bootstrap.servers"]
    topics = list(topics)
    deadline = time.monotonic() + _TIMEOUT_S
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
            if time.monotonic() > missing_since + _NEW_TOPIC_S:
                needed = [name for name in missing if name not in optional]
                if not needed:
                    break
                _check_allowed(connection, needed)
                raise MissingTopics(brokers, needed)
            time.sleep(_RETRY_INTERVAL_S)
        except KafkaException:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no Kafka broker answers at {brokers}{connection.last_error}; is it running? VISITS_BROKERS says where"
                ) from None
    connection.record_answer()
    return {name: len(found[name].partitions) for name in topics if name not in missing}


def _check_allowed(connection: Connection, topics: Iterable[str]) -> None:
    """Raises UserError for a topic that we may not see. Brokers report that only for a topic asked for by name."""
    consumer = Consumer({**connection.properties, "group.id": "none", "allow.auto.create.topics": False})
    for name in topics:
        error = consumer.list_topics(name, timeout=_TIMEOUT_S).topics[name].error
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise UserError(f"{name}: not allowed to see it ({error.str()}); grant it and start again")


class _Closable(Protocol):
    def close(self) -> None: ...


def close_aside(client: _Closable) -> None:
    """Closes a client that may be stuck, and does not wait for it."""
    threading.Thread(target=client.close, name="close stalled client", daemon=True).start()
