"""Times as people write them, in microseconds since 1970.

Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size: a second of the year
5138 has as many digits as a millisecond of 1973. Texts are such numbers, or ISO 8601 as RFC 3339 profiles it, with a
space for the T, "UTC" for the Z, a comma for the point, and with the colons of the offset left out, too.
"""

import re
from datetime import date, datetime, timezone, tzinfo
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

from dataflow.streaming.time import SECOND, Time

UNITS = {
    "s": Decimal(SECOND),
    "ms": Decimal(SECOND // 1_000),
    "us": Decimal(1),
    "ns": Decimal("0.001"),
}  # in microseconds

_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 10**11, 10**14, 10**17
_FIRST, _LAST = -62_135_596_800 * SECOND, 253_402_300_800 * SECOND  # years 1 to 9999
_MAX_DIGITS = 40
_EXACT = Context(prec=200)  # a product of a number of so many digits and a unit has fewer

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?(?: ?(?:([Zz]|UTC)|([+-])(\d\d)(?::?(\d\d))?))?",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_UNIX_EPOCH = date(1970, 1, 1).toordinal()


def parse_time(text: str, unit: str = "", zone: tzinfo = timezone.utc) -> Time:
    """The time that a number or a text says. Raises ValueError, with what is wrong.

    Args:
        text: of the number, or the text itself.
        unit: "s", "ms", "us" or "ns"; "": by the size of the number.
        zone: of a date without an offset. An hour that comes twice, when summer ends, is the first of the two.
    """
    if len(text) <= _MAX_DIGITS and _NUMBER.fullmatch(text):
        time = _of_number(text, unit)
    elif found := _ISO.fullmatch(text):
        time = _of_iso(found, zone)
    elif _DATE.fullmatch(text):
        raise ValueError(f"a date without a time of day: {text!r}")
    else:
        raise ValueError(f"not a time: {text[:50]!r}")
    if not _FIRST <= time < _LAST:
        raise ValueError(f"out of range: {text[:50]}")
    return time


def _of_number(text: str, unit: str) -> int:
    number = Decimal(text)
    if not unit:
        size = abs(number)
        if size < _MILLISECONDS_FROM:
            unit = "s"
        elif size < _MICROSECONDS_FROM:
            unit = "ms"
        else:
            unit = "us" if size < _NANOSECONDS_FROM else "ns"
    time = _EXACT.multiply(number, UNITS[unit])
    if abs(time) > 2 * _LAST:
        raise ValueError(f"out of range: {text}")
    return _rounded(time)


def _of_iso(found: "re.Match[str]", zone: tzinfo) -> int:
    day, hour, minute, second, fraction, utc, sign, offset_hours, offset_minutes = found.groups()
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 60:  # 60: a leap second, which Unix time counts as the next one
        raise ValueError(f"no such time of day: {found[0]!r}")
    time = ((_days(day) * 24 + hours) * 60 + minutes) * 60 + seconds
    if sign:
        offset = (int(offset_hours) * 60 + int(offset_minutes or 0)) * 60
        if offset >= 86_400:
            raise ValueError(f"no such offset: {found[0]!r}")
        time += -offset if sign == "+" else offset
    elif not utc and zone is not timezone.utc:
        local = datetime.fromordinal(_days(day) + _UNIX_EPOCH).replace(
            hour=hours, minute=minutes, second=min(seconds, 59), tzinfo=zone
        )
        offset_then = local.utcoffset()
        time -= round(offset_then.total_seconds()) if offset_then is not None else 0
    return time * SECOND + (_rounded(_EXACT.multiply(Decimal(f"0.{fraction}"), Decimal(SECOND))) if fraction else 0)


def _rounded(microseconds: Decimal) -> int:
    return int(microseconds.quantize(Decimal(1), ROUND_HALF_EVEN, _EXACT))


@lru_cache(1_000)
def _days(day: str) -> int:
    """Days since 1970. Raises ValueError if there is no such day."""
    try:
        return date(int(day[:4]), int(day[5:7]), int(day[8:])).toordinal() - _UNIX_EPOCH
    except ValueError:
        raise ValueError(f"no such day: {day}") from None
