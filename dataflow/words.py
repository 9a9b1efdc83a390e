"""Times and distances as people read them."""

from datetime import datetime, timedelta, timezone

from dataflow.rules.rows import END, NEVER, SECOND, Time

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def moment(time: Time) -> str:
    """A time of day of a date, UTC, with as many digits as it needs."""
    if time == NEVER:
        return "never"
    if time == END:
        return "the end"
    try:
        text = (_EPOCH + timedelta(microseconds=int(time))).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return "before year 1" if time < 0 else "after year 9999"
    return text + _fraction(int(time) % SECOND)


def clock(time: Time) -> str:
    """The same without the date."""
    return moment(time).rpartition(" ")[2]


def seconds(microseconds: int) -> str:
    """A distance: "3.5 s"."""
    sign = "-" if microseconds < 0 else ""
    whole, rest = divmod(abs(microseconds), SECOND)
    return f"{sign}{whole}{_fraction(rest)} s"


def number(microseconds: Time) -> float | None:
    """Unix seconds, for machines; None where there is no such time."""
    return microseconds / SECOND if NEVER < microseconds < END else None


def count(number: int, thing: str) -> str:
    """So many things."""
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
