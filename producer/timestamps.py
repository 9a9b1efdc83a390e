"""Points in time as people and files write them, turned into Unix seconds."""

import math
from datetime import date, datetime, timezone

import msgspec

# no clickstream is from before 1973 or after 5138, so the size of a number tells its unit
_MILLISECONDS_FROM, _MICROSECONDS_FROM = 1e11, 1e14
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800  # what can be shown as a date


def parse(value: object) -> int | float:
    """Unix seconds of `value`, to the microsecond: a Unix number or an ISO date, alone or with a time of day.

    Numbers may be in seconds, milliseconds or microseconds. A time without a zone is UTC.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, str):
        value = _parse_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a time")
    if abs(value) >= _MICROSECONDS_FROM:
        value /= 1_000_000
    elif abs(value) >= _MILLISECONDS_FROM:
        value /= 1_000
    value = round(value, 6)
    if not _YEAR_1 <= value < _YEAR_10000:
        raise ValueError(f"{value!r} is not a time in Unix seconds")
    return int(value) if value == int(value) else value


def utc_text(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def _parse_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # datetime.fromisoformat of Python 3.10 knows neither Z nor fractions of any length
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a time: Unix seconds or YYYY-MM-DD HH:MM:SS is needed") from None
        moment = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
