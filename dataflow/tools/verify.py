"""``python -m dataflow verify``: compares the output topics with a batch computation.

Reads all topics from their first row to their present end, computes the expected outputs from the inputs (see
`dataflow.tools.reference`), and compares them row by row. Run it when no more rows come in and the last sessions are
closed, or let it wait for that with ``--wait``.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rich.console import Console
from rich.table import Table

from dataflow.clickstream.outputs import DEAD_LETTERS, OUTPUTS, VISITS
from dataflow.kafka.messages import Message
from dataflow.kafka.range_reader import RangeReader
from dataflow.runtime.options import seconds
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.tools.balance import UNREADABLE, Balance
from dataflow.tools.command_line import Parser
from dataflow.tools.reference import Answer, DefaultShape, OutputRow, Record, RuleSettings, Shape, answer, comparable
from dataflow.tools.reference_mapping import MappedShape

_DESCRIPTION = """\
Reads all input and output topics from their first row to their present end, computes the expected outputs from the
inputs, and compares them row by row. Run it when no more rows come in and the last sessions are closed, or use --wait.
Then it prints the balance of the purchase rows: how many there are with which sum of amounts, and where they are.
Settings are the job's, from the environment (VISITS_*) and .env.

Exit status: 0 if every expected row is there exactly once and no other row is; 1 if not; 2 for wrong options.
"""
_SHOWN = 3  # examples of each kind of difference
_ADVICE = (
    "Has the job always run with these settings, and has it read everything (--wait)? Rows of idle partitions and rows "
    "ahead of the clock may differ (README). `python -m dataflow explain --message TOPIC/PARTITION/OFFSET` explains a "
    "row."
)


@dataclass(frozen=True)
class Difference:
    """The difference between an output topic and its expected rows. It is false if there is none."""

    topic: str
    expected: int  # number of expected rows
    missing: Counter[OutputRow]
    extra: Counter[OutputRow]  # unexpected rows, and expected ones that are there too often

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)


class Topics:
    """Reads whole topics. Raises UserError if Kafka does not answer or a topic is missing that is not optional."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.inputs + settings.outputs
        self._reader = RangeReader(
            settings.client, settings.group + "-verify", topics, settings.optional_outputs, timeout_s=None
        )
        self.partitions = self._reader.partitions

    def read(self, topic: str) -> Iterator[Message]:
        """All present messages of a topic; those of a partition in order."""
        return self._reader.read(self._reader.ranges([topic]))


def expected(settings: Settings, topics: Topics, balance: Balance | None = None) -> Answer:
    """The expected outputs for the present contents of the input topics; `balance` gets the places of purchase rows."""

    def read_log(topic: str) -> dict[int, list[Record]]:
        records: dict[int, list[Record]] = {}
        for message in topics.read(topic):
            stored = max(message.timestamp()[1], 0)
            headers = tuple(message.headers() or ())
            record = Record(message.key(), message.value(), stored, message.offset() or 0, headers)
            records.setdefault(message.partition() or 0, []).append(record)
        return records

    rules = RuleSettings(
        Fraction(str(settings.session_gap)),
        Fraction(str(settings.match_window)),
        Fraction(str(settings.allowed_lateness)),
        **settings.thresholds,
    )
    return answer({topic: read_log(topic) for topic in settings.inputs}, rules, shape_of(settings), balance)


def shape_of(settings: Settings) -> Shape:
    """How the messages of the input topics become rows, for the reference."""
    mapping = settings.mapping_file
    return MappedShape(mapping) if mapping is not None else DefaultShape(settings.topic_user_events)


def compare(settings: Settings, topics: Topics, expected_rows: Answer) -> list[Difference]:
    """Compares the output topics, as they are now, with the expected rows.

    Outputs in `not_compared` are left out, and so are optional ones without a topic.
    """
    differences = []
    for spec in OUTPUTS:
        topic = settings.topic(spec)
        rows: Counter[OutputRow] | None = getattr(expected_rows, spec.setting, None)
        if rows is not None and topic in topics.partitions:
            written = Counter(map(_row, topics.read(topic)))
            if spec is DEAD_LETTERS:
                written = Counter(comparable(row, rows) for row in written.elements())
            differences.append(Difference(topic, rows.total(), rows - written, written - rows))
    return differences


def not_compared(settings: Settings, expected_rows: Answer) -> list[str]:
    """The topics of the outputs that the reference does not compute."""
    return [settings.topic(spec) for spec in OUTPUTS if not hasattr(expected_rows, spec.setting)]


