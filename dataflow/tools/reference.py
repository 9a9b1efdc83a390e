"""The reference: the expected outputs, computed in the slow and obvious way, over whole logs in memory.

It shares no code with the job, so that one can be compared with the other: `python -m dataflow verify` does so on real
topics, the tests do so on thousands of random logs. Times are exact fractions of a second.
"""

import hashlib
import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from dataflow.tools import reference_pairing
from dataflow.tools.balance import LATE, MATCHED, NO_EVENT, OTHER_ROW, UNREADABLE, Balance

YEAR_1, YEAR_10000 = -62_135_596_800, 253_402_300_800  # Unix seconds
MAX_DIGITS = 4_300  # of a whole number, including its sign

# replaces a dead letter's reason if that is an error message of the JSON decoder, which is not computed here
NOT_A_ROW = "*"
AHEAD = "timestamp is more than 60 s ahead of the clock"

OutputRow = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]  # key, value, headers


class Record(NamedTuple):
    """A message of an input partition."""

    key: bytes | None
    value: bytes | None
    stored: int  # timestamp of the message in milliseconds; 0: none
    offset: int


Log = Mapping[int, Sequence[Record]]  # the messages of each partition, in order


@dataclass
class Answer:
    """The expected rows of each output topic, and how often each is expected. Fields are named like the outputs."""

    visits: Counter[OutputRow] = field(default_factory=Counter)
    suspicious_visits: Counter[OutputRow] = field(default_factory=Counter)
    late_events: Counter[OutputRow] = field(default_factory=Counter)
    dead_letters: Counter[OutputRow] = field(default_factory=Counter)
    unmatched_purchases: Counter[OutputRow] = field(default_factory=Counter)


@dataclass(frozen=True)
class RuleSettings:
    """The numbers in the rules; durations are in seconds."""

    session_gap: Fraction = Fraction(20)
    match_window: Fraction = Fraction(5)
    allowed_lateness: Fraction = Fraction(5)
    max_events: int = 5
    min_page_views: int = 1


Schema = Mapping[str, Callable[[Any], bool]]  # by field: the test that its values must pass


class _Unreadable(Exception):
    pass


@dataclass
class _Parsed:
    time: Fraction
    user: int
    fields: dict[str, Any]
    record: Record
    origin: str
    late: bool = False

    @property
    def value(self) -> bytes:
        """The record's value, which a readable record always has."""
        return self.record.value or b""

    @property
    def microseconds(self) -> int:
        return int(self.time * 1_000_000)


# of a purchase event's row: of its page, nearness, time, amount as number and as text
_Rank = tuple[bool, Fraction, Fraction, Decimal | int, bytes]


def answer(
    events: Log,
    purchases: Log,
    rules: RuleSettings,
    events_topic: str = "user-events",
    purchases_topic: str = "purchases",
    balance: Balance | None = None,
) -> Answer:
    """The rows that the job has to write for the contents of its input topics, once all sessions are closed.

    Args:
        events: the messages of the events topic.
        purchases: the messages of the purchases topic.
        rules: the numbers in the rules.
        events_topic: name of the events topic.
        purchases_topic: name of the purchases topic.
        balance: gets the places of the purchase rows.
    """
    out = Answer()
    balance = balance or Balance()
    clicks = list(_parse(events, events_topic, _EVENT, rules, out))
    purchase_rows = list(_parse(purchases, purchases_topic, _PURCHASE, rules, out))

    def reject(row: _Parsed, reason: str) -> None:
        out.unmatched_purchases[_rejected(row, reason)] += 1
        balance.put(reason, row.fields["amount"])

    for row in clicks:
        if row.late:
            out.late_events[_rejected(row, LATE)] += 1
    for row in purchase_rows:
        balance.add(row.fields["amount"])
        if row.late:
            reject(row, LATE)
    clicks_of = _by_user(row for row in clicks if not row.late)
    purchases_of = _by_user(row for row in purchase_rows if not row.late)
    for user in clicks_of.keys() | purchases_of.keys():
        rows = clicks_of.get(user, [])
        buying = [row for row in rows if row.fields["event_type"] == "purchase"]
        paid = purchases_of.get(user, [])
        pairs = _paired(buying, paid, rules.match_window)
        amounts = {id(buying[click]): _rank(buying[click], paid[row]) for click, row in pairs}
        for session in _sessions(rows, rules.session_gap):
            _write_session(user, session, amounts, rules, out)
        taken = {row for _, row in pairs}
        times = sorted(click.time for click in buying)
        for number, row in enumerate(paid):
            if number in taken:
                balance.put(MATCHED, row.fields["amount"])
            elif _any_between(times, row.time - rules.match_window, row.time + rules.match_window):
                reject(row, OTHER_ROW)
            else:
                reject(row, NO_EVENT)
    for _ in range(sum(map(len, purchases.values())) - len(purchase_rows)):
        balance.add(None)
        balance.put(UNREADABLE)
    return out


def _parse(log: Log, topic: str, schema: Schema, rules: RuleSettings, out: Answer) -> Iterator[_Parsed]:
    """Parses the messages of a topic; unreadable ones go to the dead letters, late ones are marked."""
    for partition, records in log.items():
        max_timestamp = None
        for record in records:
            origin = f"{topic}/{partition}/{record.offset}"
            stored = Fraction(record.stored, 1000) if record.stored > 0 else None
            try:
                row = _parse_record(record, origin, schema)
                if stored is not None and row.time > stored + 60:
                    raise _Unreadable(AHEAD)
            except _Unreadable as error:
                out.dead_letters[record.key, record.value, _headers(str(error), origin)] += 1
                continue
            row.late = max_timestamp is not None and row.time < max_timestamp - rules.allowed_lateness
            seen = row.time if stored is None else min(row.time, stored)  # at most the time at which Kafka stored it
            max_timestamp = seen if max_timestamp is None else max(max_timestamp, seen)
            yield row


