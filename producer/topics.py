"""Topics that are missing are made; those that exist are left alone."""

import time
from collections.abc import Callable, Collection

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic

from dataflow.streaming.errors import UserError

PARTITIONS = 8
_MOST_REPLICAS = 3
_PATIENCE = 10.0  # seconds: to find a broker, to make topics, to see them everywhere


def cluster(client: Producer | AdminClient, brokers: str, reason: Callable[[], str]) -> ClusterMetadata:
    """What the cluster says of itself; `reason` is asked why there is no answer.

    Raises:
        UserError: no broker answers.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            # in short steps: the interpreter doesn't see Ctrl-C while the client waits
            return client.list_topics(timeout=1)
        except KafkaException as error:
            if time.monotonic() > deadline:
                because = reason() or error.args[0].str()
                raise UserError(f"no Kafka broker answers at {brokers}: {because}; set VISITS_BROKERS") from None
            client.poll(0)


def create_missing(admin: AdminClient, names: Collection[str], known: ClusterMetadata, brokers: str) -> list[str]:
    """Makes those of the topics `names` that are not `known`, and waits until the cluster shows them; returns them.

    `brokers` are the bootstrap servers, comma-separated.

    Raises:
        UserError: they cannot be made.
    """
    missing = [name for name in names if name not in known.topics]
    if not missing:
        return []
    replicas = min(_MOST_REPLICAS, len(_complete(admin, known, brokers).brokers))
    making = admin.create_topics([NewTopic(name, PARTITIONS, replicas) for name in missing], request_timeout=_PATIENCE)
    for name, made in making.items():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody was quicker
                reason = error.args[0].str()
                raise UserError(f"cannot create topic {name!r}: {reason}; create it by other means") from None
    deadline = time.monotonic() + _PATIENCE
    while not _shown(admin.list_topics(timeout=_PATIENCE), missing):
        if time.monotonic() > deadline:
            raise UserError(f"Kafka took on topics {', '.join(missing)} but doesn't show them; try again")
        time.sleep(0.2)
    return missing


def _complete(admin: AdminClient, known: ClusterMetadata, brokers: str) -> ClusterMetadata:
    """Waits for all brokers named: a cluster just started would get topics with too few replicas, and keep them."""
    wanted = min(_MOST_REPLICAS, brokers.count(",") + 1)
    deadline = time.monotonic() + _PATIENCE
    while len(known.brokers) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
        known = admin.list_topics(timeout=_PATIENCE)
    return known


def _shown(known: ClusterMetadata, names: Collection[str]) -> bool:
    return all(
        name in known.topics and all(partition.leader >= 0 for partition in known.topics[name].partitions.values())
        for name in names
    )
