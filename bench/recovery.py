"""What snapshots cost, and how long a resume takes: ``python -m bench.recovery [--users 20 100000] [--brokers ...]``.

So many users, all with a session of 15 events open. Once the job has read them it takes snapshots of them and of
nothing new: how many bytes each is, and how long the worker stands still for it. Then it is killed (kill -9) and
started again with a session gap that lets all sessions end at once: how long from the start of the process until the
first row is in `visits`, and until all are. (Without the grace after a start, of which nothing depends on the job.)
"""

import argparse
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from rich.console import Console
from rich.table import Table

from bench import gaps
from bench.cluster import INPUTS, OUTPUTS, PARTITIONS, real_kafka, start, topics
from dataflow.runtime.settings import Settings
from dataflow.runtime.settings import load as load_settings

EVENTS = 15  # of a session
SNAPSHOTS = 5
INTERVAL = 3.0  # seconds between them
_LIMIT = 600.0  # seconds until a wait is given up


def fill(settings: Settings, users: int) -> None:
    """A second between a user's events, the last one now; one of them is a purchase, and paid."""
    producer = Producer(
        {**settings.client, "linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 2_000_000}
    )
    events, purchases = settings.inputs
    first = time.time() - EVENTS
    for number in range(EVENTS):
        at = first + number
        event_type = "purchase" if number == EVENTS // 2 else "page-view"
        for user in range(users):
            row = f'{{"event_type":"{event_type}","user_id":{user},"page_id":{number},"timestamp":{at:.3f}}}'
            producer.produce(events, row, str(user), timestamp=round(at * 1_000))
            if event_type == "purchase":
                row = f'{{"amount":9.99,"user_id":{user},"page_id":{number},"timestamp":{at:.3f}}}'
                producer.produce(purchases, row, str(user), timestamp=round(at * 1_000))
            if user % 10_000 == 0:
                producer.poll(0)
        producer.flush()


class Topics:
    """How many rows there are, and how many the job has read."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient({**settings.client, "log_level": 0})
        self._consumer = Consumer({**settings.client, "log_level": 0, "group.id": settings.group})
        self._settings = settings

    def visits(self) -> int:
        asked = {place: cast(Any, OffsetSpec).latest() for place in self._places(self._settings.topic_visits)}
        return sum(answer.result().offset for answer in self._admin.list_offsets(asked).values())

    def events_read(self) -> int:
        """As of the last snapshot."""
        try:
            offsets = self._consumer.committed(self._places(self._settings.topic_user_events), timeout=30)
        except KafkaException:
            return 0  # a broker that has just started finds its feet
        return sum(max(answer.offset, 0) for answer in offsets)

    def _places(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(PARTITIONS)]


def until(holds: Callable[[], bool], job: subprocess.Popen[bytes], log: Path) -> float:
    """Waits for a condition; returns when it came about."""
    deadline = time.monotonic() + _LIMIT
    while not holds():
        if job.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the job has ended, or takes too long:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
    return time.monotonic()


def snapshot_bytes(store: Path) -> int:
    """Size of the last states of all steps."""
    size = 0
    for part in store.glob("part-*.sqlite3"):
        with closing(sqlite3.connect(part)) as database:
            latest = "SELECT length(ser_change), max(snap_epoch) FROM snaps GROUP BY step_id, state_key"
            size += sum(length or 0 for length, _ in database.execute(latest))
    return size


def measure(brokers: str, users: int) -> tuple[str, ...]:
    """A row of the table."""
    settings = load_settings().model_copy(update={"brokers": brokers})
    with topics(settings, INPUTS + OUTPUTS, PARTITIONS) as fresh, TemporaryDirectory() as name:
        fresh = fresh.model_copy(update={"group": fresh.topic_visits, "session_gap": 100_000.0, "outage_grace": 0.0})
        log, file, store = Path(name) / "log", Path(name) / "gaps", Path(name) / "recovery"
        arguments = "-r", str(store), "-s", str(INTERVAL)
        fill(fresh, users)
        looked_at = Topics(fresh)
        job = start(fresh, log, "bench.gaps", str(file), *arguments)
        try:
            until(lambda: looked_at.events_read() == users * EVENTS, job, log)
            quiet_since = time.monotonic()
            time.sleep(INTERVAL * (SNAPSHOTS + 0.5))
            stands_still = gaps.longest(file, quiet_since, INTERVAL)
            job.kill()
            job.wait()
            size = snapshot_bytes(store)
            ended = fresh.model_copy(update={"session_gap": 1.0})
            began = time.monotonic()
            job = start(ended, log, "dataflow", *arguments)
            first = until(lambda: looked_at.visits() > 0, job, log) - began
            last = until(lambda: looked_at.visits() == users * EVENTS, job, log) - began
        finally:
            job.terminate()
            job.wait()
    still = f"{median(stands_still):.2f} ({max(stands_still):.2f})" if stands_still else f"below {gaps.SHORTEST:.2f}"
    return f"{users:,}", f"{users * EVENTS:,}", f"{size / 1e6:.2f}", still, f"{first:.1f}", f"{last:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, nargs="+", default=[20, 100_000], help="default: 20 100000")
    parser.add_argument("--brokers", help="a Kafka to use instead of one of our own")
    arguments, console = parser.parse_args(), Console()
    table = Table(
        "open sessions",
        "their events",
        "snapshot, MB",
        "stands still, s",
        "first row after, s",
        "all rows after, s",
        box=None,
    )
    with real_kafka(arguments.brokers) as brokers, console.status(""):
        for users in arguments.users:
            table.add_row(*measure(brokers, users))
    console.print(table)
    console.print(
        "standing still: the median of snapshots, and the longest; rows: from the start of a killed job's process"
    )


if __name__ == "__main__":
    main()
