"""Decodes messages of any shape into events and purchase rows, as a mapping says."""

import base64
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, Protocol

import msgspec

from dataflow.clickstream.dead_letters import DECODE_ERRORS, no_value, unreadable
from dataflow.clickstream.interning import Interned
from dataflow.clickstream.mapping import paths
from dataflow.clickstream.mapping.paths import BLANKS, Document, Json, Path, Step, open_json, text_of
from dataflow.clickstream.mapping.spec import FIELDS, Events, Mapping, Output, Role
from dataflow.clickstream.mapping.times import parse_time
from dataflow.clickstream.records import NUMBER_PAGE, PLAIN, TEXT_USER, Event, InputRecord, Purchase
from dataflow.streaming.partition_reader import Ignored, NotTakenApart, Unreadable
from dataflow.streaming.partition_reader import Message as PolledMessage
from dataflow.streaming.position import PART_LIMIT
from dataflow.streaming.time import Time

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)  # of JSON
_MAX_DIGITS = 400
_MAX_USER = 1_000  # characters of an id; it is a Kafka key, and a part of every row
_CLOSING_BRACE, _QUOTE = b"}", ord('"')
_encode = msgspec.json.encode
NO_USER = "user"  # category of a problem

_users: Interned[str, bytes] = Interned(str.encode, 100_000)
_texts: Interned[str, str] = Interned(str, 10_000)  # kinds and pages


class _Problem(Exception):
    """One thing that is wrong with a message; its category is that of dead letters."""

    def __init__(self, text: str, kind: str = "fields") -> None:
        super().__init__(text)
        self.kind = kind


class _Found(NamedTuple):
    """What a path led to."""

    text: str
    is_text: bool  # in the message; otherwise a number or the like
    unit: str = ""  # of a time, where the record itself tells


class KafkaMessage(PolledMessage, Protocol):
    """What is needed of `confluent_kafka.Message`."""

    def headers(self) -> Any: ...
    def topic(self) -> str: ...


_NOTHING = Document(b"null")


class Part:
    """One event of a message that holds several. It stands for a message that holds this one alone.

    Args:
        message: the whole.
        value: what a dead letter holds.
        index: which of its events.
        whole: its JSON.
        item: the event's own JSON.
        alone: the text of a message with this event alone, which decodes into the same.
        problem: why there are no such parts, and this one is the message.
    """

    __slots__ = ("_index", "_message", "_value", "alone", "item", "problem", "whole")

    def __init__(
        self,
        message: KafkaMessage,
        value: bytes | None,
        index: int = 0,
        whole: Document = _NOTHING,
        item: Document = _NOTHING,
        alone: bytes = b"",
        problem: Exception | None = None,
    ) -> None:
        self._message = message
        self._index = index
        self._value = value
        self.whole = whole
        self.item = item
        self.alone = alone
        self.problem = problem

    def key(self) -> bytes | None:
        return self._message.key()

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._message.offset() * PART_LIMIT + self._index

    def timestamp(self) -> tuple[int, int]:
        return self._message.timestamp()

    def headers(self) -> Any:
        return self._message.headers()

    def topic(self) -> str:
        return self._message.topic()


