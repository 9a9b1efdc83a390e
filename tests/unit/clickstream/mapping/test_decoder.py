"""Messages of any shape, and the events and purchase rows that a mapping makes of them."""

import json
from typing import Any

import msgspec
import pytest

from dataflow.clickstream.mapping.decoder import MappedDecoder
from dataflow.clickstream.mapping.spec import parse
from dataflow.clickstream.records import NUMBER_PAGE, PLAIN, TEXT_USER, Event, Purchase
from dataflow.streaming.partition_reader import Ignored, Unreadable
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


def split_pairs(message: Message) -> Any:
    """A format of one's own: kind=a;at=5."""
    return dict(pair.split("=") for pair in message.value().decode().split(";"))


def test_a_function_of_ones_own_decodes_what_is_not_json():
    mapping = EVENTS + 'decode = "test_own:split_pairs"'
    import sys
    import types

    sys.modules["test_own"] = own = types.ModuleType("test_own")
    own.split_pairs = split_pairs
    event = decode(Message(b"id=u1;kind=click;at=1700000000"), mapping)
    assert (event.user, event.time) == (b"u1", AT)
    assert json.loads(event.value) == {"id": "u1", "kind": "click", "at": "1700000000"}
    with pytest.raises(Unreadable, match=r"^ValueError: "):
        decode(Message(b"nonsense"), mapping)
