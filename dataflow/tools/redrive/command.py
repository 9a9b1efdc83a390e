"""``python -m dataflow redrive``: lists the rows that the job has rejected, and puts them back."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from rich.console import Console
from rich.table import Table

from dataflow.kafka.job_metadata import JobMetadata, MetadataEntry
from dataflow.kafka.lease import Lease
from dataflow.kafka.range_reader import RangeReader
from dataflow.kafka.stable_end_offsets import stable_end_offsets
from dataflow.observability import logs
from dataflow.observability.clock import clock
from dataflow.observability.formatting import shortened, utc_text
from dataflow.runtime.errors import install_error_handler
from dataflow.runtime.settings import Settings, load, log_options
from dataflow.streaming.errors import UserError
from dataflow.tools.command_line import Parser, message_address
from dataflow.tools.progress_bar import ProgressBar
from dataflow.tools.redrive.dead_letters import DeadLetter, OutcomeCounter, Selection, grouped, select_dead_letters
from dataflow.tools.redrive.repair import CannotRun, Repair
from dataflow.tools.redrive.sender import FAILURES, LATE_AGAIN, SENT, InputTopics, Sender

_DESCRIPTION = """\
Lists the rows that the job has rejected into dead-letters and late-events, and puts them back into the topics and
partitions that they came from. Each row is put back once, even if the command is killed and run again. Settings are
the job's, from the environment (VISITS_*) and .env.

A row that is put back comes after all present rows of its partition. An unreadable row would become a dead letter
again, so it is sent only once it has been repaired. A row that is further below the partition's highest time than the
allowed lateness would be late. That is true of every late event, and after a while of every dead letter. Such a row
would only go to late-events, so it is sent only with --even-if-late, or with --now, which gives it the present time.
With --now it becomes a visit of a new session. The session that it belonged to is not restored, and a purchase event
gets an amount only from a purchase row of the present.
"""
_EPILOG = """\
examples:
  python -m dataflow redrive                                         count rows by reason
  python -m dataflow redrive dead-letters --reason JSON --show 5     show some rows
  python -m dataflow redrive dead-letters --repair "jq -c '.user_id |= tonumber'" --dry-run --show 5
  python -m dataflow redrive dead-letters --repair "jq -c '.user_id |= tonumber'" --now --send
  python -m dataflow redrive late-events --now --send

The repair command runs in a shell, once per row. It reads the value from standard input and prints the new value. If it
prints nothing, the row is left out. If it fails, the row is reported and not sent. Each row that is put back has the
header `redriven-from`: topic/partition/offset of the rejected row. Before the command sends, it reads the input topics
to find the rows that have been put back before. It finds them for as long as Kafka retains them.

