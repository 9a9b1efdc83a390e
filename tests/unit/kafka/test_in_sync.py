"""Partitions with too few replicas in sync take no writes."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import in_sync as module
from dataflow.kafka.in_sync import InSyncReplicas


class Admin:
    """Tells a topic's configuration; an error: it does not."""

    def __init__(self, min_in_sync: str | None = "2", error: int | None = None) -> None:
        self.min_in_sync = min_in_sync
        self._error = error
        self.questions = 0
        self.cluster_id = "a real one"

    def list_topics(self, timeout):
        return SimpleNamespace(cluster_id=self.cluster_id)

    def describe_configs(self, resources, request_timeout):
        self.questions += 1
        answer: Future = Future()
        if self._error is not None:
            answer.set_exception(KafkaException(KafkaError(self._error)))
        else:
            answer.set_result({"min.insync.replicas": SimpleNamespace(value=self.min_in_sync)})
        return dict.fromkeys(resources, answer)


def topic(*in_sync: int, replicas: int = 3):
    """A topic whose partitions have so many replicas in sync."""
    partitions = {
        number: SimpleNamespace(isrs=[*range(count)], replicas=[*range(replicas)])
        for number, count in enumerate(in_sync)
    }
    return SimpleNamespace(topic="clicks", partitions=partitions)


def test_a_partition_with_fewer_replicas_in_sync_than_its_topic_asks_for_takes_no_writes():
    replicas = InSyncReplicas(Admin(), ["clicks"])
    assert replicas.unwritable(topic(3, 1, 2, 0)) == {("clicks", 1), ("clicks", 3)}


@pytest.mark.parametrize(
    "admin",
    [Admin(error=KafkaError.TOPIC_AUTHORIZATION_FAILED), Admin(error=KafkaError._TIMED_OUT), Admin(None)],
    ids=["forbidden", "no answer", "not told"],
)
def test_where_the_configuration_is_not_known_one_replica_is_enough(admin):
    assert InSyncReplicas(admin, ["clicks"]).unwritable(topic(1, 0)) == {("clicks", 1)}


def test_librdkafkas_mock_is_not_asked():
    admin = Admin()
    admin.cluster_id = "mockCluster1234"
    assert InSyncReplicas(admin, ["clicks"]).unwritable(topic(1)) == set()
    assert not admin.questions


def test_the_configuration_is_asked_for_once_a_minute(monkeypatch):
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    admin = Admin()
    replicas = InSyncReplicas(admin, ["clicks"])
    for _ in range(120):
        replicas.unwritable(topic(2))
        now += 1
    assert admin.questions == 2
    admin.min_in_sync = "3"
    now += 60
    assert replicas.unwritable(topic(2)) == {("clicks", 0)}


def test_a_partition_with_fewer_replicas_than_its_topic_asks_for_takes_writes_while_all_are_in_sync():
    replicas = InSyncReplicas(Admin(min_in_sync="2"), ["clicks"])
    assert replicas.unwritable(topic(1, 0, replicas=1)) == {("clicks", 1)}
