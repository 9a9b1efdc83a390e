"""Partitions that take no writes although their leaders answer: fewer replicas are in sync than the topic asks for."""

import time
from collections.abc import Collection

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource, ResourceType, TopicMetadata

from dataflow.kafka.client import is_mock
from dataflow.kafka.offsets import PartitionId, result_by
from dataflow.kafka.replaceable import Admin

_TIMEOUT_S = 2.0
_ASK_AGAIN_S = 60.0  # somebody may change the configuration
_SETTING = "min.insync.replicas"


class InSyncReplicas:
    """Compares the replicas that are in sync with the topic's `min.insync.replicas`.

    Where the configuration cannot be read (a missing permission, a broker that does not know it), one replica is enough.

    Args:
        admin: asks for the configuration.
        topics: their names.
    """

    def __init__(self, admin: Admin, topics: Collection[str]) -> None:
        self._admin = admin
        self._topics = topics
        self._least: dict[str, int] = {}
        self._asked: float | None = None  # monotonic
        self._is_mock: bool | None = None  # None: not known yet

    def unwritable(self, topic: TopicMetadata) -> set[PartitionId]:
        """The partitions of a topic to which nothing can be written with acks=all, by the topic's metadata."""
        self._ask_for_configuration()
        name, least = str(topic.topic), self._least.get(str(topic.topic), 1)
        return {
            (name, number)
            for number, partition in topic.partitions.items()
            if len(partition.isrs) < min(least, max(1, len(partition.replicas)))  # a single replica takes writes alone
        }

    def _ask_for_configuration(self) -> None:
        now = time.monotonic()
        if self._asked is not None and now < self._asked + _ASK_AGAIN_S:
            return
        self._asked = now
        if self._is_mock is None:
            self._is_mock = is_mock(self._admin)
        if self._is_mock:
            return
        deadline = time.monotonic() + _TIMEOUT_S + 1
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in self._topics]
        try:
            answers = self._admin.describe_configs(resources, request_timeout=_TIMEOUT_S)
        except KafkaException:
            return
        for resource, answer in answers.items():
            try:
                self._least[resource.name] = int(result_by(answer, deadline)[_SETTING].value)
            except (KafkaException, KeyError, TypeError, ValueError):
                continue  # as it was
