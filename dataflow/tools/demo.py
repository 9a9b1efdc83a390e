"""``python -m dataflow demo`` (or ``make demo``): everything at once, on an embedded broker.

Starts three brokers, the shop and the job, watches all seven topics for about half a minute as anyone could who has a
Kafka client, and in the end holds what came out against the batch answer. Without a terminal it prints lines.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, Message, TopicPartition
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dataflow.clickstream.suspicion import label_of
from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import Parser
from dataflow.tools.verify import Topics, compare, expected, out_of_order, report

HISTORY = 120  # seconds of clicks that are in Kafka already when the job starts
OPENING_HOURS = 8  # seconds for which the shop then goes on
RATE = 4  # clicks a second
_PATIENCE = 60  # seconds for the last session to come out, which takes the gap and the lateness
_PARTITIONS = 8
_SHOWN = 12  # sessions on the screen

_DESCRIPTION = """\
Runs everything at once for about half a minute: three embedded Kafka brokers, a simulated shop and the job. Shows the
sessions as they open and close, and the address of the live page. In the end it compares the output topics with a
batch computation, row by row. Nothing has to be installed or started before, and nothing stays behind.

Exit status: 0 if every row is right, 1 if not.
"""


class Visit(msgspec.Struct):
    """What the demo reads of a row of `visits`."""

    user_id: int
    timestamp: float
    session_id: str
    amount: float


class Suspicion(msgspec.Struct):
    """A row of `suspicious-visits`."""

    session_id: str
    user_id: int
    type: int


@dataclass
class SessionLine:
    """A session that has come out."""

    user: int
    start: float
    end: float
    events: int
    amount: float
    suspicious: str = ""

    def cells(self) -> list[str]:
        """The session in words."""
        return [
            _clock(self.start),
            _clock(self.end),
            f"user {self.user}",
            f"{self.events} events",
            f"amount {self.amount:g}" if self.amount else "",
            self.suspicious,
        ]


@dataclass
class TopicTotals:
    """All that has been seen in the topics so far."""

    settings: Settings
    rows: Counter[str] = field(default_factory=Counter)  # by topic
    waiting: Counter[int] = field(default_factory=Counter)  # by user: events whose session is still open
    sessions: dict[str, SessionLine] = field(default_factory=dict)
    suspicious: Counter[str] = field(default_factory=Counter)

    def see(self, message: Message) -> None:
        """Takes in one message of any topic."""
        topic, key, value = message.topic() or "", message.key() or b"", message.value() or b""
        self.rows[topic] += 1
        if topic == self.settings.topic_user_events:
            self.waiting[int(key)] += 1
        elif topic == self.settings.topic_late_events:
            self.waiting[int(key)] -= 1
        elif topic == self.settings.topic_visits:
            self._see_visit(msgspec.json.decode(value, type=Visit))
        elif topic == self.settings.topic_suspicious_visits:
            self._see_suspicion(msgspec.json.decode(value, type=Suspicion))

    def _see_visit(self, visit: Visit) -> None:
        self.waiting[visit.user_id] -= 1
        closed = self.sessions.get(visit.session_id)
        if closed is None:
            closed = SessionLine(visit.user_id, visit.timestamp, visit.timestamp, 0, visit.amount)
            self.sessions[visit.session_id] = closed
        closed.end = visit.timestamp
        closed.events += 1

    def _see_suspicion(self, row: Suspicion) -> None:
        self.suspicious[row.session_id] = row.type

    def open(self) -> dict[int, int]:
        """Users with an open session, and how many events it holds."""
        return {user: count for user, count in self.waiting.items() if count > 0}

    def closed(self) -> list[SessionLine]:
        """The sessions that have come out, in the order in which they did."""
        for session_id, kind in self.suspicious.items():
            if session_id in self.sessions:
                self.sessions[session_id].suspicious = label_of(kind)
        return list(self.sessions.values())

    def counts(self) -> list[tuple[str, str]]:
        """What is to be said of all of it, by name."""
        rows, closed, names = self.rows, self.closed(), self.settings
        waiting = self.open()
        kinds = Counter(session.suspicious for session in closed if session.suspicious)
        return [
            ("events in", f"{rows[names.topic_user_events]:,}"),
            ("purchases in", f"{rows[names.topic_purchases]:,}"),
            ("sessions open", f"{len(waiting)} with {sum(waiting.values())} events"),
            ("sessions closed", f"{len(closed)}, visits {rows[names.topic_visits]:,}"),
            ("with an amount", f"{sum(bool(session.amount) for session in closed)}"),
            ("suspicious", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "0"),
            ("late events", f"{rows[names.topic_late_events]}"),
            ("unmatched purchases", f"{rows[names.topic_unmatched_purchases]}"),
            ("dead letters", f"{rows[names.topic_dead_letters]}"),
        ]


class Screen:
    """Shows a picture that changes: on a terminal in place, elsewhere a line for each thing that happens."""

    def __init__(self, console: Console, picture: TopicTotals) -> None:
        self._console = console
        self._picture = picture
        self._live = Live(console=console, refresh_per_second=5, transient=False) if console.is_terminal else None
        self._told = 0  # sessions
        self._told_at = 0.0

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, now_doing: str) -> None:
        """Brings the screen up to date."""
        if self._live:
            self._live.update(self._drawn(now_doing))
        else:
            self._tell(now_doing)

    def _drawn(self, now_doing: str) -> Group:
        counts = Table.grid(padding=(0, 2))
        for name, count in self._picture.counts():
            counts.add_row(Text(name, style="bold"), count)
        opened = self._picture.open()
        users = "  ".join(f"{user}:{'▪' * min(count, 12)}" for user, count in sorted(opened.items()))
        closed = Table("from", "to", "user", "events", "amount", "suspicious", box=None, title_justify="left")
        for session in self._picture.closed()[-_SHOWN:]:
            closed.add_row(*session.cells(), style="yellow" if session.suspicious else "")
        return Group(Text(now_doing, style="bold cyan"), counts, Text(f"open (user: events)  {users}"), closed)

    def _tell(self, now_doing: str) -> None:
        closed = self._picture.closed()
        for session in closed[self._told :]:
            _say("closed: " + "  ".join(filter(None, session.cells())))
        self._told = len(closed)
        if time.monotonic() >= self._told_at + 5:
            self._told_at = time.monotonic()
            _say(f"{now_doing}: " + "; ".join(f"{name} {count}" for name, count in self._picture.counts()))


class Watcher:
    """Reads all topics from their beginning into a picture, as they grow."""

    def __init__(self, settings: Settings, picture: TopicTotals) -> None:
        self._picture = picture
        self._consumer = Consumer(
            {
                **settings.client,
                "log_level": 2,
                "group.id": "demo",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )
        topics = settings.inputs + settings.outputs
        self._consumer.assign(
            [TopicPartition(topic, partition, 0) for topic in topics for partition in range(_PARTITIONS)]
        )

    def look(self) -> None:
        """Takes in what has come; waits a little if nothing has."""
        for message in self._consumer.consume(1_000, 0.2):
            if message.error() is None:
                self._picture.see(message)

    def close(self) -> None:
        self._consumer.close()


def _clock(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%H:%M:%S")


def _say(line: str) -> None:
    print(line, flush=True)


def _run(settings: Settings, directory: Path, console: Console) -> int:
    page = settings.page_port or _free_port()
    environment = {
        **os.environ,
        "VISITS_BROKERS": settings.brokers,
        "VISITS_OUTAGE_GRACE": "0",  # of brokers that have just been made there was none
        "VISITS_LOG_FORMAT": "text",
        "VISITS_PAGE_PORT": str(page),
    }
    console.print(f"Watch it meanwhile: http://localhost:{page}/")
    programs: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (directory / f"{name}.log").open("wb") as log:
            program = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=log)
        programs.append(program)
        return program

    picture = TopicTotals(settings)
    watcher = Watcher(settings, picture)
    try:
        shop = start("shop", "producer", "--rate", str(RATE), "--history", str(HISTORY), "--seed", "7")
        job = start("job", "dataflow", "--recovery-directory", str(directory / "recovery"))
        with Screen(console, picture) as screen:
            closing_time = time.monotonic() + OPENING_HOURS
            while time.monotonic() < closing_time:
                watcher.look()
                screen.show("the shop is open")
                _must_run(shop, job, directory=directory)
            shop.terminate()
            shop.wait()
            patience = time.monotonic() + _PATIENCE
            while picture.open() and time.monotonic() < patience:
                watcher.look()
                screen.show(f"the shop is closed; a session ends {settings.session_gap:g} s after its last event")
                _must_run(job, directory=directory)
            screen.show("all sessions are closed")
        job.terminate()
        job.wait()
        return _check(settings, console)
    finally:
        watcher.close()
        for program in programs:
            program.kill()
            program.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _must_run(*programs: subprocess.Popen[bytes], directory: Path) -> None:
    for program in programs:
        if program.poll() is not None:
            logs = "\n".join(path.read_text(errors="replace").strip() for path in sorted(directory.glob("*.log")))
            raise UserError(f"a program of the demo has ended:\n{logs}")


def _check(settings: Settings, console: Console) -> int:
    topics = Topics(settings)
    differences = compare(settings, topics, expected(settings, topics))
    disorder = out_of_order(topics, settings.topic_visits)
    console.print("\nWhat came out, against a batch computation over the same input:")
    report(differences, console)
    right = not any(differences) and not disorder
    console.print("Every row is right, and there exactly once." if right else "WRONG: see above.")
    return 0 if right else 1


def main(arguments: Sequence[str]) -> int:
    """Runs the demo; returns the exit code.

    Args:
        arguments: the command line, without the command's name; there are no options but ``--help``.
    """
    Parser("python -m dataflow demo", _DESCRIPTION).parse_args(arguments)
    console = Console()
    try:
        with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory(prefix="visits-demo-") as directory:
            settings = load().model_copy(update={"brokers": kafka.brokers})
            for topic in settings.inputs + settings.outputs:
                kafka.create_topic(topic, _PARTITIONS)
            return _run(settings, Path(directory), console)
    except UserError as error:
        sys.exit(f"visits: {error}")
    except KeyboardInterrupt:
        return 130
