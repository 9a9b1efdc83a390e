"""The reference's rows of `sessions`."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import msgspec

REVENUE_DECIMALS = 30  # of an amount; further ones do not count
LISTED_KINDS = 100
KIND_LENGTH = 100  # characters
PAGE_LENGTH = 2_000  # characters


class Event(NamedTuple):
    """An event of a session."""

    time: Fraction  # Unix seconds, a whole number of microseconds
    kind: str
    page: str | None  # as JSON


def row(
    identity: str,
    user: str,
    events: Sequence[Event],
    amount: str,
    amounts: Sequence[Decimal | int],
    suspicion: int | None,
    page_views: Collection[str],
    purchases: Collection[str],
) -> str:
    """The row of a session.

    Args:
        identity: the session's id.
        user: the user's id, as JSON.
        events: in order of time, those of one time in order of their values.
        amount: as on the visits.
        amounts: of all its purchase events that have one.
        suspicion: type of the suspicion; None: the session is not suspicious.
        page_views: kinds of events that are page views.
        purchases: kinds of events that are purchases.
    """
    kinds = Counter(event.kind for event in events)
    pages = [event.page for event in events if event.page is not None]
    start, end = events[0].time, events[-1].time
    fields = {
        "session_id": f'"{identity}"',
        "user_id": user,
        "started_at": f'"{_iso_time(start)}"',
        "ended_at": f'"{_iso_time(end)}"',
        "duration": _decimal_text(int((end - start) * 10**6), 6, 6),
        "events": str(len(events)),
        "page_views": str(sum(event.kind in page_views for event in events)),
        "purchases": str(sum(event.kind in purchases for event in events)),
        "amount": amount,
        "revenue": _sum(amounts),
        "first_page": pages[0] if pages else "null",
        "last_page": pages[-1] if pages else "null",
        "suspicious": str(suspicion) if suspicion is not None else "null",
        "kinds": _listed(kinds),
    }
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


def page_json(page: str, is_text: bool) -> str:
    """A page as it came, but for what is too long."""
    if is_text or len(page) > PAGE_LENGTH:
        return msgspec.json.encode(page[:PAGE_LENGTH]).decode()
    return page


def _iso_time(time: Fraction) -> str:
    """UTC, to the microsecond; days are counted by the calendar."""
    seconds, microseconds = divmod(int(time * 10**6), 10**6)
    days, second = divmod(seconds, 86_400)
    day = date.fromordinal(date(1970, 1, 1).toordinal() + days)
    return f"{day}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{microseconds:06}Z"


def _sum(amounts: Sequence[Decimal | int]) -> str:
    """The exact sum, with as many decimals as the amount that has most of them."""
    total, decimals = 0, 0  # total in units of the last decimal that counts
    for amount in map(Decimal, amounts):
        exponent = int(amount.as_tuple().exponent)
        decimals = max(decimals, min(-exponent, REVENUE_DECIMALS))
        if amount and amount.adjusted() >= -REVENUE_DECIMALS:
            numerator, denominator = amount.as_integer_ratio()
            units = abs(numerator) * 10**REVENUE_DECIMALS // denominator
            total += units if numerator > 0 else -units
    return _decimal_text(total, REVENUE_DECIMALS, decimals)


def _decimal_text(units: int, places: int, decimals: int) -> str:
    """So many units of the decimal place `places`, with `decimals` of its decimals; the others are 0."""
    whole, part = divmod(abs(units), 10**places)
    fraction = f".{part:0{places}}"[: decimals + 1] if decimals else ""
    return f"{'-' if units < 0 else ''}{whole}{fraction}"


def _listed(kinds: Counter[str]) -> str:
    """The number of events of each kind, in order of names: of the most frequent kinds with names that are not too long."""
    short = [kind for kind in kinds if len(kind) <= KIND_LENGTH]
    listed = sorted(short, key=lambda kind: (-kinds[kind], kind))[:LISTED_KINDS]
    return "{" + ",".join(f"{msgspec.json.encode(kind).decode()}:{kinds[kind]}" for kind in sorted(listed)) + "}"