def split_off_earlier(
    difference: Difference, topics: Topics, visits: str, session_field: str = "session_id"
) -> tuple[Difference, int]:
    """Leaves out sessions that had closed before the first row of an optional topic: it may have been created later.

    Args:
        difference: of the optional topic.
        topics: reads it, and the visits.
        visits: name of their topic; it tells when a session was written.
        session_field: where visits have the session's id.

    Returns:
        The difference without such sessions, and their number.
    """
    first = min((message.timestamp()[1] for message in topics.read(difference.topic)), default=None)
    if first is None or not difference.missing:
        return difference, 0
    written: dict[str, int] = {}
    for message in topics.read(visits):
        written.setdefault(json.loads(message.value() or b"{}")[session_field], message.timestamp()[1])
    missing = Counter(
        {
            row: count
            for row, count in difference.missing.items()
            if written.get(json.loads(row[1] or b"{}")["session_id"], first) >= first
        }
    )
    return replace(difference, missing=missing), difference.missing.total() - missing.total()


def out_of_order(topics: Topics, topic: str, shape: Shape | None = None) -> int:
    """The number of visits that come after one of the same session with a later time."""
    shape = shape if shape is not None else DefaultShape()
    last: dict[str, Fraction] = {}
    count = 0
    for message in topics.read(topic):
        value = message.value() or b""
        time = shape.visited_at(value)
        if time is not None:
            session = json.loads(value)[shape.added[0]]
            count += time < last.get(session, time)
            last[session] = time
    return count


def _row(message: Message) -> OutputRow:
    return message.key(), message.value(), tuple(message.headers() or ())


def report(differences: list[Difference], console: Console) -> None:
    """Prints one line per topic, and some of the rows that differ."""
    table = Table("topic", "rows expected", "missing", "too many", box=None)
    for difference in differences:
        missing, extra = difference.missing.total(), difference.extra.total()
        table.add_row(difference.topic, f"{difference.expected:,}", f"{missing:,}", f"{extra:,}")
    console.print(table)
    for difference in differences:
        for name, rows in (("missing", difference.missing), ("too many", difference.extra)):
            for (key, value, headers), count in list(rows.items())[:_SHOWN]:
                console.print(f"{difference.topic}: {name} x{count}: {key!r} {value!r} {dict(headers)}", markup=False)


def report_balance(balance: Balance, console: Console) -> None:
    """Prints where the purchase rows are, with their number and the sum of their amounts."""
    table = Table("purchase rows", "rows", "sum of amounts", box=None)
    table.add_row("in the topic", f"{balance.rows:,}", f"{balance.amount:,}")
    for place, (rows, amount) in balance.places.items():
        table.add_row(f"  {place}", f"{rows:,}", "" if place == UNREADABLE else f"{amount:,}")
    console.print(table)
    console.print(
        "Every purchase row is in one place." if balance.is_even else "WRONG: the purchase rows do not balance"
    )


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m dataflow verify", _DESCRIPTION)
    parser.add_argument(
        "--wait",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="repeat until all rows are there, for at most this long",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Runs ``verify``; returns the exit code.

    Args:
        arguments: the command line, without the command's name.
    """
    options = _options(arguments)
    deadline = time.monotonic() + options.wait
    try:
        settings = load()
        topics = Topics(settings)
        balance = Balance()
        expected_rows = expected(settings, topics, balance)
        while True:
            earlier: Counter[str] = Counter()  # sessions, by optional topic
            differences = compare(settings, topics, expected_rows)
            for number, difference in enumerate(differences):
                if difference.topic in settings.optional_outputs:
                    split = split_off_earlier(
                        difference, topics, settings.topic(VISITS), settings.rules.added.session_id
                    )
                    differences[number], earlier[difference.topic] = split
            if not any(differences) or time.monotonic() > deadline:
                break
            time.sleep(1)
        disorder = out_of_order(topics, settings.topic_visits, shape_of(settings))
    except UserError as error:
        sys.exit(f"visits: {error}")
    console = Console()
    report(differences, console)
    report_balance(balance, console)
    for topic in settings.optional_outputs:
        if topic not in topics.partitions:
            console.print(f"{topic}: there is no such topic, so it is not written")
        elif earlier[topic]:
            console.print(f"{topic}: {earlier[topic]:,} sessions had closed before its first row, and are not missed")
    for topic in not_compared(settings, expected_rows):
        console.print(f"{topic}: not compared, because the reference computation does not know this output")
    if any(differences) or disorder:
        console.print(f"WRONG: the outputs differ from the batch computation; {disorder} visits are out of order")
        console.print(_ADVICE)
        return 1
    console.print("Every row is as the batch computation has it, and there exactly once; visits are in order.")
    return 0
