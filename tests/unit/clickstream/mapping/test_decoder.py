"""Messages of any shape, and the events and purchase rows that a mapping makes of them."""

import json
import sys
from types import ModuleType
from typing import Any

import msgspec
import pytest

from dataflow.clickstream.mapping.decoder import MappedDecoder
from dataflow.clickstream.mapping.spec import parse
from dataflow.clickstream.records import NUMBER_PAGE, PLAIN, TEXT_USER, Event, Purchase
from dataflow.streaming.partition_reader import Ignored, NotTakenApart, Unreadable
from dataflow.streaming.position import Place, pack

AT = 1_700_000_000_000_000


class Message:
    """A consumed message."""

    def __init__(
        self, value: Any, key: bytes | None = None, stored: int = 0, headers: Any = None, offset: int = 0
    ) -> None:
        self._value = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        self._key, self._stored, self._headers, self._offset = key, stored, headers, offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, self._stored) if self._stored else (0, -1)

    def headers(self) -> Any:
        return self._headers

    def topic(self) -> str:
        return "clicks"


EVENTS = """
[events]
topics = ["clicks"]
user   = ["id", "device"]
type   = "kind"
page   = "page"
time   = "at"
amount = "paid"
"""
ROW = {"id": "u1", "kind": "click", "page": "/a", "at": 1_700_000_000}


def decode(message: Message, mapping: str = EVENTS, topic: str = "clicks") -> Any:
    return MappedDecoder(parse(mapping), topic).decode(message.value(), 7, message)


def test_an_event_has_the_fields_that_the_mapping_names_and_its_own_bytes():
    message = Message(ROW)
    assert decode(message) == Event(AT, b"u1", message.value(), 7, "/a", "click", PLAIN | TEXT_USER)


@pytest.mark.parametrize(
    ("fields", "user", "form"),
    [
        pytest.param({"id": 5}, b"5", PLAIN, id="a number"),
        pytest.param({"id": "5"}, b"5", PLAIN | TEXT_USER, id="the same as a text"),
        pytest.param({"id": 5.0}, b"5.0", PLAIN, id="a fraction keeps its text"),
        pytest.param({"id": None, "device": "d"}, b"d", PLAIN | TEXT_USER, id="null is not there"),
        pytest.param({"id": "", "device": "d"}, b"d", PLAIN | TEXT_USER, id="nor is an empty text"),
        pytest.param({"id": "\u00e9"}, "\u00e9".encode(), PLAIN | TEXT_USER, id="any letters"),
    ],
)
def test_a_user_is_the_text_of_any_text_or_number(fields, user, form):
    event = decode(Message(ROW | fields))
    assert (event.user, event.form) == (user, form)


@pytest.mark.parametrize(
    ("page", "text", "form"),
    [(7, "7", PLAIN | TEXT_USER | NUMBER_PAGE), ("7", "7", PLAIN | TEXT_USER), (None, "", PLAIN | TEXT_USER)],
)
def test_a_page_is_a_text_a_number_or_none(page, text, form):
    event = decode(Message(ROW | {"page": page}))
    assert (event.page, event.form) == (text, form)


def test_an_event_with_a_field_of_the_name_that_visits_add_is_not_plain():
    assert not decode(Message(ROW | {"session_id": 1})).form & PLAIN
    named = EVENTS + '[output]\nsession_id = "visit"'
    assert decode(Message(ROW | {"session_id": 1}), named).form & PLAIN
    assert not decode(Message(ROW | {"visit": 1}), named).form & PLAIN


@pytest.mark.parametrize(
    ("kind", "paid", "amount"),
    [
        ("purchase", b'"25.00"', b"25.00"),
        ("purchase", b"25.00", b"25.00"),
        ("purchase", b"1e2", b"1e2"),
        ("purchase", b"null", b""),
        ("click", b"25.00", b""),
        ("click", b'"free"', b""),
    ],
)
def test_the_amount_of_a_purchase_is_what_was_written(kind, paid, amount):
    assert decode(Message(b'{"id":1,"kind":"%b","at":1700000000,"paid":%b}' % (kind.encode(), paid))).amount == amount


