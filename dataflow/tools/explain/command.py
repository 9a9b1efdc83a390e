"""``python -m dataflow explain``: one user's rows, a session or a message, and why they came out as they did."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from rich.console import Console

from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.clickstream.sessions import session_id
from dataflow.clickstream.users import parse_user
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.kafka.range_reader import OffsetRange, RangeReader
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import MessageAddress, Parser, message_address
from dataflow.tools.explain.collect import ObservedDeadLetter, ObservedPartition, stored
from dataflow.tools.explain.compare import Found, compare, in_topics, overtaken
from dataflow.tools.explain.render import Renderer, as_data
from dataflow.tools.explain.report import Report, ReportPart, SessionReport, build_report, part_of
from dataflow.tools.progress_bar import ProgressBar

_DESCRIPTION = """\
Says why something came out as it did: which events made a session and where it began and ended, which purchase rows
an event could take and why it took the one it took, what was late and by how much, what could not be read. All of it
is worked out anew from the input topics, by the rules of the job itself, and then held against what the output topics
hold. Nothing is written. Settings are the job's, from the environment (VISITS_*) and .env.
"""
_EPILOG = """\
examples:
  python -m dataflow explain --user 7
  python -m dataflow explain --session 5990e35e960eb8e25b3b0916dd0d0c6a
  python -m dataflow explain --message user-events/3/1042
  python -m dataflow explain --user 7 --json | jq '.sessions[].amount'

Late is what is late by the rows before it, so both input topics are read from their first row on, of which only this
user's are kept. Exit status: 0 if it could be explained (also if the topics hold something else, which is said), 1 if
not, 2 for wrong options.
"""


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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--user", type=_user, metavar="ID", help="everything of a user, by user_id")
    what.add_argument("--session", type=_session, metavar="HEX", help="a session, by session_id")
    what.add_argument(
        "--message",
        type=message_address,
        metavar="TOPIC/PARTITION/OFFSET",
        help="what became of one message of an input topic",
    )
    parser.add_argument("--json", action="store_true", help="for machines; times are Unix seconds")
    return parser.parse_args(arguments)


class _Question:
    """Finds the answer to one question in Kafka."""

    def __init__(self, settings: Settings, progress: ProgressBar) -> None:
        self.settings = settings
        self.rules: Rules = settings.rules
        self._progress = progress
        self._scanner = RangeReader(settings.client, settings.group + "-look", settings.inputs + settings.outputs)
        self._asked = time.time_ns() // 1_000
        self._ranges = self._scanner.ranges(settings.inputs + settings.outputs)  # one moment for all that is read

    def cautions(self) -> list[str]:
        """Why what is told could differ from what the job had seen."""
        cautions = [
            f"{source_name(*partition_id)} begins at offset {range_.begin:,}: what is gone before it may have made rows late"
            for partition_id, range_ in self._of(self.settings.inputs).items()
            if range_.begin
        ]
        if self.settings.start == "latest":
            cautions.append(
                "the job has begun at the end that the topics had then (VISITS_START=latest), this at their start"
            )
        return cautions

    def user_of_message(self, at: MessageAddress) -> tuple[bytes | None, ObservedDeadLetter | None]:
        """Whose a message is, or that it cannot be read. Raises UserError if there is no such message."""
        if at.topic not in self.settings.inputs:
            raise UserError(f"{at.topic} is not an input topic; these are {' and '.join(self.settings.inputs)}")
        range_ = self._ranges.get(at[:2])
        if range_ is None:
            count = self._scanner.partitions[at.topic]
            raise UserError(f"{at.topic} has no partition {at.partition}; it has {count}, counted from 0")
        if not range_.begin <= at.offset < range_.end:
            holds = f"holds offsets {range_.begin} to {range_.end - 1}" if range_.begin < range_.end else "is empty"
            raise UserError(f"there is no message {at}: the partition {holds}")
        for message in self._scanner.read({at[:2]: OffsetRange(at.offset, at.offset + 1)}):
            poll = self._partition(at[:2]).read(message)
            if poll.unreadable:
                return None, ObservedDeadLetter(poll.unreadable[0], stored(message))
            return (poll.rows or poll.late)[0].user, None
        raise UserError(f"there is no message {at}: it was removed, or is a mark of a transaction")

    def user_of_session(self, identity: bytes) -> bytes:
        """Whose a session is: by its visits, or else by the event that began it. Raises UserError if nobody's."""
        self._progress.begin(self.settings.topic_visits)
        written = b'"session_id":"%b"' % identity
        for message in self._scanner.read(self._of([self.settings.topic_visits]), self._progress):
            if written in (message.value() or b""):
                return message.key() or b""  # visits always have a key
        self._progress.begin(self.settings.topic_user_events)
        reader = self._partition((self.settings.topic_user_events, 0))  # of whatever partition: only the row is wanted
        for message in self._scanner.read(self._of([self.settings.topic_user_events]), self._progress):
            poll = reader.read(message)
            for row in poll.rows or poll.late:
                user: bytes = row.user
                if session_id(user, row.time) == identity:
                    return user
        raise UserError(
            f"there is no session {identity.decode()}, neither in the topics nor in what they hold of events"
        )

    def gather(self, user: bytes) -> list[ObservedPartition]:
        """All input partitions, with the rows of a user."""
        ranges = self._of(self.settings.inputs)
        partitions = {partition_id: self._partition(partition_id, user) for partition_id in ranges}
        self._progress.begin(" and ".join(self.settings.inputs))
        for message in self._scanner.read(ranges, self._progress):
            partitions[message.topic(), message.partition()].read(message)
        return list(partitions.values())

    def found(self, user: bytes | None, dead: Sequence[ObservedDeadLetter]) -> Found:
        """What the output topics hold of it."""
        found = Found(user, [each.where for each in dead])
        self._progress.begin("the output topics")
        for message in self._scanner.read(self._of(self.settings.outputs), self._progress):
            found.take(message)
        return found

    def build_report(self, user: bytes) -> tuple[Report, Found]:
        """The whole story; rows that the job had to call late although by the log they are not are told as it did."""
        partitions = self.gather(user)

        def told(gone_by: set[str]) -> Report:
            return build_report(user, partitions, self.rules, self.settings, self._asked, gone_by)

        story = told(set())
        found = self.found(user, story.dead)
        gone_by = overtaken(story, found)
        return told(gone_by) if gone_by else story, found

    def tell_of(self, dead: ObservedDeadLetter) -> tuple[Report, Found]:
        """A story of one message, which is nobody's."""
        topic, _, number = dead.rejected.source.rpartition("/")
        partition = self._partition((topic, int(number)))
        partition.dead.append(dead)
        return build_report(b"", [partition], self.rules, self.settings, self._asked), self.found(None, [dead])

    def _partition(self, partition_id: PartitionId, user: bytes | None = None) -> ObservedPartition:
        decode = decode_event if partition_id[0] == self.settings.topic_user_events else decode_purchase
        return ObservedPartition(source_name(*partition_id), decode, self.rules.lateness, self._asked, user)

    def _of(self, topics: Sequence[str]) -> dict[PartitionId, OffsetRange]:
        return {partition_id: range_ for partition_id, range_ in self._ranges.items() if partition_id[0] in topics}


