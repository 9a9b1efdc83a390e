"""Formats times, durations, counts and message values for people."""

from datetime import datetime, timedelta, timezone

from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def utc_text(time: Time) -> str:
    """Date and time in UTC, for example "2024-03-13 12:00:03.5"; "never" for MIN_TIME, "the end" for MAX_TIME."""
    if time == MIN_TIME:
        return "never"
    if time == MAX_TIME:
        return "the end"
    try:
        text = (_EPOCH + timedelta(microseconds=int(time))).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return "before year 1" if time < 0 else "after year 9999"
    return text + _fraction(int(time) % SECOND)


def time_of_day(time: Time) -> str:
    """Time of day in UTC, for example "12:00:03.5"."""
    return utc_text(time).rpartition(" ")[2]


def duration(microseconds: int) -> str:
    """A duration in seconds, for example "3.5 s"."""
    sign = "-" if microseconds < 0 else ""
    whole, rest = divmod(abs(microseconds), SECOND)
    return f"{sign}{whole}{_fraction(rest)} s"


def unix_seconds(microseconds: Time) -> float | None:
    """Converts microseconds to Unix seconds, for machines; None for MIN_TIME and MAX_TIME."""
    return microseconds / SECOND if MIN_TIME < microseconds < MAX_TIME else None


def pluralize(number: int, thing: str) -> str:
    """A count with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shortened(value: bytes | None) -> str:
    """A message's value as one printable line of at most 200 characters."""
    if value is None:
        return "(no value)"
    text = value[:1_000].decode(errors="backslashreplace")  # enough bytes for the 200 characters shown
    if not text.isprintable():
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(value):,} bytes)"


def _fraction(microseconds: int) -> str:
    return f".{microseconds:06}".rstrip("0") if microseconds else ""