@pytest.mark.parametrize(
    ("more", "amount", "text"),
    [
        ("amount_decimals = 2", 2500, b"25.00"),
        ("amount_decimals = 2", "-5", b"-0.05"),
        ('amount_encoding = "base64"\namount_decimals = 2', "CcQ=", b"25.00"),
        ('amount_encoding = "base64"', "/w==", b"-1"),
    ],
)
def test_an_amount_may_be_in_cents_or_in_the_bytes_of_an_integer(more, amount, text):
    assert decode(Message(ROW | {"kind": "purchase", "paid": amount}), EVENTS + more).amount == text


@pytest.mark.parametrize(
    ("value", "reason", "kind"),
    [
        pytest.param(
            {"at": "yesterday"},
            "no user: none of id, device; time: not a time: 'yesterday'; no type: none of kind",
            "fields",
            id="all that is wrong",
        ),
        pytest.param(ROW | {"at": None}, "no time: none of at", "time", id="no time"),
        pytest.param(
            ROW | {"kind": "purchase", "paid": "much"}, "amount: not a number: 'much'", "amount", id="no number"
        ),
        pytest.param(ROW | {"kind": "purchase", "paid": "1e999"}, "amount: out of range", "amount", id="infinite"),
        pytest.param(ROW | {"id": {"x": 1}}, "no user: none of id, device", "fields", id="an object is no user"),
        pytest.param(ROW | {"id": "x" * 1_001}, "user: longer than 1000 characters", "fields", id="an endless user"),
        pytest.param([ROW], "not a JSON object", "fields", id="an array"),
        pytest.param(b"[", "Input data was truncated", "json", id="no JSON"),
        pytest.param(b"", "the message is empty", "empty", id="empty"),
        pytest.param(None, "the message has no value", "empty", id="no value"),
        pytest.param(b'{"id":"\xff"}', "not UTF-8: invalid start byte at byte 7", "encoding", id="no UTF-8"),
    ],
)
def test_what_cannot_be_read_says_all_that_is_wrong_with_it(value, reason, kind):
    with pytest.raises(Unreadable) as unreadable:
        decode(Message(value))
    assert str(unreadable.value).startswith(reason)
    assert unreadable.value.kind == kind


def test_users_that_are_nobody_are_told_or_left_out():
    nobody = EVENTS + 'anonymous = ["guest"]\n'
    with pytest.raises(Unreadable, match=r"^no user: 'guest' is anonymous$"):
        decode(Message(ROW | {"id": "guest"}), nobody)
    for fields in {"id": "guest"}, {"id": None}, {"id": "guest", "at": "never"}:
        with pytest.raises(Ignored):
            decode(Message(ROW | fields), nobody + 'no_user = "ignore"')


def test_kinds_may_be_left_out_or_be_the_only_ones():
    with pytest.raises(Ignored):
        decode(Message({"kind": "ping"}), EVENTS + 'ignore = ["ping"]')
    with pytest.raises(Ignored):
        decode(Message(ROW), EVENTS + 'only = ["buy"]')
    with pytest.raises(Ignored):
        decode(Message(None), EVENTS + 'no_value = "ignore"')


def test_the_record_has_fields_of_its_own():
    mapping = """
    [events]
    topics = "clicks"
    user   = "@key"
    type   = "@header.kind"
    page   = "@header.where.page"
    time   = "@timestamp"
    """
    headers = [("kind", b"view"), ("where", b'{"page":3}')]
    event = decode(Message({}, key=b"u1", stored=1_700_000_000_123, headers=headers), mapping)
    assert (event.user, event.event_type, event.page, event.time) == (b"u1", "view", "3", AT + 123_000)
    with pytest.raises(
        Unreadable, match=r"^no user: none of @key; no time: none of @timestamp; no type: none of @header.k"
    ):
        decode(Message({}, key=b"\xff"), mapping)


BOTH = (
    EVENTS
    + """
[purchases]
topics = ["clicks"]
user   = "id"
page   = "page"
time   = "at"
amount = "amount"
"""
)