class _Answer(NamedTuple):
    story: Report
    found: Found
    part: ReportPart
    notes: list[str]


def _answer(options: argparse.Namespace, question: _Question) -> _Answer:
    notes = question.cautions()
    if options.user is not None:
        story, found = question.build_report(options.user)
        if not (story.sessions or story.late or story.overtaken or story.purchases or story.dead or found.rows):
            raise UserError(f"there is no row of user {options.user.decode()}")
        return _Answer(story, found, _everything(story), notes)
    if options.session is not None:
        story, found = question.build_report(question.user_of_session(options.session))
        session = next((each for each in story.sessions if each.finished.identity == options.session), None)
        if session is None:
            notes.append(
                f"this log and these settings give no session {options.session.decode()}; here is all of its user"
            )
            return _Answer(story, found, _everything(story), notes)
        return _Answer(story, found, _around(story, session, question.rules), notes)
    user, dead = question.user_of_message(options.message)
    if user is None:
        assert dead is not None  # a message that is nobody's cannot be read
        story, found = question.tell_of(dead)
        return _Answer(story, found, _everything(story), notes)
    story, found = question.build_report(user)
    return _Answer(story, found, _with(story, str(options.message)), notes)


def _everything(story: Report) -> ReportPart:
    return part_of(story, lambda session: True, lambda row: True, lambda dead: True)


def _around(story: Report, session: SessionReport, rules: Rules) -> ReportPart:
    """A session, and rows that would have been in it, were they not late or alone."""
    earliest, latest = session.start - rules.gap, session.end + rules.gap
    return part_of(
        story, lambda each: each is session, lambda seen: earliest <= seen.row.time <= latest, lambda dead: False
    )


def _with(story: Report, where: str) -> ReportPart:
    """The sessions that hold a row or could have taken it, or the row alone."""

    def has(session: SessionReport) -> bool:
        rows = (seen for step in session.steps for seen in (step.seen, *(each.seen for each in step.candidates)))
        return any(seen.where == where for seen in rows)

    return part_of(story, has, lambda seen: seen.where == where, lambda dead: False)


def _show(options: argparse.Namespace, answer: _Answer, question: _Question) -> None:
    story, found, part, notes = answer
    differences = compare(story, found)

    def written(told: SessionReport) -> str:
        return in_topics(told, found, question.settings)

    if options.json:
        data = as_data(story, part, question.rules, written, differences, notes)
        print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())
        return
    asked_for = str(options.message) if options.message else None
    drawing = Renderer(Console(), story, question.rules, written, asked_for)
    drawing.head()
    drawing.part(part)
    drawing.end(differences, notes)


def main(arguments: Sequence[str]) -> int:
    """Explains; returns the exit code."""
    options = _arguments(arguments)
    try:
        with ProgressBar() as progress:
            question = _Question(load(), progress)
            answer = _answer(options, question)
    except UserError as error:
        print(f"visits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _show(options, answer, question)
    return 0
