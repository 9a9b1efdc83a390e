"""``python -m dataflow explain``: why a user's rows, a session or a message came out as they did."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from rich.console import Console

from dataflow.clickstream.records import InputRecord
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.sessions import session_id
from dataflow.clickstream.users import parse_user
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.kafka.range_reader import OffsetRange, RangeReader
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import MessageAddress, Parser, row_address
from dataflow.tools.explain.collect import ObservedDeadLetter, ObservedPartition, stored
from dataflow.tools.explain.compare import Found, compare, in_topics, overtaken
from dataflow.tools.explain.render import Renderer, as_data
from dataflow.tools.explain.report import Report, ReportPart, SessionReport, build_report, part_of
from dataflow.tools.progress_bar import ProgressBar

_DESCRIPTION = """\
Explains a result: the events of a session, and why it began and ended where it did; the purchase rows that matched a
purchase event, and why one of them was taken; what was late, and by how much; what could not be read. The result is
computed again from the input topics, by the job's own rules, and then compared with the output topics. Nothing is
written. Settings are the job's, from the environment (VISITS_*) and .env.
"""
_EPILOG = """\
examples:
  python -m dataflow explain --user 7
  python -m dataflow explain --session 5990e35e960eb8e25b3b0916dd0d0c6a
  python -m dataflow explain --message user-events/3/1042
  python -m dataflow explain --user 7 --json | jq '.sessions[].amount'

Whether a row is late depends on the rows before it, so all input topics are read from their first row.