def test_in_a_topic_of_both_roles_what_has_no_kind_is_a_purchase_row():
    paid = Message({"id": 5, "page": 2, "at": 1_700_000_000, "amount": 25.0})
    assert decode(paid, BOTH) == Purchase(AT, b"5", paid.value(), 7, "2", b"25.0")
    assert isinstance(decode(Message(ROW), BOTH), Event)


def test_in_a_topic_of_both_roles_only_may_name_the_kinds_that_are_purchase_rows():
    by_kind = BOTH + 'type = "kind"\nonly = ["order"]'
    assert isinstance(decode(Message({"id": 5, "kind": "order", "at": 1, "amount": 1}), by_kind), Purchase)
    assert isinstance(decode(Message(ROW), by_kind), Event)


# --- messages that hold several events ---

LISTED = EVENTS.replace('user   = ["id", "device"]', 'user   = "@message.client"') + 'each = "events"\n'


def parts_of(message: Message, mapping: str) -> list[Any]:
    decoder = MappedDecoder(parse(mapping), "clicks")
    assert decoder.takes_apart
    decoded = []
    for part in decoder.parts(message):
        try:
            decoded.append(decoder.decode(part.value(), part.offset(), part))
        except Unreadable as error:
            decoded.append((part.value(), str(error)))
    return decoded


def test_each_event_of_a_message_has_the_fields_around_it_and_a_position_of_its_own():
    message = Message({"client": "c1", "events": [{"kind": "a", "at": 1}, {"kind": "b", "at": 2}]}, offset=9)
    first, second = parts_of(message, LISTED)
    assert (first.user, first.event_type, second.event_type) == (b"c1", "a", "b")
    assert first.value == b'{"client":"c1","events":[{"kind": "a", "at": 1}]}'
    assert second.position == pack(Place(0, 0, 9, 1), takes_apart=True) >> 16


def test_the_value_of_one_event_of_several_decodes_into_the_same_event():
    message = Message({"client": "c1", "events": [{"kind": "a", "at": 1}, {"kind": "b", "at": 2}]})
    for event in parts_of(message, LISTED):
        (again,) = parts_of(Message(event.value), LISTED)
        assert msgspec.structs.replace(again, position=event.position) == event


def test_an_unreadable_event_of_several_is_one_alone():
    good, bad = parts_of(Message({"client": "c1", "events": [{"kind": "a", "at": 1}, {"kind": "b"}]}), LISTED)
    assert isinstance(good, Event)
    assert bad == (b'{"client":"c1","events":[{"kind": "b"}]}', "no time: none of at")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"client": "c1"}, "events: not an array of at most 4,096 JSON objects"),
        ({"client": "c1", "events": {}}, "events: not an array of at most 4,096 JSON objects"),
        ({"client": "c1", "events": [1]}, "events: not an array of at most 4,096 JSON objects"),
        (b"nonsense", "JSON is malformed"),
    ],
)
def test_a_message_that_cannot_be_taken_apart_is_unreadable_as_a_whole(value, reason):
    ((_, found),) = parts_of(Message(value), LISTED)
    assert found.startswith(reason)


def test_a_message_may_be_the_array():
    whole = EVENTS + 'each = "[]"'
    message = Message([ROW, ROW | {"kind": "view"}])
    events = parts_of(message, whole)
    assert [event.event_type for event in events] == ["click", "view"]
    assert json.loads(events[1].value) == ROW | {"kind": "view"}
    assert [event.event_type for event in parts_of(Message(events[1].value), whole)] == ["view"]
    assert parts_of(Message([]), whole) == []


OWN = "functions_of_ones_own"


@pytest.fixture(autouse=True)
def _functions_of_ones_own(monkeypatch):
    own = ModuleType(OWN)
    own.split_pairs, own.fails = split_pairs, fails
    monkeypatch.setitem(sys.modules, OWN, own)


def fails(message: Message) -> Any:
    raise ValueError(f"\udcff of {message.topic()}")


def split_pairs(message: Message) -> Any:
    """A format of one's own: kind=a;at=5."""
    return dict(pair.split("=") for pair in message.value().decode().split(";"))


