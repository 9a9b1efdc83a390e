"""The reference: the expected outputs, computed in the slow and obvious way, over whole logs in memory.

It shares no code with the job, so that one can be compared with the other: `python -m dataflow verify` does so on real
topics, the tests do so on thousands of random logs. Times are exact fractions of a second.

How the messages of a topic become rows is a `Shape`. The default one is here; those of a mapping are in
`dataflow.tools.reference_mapping`.
"""

import hashlib
import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import msgspec

from dataflow.tools import reference_pairing, reference_sessions
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
    headers: Sequence[tuple[str, bytes | None]] = ()


Log = Mapping[int, Sequence[Record]]  # the messages of each partition, in order


@dataclass
class Answer:
    """The expected rows of each output topic, and how often each is expected. Fields are named like the outputs."""

    visits: Counter[OutputRow] = field(default_factory=Counter)
    suspicious_visits: Counter[OutputRow] = field(default_factory=Counter)
    late_events: Counter[OutputRow] = field(default_factory=Counter)
    dead_letters: Counter[OutputRow] = field(default_factory=Counter)
    unmatched_purchases: Counter[OutputRow] = field(default_factory=Counter)
    sessions: Counter[OutputRow] = field(default_factory=Counter)


@dataclass(frozen=True)
class RuleSettings:
    """The numbers in the rules; durations are in seconds."""

    session_gap: Fraction = Fraction(20)
    match_window: Fraction = Fraction(5)
    allowed_lateness: Fraction = Fraction(5)
    max_events: int = 5
    min_page_views: int = 1


class Origin(NamedTuple):
    """Where a row came from."""

    topic: str
    partition: int
    offset: int
    part: int | None = None  # of a message that holds several rows


@dataclass
class Row:
    """A readable row, an event or a purchase row."""

    time: Fraction  # Unix seconds, a whole number of microseconds
    user: str
    user_json: str  # the user's id as it came
    value: bytes  # what a visit is made of
    message: bytes | None  # what a dead letter holds
    page: int | str | None
    page_json: str | None  # as it came
    kind: str | None  # of an event; None: it is a purchase row
    amount: Decimal | int | None  # of a purchase row, or of a purchase event that tells it itself
    amount_text: bytes
    origin: Origin
    order: tuple[int, ...]  # tells rows that are equal byte for byte apart
    late: bool = False

    @property
    def microseconds(self) -> int:
        return int(self.time * 1_000_000)


@dataclass
class Unreadable:
    """A message, or a part of one, that is no row."""

    value: bytes | None
    reason: str
    origin: Origin
    is_purchase: bool  # as far as that can be told


class Shape(Protocol):
    """How the messages of some topics become rows."""

    @property
    def page_views(self) -> Collection[str]:
        """The kinds of events that are page views."""

    @property
    def purchases(self) -> Collection[str]:
        """The kinds of events that are purchases."""

    @property
    def added(self) -> tuple[str, str]:
        """Names of the fields that visits get: session id and amount."""

    def read(self, topic: str, partition: int, record: Record) -> Iterable[Row | Unreadable]:
        """The rows in a message, in order; none if the message is to be ignored."""

    def visited_at(self, visit: bytes) -> Fraction | None:
        """When the event of a visit happened, Unix seconds; None: the visit alone does not tell."""


# of a purchase event's amount: of its page, nearness, time, amount as number and as text
_Rank = tuple[bool, Fraction, Fraction, Decimal | int, bytes]


def answer(
    logs: Mapping[str, Log], rules: RuleSettings, shape: Shape | None = None, balance: Balance | None = None
) -> Answer:
    """The rows that the job has to write for the contents of its input topics, once all sessions are closed.

    Args:
        logs: the messages of each input topic.
        rules: the numbers in the rules.
        shape: how they become rows; by default those of `user-events` and `purchases`.
        balance: gets the places of the purchase rows.
    """
    out = Answer()
    balance = balance or Balance()
    shape = shape if shape is not None else DefaultShape()
    rows = [row for topic, log in logs.items() for row in _read(log, topic, shape, rules, out, balance)]
    clicks, purchase_rows = _by_user(rows, is_event=True), _by_user(rows, is_event=False)

    def reject(row: Row, reason: str) -> None:
        out.unmatched_purchases[_rejected(row, reason)] += 1
        balance.put(reason, row.amount or 0)

    for row in rows:
        if row.kind is None:
            balance.add(row.amount)
        if row.late and row.kind is None:
            reject(row, LATE)
        elif row.late:
            out.late_events[_rejected(row, LATE)] += 1
    for user in clicks.keys() | purchase_rows.keys():
        events = clicks.get(user, [])
        buying = [row for row in events if row.kind in shape.purchases and row.amount is None]
        paid = purchase_rows.get(user, [])
        pairs = _paired(buying, paid, rules.match_window)
        amounts = {id(buying[click]): _rank(buying[click], paid[row]) for click, row in pairs}
        amounts |= {id(row): _own_rank(row) for row in events if row.amount is not None}
        for session in _sessions(events, rules.session_gap):
            _write_session(user, session, amounts, rules, shape, out)
        taken = {row for _, row in pairs}
        times = sorted(click.time for click in buying)
        for number, row in enumerate(paid):
            if number in taken:
                balance.put(MATCHED, row.amount or 0)
            elif _any_between(times, row.time - rules.match_window, row.time + rules.match_window):
                reject(row, OTHER_ROW)
            else:
                reject(row, NO_EVENT)
    return out


