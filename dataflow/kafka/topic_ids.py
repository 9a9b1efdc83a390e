"""Kafka's ids of topics: a topic that is deleted and created again has the same name and another id."""

import logging
import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from dataflow.kafka.client import is_mock, while_waiting
from dataflow.kafka.offsets import result_by
from dataflow.kafka.replaceable import Admin
from dataflow.observability import logs
from dataflow.streaming.errors import START_OVER, UserError

log = logging.getLogger("visits")

_TIMEOUT_S = 2.0
_GIVE_UP_AFTER_S = 20.0
_RETRY_INTERVAL_S = 0.2
_GONE_AFTER_S = 5.0  # a broker that has just started may not know a topic yet
_UNKNOWN_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of brokers before Kafka 2.8: 16 zero bytes


def topic_gone(topic: str, is_output: bool) -> UserError:
    """The error for a topic that the job has used, and that is not there any more."""
    if is_output:
        return UserError(
            f"output topic {topic} is gone: was it deleted? Its rows are lost with it, and the recovery store refuses another "
            f"topic of its name. docs/recovery.md says when its rows alone can be written again; otherwise {START_OVER}"
        )
    return UserError(
        f"topic {topic} is gone: was it deleted? Another topic of its name has other rows, so create it, and {START_OVER}"
    )


def topic_ids(admin: Admin, topics: Collection[str], timeout_s: float = _GIVE_UP_AFTER_S) -> dict[str, str]:
    """The ids of topics, by name; empty if brokers do not tell them."""
    if is_mock(admin):
        return {}
    deadline = time.monotonic() + timeout_s
    while True:
        found, missing = _ask(admin, topics)
        if len(found) == len(topics):
            return {name: id for name, id in found.items() if id != _UNKNOWN_ID}
        if time.monotonic() > deadline:
            log.warning(
                "Kafka does not tell the ids of its topics, so one that is created again will not be noticed: %s",
                "; ".join(str(error) for error in missing.values()),
                extra=logs.event("no-topic-ids"),
            )
            return {}
        while_waiting()
        time.sleep(_RETRY_INTERVAL_S)


class TopicWatch:
    """Notices that a topic was deleted, or created again, while the job runs.

    Args:
        admin: asks for the ids.
        ids: of the topics when the job started, by name.
        outputs: names of those that it writes.
    """

    def __init__(self, admin: Admin, ids: Mapping[str, str], outputs: Collection[str]) -> None:
        self._admin = admin
        self._ids = ids
        self._outputs = outputs
        self._gone_since: dict[str, float] = {}  # monotonic

    def check(self) -> None:
        """Raises UserError if a topic is gone, or is not the one that it was. Called about once a second."""
        if not self._ids:
            return
        found, missing = _ask(self._admin, self._ids)
        for name, id in found.items():
            if id != self._ids[name]:
                raise UserError(f"topic {name} was created again while the job ran; {START_OVER}")
        now = time.monotonic()
        gone = [name for name, error in missing.items() if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART]
        self._gone_since = {name: self._gone_since.get(name, now) for name in gone}
        for name, since in self._gone_since.items():
            if now > since + _GONE_AFTER_S:
                raise topic_gone(name, name in self._outputs)


def _ask(admin: Admin, topics: Collection[str]) -> tuple[dict[str, str], dict[str, KafkaError]]:
    """The ids that brokers tell, and why the others are missing."""
    ids: dict[str, str] = {}
    errors: dict[str, KafkaError] = {}
    deadline = time.monotonic() + _TIMEOUT_S + 1
    try:
        answers = admin.describe_topics(TopicCollection(list(topics)), request_timeout=_TIMEOUT_S)
    except KafkaException as error:
        return ids, dict.fromkeys(topics, error.args[0])
    for name, answer in answers.items():
        try:
            ids[name] = str(result_by(answer, deadline).topic_id)
        except KafkaException as error:
            errors[name] = error.args[0]
    return ids, errors
