"""What the measurements share: fresh topics on a cluster, and programs that run beside them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from confluent_kafka.admin import AdminClient, NewTopic

from dataflow.embedded import EmbeddedKafka
from dataflow.settings import PREFIX, Settings, load

PARTITIONS = 8


@contextmanager
def fresh_topics(brokers: str | None) -> Iterator[Settings]:
    """The settings of a job on seven empty topics: on these brokers, or on an embedded cluster."""
    mark = uuid4().hex[:8]
    names = {name: f"{field.default}-{mark}" for name, field in Settings.model_fields.items() if name.startswith("topic_")}
    if brokers is None:
        with EmbeddedKafka() as kafka:
            for topic in names.values():
                kafka.create_topic(topic, PARTITIONS)
            yield load().model_copy(update={"brokers": kafka.brokers, **names})
        return
    admin = AdminClient({"bootstrap.servers": brokers})
    for created in admin.create_topics([NewTopic(topic, PARTITIONS) for topic in names.values()]).values():
        created.result()
    try:
        yield load().model_copy(update={"brokers": brokers, **names})
    finally:
        for deleted in admin.delete_topics([*names.values()]).values():
            deleted.result()


def start(settings: Settings, log: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """``python -m module``, with these settings."""
    values = settings.model_dump(exclude_defaults=True, exclude={"kafka"})
    variables = {PREFIX + name.upper(): str(value) for name, value in values.items()}
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], env=os.environ | variables, stdout=output, stderr=output)