class MappedDecoder:
    """Decodes the messages of one topic.

    Of a topic that plays both roles, a message is a purchase row if `only` of `[purchases]` names its kind, or, without
    `only`, if it has no kind as an event.

    Args:
        mapping: says where the fields are.
        topic: its name.
    """

    def __init__(self, mapping: Mapping, topic: str) -> None:
        events, purchases = mapping.events, mapping.purchases
        self._events = _EventFields(events, mapping.output) if topic in events.topic_names else None
        self._purchases = _PurchaseFields(purchases) if purchases and topic in purchases.topic_names else None
        role = mapping.role_of(topic)
        self._function = role.decode_function
        self._each = role.each
        self._each_steps = paths.parse(role.each).steps if role.each not in ("", "[]") else ()
        self._ignores_no_value = role.no_value == "ignore"

    @property
    def takes_apart(self) -> bool:
        """Whether a message may hold several events."""
        return bool(self._each)

    def decode(self, value: bytes | None, position: int, message: KafkaMessage) -> InputRecord:
        """Decodes a message, or a part of one. Raises Unreadable, or Ignored."""
        if not isinstance(message, Part):
            text, document = self._open(value, message)
            whole = document
        elif message.problem is not None:
            raise message.problem
        else:
            text, document, whole = message.alone, message.item, message.whole
        if not isinstance(document.root, dict):
            raise Unreadable(self._not_an_event(), "fields")
        record = _Record(document, whole, message, (whole if self._each_steps else document).root)
        return self._role(record).row(record, text, position)

    def parts(self, message: KafkaMessage) -> Sequence[Part]:
        """The events of a message, each as a message of its own; the message itself if it cannot be taken apart."""
        value = message.value()
        try:
            text, whole = self._open(value, message)
            node = whole.root if self._each == "[]" else _node(whole, self._each_steps)
            if node is whole.root and isinstance(node, dict):
                node = [msgspec.Raw(text)]  # one event alone, as in the value of a part
            if not isinstance(node, list) or len(node) > PART_LIMIT:
                raise Unreadable(self._not_an_event(), "fields")
        except Unreadable as error:
            return [Part(message, value, problem=NotTakenApart(str(error), error.kind))]
        except Ignored as ignored:
            return [Part(message, value, problem=ignored)]
        parts = []
        for index, json in enumerate(node):
            try:
                alone, item = _opened(bytes(json))
            except Unreadable:
                alone, item = b"", _NOTHING
            if not isinstance(item.root, dict):
                alone = bytes(json)
            if self._each_steps:
                alone = _with_one(whole.root, self._each_steps, json)
            parts.append(Part(message, alone if self._function is None else value, index, whole, item, alone))
        return parts

    def _not_an_event(self) -> str:
        if not self._each:
            return "not a JSON object"
        if self._each == "[]":
            return f"neither a JSON object nor an array of at most {PART_LIMIT:,}"
        return f"{self._each}: not an array of at most {PART_LIMIT:,} JSON objects"

    def _open(self, value: bytes | None, message: KafkaMessage) -> tuple[bytes, Document]:
        if value is None and self._ignores_no_value:
            raise Ignored
        if self._function is not None:
            return _opened(_called(self._function, message))
        if value is None:
            raise no_value()
        return _opened(value)

    def _role(self, record: "_Record") -> "_EventFields | _PurchaseFields":
        if self._purchases is None:
            assert self._events is not None
            return self._events
        if self._events is None:
            return self._purchases
        if self._purchases.only:
            return self._purchases if self._purchases.kind(record) in self._purchases.only else self._events
        return self._events if self._events.kind(record) is not None else self._purchases


class _Record:
    """What paths are followed in.

    Args:
        document: the event's own JSON.
        whole: the JSON of the message that it is in.
        message: the message.
        fields: of the object that a visit is made of, by name.
    """

    __slots__ = ("_document", "_message", "_whole", "fields")

    def __init__(self, document: Document, whole: Document, message: KafkaMessage, fields: Any) -> None:
        self._document = document
        self._whole = whole
        self._message = message
        self.fields = fields

    def first(self, found_by: Sequence[Path]) -> _Found | None:
        """What the first path leads to that leads to a text or a number; None if none does."""
        for path in found_by:
            found = self._find(path)
            if found is not None and found.text:
                return found
        return None

    def _find(self, path: Path) -> _Found | None:
        root, steps = path.root, path.steps
        if root == paths.EVENT:
            return _leaf(self._document.find(steps))
        if root == paths.CONSTANT:
            return _Found(str(steps[0]), True)
        if root == paths.TIMESTAMP:
            stored = self._message.timestamp()[1]
            return _Found(str(stored), False, "ms") if stored > 0 else None
        if root == paths.MESSAGE:
            return _leaf(self._whole.find(steps))
        if root == paths.HEADER:
            headers = dict(self._message.headers() or ())
            return _in_bytes(headers.get(str(steps[0])), steps[1:])
        return _in_bytes(self._message.key(), steps)


