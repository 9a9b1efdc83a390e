"""``python -m dataflow redrive``: what the job has put aside, and back with it."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from rich.console import Console
from rich.table import Table

from dataflow.kafka.job_metadata import JobMetadata
from dataflow.kafka.lease import Lease
from dataflow.kafka.range_reader import RangeReader
from dataflow.kafka.stable_end_offsets import stable_end_offsets
from dataflow.observability import logs
from dataflow.observability.formatting import shortened, utc_text
from dataflow.runtime.errors import install_error_handler
from dataflow.runtime.settings import Settings, load, log_options
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import Parser, message_address
from dataflow.tools.progress_bar import ProgressBar
from dataflow.tools.redrive.dead_letters import DeadLetter, OutcomeCounter, Selection, dead_letters, grouped
from dataflow.tools.redrive.repair import CannotRun, Repair
from dataflow.tools.redrive.sender import BAD_ENDS, LATE_AGAIN, SENT, InputTopics, Sender

_DESCRIPTION = """\
Lists what the job has put aside in dead-letters and late-events, and puts it back into the topics and partitions that
it came from, each row once, also if this is killed and run again. Settings are the job's (VISITS_*, .env).

A row that is put back stands behind all that its partition holds by now. What cannot be read becomes a dead letter
again, so it is not sent unless it has been repaired. What is more than the allowed lateness below the partition's
highest time is late, whatever it was before: a late event always, and a dead letter soon, even if it is repaired. Such
a row would only go to late-events (again), so it is not sent either, unless you want that (--even-if-late), or give it
the present time (--now). With --now it becomes a visit, though of a session of now: of the visit that it was part of
nothing is restored, and a purchase event finds no amount unless one is paid now.
"""
_EPILOG = """\
examples:
  python -m dataflow redrive                                         how many there are, by reason
  python -m dataflow redrive dead-letters --reason JSON --show 5     some of them
  python -m dataflow redrive dead-letters --repair "jq -c '.user_id |= tonumber'" --dry-run --show 5
  python -m dataflow redrive dead-letters --repair "jq -c '.user_id |= tonumber'" --now --send
  python -m dataflow redrive late-events --now --send

The repair command is run by a shell for each row, gets its value on standard input and answers the new value; if it
answers nothing the row is left out, if it fails it is told and not sent. Each row that is put back has the header
`redriven-from`, topic/partition/offset of what it was made of; before it sends, this reads the input topics to see
which are there already. So a row is remembered to have been put back as long as Kafka keeps it there.

