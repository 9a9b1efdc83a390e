"""The job, or the textbook program, as a process of its own, and what has come out of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
from bytewax.recovery import init_db_dir
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from dataflow.runtime.settings import PREFIX, Settings
from dataflow.tools.reference import Answer
from dataflow.tools.verify import Topics, compare, expected, out_of_order

ROOT = Path(__file__).parents[2]

_LIMIT = 180  # seconds until a wait is given up; a busy machine takes long


def wait_for(condition: Callable[[], bool], what: str, limit: float = _LIMIT) -> None:
    """Waits until the condition holds; fails if that takes too long."""
    assert _becomes(condition, limit), f"still waiting for {what} after {limit} s"


def _becomes(condition: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


class Program:
    """A dataflow in a process, which can be stopped and started again on its recovery store."""

    def __init__(self, settings: Settings, directory: Path, module: str, *arguments: str) -> None:
        directory.mkdir()
        self.settings = settings
        self._log = directory / "log"
        self._command = [
            sys.executable,
            "-m",
            module,
            *arguments,
            "-r",
            str(directory / "recovery"),
            "-s",
            "1",
            "-b",
            "0",
        ]
        values = settings.model_dump(exclude_defaults=True)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            **{PREFIX + name.upper(): str(value) for name, value in values.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def must_run(self) -> None:
        assert self._process.poll() is None, f"it has ended:\n{self._log.read_text()[-3000:]}"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Job(Program):
    """``python -m dataflow``."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        super().__init__(settings, directory, "dataflow")

    def stop(self) -> None:
        assert self.terminate() == 0, self._log.read_text()[-3000:]


class Textbook(Program):
    """The control: the same job as anyone would write it from Bytewax's own documentation."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        super().__init__(settings, directory, "bytewax.run", "bench.textbook:flow")
        (directory / "recovery").mkdir()
        init_db_dir(directory / "recovery", 1)
        self._environment["BYTEWAX_DATAFLOW_API_PORT"] = "0"  # the job has the usual one


class Ends:
    """How many rows topics hold."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = Topics(settings).partitions
        self._admin = AdminClient({"bootstrap.servers": settings.brokers, "log_level": 0})

    def rows(self, topic: str) -> int:
        """Waits for brokers that are not quite back."""
        latest = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(self._partitions[topic])}
        ends: list[int] = []

        def answered() -> bool:
            try:
                self._admin.list_topics(topic, timeout=5)  # or librdkafka goes on asking the leaders of old
                ends[:] = [
                    answer.result().offset for answer in self._admin.list_offsets(latest, request_timeout=5).values()
                ]
            except KafkaException:
                return False
            return min(ends) >= 0

        wait_for(answered, f"the ends of {topic}")
        return sum(ends)


@dataclass(frozen=True)
class Outcome:
    """What the job has written, shown to be the batch answer for what is in its input."""

    answer: Answer

    @property
    def events(self) -> int:
        return self.answer.visits.total()

    @property
    def late(self) -> int:
        return self.answer.late_events.total()

    @property
    def late_purchases(self) -> int:
        return self._unmatched_because(b"late")

    @property
    def unmatched(self) -> int:
        """Purchase rows with no event in their time."""
        return self._unmatched_because(b"no event in its time")

    @property
    def dead(self) -> int:
        return self.answer.dead_letters.total()

    def _unmatched_because(self, reason: bytes) -> int:
        rows = self.answer.unmatched_purchases.items()
        return sum(count for (_, _, headers), count in rows if headers[0][1] == reason)

    def __str__(self) -> str:
        return (
            f"{self.events:,} visits, {self.late} late events, {self.late_purchases} late purchases, "
            f"{self.dead} dead letters, {self.unmatched} unmatched purchases"
        )


def settle(settings: Settings, job: Job, limit: float = _LIMIT) -> Outcome:
    """Waits until all sessions are out, stops the job, and holds all output topics against the batch answer."""
    topics = Topics(settings)
    right = expected(settings, topics)
    totals = {
        name: getattr(right, kind.name).total() for name, kind in zip(settings.outputs, fields(Answer), strict=True)
    }
    ends = Ends(settings)

    def all_out() -> bool:
        job.must_run()
        enough = all(ends.rows(topic) >= total for topic, total in totals.items())
        return enough and not any(difference.missing for difference in compare(settings, topics, right))

    _becomes(all_out, limit)  # if not, the comparison says what is missing
    job.stop()
    wrong = [difference for difference in compare(settings, topics, right) if difference]
    assert not wrong, "\n".join(
        f"{each.topic}: {each.missing.total()} of {each.expected} missing, {each.extra.total()} too many, "
        f"such as {[*each.missing, *each.extra][:2]}"
        for each in wrong
    )
    assert out_of_order(topics, settings.topic_visits) == 0
    return Outcome(right)


class _Visit(msgspec.Struct, frozen=True):
    user_id: int
    timestamp: float
    event_type: str
    page_id: int
    amount: float


def _visits(values: Iterable[bytes]) -> set[_Visit]:
    return set(map(msgspec.json.Decoder(_Visit).decode, values))


@dataclass(frozen=True)
class Loss:
    """How far what the textbook program wrote is from the answer."""

    rows: int  # that should be there
    lost: int  # events in no row that it wrote
    wrong: int  # those whose amount is not right

    def __str__(self) -> str:
        return (
            f"the textbook program lost {self.lost:,} of {self.rows:,} events, and {self.wrong:,} have a wrong amount"
        )


def loss(control: Textbook, answer: Answer) -> Loss:
    """Waits until the textbook program writes no more, stops it, and counts what is not there."""
    settings = control.settings
    topics = Topics(settings)
    ends = Ends(settings)
    quiet = settings.session_gap + settings.allowed_lateness + 10
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + quiet:
        control.must_run()
        now = ends.rows(settings.topic_visits)
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)
    control.terminate()
    right = _visits(value for _, value, _ in answer.visits)
    written = _visits(message.value() for message in topics.read(settings.topic_visits))
    there = {(row.user_id, row.timestamp) for row in written}
    lost = sum((row.user_id, row.timestamp) not in there for row in right)
    return Loss(len(right), lost, len(right - written) - lost)