Exit status: 0 if no row failed; 1 if a row could not be repaired or delivered (run it again); 2 for wrong options.
"""


def _moment(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(number):
            return number
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a time (2024-03-13T12:00) nor Unix seconds: {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number: {text!r}")
    return int(text)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m dataflow redrive", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "what", nargs="?", choices=["dead-letters", "late-events"], help="only rows of this output (default: both)"
    )
    selection = parser.add_argument_group("selection")
    selection.add_argument("--reason", metavar="TEXT", help="rows whose reason contains this text")
    selection.add_argument("--topic", metavar="NAME", help="rows that came from this input topic")
    selection.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="rows rejected at this time or later: 2024-03-13T12:00, UTC, or Unix seconds",
    )
    selection.add_argument("--until", type=_moment, metavar="TIME", help="rows rejected before this time")
    selection.add_argument(
        "--message", type=message_address, action="append", metavar="TOPIC/PARTITION/OFFSET",
        help="this row of dead-letters or late-events; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=_number, default=0, metavar="N", help="show N rows; with --send, with their new values"
    )
    sending = parser.add_argument_group("putting rows back")
    action = sending.add_mutually_exclusive_group()
    action.add_argument("--send", action="store_true", help="put the rows back")
    action.add_argument("--dry-run", action="store_true", help="say what --send would do, and send nothing")
    sending.add_argument("--repair", metavar="COMMAND", help="shell command that repairs a value (default: none)")
    sending.add_argument(
        "--now", action="store_true", help="set the field `timestamp` to the present time, after the repair"
    )
    sending.add_argument("--even-if-late", action="store_true", help="also send rows that will go to late-events")
    options = parser.parse_args(arguments)
    if not (options.send or options.dry_run) and (options.repair or options.now or options.even_if_late):
        parser.error("--repair, --now and --even-if-late need --send or --dry-run: add --send, or --dry-run to try")
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
        self._topics = [topic for output, topic in topics.items() if options.what in (None, output)]
        if options.topic is not None and options.topic not in settings.inputs:
            raise UserError(f"{options.topic} is not an input topic; these are {' and '.join(settings.inputs)}")
        at = frozenset(options.message) if options.message else None
        self._selection = Selection(options.reason, options.topic, options.since, options.until, at)
        self._reader = RangeReader(settings.client, settings.group + "-look", (*settings.inputs, *self._topics))
        for address in at or ():
            if address.topic not in self._topics:
                raise UserError(f"{address}: rows to put back are in {' or '.join(self._topics)}")
        self._ranges = self._reader.ranges(self._topics)  # rows that are rejected from now on are not read
        self._shown = 0
        if options.now and settings.mapping_file is not None:
            raise UserError(
                "--now sets the field `timestamp` of the default shape; with a mapping, set it with --repair"
            )

    def show_all(self) -> int:
        """Lists the dead letters; returns the exit code."""
        groups = grouped(self._dead_letters(), lambda dead_letter: self._show(dead_letter, dead_letter.value))
        table = Table("in", "from", "rows", "first", "last", "reason", box=None)
        for (topic, from_topic, reason), group in sorted(groups.items(), key=lambda pair: (-pair[1].count, pair[0])):
            first, last = utc_text(group.first).partition(".")[0], utc_text(group.last).partition(".")[0]
            table.add_row(topic, from_topic, f"{group.count:,}", first, last, reason)
        if groups:
            self._console.print(table)
        else:
            self._say("There are no such rows.")
        return 0

    def send_all(self) -> int:
        """Puts the dead letters back, or only says what would happen; returns the exit code."""
        outcomes = OutcomeCounter(self._say)
        lease = self._take_lease() if self._options.send else None
        try:
            repair = Repair(self._options.repair, self._options.now)
            targets = self._targets(stable=lease is not None)
            sender = Sender(self._reader.connection, targets, repair, self._options.even_if_late, outcomes, lease)
            try:
                for dead_letter in self._dead_letters():
                    value = sender.send(dead_letter)
                    if value is not None:
                        self._show(dead_letter, value)
            except CannotRun as error:
                raise UserError(f"the repair command cannot be run: {error}") from None
            finally:
                sender.finish()
                self._report(outcomes)
        finally:
            if lease is not None:
                lease.release()
        return 1 if any(outcomes.counts[failure] for failure in FAILURES) else 0

    def _take_lease(self) -> Lease:
        name = f"{self._settings.group}-redrive"
        self._metadata = JobMetadata(self._reader.connection, name)
        lease = Lease(self._metadata, {(self._settings.inputs[0], 0): MetadataEntry(0)}, name, clock)
        lease.take()
        return lease

    def _targets(self, stable: bool) -> InputTopics:
        """Reads the input topics.

        Args:
            stable: whether to wait until no row of an earlier run can arrive any more.
        """
        ranges = self._reader.ranges(self._settings.inputs)
        if stable:
            ends = stable_end_offsets(
                self._reader.admin,
                self._reader.connection,
                f"{self._settings.group}-redrive",
                ranges,
                self._metadata.poll,
            )
            ranges = {partition_id: range_._replace(end=ends[partition_id]) for partition_id, range_ in ranges.items()}
        origins: set[tuple[str, int, int]] = set()
        if self._settings.mapping_file is not None:
            origins = {dead_letter.origin[:3] for dead_letter in self._dead_letters() if dead_letter.origin is not None}
        targets = InputTopics(self._settings, ranges, self._settings.rules.lateness, origins)
        self._progress.begin(" and ".join(self._settings.inputs))
        for message in self._reader.read(ranges, self._progress):
            targets.read(message)
        return targets

    def _dead_letters(self) -> Iterator[DeadLetter]:
        self._progress.begin(" and ".join(self._topics))
        return select_dead_letters(self._reader.read(self._ranges, self._progress), self._selection)

    def _show(self, dead_letter: DeadLetter, value: bytes | None) -> None:
        if self._shown < self._options.show:
            self._shown += 1
            origin, at = dead_letter.origin or "an unknown message", utc_text(dead_letter.stored)
            self._say(f"{dead_letter.at}  from {origin}, rejected {at}: {dead_letter.reason}")
            self._say(f"   {shortened(value)}")

    def _report(self, outcomes: OutcomeCounter) -> None:
        prefix = "" if self._options.send else "would be "
        sent = outcomes.counts.pop(SENT, 0)
        others = (f"{outcome}: {rows:,}" for outcome, rows in outcomes.counts.items())
        self._say("; ".join([f"{prefix}{SENT}: {sent:,}", *others]))
        if outcomes.counts[LATE_AGAIN]:
            self._say("rows that would be late were not sent: --now sets the present time, --even-if-late sends them")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Runs ``redrive``; returns the exit code.

    Args:
        arguments: the command line, without the command's name.
    """
    options = _arguments(arguments)
    logs.start(*log_options())
    install_error_handler()  # for errors in the thread that renews the lease
    try:
        with ProgressBar() as progress:
            redrive = _Redrive(options, load(), Console(), progress)
            return redrive.send_all() if options.send or options.dry_run else redrive.show_all()
    except UserError as error:
        print(f"visits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
