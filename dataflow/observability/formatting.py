"""Times and distances as people read them."""

from datetime import datetime, timedelta, timezone

from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def utc_text(time: Time) -> str:
    """A time of day of a date, UTC, with as many digits as it needs."""
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
    """The same without the date."""
    return utc_text(time).rpartition(" ")[2]


def duration(microseconds: int) -> str:
    """A distance: "3.5 s"."""
    sign = "-" if microseconds < 0 else ""
    whole, rest = divmod(abs(microseconds), SECOND)
    return f"{sign}{whole}{_fraction(rest)} s"


def unix_seconds(microseconds: Time) -> float | None:
    """Unix seconds, for machines; None where there is no such time."""
    return microseconds / SECOND if MIN_TIME < microseconds < MAX_TIME else None


def pluralize(number: int, thing: str) -> str:
    """A number of things: "1 row", "2,000 rows"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def shortened(value: bytes | None) -> str:
    """A message's value in one line."""
    if value is None:
        return "(no value)"
    text = value[:1_000].decode(errors="backslashreplace")  # all of those 200 that are shown
    if not text.isprintable():
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(value):,} bytes)"


def _fraction(microseconds: int) -> str:
    return f".{microseconds:06}".rstrip("0") if microseconds else ""
