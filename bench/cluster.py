"""What the measurements share: fresh topics on a cluster, and programs that run beside them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import PREFIX, Settings, load
from tests.support.real_kafka import RealKafka, unavailable

PARTITIONS = 8

_LEADERS_WITHIN = 30.0  # seconds

INPUTS = "topic_user_events", "topic_purchases"
OUTPUTS = (
    "topic_visits",
    "topic_suspicious_visits",
    "topic_late_events",
    "topic_dead_letters",
    "topic_unmatched_purchases",
    "topic_sessions",
)


@contextmanager
def real_kafka(brokers: str | None) -> Iterator[str]:
    """Bootstrap servers of these brokers, or of a single one that is started for the while.

    Ends the process with one line if there is no Kafka to start, or none at these addresses.
    """
    end_on_sigterm()
    if brokers is None:
        if reason := unavailable():
            sys.exit(f"{reason}; or name one with --brokers")
        with RealKafka(nodes=1, java=()) as kafka:
            yield kafka.brokers
        return
    try:
        AdminClient({"bootstrap.servers": brokers, "log_level": 0}).list_topics(timeout=10)
    except KafkaException:
        sys.exit(f"there is no Kafka at {brokers}")
    yield brokers


def end_on_sigterm() -> None:
    """From now on SIGTERM ends the process as Ctrl-C does, so that what was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextmanager
def fresh_topics(brokers: str | None) -> Iterator[Settings]:
    """The settings of a job on empty topics: on these brokers, or on an embedded cluster."""
    if brokers is not None:
        settings = load().model_copy(update={"brokers": brokers})
        with topics(settings, INPUTS + OUTPUTS, PARTITIONS) as fresh:
            yield fresh
        return
    with EmbeddedKafka() as kafka:
        settings = load().model_copy(update={"brokers": kafka.brokers, **_names(INPUTS + OUTPUTS)})
        for topic in settings.inputs + settings.outputs:
            kafka.create_topic(topic, PARTITIONS)
        yield settings


@contextmanager
def topics(settings: Settings, which: Collection[str], partitions: int) -> Iterator[Settings]:
    """The settings, with these of its topics replaced by empty ones, which are deleted afterwards."""
    names = _names(which)
    admin = AdminClient({**settings.client, "log_level": 2})
    for created in admin.create_topics([NewTopic(topic, partitions) for topic in names.values()]).values():
        created.result()
    try:
        _wait_for_leaders(admin, set(names.values()))
        yield settings.model_copy(update=names)
    finally:
        for deleted in admin.delete_topics([*names.values()]).values():
            deleted.result()


def _names(which: Collection[str]) -> dict[str, str]:
    mark = uuid4().hex[:8]
    return {name: f"{Settings.model_fields[name].default}-{mark}" for name in which}


def _wait_for_leaders(admin: AdminClient, names: set[str]) -> None:
    deadline = time.monotonic() + _LEADERS_WITHIN
    while time.monotonic() < deadline:
        found = admin.list_topics(timeout=10).topics
        if names <= found.keys() and all(
            partition.leader >= 0 and partition.error is None
            for name in names
            for partition in found[name].partitions.values()
        ):
            return
        time.sleep(0.1)
    raise RuntimeError(f"no leaders for {', '.join(names)}")


def variables(settings: Settings) -> dict[str, str]:
    """The environment of a program that is to have these settings."""
    values = settings.model_dump(exclude_defaults=True, exclude={"kafka"})
    return os.environ | {
        PREFIX + name.upper(): str(int(value) if isinstance(value, bool) else value) for name, value in values.items()
    }


def start(settings: Settings, log: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """``python -m module``, with these settings; whoever starts it stops it, on SIGTERM too."""
    end_on_sigterm()
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], env=variables(settings), stdout=output, stderr=output
        )