def _parse_record(record: Record, origin: str, schema: Schema) -> _Parsed:
    if record.value is None:
        raise _Unreadable(NOT_A_ROW)
    try:
        text = record.value.decode()
        pairs = json.loads(
            text, parse_int=_whole, parse_float=_exact, parse_constant=_no_constant, object_pairs_hook=tuple
        )
        if type(pairs) is not tuple:
            raise ValueError
        if "\\u" in text:
            json.dumps(pairs, ensure_ascii=False, default=str).encode()  # fails for half a surrogate pair
        for name, value in pairs:  # of a repeated name the last value counts, but all must pass the test
            if name in schema and not schema[name](value):
                raise ValueError
        fields = dict(pairs)
        seconds = float(fields["timestamp"])
        if not schema.keys() <= fields.keys() or not YEAR_1 <= seconds < YEAR_10000:
            raise ValueError
        if schema is _PURCHASE and not _is_number(fields["amount"]):
            raise ValueError
        time = Fraction(round(seconds * 1_000_000), 1_000_000)
        return _Parsed(time, fields["user_id"], fields, record, origin)
    except (ValueError, KeyError, AttributeError, RecursionError, OverflowError):
        raise _Unreadable(NOT_A_ROW) from None


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_page(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, Decimal) and abs(float(value)) < math.inf


def _is_text(value: Any) -> bool:
    return type(value) is str


_PURCHASE: Schema = {"user_id": _is_whole, "page_id": _is_page, "timestamp": _is_number}
_EVENT: Schema = {**_PURCHASE, "event_type": _is_text}


def _whole(text: str) -> int | None:
    return int(text) if len(text) <= MAX_DIGITS else None


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # the exponent is too large
        return Decimal(float(text))


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _paired(clicks: list[_Parsed], rows: list[_Parsed], window: Fraction) -> list[tuple[int, int]]:
    """The pairs of a user's purchase events and purchase rows, by their numbers in the lists."""
    return reference_pairing.pair(
        [reference_pairing.Event(click.microseconds, click.fields["page_id"]) for click in clicks],
        [
            reference_pairing.Row(
                row.microseconds,
                row.fields["amount"],
                _amount_text(row),
                row.value,
                (row.record.offset, int(row.origin.split("/")[-2])),
                row.fields["page_id"],
            )
            for row in rows
        ],
        window * 1_000_000,
    )


def _amount_text(row: _Parsed) -> bytes:
    return bytes(msgspec.json.decode(row.value, type=dict[str, msgspec.Raw])["amount"])


def _rank(click: _Parsed, row: _Parsed) -> _Rank:
    """Of several last purchase events of a session the one with the greatest row counts."""
    same_page = click.fields["page_id"] == row.fields["page_id"]
    return same_page, -abs(click.time - row.time), row.time, row.fields["amount"], _amount_text(row)


def _any_between(times: list[Fraction], earliest: Fraction, latest: Fraction) -> bool:
    """Whether one of some times, which are in order, is in a range."""
    return bisect_left(times, earliest) < bisect_right(times, latest)


def _by_user(rows: Iterable[_Parsed]) -> dict[int, list[_Parsed]]:
    users: dict[int, list[_Parsed]] = {}
    for row in rows:
        users.setdefault(row.user, []).append(row)
    return users


def _sessions(rows: list[_Parsed], gap: Fraction) -> list[list[_Parsed]]:
    """One user's rows, cut wherever two neighbours are farther apart than the gap."""
    sessions: list[list[_Parsed]] = []
    for row in sorted(rows, key=lambda row: row.time):
        if not sessions or row.time - sessions[-1][-1].time > gap:
            sessions.append([])
        sessions[-1].append(row)
    return sessions


def _write_session(
    user: int, session: list[_Parsed], amounts: dict[int, _Rank], rules: RuleSettings, out: Answer
) -> None:
    identity = hashlib.blake2b(f"{user}/{session[0].microseconds}".encode(), digest_size=16).hexdigest()
    key = str(user).encode()
    with_amount = [row for row in session if id(row) in amounts]
    amount = max((row.time, amounts[id(row)]) for row in with_amount)[1][-1].decode() if with_amount else "0"
    for row in session:
        added = f',"session_id":"{identity}","amount":{amount}}}'
        out.visits[key, _own_text(row) + added.encode(), ()] += 1
    if len(session) > rules.max_events:
        suspicion = 1
    elif sum(row.fields["event_type"] == "page-view" for row in session) < rules.min_page_views:
        suspicion = 2
    else:
        return
    value = f'{{"session_id":"{identity}","user_id":{user},"type":{suspicion}}}'.encode()
    out.suspicious_visits[key, value, ()] += 1


def _own_text(row: _Parsed) -> bytes:
    """An event's JSON text without its closing brace and without fields that have the names of the added ones."""
    text = row.value.rstrip()
    if not {"session_id", "amount"} & row.fields.keys():
        return text[:-1]
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    for name in ("session_id", "amount"):
        fields.pop(name, None)
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(value) for name, value in fields.items())


def _rejected(row: _Parsed, reason: str) -> OutputRow:
    return str(row.user).encode(), row.record.value, _headers(reason, row.origin)


def _headers(reason: str, origin: str) -> tuple[tuple[str, bytes], ...]:
    topic, partition, offset = origin.rsplit("/", 2)
    pairs = ("reason", reason), ("topic", topic), ("partition", partition), ("offset", offset)
    return tuple((name, text.encode()) for name, text in pairs)