Exit status: 0 if there is an explanation, even if the output topics differ from it; 1 if there is none; 2 for wrong
options.
"""
_SHOWN = 5  # of the events in a message


def _user(text: str) -> bytes:
    try:
        return parse_user(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; a user is named by its user_id") from None


def _session(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text):
        raise argparse.ArgumentTypeError(f"not a session id, 32 hexadecimal digits: {text!r}")
    return text.lower().encode()


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m dataflow explain", description=_DESCRIPTION, epilog=_EPILOG)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--user", type=_user, metavar="ID", help="everything about a user, by user_id")
    subject.add_argument("--session", type=_session, metavar="HEX", help="a session, by session_id")
    subject.add_argument(
        "--message",
        type=row_address,
        metavar="TOPIC/PARTITION/OFFSET",
        help="what became of one message of an input topic; of one that holds several events: .../OFFSET/PART",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; times are Unix seconds")
    return parser.parse_args(arguments)


class _Explainer:
    """Reads the topics and makes reports. All topics are read to the ends that they had at its construction."""

    def __init__(self, settings: Settings, progress: ProgressBar) -> None:
        self.settings = settings
        self.rules: Rules = settings.rules
        self._progress = progress
        topics = settings.inputs + settings.outputs
        self._reader = RangeReader(settings.client, settings.group + "-look", topics, settings.optional_outputs)
        self._as_of = time.time_ns() // 1_000
        self._ranges = self._reader.ranges(topics)

    def notes(self) -> list[str]:
        """Reasons for which a report may differ from what the job did."""
        notes = [
            f"{source_name(*partition_id)} begins at offset {range_.begin:,}: rows that were removed before it may "
            "have made others late"
            for partition_id, range_ in self._ranges_of(self.settings.inputs).items()
            if range_.begin
        ]
        if self.settings.start == "latest":
            notes.append(
                "the job started at the end of the input topics (VISITS_START=latest), this report at their beginning"
            )
        return notes

    def row_at(self, at: MessageAddress) -> InputRecord | ObservedDeadLetter:
        """The row in a message, or the dead letter that it is. Raises UserError if there is none, or more than one."""
        if at.topic not in self.settings.inputs:
            raise UserError(f"{at.topic} is not an input topic; these are {' and '.join(self.settings.inputs)}")
        range_ = self._ranges.get(at[:2])
        if range_ is None:
            count = self._reader.partitions[at.topic]
            raise UserError(f"{at.topic} has no partition {at.partition}; it has {count}, counted from 0")
        if not range_.begin <= at.offset < range_.end:
            holds = f"holds offsets {range_.begin} to {range_.end - 1}" if range_.begin < range_.end else "is empty"
            raise UserError(f"there is no message {at}: the partition {holds}")
        for message in self._reader.read({at[:2]: OffsetRange(at.offset, at.offset + 1)}):
            batch = self._partition(at[:2]).read(message)
            found: dict[str, InputRecord | ObservedDeadLetter] = {
                str(self.settings.input_topics.address(row)): row for row in batch.rows + batch.late
            }
            letters = (ObservedDeadLetter(rejected, stored(message)) for rejected in batch.unreadable)
            found |= {letter.where: letter for letter in letters}
            if str(at) in found:
                return found[str(at)]
            if at.part is None and len(found) == 1:
                return found.popitem()[1]
            if found:
                raise UserError(f"{at}: say which event of the message: {', '.join(sorted(found)[:_SHOWN])}")
            raise UserError(f"{at}: there is no event in it, or the mapping leaves it out")
        raise UserError(f"there is no message {at}: it was removed, or it is a transaction marker")

    def user_of_session(self, identity: bytes) -> bytes:
        """The user of a session, by its visits or else by its first event. Raises UserError if there is no session."""
        self._progress.begin(self.settings.topic_visits)
        field = b'%b:"%b"' % (msgspec.json.encode(self.rules.added.session_id), identity)
        for message in self._reader.read(self._ranges_of([self.settings.topic_visits]), self._progress):
            if field in (message.value() or b""):
                return message.key() or b""  # visits always have a key
        topics = [topic.name for topic in self.settings.input_topics if topic.has_events]
        self._progress.begin(" and ".join(topics))
        partitions = {topic: self._partition((topic, 0)) for topic in topics}  # any one: only decoding matters here
        for message in self._reader.read(self._ranges_of(topics), self._progress):
            batch = partitions[message.topic()].read(message)
            for row in batch.rows + batch.late:
                if session_id(row.user, row.time) == identity:
                    user: bytes = row.user
                    return user
        raise UserError(
            f"there is no session {identity.decode()}: it is not in the output topics, and no event in the input "
            "topics could be its first"
        )

    def collect(self, user: bytes) -> list[ObservedPartition]:
        """All input partitions, with the rows of a user."""
        ranges = self._ranges_of(self.settings.inputs)
        partitions = {partition_id: self._partition(partition_id, user) for partition_id in ranges}
        self._progress.begin(" and ".join(self.settings.inputs))
        for message in self._reader.read(ranges, self._progress):
            partitions[message.topic(), message.partition()].read(message)
        return list(partitions.values())

    def find(self, user: bytes | None, dead: Sequence[ObservedDeadLetter]) -> Found:
        """The rows in the output topics that belong to a user or were made from these messages."""
        absent = [topic for topic in self.settings.optional_outputs if topic not in self._reader.partitions]
        found = Found(user, [message.where for message in dead], absent)
        self._progress.begin("the output topics")
        for message in self._reader.read(self._ranges_of(self.settings.outputs), self._progress):
            found.add(message)
        return found

    def report_user(self, user: bytes) -> tuple[Report, Found]:
        """The report of a user. Rows of idle partitions that the job rejected as late are late in it, too."""
        partitions = self.collect(user)

        def report(overtaken_rows: set[str]) -> Report:
            return build_report(user, partitions, self.rules, self.settings, self._as_of, overtaken_rows)

        by_log = report(set())
        found = self.find(user, by_log.dead)
        overtaken_rows = overtaken(by_log, found)
        return report(overtaken_rows) if overtaken_rows else by_log, found

    def report_dead_letter(self, dead: ObservedDeadLetter) -> tuple[Report, Found]:
        """The report of one unreadable message, which has no user."""
        topic, _, number = dead.rejected.source.rpartition("/")
        partition = self._partition((topic, int(number)))
        partition.dead.append(dead)
        return build_report(b"", [partition], self.rules, self.settings, self._as_of), self.find(None, [dead])

    def _partition(self, partition_id: PartitionId, user: bytes | None = None) -> ObservedPartition:
        decoder = self.settings.input_topics.decoder_of(partition_id[0])
        return ObservedPartition(source_name(*partition_id), decoder, self.rules.lateness, self._as_of, user)

    def _ranges_of(self, topics: Sequence[str]) -> dict[PartitionId, OffsetRange]:
        return {partition_id: range_ for partition_id, range_ in self._ranges.items() if partition_id[0] in topics}


class _Answer(NamedTuple):
    report: Report
    found: Found
    part: ReportPart
    notes: list[str]
    asked_for: str | None = None  # address of a row


def _answer(options: argparse.Namespace, explainer: _Explainer) -> _Answer:
    notes = explainer.notes()
    if options.user is not None:
        report, found = explainer.report_user(options.user)
        if not (report.sessions or report.late or report.overtaken or report.purchases or report.dead or found.rows):
            raise UserError(f"there is no row of user {options.user.decode()}")
        return _Answer(report, found, _everything(report), notes)
    if options.session is not None:
        report, found = explainer.report_user(explainer.user_of_session(options.session))
        session = next((session for session in report.sessions if session.result.identity == options.session), None)
        if session is None:
            notes.append(
                f"the input topics and these settings give no session {options.session.decode()}; everything about its "
                "user is shown instead"
            )
            return _Answer(report, found, _everything(report), notes)
        return _Answer(report, found, _around(report, session, explainer.rules), notes)
    row = explainer.row_at(options.message)
    if isinstance(row, ObservedDeadLetter):
        report, found = explainer.report_dead_letter(row)
        return _Answer(report, found, _everything(report), notes, row.where)
    where = str(explainer.settings.input_topics.address(row))
    report, found = explainer.report_user(row.user)
    return _Answer(report, found, _with(report, where), notes, where)


def _everything(report: Report) -> ReportPart:
    return part_of(report, lambda session: True, lambda row: True, lambda dead: True)


def _around(report: Report, session: SessionReport, rules: Rules) -> ReportPart:
    """A session, and the late and unmatched rows that are near enough to have been part of it."""
    earliest, latest = session.start - rules.gap, session.end + rules.gap
    return part_of(
        report,
        session=lambda other: other is session,
        row=lambda observed: earliest <= observed.row.time <= latest,
        dead=lambda dead: False,
    )


def _with(report: Report, where: str) -> ReportPart:
    """The sessions that contain a row or have it as a candidate; or the row, if it is in none."""

    def has_row(session: SessionReport) -> bool:
        return any(
            observed.where == where
            for step in session.steps
            for observed in (step.observed, *(candidate.observed for candidate in step.candidates))
        )

    return part_of(report, has_row, lambda observed: observed.where == where, lambda dead: False)


def _show(options: argparse.Namespace, answer: _Answer, explainer: _Explainer) -> None:
    report, found, part, notes, asked_for = answer
    differences = compare(report, found, explainer.settings)

    def session_in_topics(session: SessionReport) -> str:
        return in_topics(session, found, explainer.settings)

    if options.json:
        data = as_data(report, part, explainer.rules, session_in_topics, differences, notes)
        print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
        return
    renderer = Renderer(Console(), report, explainer.rules, session_in_topics, asked_for)
    renderer.head()
    renderer.part(part)
    renderer.end(differences, notes)


def main(arguments: Sequence[str]) -> int:
    """Runs ``explain``; returns the exit code.

    Args:
        arguments: the command line, without the command's name.
    """
    options = _arguments(arguments)
    try:
        with ProgressBar() as progress:
            explainer = _Explainer(load(), progress)
            answer = _answer(options, explainer)
    except UserError as error:
        print(f"visits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _show(options, answer, explainer)
    return 0
