"""The messages of a mapping as the reference reads them: with the standard library, in the slow and obvious way.

The parsed mapping file is all that it shares with the job. docs/mapping.md has the rules.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from dataflow.clickstream.mapping.paths import CONSTANT, HEADER, KEY, MESSAGE, TIMESTAMP, Path, Where
from dataflow.clickstream.mapping.spec import Mapping, Role
from dataflow.tools.reference import NOT_A_ROW, YEAR_1, YEAR_10000, Origin, Record, Row, Unreadable, exact
from dataflow.tools.reference_sessions import page_json

MAX_PARTS = 4_096  # events of a message
MAX_USER = 1_000  # characters
MAX_NUMBER = 400  # characters of an amount, digits before and after its point
MAX_TIME = 40  # characters of a time that is a number

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # of a second
_ZERO = datetime(1970, 1, 1)  # noqa: DTZ001, local times are compared with it too


class Number(str):
    """A number of a message: its text."""


Json = Any  # dict, list, str, Number, bool or None


class _Ignored(Exception):
    pass


class _Wrong(Exception):
    """One thing that is wrong with a message."""


class _NoUser(_Wrong):
    pass


@dataclass
class _Part:
    """An event, or a purchase row, before it is read as one.

    Args:
        fields: its own object.
        whole: the message that it was in.
        text: what a visit is made of.
        message: what a dead letter holds.
        number: of the message's parts; None: it is the message.
    """

    fields: Json
    whole: Json
    text: str
    message: bytes | None
    number: int | None


class _Found(NamedTuple):
    text: str
    is_text: bool
    unit: str = ""


class MappedShape:
    """The `Shape` that a mapping describes."""

    def __init__(self, mapping: Mapping) -> None:
        self.page_views, self.purchases = mapping.events.page_views, mapping.events.purchases
        self.added = mapping.output.session_id, mapping.output.amount
        self._mapping = mapping
        paid = mapping.purchases.topic_names if mapping.purchases is not None else ()
        self._topics = list(dict.fromkeys((*mapping.events.topic_names, *paid)))

    def read(self, topic: str, partition: int, record: Record) -> Iterable[Row | Unreadable]:
        mapping = self._mapping
        of_events = mapping.events if topic in mapping.events.topic_names else None
        of_purchases = mapping.purchases
        if of_purchases is not None and topic not in of_purchases.topic_names:
            of_purchases = None
        role = of_events or of_purchases
        assert role is not None, topic
        whole = Origin(topic, partition, record.offset)
        try:
            parts = list(_parts(role, topic, partition, record))
        except _Ignored:
            return
        except _Wrong as problem:
            yield Unreadable(record.value, str(problem), whole, of_events is None)
            return
        for part in parts:
            origin, is_purchase = whole._replace(part=part.number), of_events is None
            try:
                if not isinstance(part.fields, dict):
                    raise _Wrong(_not_an_event(role))
                reader = _Reader(record, part)
                role_of_part = _role_of_part(reader, of_events, of_purchases)
                is_purchase = role_of_part is of_purchases
                yield self._row(reader, role_of_part, is_purchase, origin)
            except _Ignored:
                continue
            except _Wrong as problem:
                yield Unreadable(part.message, str(problem), origin, is_purchase)

    def visited_at(self, visit: bytes) -> Fraction | None:
        role = self._mapping.events
        text, whole = _opened(visit.decode())
        fields = whole
        if role.each not in ("", "[]"):
            (item,) = _items_at(text, [str(step) for step in role.paths("each")[0].steps])
            _, fields = _opened(item)
        reader = _Reader(Record(None, visit, 0, 0), _Part(fields, whole, text, visit, None))
        try:
            return _time(reader, role) if not any(path.root.startswith("@") for path in role.paths("time")) else None
        except _Wrong:
            return None

    def _row(self, reader: "_Reader", role: Role, is_purchase: bool, origin: Origin) -> Row:
        part = reader.part
        kind = reader.text(role, "type")
        if kind in role.ignore or (role.only and kind not in role.only):
            raise _Ignored
        needs_kind = not is_purchase
        has_amount = is_purchase or kind in self.purchases
        user, time, amount = None, None, None
        problems: list[_Wrong] = []
        try:
            user = _user(reader, role)
        except _NoUser as problem:
            if role.no_user == "ignore":
                raise _Ignored from None
            problems.append(problem)
        except _Wrong as problem:
            problems.append(problem)
        try:
            time = _time(reader, role)
        except _Wrong as problem:
            problems.append(problem)
        if needs_kind and kind is None:
            problems.append(_nothing("type", role))
        try:
            amount = _amount(reader, role) if has_amount else None
            if is_purchase and amount is None:
                raise _nothing("amount", role)
        except _Wrong as problem:
            problems.append(problem)
        if problems:
            texts = list(map(str, problems))
            raise _Wrong(NOT_A_ROW if NOT_A_ROW in texts else "; ".join(texts))
        assert user is not None and time is not None  # one of the problems otherwise
        page = reader.find(role, "page")
        place = origin.offset if origin.part is None else origin.offset * MAX_PARTS + origin.part
        return Row(
            time=time,
            user=user.text,
            user_json=json.dumps(user.text, ensure_ascii=False) if user.is_text else user.text,
            value=part.text.encode(),
            message=part.message,
            page=page.text if page is not None else None,
            page_json=page_json(page.text, page.is_text) if page is not None else None,
            kind=None if is_purchase else kind,
            amount=exact(amount) if amount is not None else None,
            amount_text=amount.encode() if amount is not None else b"",
            origin=origin,
            order=(place, self._topics.index(origin.topic), origin.partition),
        )


# --- what a message holds ---


def _parts(role: Role, topic: str, partition: int, record: Record) -> Iterator[_Part]:
    """The events of a message. Raises _Wrong or _Ignored for the message as a whole."""
    if record.value is None and role.no_value == "ignore":
        raise _Ignored
    if role.decode_function is not None:
        try:
            decoded = role.decode_function(_Message(record, topic, partition))
            text = msgspec.json.encode(decoded).decode()
        except Exception as error:
            raise _Wrong(f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()) from None
    elif record.value is None:
        raise _Wrong("the message has no value")
    else:
        try:
            text = record.value.decode()
        except UnicodeDecodeError:
            raise _Wrong(NOT_A_ROW) from None
    text, whole = _opened(text)
    if not role.each:
        yield _Part(whole, whole, text, record.value, None)
        return
    names = [] if role.each == "[]" else list(map(str, role.paths("each")[0].steps))
    if not names and isinstance(whole, dict):
        items = [text]
    else:
        node = whole
        for name in names:
            node = _inside(node.get(name)) if isinstance(node, dict) else None
        if not isinstance(node, list) or len(node) > MAX_PARTS:
            raise _Wrong(_not_an_event(role))
        items = _items_at(text, names)
    for number, item in enumerate(items):
        try:
            inner, fields = _opened(item)
        except _Wrong:
            inner, fields = item, None
        if not isinstance(fields, dict):
            inner = item
        alone = _with_one(text, names, item) if names else inner
        message = alone.encode() if role.decode_function is None else record.value
        yield _Part(fields, whole, alone, message, number)


class _Message:
    """What a function of the user's own is called with."""

    def __init__(self, record: Record, topic: str, partition: int) -> None:
        self._record, self._topic, self._partition = record, topic, partition

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(self._record.headers)

    def timestamp(self) -> tuple[int, int]:
        return (1, self._record.stored) if self._record.stored else (0, -1)

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._record.offset