def comparable(row: OutputRow, expected: Counter[OutputRow]) -> OutputRow:
    """A dead letter as the answer has it: without its reason, if that is one that the answer does not compute."""
    key, value, headers = row
    if row in expected or not headers or headers[0] == ("reason", AHEAD.encode()):
        return row
    return key, value, (("reason", NOT_A_ROW.encode()), *headers[1:])


def _read(log: Log, topic: str, shape: Shape, rules: RuleSettings, out: Answer, balance: Balance) -> list[Row]:
    """The readable rows of a topic, late ones marked; unreadable ones go to the dead letters."""
    rows = []
    for partition, records in log.items():
        max_timestamp = None
        for record in records:
            stored = Fraction(record.stored, 1000) if record.stored > 0 else None
            for row in shape.read(topic, partition, record):
                if isinstance(row, Row) and stored is not None and row.time > stored + 60:
                    row = Unreadable(row.message, AHEAD, row.origin, row.kind is None)
                if isinstance(row, Unreadable):
                    out.dead_letters[record.key, row.value, _headers(row.reason, row.origin)] += 1
                    if row.is_purchase:
                        balance.add(None)
                        balance.put(UNREADABLE)
                    continue
                row.late = max_timestamp is not None and row.time < max_timestamp - rules.allowed_lateness
                seen = row.time if stored is None else min(row.time, stored)  # at most when Kafka stored it
                max_timestamp = seen if max_timestamp is None else max(max_timestamp, seen)
                rows.append(row)
    return rows


# --- the default shape ---


class _NotARow(Exception):
    pass


Schema = Mapping[str, Callable[[Any], bool]]  # by field: the test that its values must pass


class DefaultShape:
    """Flat JSON with whole numbers as ids.

    Args:
        events_topic: name of the topic of the events; all others hold purchase rows.
    """

    page_views = ("page-view",)
    purchases = ("purchase",)
    added = ("session_id", "amount")

    def __init__(self, events_topic: str = "user-events") -> None:
        self._events_topic = events_topic

    def read(self, topic: str, partition: int, record: Record) -> Iterable[Row | Unreadable]:
        origin, is_event = Origin(topic, partition, record.offset), topic == self._events_topic
        try:
            yield _parse_record(record, origin, is_event)
        except _NotARow:
            yield Unreadable(record.value, NOT_A_ROW, origin, not is_event)

    def visited_at(self, visit: bytes) -> Fraction | None:
        return Fraction(json.loads(visit)["timestamp"])