def test_a_function_of_ones_own_decodes_what_is_not_json():
    mapping = EVENTS + f'decode = "{OWN}:split_pairs"'
    event = decode(Message(b"id=u1;kind=click;at=1700000000"), mapping)
    assert (event.user, event.time) == (b"u1", AT)
    assert json.loads(event.value) == {"id": "u1", "kind": "click", "at": "1700000000"}
    with pytest.raises(Unreadable, match=r"^ValueError: "):
        decode(Message(b"nonsense"), mapping)


# --- messages that must not stop the job ---

_DEEP = b"[" * 20_000


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b'{"id":"%b","at":1}' % _DEEP, id="a text of endless JSON where a path goes on"),
        pytest.param(b'{"list":["%b", "{"]}' % _DEEP, id="texts that are not JSON among the objects of an array"),
        pytest.param(b"\x0b" + json.dumps(ROW).encode(), id="space that JSON does not know"),
    ],
)
def test_a_message_of_any_bytes_is_unreadable_at_most(value):
    mapping = EVENTS.replace('["id", "device"]', '["id.x", "list[key=a].value"]')
    with pytest.raises(Unreadable):
        decode(Message(value), mapping)


def test_a_json_text_in_a_json_text_is_read_whatever_space_is_around_it():
    event = decode(Message(b' "' + json.dumps(ROW).replace('"', '\\"').encode() + b'" '))
    assert json.loads(event.value) == ROW


@pytest.mark.parametrize(
    ("more", "amount", "text"),
    [
        ("amount_decimals = 2", "12345678901234567890123456789012345", b"123456789012345678901234567890123.45"),
        ("amount_decimals = 2", "1e3", b"10"),
        ("amount_decimals = 2", "-0", b"-0.00"),
        ("", "1\u0663", None),
        ("amount_decimals = 2", "1e-99999999", None),
        ("amount_decimals = 2", "1e-9999999999999999999999", None),
        ('amount_encoding = "base64"', 1234, None),
    ],
)
def test_an_amount_is_exact_or_refused(more, amount, text):
    message = Message(ROW | {"kind": "purchase", "paid": amount})
    if text is not None:
        assert decode(message, EVENTS + more).amount == text
    else:
        with pytest.raises(Unreadable, match=r"^amount: (not a number|out of range|not base64)"):
            decode(message, EVENTS + more)


def test_an_event_of_several_whose_message_has_a_field_of_the_name_that_visits_add_is_not_plain():
    whole = {"client": "c1", "amount": 3, "events": [{"kind": "a", "at": 1}]}
    (event,) = parts_of(Message(whole), LISTED)
    assert not event.form & PLAIN
    inner = {"client": "c1", "events": [{"kind": "a", "at": 1, "amount": 3}]}
    (event,) = parts_of(Message(inner), LISTED)
    assert event.form & PLAIN


def test_items_of_an_array_may_be_json_texts_and_those_that_are_not_are_unreadable_alone():
    message = Message([json.dumps(ROW), "{", 1])
    good, *bad = parts_of(message, EVENTS + 'each = "[]"')
    assert json.loads(good.value) == ROW
    assert [value for value, _ in bad] == [b'"{"', b"1"]


def test_a_message_that_cannot_be_taken_apart_says_so():
    decoder = MappedDecoder(parse(LISTED), "clicks")
    (part,) = decoder.parts(Message(b"nonsense"))
    with pytest.raises(NotTakenApart, match="malformed"):
        decoder.decode(part.value(), part.offset(), part)


def test_a_function_is_not_asked_about_messages_without_a_value_that_are_to_be_ignored():
    with pytest.raises(Ignored):
        decode(Message(None), EVENTS + f'decode = "{OWN}:fails"\nno_value = "ignore"')


def test_the_text_of_a_functions_exception_can_be_a_header():
    with pytest.raises(Unreadable) as unreadable:
        decode(Message(b"x"), EVENTS + f'decode = "{OWN}:fails"')
    assert str(unreadable.value) == "ValueError: \\udcff of clicks"
    assert str(unreadable.value).encode()