def _not_an_event(role: Role) -> str:
    if not role.each:
        return "not a JSON object"
    if role.each == "[]":
        return f"neither a JSON object nor an array of at most {MAX_PARTS:,}"
    return f"{role.each}: not an array of at most {MAX_PARTS:,} JSON objects"


def _role_of_part(reader: "_Reader", of_events: Role | None, of_purchases: Role | None) -> Role:
    if of_events is None or of_purchases is None:
        role = of_events or of_purchases
        assert role is not None
        return role
    if of_purchases.only:
        return of_purchases if reader.text(of_purchases, "type") in of_purchases.only else of_events
    return of_events if reader.text(of_events, "type") is not None else of_purchases


# --- JSON, of which numbers and values keep their texts ---


def _loaded(text: str) -> Json:
    """What a JSON text says. Raises ValueError or RecursionError."""
    value = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair
    return value


def _refuse(name: str) -> None:
    raise ValueError(name)


def _opened(text: str) -> tuple[str, Json]:
    """A JSON text and what it says; of a JSON text in a JSON text, the inner one. Raises _Wrong if it is no JSON."""
    try:
        value = _loaded(text)
        if type(value) is str:
            text, value = value, _loaded(value)
    except (ValueError, RecursionError):
        raise _Wrong(NOT_A_ROW) from None
    return text, value


