"""What the output topics hold of a user, against what the log gives."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from dataflow.clickstream.outputs import LATE
from dataflow.kafka.messages import Message
from dataflow.runtime.settings import Settings
from dataflow.tools.explain.report import OPEN, OutputRow, OutputRows, Report, SessionReport, outputs_of

NOT_YET = "not there (yet): is the job running, with these settings, and has it read this far?"
ELSEWISE = (
    "there, and not given by this log and these settings: written with other settings or by an older version, "
    "or its rows are no longer in the input"
)
TWICE = "there more often than once"


@dataclass(frozen=True)
class Difference:
    """Rows of one topic that are alike in what is wrong with them."""

    topic: str
    of: str  # a session, or a reason
    rows: int
    what: str


class Found:
    """The rows of one user in the output topics, and those made of some messages.

    Args:
        user: whose rows.
        origins: "topic/partition/offset" of messages; dead letters that were made of them are taken too.
    """

    def __init__(self, user: bytes | None, origins: Collection[str]) -> None:
        self.rows: OutputRows = {}
        self._user = user
        self._origins = frozenset(origins)

    def take(self, message: Message) -> None:
        """Looks at one row of any output topic."""
        mine = self._user is not None and message.key() == self._user
        headers = message.headers() if mine or self._origins else None
        if mine or headers and message_origin(headers) in self._origins:
            row = message.key(), message.value(), tuple(headers or ())
            self.rows.setdefault(message.topic(), Counter())[row] += 1

    def late(self) -> set[str]:
        """Which messages the job has called late."""
        headers = (dict(row[2]) for rows in self.rows.values() for row in rows if row[2])
        return {message_origin(each.items()) for each in headers if each.get("reason") == LATE.encode()}


def message_origin(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """The message that a rejected row was, "topic/partition/offset"."""
    named = {name: (value or b"").decode(errors="replace") for name, value in headers}
    return "/".join(named.get(name, "") for name in ("topic", "partition", "offset"))


def overtaken(report: Report, found: Found) -> set[str]:
    """Rows that are on time by the log, and that the job has called late: it had gone on without their partition."""
    on_time = {step.seen.where for session in report.sessions for step in session.steps}
    on_time |= {seen.where for seen in report.purchases}
    return on_time & found.late()


def compare(report: Report, found: Found) -> list[Difference]:
    """Where the topics hold something else than they should by now, or could."""
    differences: Counter[tuple[str, str, str]] = Counter()
    for topic in {**report.written, **report.to_come, **found.rows}:
        due, to_come = report.written.get(topic, Counter()), report.to_come.get(topic, Counter())
        held = found.rows.get(topic, Counter())
        for row, count in (due - held).items():
            differences[topic, _of(row), NOT_YET] += count
        for row, count in (held - due - to_come).items():
            differences[topic, _of(row), TWICE if row in due or row in to_come else ELSEWISE] += count
    return [Difference(topic, of, count, what) for (topic, of, what), count in differences.items()]


def in_topics(session: SessionReport, found: Found, settings: Settings) -> str:
    """What the topics hold of a session."""
    rows = [
        (topic, row, count) for topic, made in outputs_of([session], settings).items() for row, count in made.items()
    ]
    there = [found.rows.get(topic, Counter())[row] >= count for topic, row, count in rows]
    if all(there):
        return "and written all the same, as by a job that stopped at the end" if session.state == OPEN else "written"
    if any(there):
        return "written in part"
    return "not written yet"


class _Visit(msgspec.Struct):
    session_id: str


def _of(row: OutputRow) -> str:
    headers = dict(row[2])
    if "reason" in headers:
        return f"{headers['reason'].decode(errors='replace')}: {message_origin(row[2])}"
    try:
        return f"session {msgspec.json.decode(row[1] or b'', type=_Visit).session_id}"
    except msgspec.DecodeError:
        return "no session"
