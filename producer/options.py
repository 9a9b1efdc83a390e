"""The command line."""

import argparse
import math
from pathlib import Path
from typing import NoReturn

from producer import timestamps
from producer.pace import AT_ONCE

EVENTS_PER_USER = 0.15  # a second, by default: what users make by nature is just above
_OF_THE_SHOP = ("rate", "users", "events", "start", "history")
_OF_FILES = ("map", "set", "shift_to_now")

_DESCRIPTION = """\
Writes a click stream to the topics user-events and purchases: that of a simulated shop, or a recorded FILE.
Missing topics are created. Where Kafka is and what the topics are called is said by the VISITS_* settings.
"""
_EPILOG = """\
examples:
  python -m producer                                20 users, live, until Ctrl-C
  python -m producer --history 180                  the last three minutes at once, then live
  python -m producer --rate 1000 --users 10000      a thousand events a second
  python -m producer --speed max --events 100000    a hundred thousand events at once, the last of them about now
  python -m producer clicks.csv.gz --speed max --map event_type=event --map user_id=visitor --set page_id=0

Nothing of the shop is sent before its event time has come, whatever the speed. Exit status: 0 if all was sent
(or Ctrl-C or SIGTERM came), 1 if something could not be read or sent, 2 for wrong options.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"producer: {message}\n")  # one line; --help has the usage


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; wrong options end the program with one line and status 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in _OF_THE_SHOP if options.file else _OF_FILES:
        if getattr(options, name) != parser.get_default(name):
            use = "the simulated shop, not a recorded file" if options.file else "a recorded FILE"
            parser.error(f"--{name.replace('_', '-')} is for {use}")
    if options.start is not None and options.history:
        parser.error("--start and --history both say when to begin; give one")
    if options.file is None:
        options.users = options.users or 20
        options.rate = options.rate or EVENTS_PER_USER * options.users
        if options.speed not in (None, 1) and not (options.start is not None or options.history or options.events):
            parser.error(
                "a shop that begins now cannot outrun the clock: with --speed give --events, --history or --start"
            )
        if options.speed is None and options.history:
            options.speed = AT_ONCE
    if options.speed is None:
        options.speed = 1.0
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m producer",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="CSV or one JSON object a line, also gzipped"
    )

    shop = parser.add_argument_group("the simulated shop (without FILE)")
    shop.add_argument(
        "--rate",
        type=positive,
        metavar="N",
        help="user-events a second, of all users together (default: 0.15 a user). At a high rate for so few users "
        "their visits have more events",
    )
    shop.add_argument("--users", type=whole, metavar="N", help="how many users (default: 20)")
    shop.add_argument(
        "--events", type=whole, metavar="N", help="end after so many user-events; their purchases come too"
    )
    shop.add_argument(
        "--start",
        type=_moment,
        metavar="TIME",
        help="event time of the beginning, Unix seconds or YYYY-MM-DD HH:MM:SS in UTC (default: now, or with --speed "
        "and --events so long ago that the events end about now)",
    )
    shop.add_argument(
        "--history",
        type=positive,
        metavar="SECONDS",
        help="begin so long ago, send what is past at once (or at --speed), then go on live",
    )

    files = parser.add_argument_group(
        "a recorded file",
        "Rows with an amount and no event_type go to purchases, others to user-events, in order of time, whatever\n"
        "the order of the file. Columns that are not mapped stay as extra fields. Times are Unix seconds,\n"
        "milliseconds or microseconds, or ISO dates, UTC if they name no zone. A user_id or page_id that is no\n"
        "integer becomes a stable 63-bit hash; its text stays as original_user_id or original_page_id.",
    )
    files.add_argument(
        "--map", action=_Pairs, default={}, metavar="FIELD=COLUMN", help="take FIELD from COLUMN; repeatable"
    )
    files.add_argument(
        "--set", action=_Pairs, default={}, metavar="FIELD=VALUE", help="the same FIELD in every row; repeatable"
    )
    files.add_argument(
        "--shift-to-now",
        action="store_true",
        help="move all times by the same whole seconds, so that the last row is sent at its own time (at --speed 1 "
        "every row is); without this they stay",
    )

    both = parser.add_argument_group("both")
    both.add_argument(
        "--speed",
        type=_speed,
        metavar="N",
        help="1: at its own pace (default), 10: ten times as fast, max: at once",
    )
    both.add_argument(
        "--disorder",
        type=_not_negative,
        default=0.0,
        metavar="SECONDS",
        help="send every row up to so long after its event time, at random (default: 0)",
    )
    both.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="chooses everything random: the same seed and --start give the same rows (default: 1)",
    )
    both.add_argument("--unkeyed", action="store_true", help="no keys: rows go to partitions at random, not by user")
    parser.add_argument("--create-topics", action="store_true", help="only create the topics that are missing, and end")
    return parser


class _Pairs(argparse.Action):
    """Gathers NAME=VALUE options in a dictionary."""

    def __call__(self, parser, namespace, text, option=None):  # type: ignore[no-untyped-def]
        name, equals, value = text.partition("=")
        if not (name and equals and (value or self.dest == "set")):
            parser.error(f"argument {option}: {text!r} is not {self.metavar}")
        pairs = getattr(namespace, self.dest)
        if name in pairs:
            parser.error(f"argument {option}: {name} is given twice")
        setattr(namespace, self.dest, {**pairs, name: value})


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(text: str) -> float:
    """A number above 0, of an option's text."""
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _not_negative(text: str) -> float:
    number = _number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def whole(text: str) -> int:
    """A number of things, at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _speed(text: str) -> float:
    return AT_ONCE if text == "max" else positive(text)


def _moment(text: str) -> float:
    try:
        return timestamps.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
