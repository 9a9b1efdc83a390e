"""Command line of ``python -m dataflow try``."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.records import Event, InputRecord
from dataflow.observability.formatting import shortened
from dataflow.runtime.settings import Settings, load
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import Ignored, Unreadable
from dataflow.tools.command_line import Parser
from dataflow.tools.try_mapping.sample import SampledMessage, from_file, from_topics
from dataflow.tools.try_mapping.suggest import suggestion

_DESCRIPTION = """\
Shows what a mapping makes of some messages: user, time, kind, page and amount of each, how many there are of each kind,
and what cannot be read and why. Messages are the first ones of FILE (one a line, or CSV with a header), or the last ones
of the topics. Nothing is written.

Exit status: 0 if every message is read or left out on purpose; 1 if not; 2 for wrong options.
"""
_EXAMPLES = """\
examples:
  python -m dataflow try clicks.jsonl --suggest > mapping.toml
  python -m dataflow try clicks.jsonl --mapping mapping.toml
  python -m dataflow try --mapping segment --topic segment
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_WIDTH = 40


@dataclass
class Trial:
    """What became of the messages."""

    rows: list[InputRecord] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    example: dict[str, bytes | None] = field(default_factory=dict)  # of each problem, one message
    ignored: int = 0


def attempt(messages: Sequence[SampledMessage], inputs: InputTopics) -> Trial:
    """Decodes messages as the job would."""
    trial = Trial()
    for message in messages:
        decoder = inputs.decoder_of(message.topic())
        for part in decoder.parts(message) if decoder.parts is not None else [message]:
            try:
                row = decoder.decode(part.value(), 0, part)
            except Unreadable as problem:
                trial.problems[str(problem)] += 1
                trial.example.setdefault(str(problem), part.value())
            except Ignored:
                trial.ignored += 1
            else:
                trial.rows.append(row)
                if isinstance(row, Event):
                    trial.kinds[row.event_type] += 1
    return trial


def show(trial: Trial, kinds: Kinds, console: Console, most: int) -> None:
    """Prints the table of rows, the kinds, and the problems."""
    table = Table("user", "time (UTC)", "kind", "page", "amount", box=None, header_style="bold")
    for row in trial.rows[:most]:
        kind = row.event_type if isinstance(row, Event) else "(purchase row)"
        cells = row.user.decode(), _time(row.time), kind, str(row.page or ""), row.amount.decode()
        table.add_row(*(cell if len(cell) <= _WIDTH else cell[: _WIDTH - 1] + "…" for cell in cells))
    if trial.rows:
        console.print(table)
    if len(trial.rows) > most:
        console.print(f"... and {len(trial.rows) - most} more")
    console.print()
    for name, count in trial.kinds.most_common():
        role = "page view" if name in kinds.page_views else "purchase" if name in kinds.purchases else "other"
        console.print(f"{count:6,}  {name}  ({role})", markup=False, highlight=False)
    purchase_rows = sum(not isinstance(row, Event) for row in trial.rows)
    if purchase_rows:
        console.print(f"{purchase_rows:6,}  purchase rows", highlight=False)
    if trial.ignored:
        console.print(f"{trial.ignored:6,}  left out, as the mapping says", highlight=False)
    for problem, count in trial.problems.most_common():
        console.print(f"{count:6,}  unreadable: {problem}", style="red", markup=False, highlight=False)
        console.print(
            f"        such as {shortened(trial.example[problem] or b'no value')}", markup=False, highlight=False
        )


def advice(trial: Trial, kinds: Kinds) -> list[str]:
    """What to change in the mapping."""
    lines = []
    if trial.kinds and not any(kind in kinds.page_views for kind in trial.kinds):
        lines.append(f"no kind is a page view, so every session will be suspicious: page_views = {_list(trial.kinds)}")
    if trial.kinds and not any(kind in kinds.purchases for kind in trial.kinds):
        lines.append(f"no kind is a purchase, so every amount will be 0: purchases = {_list(trial.kinds)}")
    if trial.problems and not trial.rows:
        lines.append("nothing can be read: --suggest proposes a mapping")
    return lines


def _list(kinds: Counter[str]) -> str:
    names = [kind for kind, _ in kinds.most_common(5)]
    return f"some of {json.dumps(names, ensure_ascii=False)}"


def _time(time: int) -> str:
    return (_EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%d %H:%M:%S.%f")


def _documents(messages: Sequence[SampledMessage]) -> list[Any]:
    documents = []
    for message in messages:
        try:
            document = msgspec.json.decode(message.value() or b"")
            documents.append(msgspec.json.decode(document) if isinstance(document, str) else document)
        except (ValueError, RecursionError):
            continue
    return [document for document in documents if isinstance(document, dict | list)]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m dataflow try", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="messages, one a line, or CSV; also gzipped")
    parser.add_argument("--mapping", metavar="NAME", help="a file or a preset (default: VISITS_MAPPING)")
    parser.add_argument("--topic", metavar="NAME", help="which topic the messages are of (default: all of the mapping)")
    parser.add_argument("--messages", type=int, default=100, metavar="N", help="how many are read (default: 100)")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="how many rows are shown (default: 20)")
    parser.add_argument(
        "--suggest", action="store_true", help="print a mapping that fits the messages, and nothing else"
    )
    options = parser.parse_args(arguments)
    if options.messages < 1 or options.rows < 0:
        parser.error("--messages is at least 1, --rows at least 0")
    return options


def main(arguments: Sequence[str]) -> int:
    """Runs ``try``; returns the exit code.

    Args:
        arguments: the command line, without the command's name.
    """
    options = _options(arguments)
    try:
        settings = load()
        if options.mapping:
            settings = Settings(**{**settings.model_dump(exclude_unset=True), "mapping": options.mapping})
        return _run(options, settings)
    except UserError as error:
        sys.exit(f"visits: {error}")


def _run(options: argparse.Namespace, settings: Settings) -> int:
    names = list(settings.inputs)
    if options.suggest and options.topic:
        names = [options.topic]
    elif options.topic:
        if options.topic not in names:
            raise UserError(f"{options.topic} is not a topic of the mapping; these are {', '.join(names)}")
        names = [options.topic]
    if options.file is not None:
        messages = from_file(options.file, names[0], options.messages)
    else:
        messages = from_topics(settings, names, options.messages)
    if not messages:
        raise UserError(f"there is no message in {options.file or ', '.join(names)}")
    if options.suggest:
        documents = _documents(messages)
        if not documents:
            raise UserError(
                "none of the messages is JSON; write a function and name it in `decode`, see docs/mapping.md"
            )
        print(
            suggestion(options.topic or (options.file.name.partition(".")[0] if options.file else names[0]), documents),
            end="",
        )
        return 0
    trial, kinds, console = attempt(messages, settings.input_topics), settings.rules.kinds, Console()
    show(trial, kinds, console, options.rows)
    for line in advice(trial, kinds):
        console.print(f"\n{line}", markup=False, highlight=False)
    return 1 if trial.problems else 0