def _parse_record(record: Record, origin: Origin, is_event: bool) -> Row:
    schema = _EVENT if is_event else _PURCHASE
    if record.value is None:
        raise _NotARow
    try:
        text = record.value.decode()
        pairs = json.loads(
            text, parse_int=_whole, parse_float=exact, parse_constant=_no_constant, object_pairs_hook=tuple
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
        if not is_event and not _is_number(fields["amount"]):
            raise ValueError
    except (ValueError, KeyError, AttributeError, RecursionError, OverflowError):
        raise _NotARow from None
    user = str(fields["user_id"])
    return Row(
        time=Fraction(round(seconds * 1_000_000), 1_000_000),
        user=user,
        user_json=user,
        value=record.value,
        message=record.value,
        page=fields["page_id"],
        page_json=str(fields["page_id"]),
        kind=fields["event_type"] if is_event else None,
        amount=None if is_event else fields["amount"],
        amount_text=b""
        if is_event
        else bytes(msgspec.json.decode(record.value, type=dict[str, msgspec.Raw])["amount"]),
        origin=origin,
        order=(record.offset, origin.partition),
    )


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


def exact(text: str) -> Decimal:
    """The number that a text says."""
    try:
        return Decimal(text)
    except InvalidOperation:  # the exponent is too large
        return Decimal(float(text))


def _no_constant(name: str) -> None:
    raise ValueError(name)


# --- the rules ---


def _paired(clicks: list[Row], rows: list[Row], window: Fraction) -> list[tuple[int, int]]:
    """The pairs of a user's purchase events and purchase rows, by their numbers in the lists."""
    pages = {page: number for number, page in enumerate({row.page for row in clicks + rows if row.page is not None})}

    def page_of(row: Row) -> int:  # a row without a page is of no event's page
        return pages[row.page] if row.page is not None else -1 - (row.kind is None)

    return reference_pairing.pair(
        [reference_pairing.Event(click.microseconds, page_of(click)) for click in clicks],
        [
            reference_pairing.Row(row.microseconds, row.amount, row.amount_text, row.value, row.order, page_of(row))
            for row in rows
        ],
        window * 1_000_000,
    )


def _rank(click: Row, row: Row) -> _Rank:
    """Of several last purchase events of a session the one with the greatest row counts."""
    same_page = click.page is not None and click.page == row.page
    return same_page, -abs(click.time - row.time), row.time, _known(row.amount), row.amount_text


def _own_rank(click: Row) -> _Rank:
    """An amount that an event tells itself counts like that of a row of its page and time."""
    return True, Fraction(0), click.time, _known(click.amount), click.amount_text


def _known(amount: Decimal | int | None) -> Decimal | int:
    assert amount is not None
    return amount


def _any_between(times: list[Fraction], earliest: Fraction, latest: Fraction) -> bool:
    """Whether one of some times, which are in order, is in a range."""
    return bisect_left(times, earliest) < bisect_right(times, latest)


def _by_user(rows: Iterable[Row], is_event: bool) -> dict[str, list[Row]]:
    """The rows on time of one kind, by user."""
    users: dict[str, list[Row]] = {}
    for row in rows:
        if not row.late and (row.kind is not None) == is_event:
            users.setdefault(row.user, []).append(row)
    return users


def _sessions(rows: list[Row], gap: Fraction) -> list[list[Row]]:
    """One user's rows, cut wherever two neighbours are farther apart than the gap."""
    sessions: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.time, row.value, row.order)):
        if not sessions or row.time - sessions[-1][-1].time > gap:
            sessions.append([])
        sessions[-1].append(row)
    return sessions


def _write_session(
    user: str, session: list[Row], amounts: dict[int, _Rank], rules: RuleSettings, shape: Shape, out: Answer
) -> None:
    identity = hashlib.blake2b(f"{user}/{session[0].microseconds}".encode(), digest_size=16).hexdigest()
    key = user.encode()
    with_amount = [row for row in session if id(row) in amounts]
    amount = max((row.time, amounts[id(row)]) for row in with_amount)[1][-1].decode() if with_amount else "0"
    names = [msgspec.json.encode(name).decode() for name in shape.added]
    for row in session:
        added = f',{names[0]}:"{identity}",{names[1]}:{amount}}}'
        out.visits[key, _own_text(row, shape.added) + added.encode(), ()] += 1
    suspicion = None
    if len(session) > rules.max_events:
        suspicion = 1
    elif sum(row.kind in shape.page_views for row in session) < rules.min_page_views:
        suspicion = 2
    in_order = sorted(session, key=lambda row: (row.time, row.value))
    user_json = in_order[0].user_json
    if suspicion:
        value = f'{{"session_id":"{identity}","user_id":{user_json},"type":{suspicion}}}'.encode()
        out.suspicious_visits[key, value, ()] += 1
    summary = reference_sessions.row(
        identity,
        user_json,
        [reference_sessions.Event(each.time, str(each.kind), each.page_json) for each in in_order],
        amount,
        [amounts[id(each)][-2] for each in with_amount],
        suspicion,
        page_views=shape.page_views,
        purchases=shape.purchases,
    )
    out.sessions[key, summary.encode(), ()] += 1


def _own_text(row: Row, added: Collection[str]) -> bytes:
    """An event's JSON text without its closing brace; fields that have the names of the added ones are renamed."""
    text = row.value.rstrip()
    fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if not fields.keys() & set(added):
        return text[:-1]
    names = set(fields)
    members = []
    for name, value in fields.items():
        if name in added:
            while name in added or name in names:
                name = f"original_{name}"
            names.add(name)
        members.append(msgspec.json.encode(name) + b":" + bytes(value))
    return b"{" + b",".join(members)


def _rejected(row: Row, reason: str) -> OutputRow:
    return row.user.encode(), row.value, _headers(reason, row.origin)


def _headers(reason: str, origin: Origin) -> tuple[tuple[str, bytes], ...]:
    pairs = [("reason", reason), ("topic", origin.topic), ("partition", origin.partition), ("offset", origin.offset)]
    if origin.part is not None:
        pairs.append(("part", origin.part))
    return tuple((name, str(text).encode()) for name, text in pairs)
