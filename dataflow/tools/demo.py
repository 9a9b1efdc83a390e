"""``python -m dataflow demo`` (or ``make demo``): brokers, a simulated shop and the job for about half a minute.

Starts three embedded brokers, the shop and the job, and reads all topics with an ordinary Kafka client. In the end it
compares the outputs with a batch computation. On a terminal it draws a screen, otherwise it prints lines.
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

HISTORY_S = 120  # seconds of events that are in Kafka when the job starts
OPEN_S = 8  # seconds for which the shop then produces events
RATE = 4  # events per second
_CLOSING_TIMEOUT_S = 60  # for the last session to close, which takes the gap plus the lateness
_PARTITIONS = 8
_SHOWN = 12  # sessions on the screen
_LINE_INTERVAL_S = 5  # between two lines of counts, without a terminal

_DESCRIPTION = """\
Runs three embedded Kafka brokers, a simulated shop and the job for about half a minute. Shows the sessions as they
open and close, and the address of the live page. In the end it compares the output topics with a batch computation, row
by row. You need not install or start anything before, and nothing is left behind.

Exit status: 0 if every row is right, 1 if not.
"""


class Visit(msgspec.Struct):
    """The fields of a row of `visits` that the demo needs."""

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
    """A closed session. Times are Unix seconds."""

    user: int
    start: float
    end: float
    events: int
    amount: float
    suspicious: str = ""

    def cells(self) -> list[str]:
        """The cells of its line in the table."""
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
    """What all topics contain so far."""

    settings: Settings
    rows: Counter[str] = field(default_factory=Counter)  # by topic
    events_in_open_sessions: Counter[int] = field(default_factory=Counter)  # by user
    sessions: dict[str, SessionLine] = field(default_factory=dict)  # by session id
    suspicious: dict[str, int] = field(default_factory=dict)  # by session id: type of the rule

    def add(self, message: Message) -> None:
        """Adds one message of any topic."""
        topic, key, value = message.topic() or "", message.key() or b"", message.value() or b""
        self.rows[topic] += 1
        if topic == self.settings.topic_user_events:
            self.events_in_open_sessions[int(key)] += 1
        elif topic == self.settings.topic_late_events:
            self.events_in_open_sessions[int(key)] -= 1
        elif topic == self.settings.topic_visits:
            self._add_visit(msgspec.json.decode(value, type=Visit))
        elif topic == self.settings.topic_suspicious_visits:
            suspicion = msgspec.json.decode(value, type=Suspicion)
            self.suspicious[suspicion.session_id] = suspicion.type

    def _add_visit(self, visit: Visit) -> None:
        self.events_in_open_sessions[visit.user_id] -= 1
        session = self.sessions.get(visit.session_id)
        if session is None:
            session = SessionLine(visit.user_id, visit.timestamp, visit.timestamp, 0, visit.amount)
            self.sessions[visit.session_id] = session
        session.end = visit.timestamp
        session.events += 1

    def open(self) -> dict[int, int]:
        """By user with an open session: the number of its events."""
        return {user: events for user, events in self.events_in_open_sessions.items() if events > 0}

    def closed(self) -> list[SessionLine]:
        """The closed sessions, in the order in which they were written."""
        for session_id, suspicion_type in self.suspicious.items():
            if session_id in self.sessions:
                self.sessions[session_id].suspicious = label_of(suspicion_type)
        return list(self.sessions.values())

    def counts(self) -> list[tuple[str, str]]:
        """The counts to show: name and text."""
        rows, closed, names = self.rows, self.closed(), self.settings
        opened = self.open()
        labels = Counter(session.suspicious for session in closed if session.suspicious)
        return [
            ("events in", f"{rows[names.topic_user_events]:,}"),
            ("purchases in", f"{rows[names.topic_purchases]:,}"),
            ("sessions open", f"{len(opened)} with {sum(opened.values())} events"),
            ("sessions closed", f"{len(closed)}, visits {rows[names.topic_visits]:,}"),
            ("with an amount", f"{sum(bool(session.amount) for session in closed)}"),
            ("suspicious", ", ".join(f"{count} {label}" for label, count in sorted(labels.items())) or "0"),
            ("late events", f"{rows[names.topic_late_events]}"),
            ("unmatched purchases", f"{rows[names.topic_unmatched_purchases]}"),
            ("dead letters", f"{rows[names.topic_dead_letters]}"),
        ]


class Screen:
    """Shows the totals: on a terminal in place, elsewhere as lines."""

    def __init__(self, console: Console, totals: TopicTotals) -> None:
        self._totals = totals
        self._live = Live(console=console, refresh_per_second=5, transient=False) if console.is_terminal else None
        self._printed_sessions = 0
        self._printed_at = 0.0  # the last line of counts, monotonic

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, state: str) -> None:
        """Updates the screen; `state` says what is going on."""
        if self._live:
            self._live.update(self._drawn(state))
        else:
            self._print_lines(state)

    def _drawn(self, state: str) -> Group:
        counts = Table.grid(padding=(0, 2))
        for name, count in self._totals.counts():
            counts.add_row(Text(name, style="bold"), count)
        opened = self._totals.open()
        users = "  ".join(f"{user}:{'▪' * min(count, 12)}" for user, count in sorted(opened.items()))
        closed = Table("from", "to", "user", "events", "amount", "suspicious", box=None, title_justify="left")
        for session in self._totals.closed()[-_SHOWN:]:
            closed.add_row(*session.cells(), style="yellow" if session.suspicious else "")
        return Group(Text(state, style="bold cyan"), counts, Text(f"open (user: events)  {users}"), closed)

    def _print_lines(self, state: str) -> None:
        closed = self._totals.closed()
        for session in closed[self._printed_sessions :]:
            _say("closed: " + "  ".join(filter(None, session.cells())))
        self._printed_sessions = len(closed)
        if time.monotonic() >= self._printed_at + _LINE_INTERVAL_S:
            self._printed_at = time.monotonic()
            _say(f"{state}: " + "; ".join(f"{name} {count}" for name, count in self._totals.counts()))


class Watcher:
    """Reads all topics from their first row into the totals, as they grow."""

    def __init__(self, settings: Settings, totals: TopicTotals) -> None:
        self._totals = totals
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

    def poll(self) -> None:
        """Adds the messages that have arrived; waits up to 0.2 s for them."""
        for message in self._consumer.consume(1_000, 0.2):
            if message.error() is None:
                self._totals.add(message)

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
        "VISITS_OUTAGE_GRACE": "0",  # the brokers are new, so there was no outage before
        "VISITS_LOG_FORMAT": "text",
        "VISITS_PAGE_PORT": str(page),
    }
    console.print(f"Watch it live: http://localhost:{page}/")
    programs: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (directory / f"{name}.log").open("wb") as log:
            program = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, stdout=log, stderr=log)
        programs.append(program)
        return program

    totals = TopicTotals(settings)
    watcher = Watcher(settings, totals)
    try:
        shop = start("shop", "producer", "--rate", str(RATE), "--history", str(HISTORY_S), "--seed", "7")
        job = start("job", "dataflow", "--recovery-directory", str(directory / "recovery"))
        with Screen(console, totals) as screen:
            shop_closes_at = time.monotonic() + OPEN_S
            while time.monotonic() < shop_closes_at:
                watcher.poll()
                screen.show("the shop is open")
                _check_running(shop, job, directory=directory)
            shop.terminate()
            shop.wait()
            deadline = time.monotonic() + _CLOSING_TIMEOUT_S
            while totals.open() and time.monotonic() < deadline:
                watcher.poll()
                screen.show(f"the shop is closed; a session ends {settings.session_gap:g} s after its last event")
                _check_running(job, directory=directory)
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


def _check_running(*programs: subprocess.Popen[bytes], directory: Path) -> None:
    """Raises UserError with all logs if a program has ended."""
    for program in programs:
        if program.poll() is not None:
            logs = "\n".join(path.read_text(errors="replace").strip() for path in sorted(directory.glob("*.log")))
            raise UserError(f"a program of the demo has ended:\n{logs}")


def _check(settings: Settings, console: Console) -> int:
    topics = Topics(settings)
    differences = compare(settings, topics, expected(settings, topics))
    disorder = out_of_order(topics, settings.topic_visits)
    console.print("\nThe output topics, compared with a batch computation over the same input:")
    report(differences, console)
    is_right = not any(differences) and not disorder
    console.print("Every row is right, and there exactly once." if is_right else "WRONG: see above.")
    return 0 if is_right else 1


def main(arguments: Sequence[str]) -> int:
    """Runs the demo; returns the exit code.

    Args:
        arguments: the command line, without the command's name; the only option is ``--help``.
    """
    Parser("python -m dataflow demo", _DESCRIPTION).parse_args(arguments)
    console = Console()
    try:
        with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory(prefix="visits-demo-") as directory:
            settings = load().model_copy(update={"brokers": kafka.brokers})
            if settings.mapping_file is not None:
                raise UserError("the demo's shop knows the default shape only: unset VISITS_MAPPING")
            for topic in settings.inputs + settings.outputs:
                kafka.create_topic(topic, _PARTITIONS)
            return _run(settings, Path(directory), console)
    except UserError as error:
        sys.exit(f"visits: {error}")
    except KeyboardInterrupt:
        return 130
