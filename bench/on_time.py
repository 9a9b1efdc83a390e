"""How long a session takes to come out, beyond the gap and the allowed lateness that it has to wait.

    python -m bench.on_time [--case USERS:RATE ...] [--seconds 90] [--kafka | --brokers HOST:PORT,...] [--crowd]

For every case the shop (`python -m producer`) sends RATE events a second of so many users for a while, then stops; the
job reads them; and this program reads `visits`, on the same clock. A session's delay is the time at which the last of
its rows arrived here, minus the time of its last event, the gap and the lateness: rule 9 allows one second. It
includes the producer's, both brokers' and this consumer's own time. *Under load* are the sessions that were due while
the shop was open, *quiet* those due after its last event, when nothing but the clock moves the job.

The brokers are embedded ones, in this process, unless told otherwise; they hold 100,000 rows a partition, so cases of
more rows want a real Kafka. Topics are made for each case. *Behind* is how old an event was at most, in seconds, when
the shop handed it to Kafka: a shop that has not processor enough for its rate falls behind. *Overtaken* are rows that
came so late into a partition that had run dry; the batch answer, which *rows wrong* goes by, has them in visits.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from statistics import quantiles
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from bench.cluster import PARTITIONS, fresh_topics, real_kafka, start
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics, compare, expected
from producer.options import positive, whole

_WIDTH = 120  # of the table, also where the terminal is narrower or none

CASES = (20, 3), (20, 500), (10_000, 500), (10_000, 1_000)


class Visit(msgspec.Struct):
    session_id: str
    timestamp: float


class Event(msgspec.Struct):
    timestamp: float


class Closed(NamedTuple):
    """A session that has come out; Unix seconds."""

    due: float  # when it may close: last event, gap and lateness
    arrived: float  # its last row, here


def watch(settings: Settings, shop: Popen[bytes], job: Popen[bytes]) -> tuple[list[Closed], float]:
    """All sessions that come out, until all are; and when the shop stopped."""
    consumer = Consumer({"bootstrap.servers": settings.brokers, "group.id": "on-time", "fetch.wait.max.ms": 10})
    consumer.assign([TopicPartition(settings.topic_visits, partition, 0) for partition in range(PARTITIONS)])
    last_event: dict[str, float] = {}
    arrivals: dict[str, float] = {}
    decode = msgspec.json.Decoder(Visit).decode
    wait = settings.session_gap + settings.allowed_lateness
    stopped = None
    heard = time.time()
    while stopped is None or time.time() < heard + wait + 5:
        if job.poll() is not None:
            raise RuntimeError("the job has ended")
        messages = consumer.consume(1_000, 0.05)
        now = time.time()
        for message in messages:
            visit = decode(message.value() or b"")
            last_event[visit.session_id] = visit.timestamp  # its rows come in order of time
            arrivals[visit.session_id] = heard = now
        if stopped is None and shop.poll() is not None:
            stopped = now
    consumer.close()
    return [Closed(last_event[session] + wait, arrived) for session, arrived in arrivals.items()], stopped


def measure(users: int, rate: float, seconds: float, brokers: str | None, module: str) -> Iterator[tuple[str, ...]]:
    """Two rows of the table: under load, and quiet; `module` is the shop."""
    with fresh_topics(brokers) as settings, TemporaryDirectory() as name:
        directory = Path(name)
        job = start(settings, directory / "job.log", "dataflow", "-r", str(directory / "recovery"))
        time.sleep(3)  # it starts; what it misses of the first seconds it reads then
        events = str(round(rate * seconds))
        shop = start(
            settings, directory / "shop.log", module, "--users", str(users), "--rate", str(rate), "--events", events
        )
        try:
            sessions, stopped = watch(settings, shop, job)
        finally:
            for program in (shop, job):
                program.terminate()
                program.wait()
        topics = Topics(settings)
        differences = compare(settings, topics, expected(settings, topics))
        wrong = sum(each.missing.total() + each.extra.total() for each in differences)
        overtaken = sum(each.extra.total() for each in differences if each.topic == settings.topic_late_events)
        behind = oldest(topics, settings.topic_user_events)
        for state, group in (
            ("under load", [each for each in sessions if each.due <= stopped]),
            ("quiet", [each for each in sessions if each.due > stopped]),
        ):
            delays = distribution([each.arrived - each.due for each in group])
            case = f"{users:,}", f"{rate:g}", f"{behind:.1f}", state, f"{len(group):,}"
            yield *case, *delays, f"{overtaken:,}", f"{wrong:,}"


def oldest(topics: Topics, topic: str) -> float:
    """Seconds by which a row was stored later than it says that it happened, at most."""
    decode = msgspec.json.Decoder(Event).decode
    return max(
        message.timestamp()[1] / 1000 - decode(message.value() or b"").timestamp for message in topics.read(topic)
    )


def distribution(delays: list[float]) -> list[str]:
    if len(delays) < 2:
        return ["-"] * 5
    percent = quantiles(delays, n=100, method="inclusive")
    return [f"{delay:.2f}" for delay in (min(delays), percent[49], percent[89], percent[98], max(delays))]


def case(text: str) -> tuple[int, float]:
    """USERS:RATE, both above 0."""
    users, _, rate = text.partition(":")
    try:
        return whole(users), positive(rate)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not USERS:RATE, as in 20:3") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.on_time", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--case",
        nargs="+",
        type=case,
        default=CASES,
        metavar="USERS:RATE",
        help="default: " + " ".join(f"{users}:{rate}" for users, rate in CASES),
    )
    parser.add_argument("--seconds", type=float, default=90, help="how long the shop is open (default: 90)")
    parser.add_argument("--kafka", action="store_true", help="on a real Kafka of one node, which needs `make kafka`")
    parser.add_argument("--brokers", help="a Kafka to use instead of embedded brokers")
    parser.add_argument("--crowd", action="store_true", help="events of bench.crowd, for tens of thousands a second")
    arguments = parser.parse_args()
    console = Console()
    console.width = max(console.width, _WIDTH)
    shop = "bench.crowd" if arguments.crowd else "producer"
    delays = "min", "p50", "p90", "p99", "max"
    table = Table("users", "events/s", "behind", "", "sessions", *delays, "overtaken", "rows wrong", box=None)
    with real_kafka(arguments.brokers) if arguments.kafka or arguments.brokers else nullcontext() as brokers:
        for users, rate in arguments.case:
            with console.status(f"{users} users, {rate} events a second"):
                for row in measure(users, rate, arguments.seconds, brokers, shop):
                    table.add_row(*row)
    console.print("seconds from when a session was due until its last row was read from `visits`:")
    console.print(table)


if __name__ == "__main__":
    main()
