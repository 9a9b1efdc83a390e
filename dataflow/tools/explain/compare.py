"""Compares the output topics' rows of a user with the rows that the input topics give."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from dataflow.clickstream.outputs import LATE
from dataflow.clickstream.serde import ADDED, AddedFields
from dataflow.kafka.messages import Message
from dataflow.runtime.settings import Settings
from dataflow.tools.explain.report import OPEN, OutputRow, OutputRows, Report, SessionReport, outputs_of

MISSING = "missing: is the job running with these settings, and has it read this far?"
MISSING_OPTIONAL = "missing: the topic gets the sessions that close after it was created and the job was started again"
UNEXPECTED = (
    "not expected from the input topics and these settings: written with other settings or by an older version, "
    "or its input rows have been removed"
)
DUPLICATE = "written more than once"


@dataclass(frozen=True)
class Difference:
    """Rows of one topic that differ in the same way."""

    topic: str
    of: str  # the session, or the reason and the origin of a rejected row
    rows: int
    what: str  # MISSING, MISSING_OPTIONAL, UNEXPECTED or DUPLICATE


class Found:
    """The rows in the output topics that belong to a user, or that were made from certain messages.

    Args:
        user: the user; None: no rows of a user.
        origins: addresses of unreadable messages, whose dead letters are collected too.
        absent: optional topics that are not there, so that nothing is missing in them.
    """

    def __init__(self, user: bytes | None, origins: Collection[str], absent: Collection[str] = ()) -> None:
        self.rows: OutputRows = {}
        self.absent = frozenset(absent)
        self._user = user
        self._origins = frozenset(origins)

    def add(self, message: Message) -> None:
        """Adds a message of an output topic, if it is such a row."""
        of_user = self._user is not None and message.key() == self._user
        headers = message.headers() if of_user or self._origins else None
        if of_user or headers and message_origin(headers) in self._origins:
            row = message.key(), message.value(), tuple(headers or ())
            self.rows.setdefault(message.topic(), Counter())[row] += 1

    def late(self) -> set[str]:
        """The origins of the rows that the job rejected as late."""
        rejected = (dict(row[2]) for rows in self.rows.values() for row in rows if row[2])
        return {message_origin(headers.items()) for headers in rejected if headers.get("reason") == LATE.encode()}


def message_origin(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """The message that a rejected row was, "topic/partition/offset", and its part if it has one, by its headers."""
    texts = {name: (value or b"").decode(errors="replace") for name, value in headers}
    names = ("topic", "partition", "offset", "part") if "part" in texts else ("topic", "partition", "offset")
    return "/".join(texts.get(name, "") for name in names)


def overtaken(report: Report, found: Found) -> set[str]:
    """Rows that are on time in their partition, and that the job rejected as late.

    The partition was idle when they came, and the watermark had passed them.
    """
    on_time = {step.observed.where for session in report.sessions for step in session.steps}
    on_time |= {observed.where for observed in report.purchases}
    return on_time & found.late()


def compare(report: Report, found: Found, settings: Settings) -> list[Difference]:
    """The rows of the output topics that are missing, unexpected or duplicate.

    Rows of open sessions may be there, but need not: a job that stops at the end writes them.

    Args:
        report: says which rows are expected.
        found: the rows that are there.
        added: names of the fields that visits get.
    """
    differences: Counter[tuple[str, str, str]] = Counter()
    for topic in {**report.written, **report.to_come, **found.rows}:
        if topic in found.absent:
            continue
        due, to_come = report.written.get(topic, Counter()), report.to_come.get(topic, Counter())
        present = found.rows.get(topic, Counter())
        for row, count in (due - present).items():
            what = MISSING_OPTIONAL if topic in settings.optional_outputs else MISSING
            differences[topic, _of(row, settings.rules.added), what] += count
        for row, count in (present - due - to_come).items():
            what = DUPLICATE if row in due or row in to_come else UNEXPECTED
            differences[topic, _of(row, settings.rules.added), what] += count
    return [Difference(topic, of, count, what) for (topic, of, what), count in differences.items()]


def in_topics(session: SessionReport, found: Found, settings: Settings) -> str:
    """Whether a session's rows are in the output topics, in words."""
    is_present = {
        (topic, row): found.rows.get(topic, Counter())[row] >= count
        for topic, rows in outputs_of([session], settings).items()
        for row, count in rows.items()
        if topic not in found.absent
    }
    lacking = {topic for (topic, _), present in is_present.items() if not present}
    if not lacking:
        return "but already written, as by a job that stops at the end" if session.state == OPEN else "written"
    if not any(is_present.values()):
        return "not written yet"
    if lacking.issubset(settings.optional_outputs):
        return f"written, but not to {' and '.join(sorted(lacking))}"
    return "written in part"


def _of(row: OutputRow, added: AddedFields) -> str:
    """What a row belongs to: its session, or the reason and the origin of a rejected row."""
    headers = dict(row[2])
    if "reason" in headers:
        return f"{headers['reason'].decode(errors='replace')}: {message_origin(row[2])}"
    try:
        fields = msgspec.json.decode(row[1] or b"", type=dict[str, Any])
    except msgspec.DecodeError:
        fields = {}
    session = fields.get(added.session_id, fields.get(ADDED.session_id))  # suspicious visits have names of their own
    return f"session {session}" if session is not None else "no session"