def _leaf(json: msgspec.Raw | None) -> _Found | None:
    if json is None:
        return None
    text = text_of(json)
    return _Found(text, bytes(json)[0] == _QUOTE) if text is not None else None


def _in_bytes(data: bytes | None, steps: tuple[Step, ...]) -> _Found | None:
    """A key or a header: its text, or what a path leads to in its JSON."""
    if data is None:
        return None
    try:
        text = data.decode()  # also for the JSON decoder, which does not check what it skips
        return _leaf(Document(data).find(steps)) if steps else _Found(text, True)
    except DECODE_ERRORS:
        return None


class _Fields:
    """What events and purchase rows have in common.

    Args:
        role: the table of the mapping.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._paths = {name: role.paths(name) for name in FIELDS}
        self._only, self._ignored = frozenset(role.only), frozenset(role.ignore)
        self._anonymous = frozenset(role.anonymous)
        self._zone = role.zone

    @property
    def only(self) -> frozenset[str]:
        """The kinds that are taken; empty: all."""
        return self._only

    def kind(self, record: _Record) -> str | None:
        found = record.first(self._paths["type"])
        return found.text if found is not None else None

    def kind_to_take(self, record: _Record) -> str | None:
        """The kind, if the record has one. Raises Ignored for a kind that the mapping leaves out."""
        kind = self.kind(record)
        if kind in self._ignored or (self._only and kind not in self._only):
            raise Ignored
        return kind

    def user(self, record: _Record) -> _Found:
        found = record.first(self._paths["user"])
        if found is None:
            raise _Problem(f"no user: {self.absent('user')}", NO_USER)
        if found.text in self._anonymous:
            raise _Problem(f"no user: {found.text!r} is anonymous", NO_USER)
        if len(found.text) > _MAX_USER or "\0" in found.text:
            raise _Problem(f"user: longer than {_MAX_USER} characters, or with a zero byte")
        return found

    def time(self, record: _Record) -> Time:
        found = record.first(self._paths["time"])
        if found is None:
            raise _Problem(f"no time: {self.absent('time')}", "time")
        try:
            return parse_time(found.text, found.unit or self._role.time_unit, self._zone)
        except ValueError as error:
            raise _Problem(f"time: {error}", "time") from None

    def page(self, record: _Record) -> _Found | None:
        return record.first(self._paths["page"])

    def amount(self, record: _Record) -> bytes | None:
        """The text of the number, as it was written; None: there is none."""
        found = record.first(self._paths["amount"])
        if found is None:
            return None
        text, decimals = found.text.strip(), self._role.amount_decimals
        if self._role.amount_encoding == "base64":
            try:
                if not found.is_text:
                    raise ValueError(text)
                text = str(int.from_bytes(base64.b64decode(text, validate=True), "big", signed=True))
            except ValueError:
                raise _Problem(f"amount: not base64: {text[:50]!r}", "amount") from None
        if not _NUMBER.fullmatch(text):
            raise _Problem(f"amount: not a number: {text[:50]!r}", "amount")
        if len(text) > _MAX_DIGITS or abs(float(text)) == float("inf"):
            raise _Problem("amount: out of range", "amount")
        return (_shifted(text, decimals) if decimals else text).encode()

    def absent(self, field: str) -> str:
        """That none of a field's paths leads to anything."""
        return f"none of {', '.join(path.text for path in self._paths[field])}"

    def collect(self, record: _Record, *fields: Callable[[_Record], Any]) -> list[Any]:
        """The values of fields. Raises Unreadable with all that is wrong with them, or Ignored."""
        values, problems = [], []
        for field in fields:
            try:
                values.append(field(record))
            except _Problem as problem:
                problems.append(problem)
        if problems:
            if self._role.no_user == "ignore" and any(problem.kind == NO_USER for problem in problems):
                raise Ignored
            kind = problems[0].kind if problems[0].kind != NO_USER else "fields"
            raise Unreadable("; ".join(map(str, problems)), kind)
        return values