def _inside(value: Json) -> Json:
    """An object or an array, also one that a text holds; None: it is neither."""
    if type(value) is str:
        try:
            value = _loaded(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list) else None


def _plain(value: Json) -> str | None:
    """The text of a text, a number, true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _raw(text: str) -> dict[str, str] | list[str]:
    """The members of an object, or the items of an array, each with its own JSON text."""
    decoder = json.JSONDecoder()
    blank = re.compile(r"[ \t\n\r]*")

    def skip(at: int) -> int:
        found = blank.match(text, at)
        assert found is not None
        return found.end()

    at = skip(0)
    is_object = text[at] == "{"
    members: dict[str, str] = {}
    items: list[str] = []
    at = skip(at + 1)
    while text[at] not in "}]":
        name = ""
        if is_object:
            name, at = decoder.raw_decode(text, at)
            at = skip(skip(at) + 1)
        _, end = decoder.raw_decode(text, at)
        members[name] = text[at:end]
        items.append(text[at:end])
        at = skip(end)
        if text[at] == ",":
            at = skip(at + 1)
    return members if is_object else items


def _items_at(text: str, names: Sequence[str]) -> list[str]:
    """The JSON texts of the items of the array that a path leads to."""
    for name in names:
        members = _raw(text)
        assert isinstance(members, dict)
        text, _ = _opened(members[name])
    items = _raw(text)
    assert isinstance(items, list)
    return items


def _with_one(text: str, names: Sequence[str], item: str) -> str:
    """The JSON text of an object in which the array at a path holds one item alone."""
    if not names:
        return f"[{item}]"
    members = _raw(text)
    assert isinstance(members, dict)
    inner, _ = _opened(members[names[0]])
    members[names[0]] = _with_one(inner, names[1:], item)
    encoded = (msgspec.json.encode(name).decode() + ":" + value for name, value in members.items())
    return "{" + ",".join(encoded) + "}"


# --- paths ---


class _Reader:
    """Follows paths in an event and in the record around it."""

    def __init__(self, record: Record, part: _Part) -> None:
        self.part = part
        self._record = record

    def find(self, role: Role, field: str) -> _Found | None:
        """What the first path leads to that leads to something."""
        for path in role.paths(field):
            found = self._follow(path)
            if found is not None and found.text != "":
                return found
        return None

    def text(self, role: Role, field: str) -> str | None:
        found = self.find(role, field)
        return found.text if found is not None else None

    def _follow(self, path: Path) -> _Found | None:
        if path.root == CONSTANT:
            return _Found(str(path.steps[0]), True)
        if path.root == TIMESTAMP:
            return _Found(str(self._record.stored), False, "ms") if self._record.stored > 0 else None
        if path.root == KEY:
            return _in_bytes(self._record.key, path.steps)
        if path.root == HEADER:
            return _in_bytes(dict(self._record.headers).get(str(path.steps[0])), path.steps[1:])
        return _at(self.part.whole if path.root == MESSAGE else self.part.fields, path.steps)


def _in_bytes(data: bytes | None, steps: Sequence[Any]) -> _Found | None:
    try:
        text = data.decode() if data is not None else None
    except UnicodeDecodeError:
        return None
    if text is None or not steps:
        return _Found(text, True) if text is not None else None
    try:
        return _at(_loaded(text), steps)
    except (ValueError, RecursionError):
        return None


def _at(value: Json, steps: Sequence[Any]) -> _Found | None:
    for step in steps:
        value = _step(_inside(value), step)
    text = _plain(value)
    return _Found(text, type(value) is str) if text is not None else None


def _step(node: Json, step: Any) -> Json:
    if isinstance(node, dict):
        return node.get(step) if isinstance(step, str) else None
    if not isinstance(node, list) or isinstance(step, str):
        return None
    if isinstance(step, Where):
        for item in node:
            fields = _inside(item)
            if isinstance(fields, dict) and _plain(fields.get(step.name)) == step.text:
                return item
        return None
    return node[step] if -len(node) <= step < len(node) else None


# --- fields ---


def _nothing(field: str, role: Role) -> _Wrong:
    return _Wrong(f"no {field}: none of {', '.join(path.text for path in role.paths(field))}")


def _user(reader: _Reader, role: Role) -> _Found:
    found = reader.find(role, "user")
    if found is None:
        raise _NoUser(str(_nothing("user", role)))
    if found.text in role.anonymous:
        raise _NoUser(f"no user: {found.text!r} is anonymous")
    if len(found.text) > MAX_USER or "\0" in found.text:
        raise _Wrong(f"user: longer than {MAX_USER} characters, or with a zero byte")
    return found


def _time(reader: _Reader, role: Role) -> Fraction:
    found = reader.find(role, "time")
    if found is None:
        raise _nothing("time", role)
    try:
        time = time_of(found.text, found.unit or role.time_unit, role)
    except ValueError:
        raise _Wrong(NOT_A_ROW) from None
    return time


def time_of(text: str, unit: str, role: Role) -> Fraction:
    """A time in Unix seconds, to the microsecond; halves are rounded to the even one. Raises ValueError."""
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", text) and len(text) <= MAX_TIME:
        number = Fraction(text)
        size = abs(number)
        told = "s" if size < 10**11 else "ms" if size < 10**14 else "us" if size < 10**17 else "ns"
        seconds = number / _UNITS[unit or told]
    else:
        seconds = _of_iso(text, role)
    seconds = Fraction(round(seconds * 1_000_000), 1_000_000)
    if not YEAR_1 <= seconds < YEAR_10000:
        raise ValueError
    return seconds


_ISO = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(:([0-9]{2})([.,]([0-9]{1,30}))?)?"  # date and time
    r"( ?(Z|z|UTC|[+-][0-9]{2}(:?[0-9]{2})?))?"  # offset
)


def _of_iso(text: str, role: Role) -> Fraction:
    found = re.fullmatch(_ISO, text)
    if found is None:
        raise ValueError
    second = int(found[5] or 0)
    is_leap = second == 60  # it counts as the second after
    day = date.fromisoformat(found[1])
    local = datetime(day.year, day.month, day.day, int(found[2]), int(found[3]), 59 if is_leap else second)  # noqa: DTZ001
    offset = found[9]
    if offset in ("Z", "z", "UTC"):
        ahead = timedelta(0)
    elif offset:
        ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:].lstrip(":") or 0))
        if ahead >= timedelta(days=1):
            raise ValueError
        if offset[0] == "-":
            ahead = -ahead
    else:
        ahead = local.replace(tzinfo=role.zone).utcoffset() or timedelta(0)
    seconds = (local - _ZERO) // timedelta(seconds=1) + is_leap - ahead // timedelta(seconds=1)
    return seconds + Fraction(f"0.{found[7] or 0}")


def _amount(reader: _Reader, role: Role) -> str | None:
    """The text that visits carry; None: there is no amount."""
    found = reader.find(role, "amount")
    if found is None:
        return None
    text = found.text.strip()
    if role.amount_encoding == "base64":
        try:
            if not found.is_text:
                raise ValueError
            text = str(int.from_bytes(base64.b64decode(text, validate=True), "big", signed=True))
        except ValueError:
            raise _Wrong(f"amount: not base64: {text[:50]!r}") from None
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        raise _Wrong(f"amount: not a number: {text[:50]!r}")
    if len(text) > MAX_NUMBER or abs(float(text)) == float("inf"):
        raise _Wrong("amount: out of range")
    return _shifted(text, role.amount_decimals) if role.amount_decimals else text


def _shifted(text: str, decimals: int) -> str:
    """A number with its point so many digits further left, written without an exponent."""
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        raise _Wrong("amount: out of range") from None
    assert isinstance(exponent, int)
    if abs(exponent) > MAX_NUMBER:
        raise _Wrong("amount: out of range")
    exponent -= decimals
    whole = "".join(map(str, digits))
    if exponent >= 0:
        number = whole + "0" * exponent if whole.strip("0") else "0"
    else:
        whole = whole.rjust(1 - exponent, "0")
        number = f"{whole[:exponent]}.{whole[exponent:]}"
    return ("-" if sign else "") + number
