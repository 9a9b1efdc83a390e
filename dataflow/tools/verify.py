"""``python -m dataflow verify``: compares what the job has written with a batch computation.

Reads all seven topics from their beginning to their present end, computes from the inputs what the outputs should be
(see `dataflow.reference`), and compares row by row. It is right to run once the shop is quiet and the last sessions
are closed; with ``--wait`` it waits for that.

Ends with exit code 0 if every row is there exactly once and no other, 1 if not.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import cast

import msgspec
from rich.console import Console
from rich.table import Table

from dataflow.kafka.messages import Message
from dataflow.kafka.range_reader import RangeReader
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import Parser
from dataflow.tools.reference import AHEAD, NOT_A_ROW, Answer, OutputRow, Record, RuleSettings, answer

_DESCRIPTION = """\
Reads all seven topics from their first row to their present end, computes from the inputs what the outputs should be,
and compares row by row. Run it when no more clicks come in and the last sessions are closed, or use --wait. Settings
are the job's, from the environment (VISITS_*) and .env.

Exit status: 0 if every row is there exactly once and no other row is, 1 if not, 2 for wrong options.
"""
_SHOWN = 3  # examples of each kind of difference
_ADVICE = (
    "Has it run with these settings from the start, and is it quiet now (--wait)? Rows that came into a partition that "
    "had run dry, and rows ahead of the clock, may differ (README): `python -m dataflow explain --message "
    "TOPIC/PARTITION/OFFSET` says what became of one."
)


@dataclass(frozen=True)
class Difference:
    """One output topic against its answer: rows that are missing, and rows too many."""

    topic: str
    expected: int
    missing: Counter[OutputRow]
    extra: Counter[OutputRow]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)


class Topics:
    """Reads whole topics. Raises UserError if Kafka does not answer or a topic is missing."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.inputs + settings.outputs
        self._reader = RangeReader(settings.client, settings.group + "-verify", topics, timeout_s=None)
        self.partitions = self._reader.partitions

    def read(self, topic: str) -> Iterator[Message]:
        """All messages that the topic holds now, each partition's in order."""
        return self._reader.read(self._reader.ranges([topic]))


def expected(settings: Settings, topics: Topics) -> Answer:
    """What the outputs have to be for what the inputs hold now."""

    def log(topic: str) -> dict[int, list[Record]]:
        records: dict[int, list[Record]] = {}
        for message in topics.read(topic):
            stored = max(message.timestamp()[1], 0)
            record = Record(message.key(), message.value(), stored, message.offset() or 0)
            records.setdefault(message.partition() or 0, []).append(record)
        return records

    numbers = RuleSettings(
        Fraction(str(settings.session_gap)),
        Fraction(str(settings.match_window)),
        Fraction(str(settings.allowed_lateness)),
        settings.max_events,
        settings.min_page_views,
    )
    events, purchases = settings.inputs
    return answer(log(events), log(purchases), numbers, events, purchases)


def compare(settings: Settings, topics: Topics, right: Answer) -> list[Difference]:
    """The five output topics, as they are now, against the right answer."""
    differences = []
    for topic, kind in zip(settings.outputs, fields(Answer), strict=True):
        rows: Counter[OutputRow] = getattr(right, kind.name)
        written = Counter(_row(message, topic == settings.topic_dead_letters) for message in topics.read(topic))
        differences.append(Difference(topic, rows.total(), rows - written, written - rows))
    return differences


def out_of_order(topics: Topics, topic: str) -> int:
    """How many visits stand after one of the same session with a later timestamp."""
    decode = msgspec.json.Decoder(_Visit).decode
    latest: dict[str, float] = {}
    wrong = 0
    for message in topics.read(topic):
        visit = decode(message.value() or b"")
        wrong += visit.timestamp < latest.get(visit.session_id, visit.timestamp)
        latest[visit.session_id] = visit.timestamp
    return wrong


class _Visit(msgspec.Struct):
    session_id: str
    timestamp: float


def _row(message: Message, is_dead_letter: bool) -> OutputRow:
    headers = cast(tuple[tuple[str, bytes], ...], tuple(message.headers() or ()))  # the job writes no others
    if is_dead_letter and headers[0] != ("reason", AHEAD.encode()):
        headers = (("reason", NOT_A_ROW.encode()), *headers[1:])
    return message.key(), message.value(), headers


def report(differences: list[Difference], console: Console) -> None:
    """Prints a line a topic, and some of the rows that differ."""
    table = Table("topic", "rows expected", "missing", "too many", box=None)
    for each in differences:
        table.add_row(each.topic, f"{each.expected:,}", f"{each.missing.total():,}", f"{each.extra.total():,}")
    console.print(table)
    for each in differences:
        for name, rows in (("missing", each.missing), ("too many", each.extra)):
            for (key, value, headers), count in list(rows.items())[:_SHOWN]:
                console.print(f"{each.topic}: {name} x{count}: {key!r} {value!r} {dict(headers)}", markup=False)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m dataflow verify", _DESCRIPTION)
    parser.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="repeat until all rows are there, at most so long"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Compares and reports; returns the exit code.

    Args:
        arguments: the command line, without the command's name.
    """
    options = _options(arguments)
    deadline = time.monotonic() + options.wait
    try:
        settings = load()
        topics = Topics(settings)
        right = expected(settings, topics)
        while True:
            differences = compare(settings, topics, right)
            if not any(differences) or time.monotonic() > deadline:
                break
            time.sleep(1)
        disorder = out_of_order(topics, settings.topic_visits)
    except UserError as error:
        sys.exit(f"visits: {error}")
    console = Console()
    report(differences, console)
    if any(differences) or disorder:
        console.print(f"WRONG: the outputs differ from the batch answer; {disorder} visits are out of order")
        console.print(_ADVICE)
        return 1
    console.print("All rows are as the batch computation has them, each exactly once, visits in order.")
    return 0