class _EventFields(_Fields):
    """Makes events of records."""

    def __init__(self, role: Events, output: Output) -> None:
        super().__init__(role)
        self._purchases = frozenset(role.purchases)
        self._added = output.session_id, output.amount

    def row(self, record: _Record, text: bytes, position: int) -> Event:
        kind = self.kind_to_take(record)
        fields: list[Callable[[_Record], Any]] = [self.user, self.time, self._needed_kind]
        if kind in self._purchases:
            fields.append(self.amount)
        user, time, kind, *amount = self.collect(record, *fields)
        page = self.page(record)
        form = TEXT_USER if user.is_text else 0
        if page is not None and not page.is_text:
            form |= NUMBER_PAGE
        if text.endswith(_CLOSING_BRACE) and not any(name in record.fields for name in self._added):
            form |= PLAIN
        return Event(
            time,
            _users[user.text],
            text,
            position,
            _texts[page.text] if page is not None else "",
            _texts[kind],
            form,
            amount[0] or b"" if amount else b"",
        )

    def _needed_kind(self, record: _Record) -> str:
        kind = self.kind(record)
        if kind is None:
            raise _Problem(f"no type: {self.absent('type')}")
        return kind


class _PurchaseFields(_Fields):
    """Makes purchase rows of records."""

    def row(self, record: _Record, text: bytes, position: int) -> Purchase:
        self.kind_to_take(record)
        user, time, amount = self.collect(record, self.user, self.time, self._needed_amount)
        page = self.page(record)
        return Purchase(
            time, _users[user.text], text, position, _texts[page.text] if page is not None else None, amount
        )

    def _needed_amount(self, record: _Record) -> bytes:
        amount = self.amount(record)
        if amount is None:
            raise _Problem(f"no amount: {self.absent('amount')}", "amount")
        return amount


def _shifted(text: str, decimals: int) -> str:
    """A number with its point so many digits further left, exactly, and without an exponent."""
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        exponent = "n"  # too large for a Decimal
    if isinstance(exponent, str) or abs(exponent) > _MAX_DIGITS:
        raise _Problem("amount: out of range", "amount")
    return f"{Decimal((sign, digits, exponent - decimals)):f}"


def _called(function: Callable[[Any], Any], message: KafkaMessage) -> bytes:
    try:
        return _encode(function(message))
    except Exception as error:  # it is the user's own, and must not stop the job
        reason = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
        raise Unreadable(reason, "json") from None


def _opened(value: bytes) -> tuple[bytes, Document]:
    """The JSON object or array in a message, and where to look in it. Raises Unreadable."""
    try:
        if not value.isascii():
            value.decode()  # the JSON decoder does not check what it skips
        document = Document(value)
        if document.root is None:
            msgspec.json.decode(value, type=msgspec.Raw)  # raises if it is no JSON
    except DECODE_ERRORS as error:
        raise unreadable(value, error) from None
    if (stripped := value.lstrip(BLANKS))[:1] == b'"':  # a JSON text in a JSON text
        value = (text_of(stripped) or "").encode()
    return value, document


def _node(document: Document, steps: tuple[Step, ...]) -> Any:
    found = document.find(steps)
    try:
        return open_json(found) if found is not None else None
    except DECODE_ERRORS:
        return None


def _with_one(node: Any, steps: tuple[Step, ...], item: Json) -> bytes:
    """The JSON of an object in which the array at a path holds one item alone."""
    if not steps:
        return b"[%b]" % bytes(item)
    name, *rest = steps
    inner = _with_one(open_json(node[name]), tuple(rest), item)
    return b"{%b}" % b",".join(
        _encode(field) + b":" + (inner if field == name else bytes(json)) for field, json in node.items()
    )