Exit status: 0 if every row met its end, 1 if some could not be delivered or repaired (run it again), 2 for wrong
options.
"""


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        told = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a time (2024-03-13T12:00) nor Unix seconds: {text!r}") from None
    return (told if told.tzinfo else told.replace(tzinfo=timezone.utc)).timestamp()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number: {text!r}")
    return int(text)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m dataflow redrive", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "what", nargs="?", choices=["dead-letters", "late-events"], help="one of the two kinds only (default: both)"
    )
    which = parser.add_argument_group("which of them")
    which.add_argument("--reason", metavar="TEXT", help="whose reason has this text in it")
    which.add_argument("--topic", metavar="NAME", help="that came from this topic")
    which.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="put aside at this time or later: 2024-03-13T12:00, UTC, or Unix seconds",
    )
    which.add_argument("--until", type=_moment, metavar="TIME", help="put aside before this time")
    which.add_argument(
        "--message", type=message_address, action="append", metavar="TOPIC/PARTITION/OFFSET",
        help="this row of dead-letters or late-events; may be given again and again",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=_number, default=0, metavar="N", help="show N of them; if they are sent, as they are sent"
    )
    how = parser.add_argument_group("putting them back")
    act = how.add_mutually_exclusive_group()
    act.add_argument("--send", action="store_true", help="put them back")
    act.add_argument("--dry-run", action="store_true", help="say what --send would do, and do nothing")
    how.add_argument("--repair", metavar="COMMAND", help="mends each value; without it values stay as they are")
    how.add_argument(
        "--now", action="store_true", help="give each the present time as its `timestamp`, after the repair"
    )
    how.add_argument("--even-if-late", action="store_true", help="send also what will go to late-events")
    options = parser.parse_args(arguments)
    if not (options.send or options.dry_run) and (options.repair or options.now or options.even_if_late):
        parser.error("--repair, --now and --even-if-late say how to put rows back: add --send, or --dry-run to try")
    return options


class _Redrive:
    """One run of the command."""

    def __init__(
        self, options: argparse.Namespace, settings: Settings, console: Console, progress: ProgressBar
    ) -> None:
        self._options = options
        self._settings = settings
        self._console = console
        self._progress = progress
        topics = {"dead-letters": settings.topic_dead_letters, "late-events": settings.topic_late_events}
        self._topics = [topic for kind, topic in topics.items() if options.what in (None, kind)]
        if options.topic is not None and options.topic not in settings.inputs:
            raise UserError(f"{options.topic} is not an input topic; these are {' and '.join(settings.inputs)}")
        at = frozenset(options.message) if options.message else None
        self._selection = Selection(options.reason, options.topic, options.since, options.until, at)
        self._scanner = RangeReader(settings.client, settings.group + "-look", (*settings.inputs, *self._topics))
        for each in at or ():
            if each.topic not in self._topics:
                raise UserError(f"{each}: messages to put back stand in {' or '.join(self._topics)}")
        self._letters = self._scanner.ranges(self._topics)  # what is put aside from now on is not looked at
        self._shown = 0

    def show_all(self) -> int:
        """Lists them; returns the exit code."""
        found = grouped(self._read_letters(), lambda letter: self._show(letter, letter.value))
        table = Table("in", "from", "rows", "first", "last", "reason", box=None)
        for (topic, origin, reason), group in sorted(found.items(), key=lambda pair: (-pair[1].count, pair[0])):
            first, last = utc_text(group.first).partition(".")[0], utc_text(group.last).partition(".")[0]
            table.add_row(topic, origin, f"{group.count:,}", first, last, reason)
        if found:
            self._console.print(table)
        else:
            self._say("There is nothing of that kind.")
        return 0

    def send_all(self) -> int:
        """Puts them back, or only says so; returns the exit code."""
        tally = OutcomeCounter(self._say)
        lease = self._lease() if self._options.send else None
        try:
            repair = Repair(self._options.repair, self._options.now)
            targets = self._targets(settle=lease is not None)
            sender = Sender(self._scanner.connection, targets, repair, self._options.even_if_late, tally, lease)
            try:
                for letter in self._read_letters():
                    value = sender.send(letter)
                    if value is not None:
                        self._show(letter, value)
            except CannotRun as error:
                raise UserError(f"the repair command cannot be run: {error}") from None
            finally:
                sender.finish()
                self._report(tally)
        finally:
            if lease is not None:
                lease.release()
        return 1 if any(tally.ends[end] for end in BAD_ENDS) else 0

    def _lease(self) -> Lease:
        name = f"{self._settings.group}-redrive"
        self._metadata = JobMetadata(self._scanner.connection, name)
        lease = Lease(self._metadata, {(self._settings.topic_user_events, 0): 0}, name)
        lease.take()
        return lease

    def _targets(self, settle: bool) -> InputTopics:
        spans = self._scanner.ranges(self._settings.inputs)
        if settle:
            ends = stable_end_offsets(
                self._scanner.admin,
                self._scanner.connection,
                f"{self._settings.group}-redrive",
                spans,
                self._metadata.poll,
            )
            spans = {partition_id: span._replace(end=ends[partition_id]) for partition_id, span in spans.items()}
        targets = InputTopics(self._settings, spans, self._settings.rules.lateness)
        self._progress.begin(" and ".join(self._settings.inputs))
        for message in self._scanner.read(spans, self._progress):
            targets.read(message)
        return targets

    def _read_letters(self) -> Iterator[DeadLetter]:
        self._progress.begin(" and ".join(self._topics))
        return dead_letters(self._scanner.read(self._letters, self._progress), self._selection)

    def _show(self, letter: DeadLetter, value: bytes | None) -> None:
        if self._shown < self._options.show:
            self._shown += 1
            origin = letter.origin or "nowhere"
            self._say(f"{letter.at}  from {origin}, put aside {utc_text(letter.stored)}: {letter.reason}")
            self._say(f"   {shortened(value)}")

    def _report(self, tally: OutcomeCounter) -> None:
        would = "" if self._options.send else "would be "
        ends = [
            f"{would}{SENT}: {tally.ends.pop(SENT, 0):,}",
            *(f"{end}: {rows:,}" for end, rows in tally.ends.items()),
        ]
        self._say("; ".join(ends))
        if tally.ends[LATE_AGAIN]:
            self._say(
                "what would be late was left where it is: --now gives it the present time, --even-if-late sends it"
            )

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Lists or puts back; returns the exit code."""
    options = _arguments(arguments)
    logs.start(*log_options())
    install_error_handler()  # the lease is kept in a thread of its own
    try:
        with ProgressBar() as progress:
            redrive = _Redrive(options, load(), Console(), progress)
            return redrive.send_all() if options.send or options.dry_run else redrive.show_all()
    except UserError as error:
        print(f"visits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
