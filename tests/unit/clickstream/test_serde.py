"""Messages into rows, and rows into visits."""

import json

import pytest
from support.logs import NOON

from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.serde import decode_event, decode_purchase, encode_suspicious, encode_visits
from dataflow.streaming.partition_reader import Unreadable
from dataflow.streaming.time import SECOND

EVENT = b'{"event_type":"click","user_id":1,"page_id":2,"timestamp":1710331200}'
PURCHASE = b'{"amount":9.50,"user_id":1,"page_id":2,"timestamp":1710331200}'
DEEP = 100_000


def with_field(name: str, text: str, row: bytes = EVENT) -> bytes:
    """The row with the JSON text of one of its fields replaced."""
    fields = {**json.loads(row, parse_float=str, parse_int=str)}
    texts = {field: json.dumps(value) if field == "event_type" else str(value) for field, value in fields.items()}
    return ("{" + ",".join(f'"{field}":{value}' for field, value in {**texts, name: text}.items()) + "}").encode()


def with_extra(text: str) -> bytes:
    """An event with more in it, at its beginning."""
    return b"{" + text.encode() + b"," + EVENT[1:]


def test_event_is_read_with_its_position():
    assert decode_event(EVENT, 42) == Event(NOON * SECOND, b"1", EVENT, 42, 2, "click")


def test_purchase_is_read_with_the_text_of_its_amount():
    row = decode_purchase(PURCHASE, 42)
    assert row == Purchase(NOON * SECOND, b"1", PURCHASE, 42, 2, b"9.50")


@pytest.mark.parametrize(
    "user",
    ["0", "-7", "9007199254740993", str(2**64), "9" * 4300, "-" + "9" * 4299],
    ids=["0", "-7", "2^53+1", "2^64", "4300 digits", "4299 digits, negative"],
)
def test_user_ids_are_whole_numbers_of_any_size(user):
    assert decode_event(with_field("user_id", user), 0).user == user.encode()
    assert decode_purchase(with_field("user_id", user, PURCHASE), 0).user == user.encode()


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("0", 0),
        ("-0.0", 0),
        ("-1.5", -1_500_000),
        ("1710331200", 1_710_331_200_000_000),
        ("1710331200.5", 1_710_331_200_500_000),
        ("1710331200.000001", 1_710_331_200_000_001),
        ("1710331200.123456", 1_710_331_200_123_456),
        ("1710331200.1234567", 1_710_331_200_123_457),
        ("1.7103312e9", 1_710_331_200_000_000),
        ("17103312E2", 1_710_331_200_000_000),
        ("253402300799", 253_402_300_799_000_000),
        ("-62135596800", -62_135_596_800_000_000),
    ],
)
def test_timestamps_are_whole_or_fractions_exact_to_the_microsecond(text, microseconds):
    assert decode_event(with_field("timestamp", text), 0).time == microseconds


@pytest.mark.parametrize(
    "amount",
    [
        "0",
        "-0.0",
        "5",
        "5.0",
        "5.00",
        "5e0",
        "5E-2",
        "-3.25",
        "1e308",
        "123456789012345678901234567890",
        "0.1000000000000000055",
    ],
)
def test_an_amount_keeps_its_json_text(amount):
    assert decode_purchase(with_field("amount", amount, PURCHASE), 0).amount == amount.encode()


def test_spaces_around_an_amount_are_not_part_of_it():
    assert decode_purchase(PURCHASE.replace(b"9.50", b" \n 9.50\t"), 0).amount == b"9.50"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "the message has no value", id="tombstone"),
        pytest.param(b"", "the message is empty", id="empty"),
        pytest.param(b"hello", "JSON is malformed: invalid character (byte 0)", id="not JSON"),
        pytest.param(EVENT[:-1], "Input data was truncated", id="cut off"),
        pytest.param(EVENT + b"}", "JSON is malformed: trailing characters (byte 70)", id="something after it"),
        pytest.param(b"\xef\xbb\xbf" + EVENT, "JSON is malformed: invalid character (byte 0)", id="byte order mark"),
        pytest.param(b"null", "Expected `object`, got `null`", id="null"),
        pytest.param(b"[" + EVENT + b"]", "Expected `object`, got `array`", id="list"),
        pytest.param(b'"' + EVENT.replace(b'"', b'\\"') + b'"', "Expected `object`, got `str`", id="JSON in JSON"),
        pytest.param(b"{}", "Object missing required field `event_type`", id="no fields"),
        pytest.param(EVENT.replace(b"user_id", b"userId"), "Object missing required field `user_id`", id="no user"),
        pytest.param(with_field("user_id", '"1"'), "Expected `int`, got `str` - at `$.user_id`", id="user is text"),
        pytest.param(
            with_field("user_id", "true"), "Expected `int`, got `bool` - at `$.user_id`", id="user is a truth"
        ),
        pytest.param(
            with_field("user_id", "1.0"), "Expected `int`, got `float` - at `$.user_id`", id="user is a fraction"
        ),
        pytest.param(with_field("user_id", "null"), "Expected `int`, got `null` - at `$.user_id`", id="user is null"),
        pytest.param(
            with_field("user_id", "9" * 4301), "Integer value out of range - at `$.user_id`", id="user of 4301 digits"
        ),
        pytest.param(
            with_field("page_id", "false"), "Expected `int`, got `bool` - at `$.page_id`", id="page is a truth"
        ),
        pytest.param(
            with_field("page_id", str(2**63)), "Expected `int` <= 9223372036854775807 - at `$.page_id`", id="page 2^63"
        ),
        pytest.param(
            with_field("page_id", str(-(2**63) - 1)),
            "Expected `int` >= -9223372036854775808 - at `$.page_id`",
            id="page -2^63-1",
        ),
        pytest.param(
            with_field("event_type", "5"), "Expected `str`, got `int` - at `$.event_type`", id="type is a number"
        ),
        pytest.param(
            with_field("event_type", "null"), "Expected `str`, got `null` - at `$.event_type`", id="type is null"
        ),
        pytest.param(
            with_field("timestamp", '"1710331200"'), "Expected `float`, got `str` - at `$.timestamp`", id="time is text"
        ),
        pytest.param(
            with_field("timestamp", "true"), "Expected `float`, got `bool` - at `$.timestamp`", id="time is a truth"
        ),
        pytest.param(
            with_field("timestamp", "NaN"), "JSON is malformed: invalid character (byte 58)", id="time is NaN"
        ),
        pytest.param(with_field("timestamp", "1e400"), "Number out of range - at `$.timestamp`", id="time is 1e400"),
        pytest.param(
            with_field("timestamp", "1710331200000"),
            "timestamp is out of range; it must be in seconds",
            id="time in milliseconds",
        ),
        pytest.param(
            with_field("timestamp", "253402300800"), "timestamp is out of range; it must be in seconds", id="year 10000"
        ),
        pytest.param(
            with_field("timestamp", "-62135596801"), "timestamp is out of range; it must be in seconds", id="year 0"
        ),
        pytest.param(
            with_field("event_type", r'"\ud800"'),
            "JSON is malformed: unexpected end of escaped utf-16 surrogate pair (byte 21)",
            id="half a surrogate pair",
        ),
        pytest.param(
            with_extra(r'"x":"\ud800"'),
            "JSON is malformed: unexpected end of hex escape (byte 12)",
            id="half a surrogate pair in another field",
        ),
        pytest.param(EVENT.replace(b"click", b"\xff"), "not UTF-8: invalid start byte at byte 15", id="not UTF-8"),
        pytest.param(
            b'{"x":"\xff",' + EVENT[1:], "not UTF-8: invalid start byte at byte 6", id="not UTF-8 in another field"
        ),
        pytest.param(with_extra('"x":NaN'), "JSON is malformed: invalid character (byte 5)", id="NaN in another field"),
        pytest.param(with_extra(f'"x":{"[" * DEEP}{"]" * DEEP}'), "JSON is nested too deeply", id="nested too deeply"),
        pytest.param(
            EVENT.replace(b'"user_id":1', b'"user_id":"x","user_id":1'),
            "Expected `int`, got `str` - at `$.user_id`",
            id="two users, one of them text",
        ),
    ],
)
def test_a_message_that_is_no_event_is_unreadable_with_a_reason(value, reason):
    with pytest.raises(Unreadable) as caught:
        decode_event(value, 0)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "the message has no value", id="tombstone"),
        pytest.param(EVENT, "Object missing required field `amount`", id="an event"),
        pytest.param(with_field("amount", '"9.50"', PURCHASE), "amount is not a number", id="text"),
        pytest.param(with_field("amount", "null", PURCHASE), "amount is not a number", id="null"),
        pytest.param(with_field("amount", "true", PURCHASE), "amount is not a number", id="a truth"),
        pytest.param(with_field("amount", "[1]", PURCHASE), "amount is not a number", id="a list"),
        pytest.param(with_field("amount", "1e400", PURCHASE), "amount is out of range", id="1e400"),
        pytest.param(with_field("amount", "-1e400", PURCHASE), "amount is out of range", id="-1e400"),
        pytest.param(with_field("amount", "NaN", PURCHASE), "JSON is malformed: invalid character (byte 10)", id="NaN"),
        pytest.param(
            with_field("amount", "Infinity", PURCHASE), "JSON is malformed: invalid character (byte 10)", id="Infinity"
        ),
        pytest.param(
            with_field("amount", "09", PURCHASE), "JSON is malformed: invalid number (byte 11)", id="leading zero"
        ),
    ],
)
def test_a_message_that_is_no_purchase_is_unreadable_with_a_reason(value, reason):
    with pytest.raises(Unreadable) as caught:
        decode_purchase(value, 0)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("value", "visit"),
    [
        pytest.param(
            EVENT,
            b'{"event_type":"click","user_id":1,"page_id":2,"timestamp":1710331200,"session_id":"abc","amount":5.0}',
            id="as it came",
        ),
        pytest.param(
            b' { "timestamp" : 1.7103312e9,\n"page_id":2 ,"user_id":-0, "event_type":"\\u00e9\\/" } \r\n\t ',
            b' { "timestamp" : 1.7103312e9,\n"page_id":2 ,"user_id":-0, "event_type":"\\u00e9\\/" ,"session_id":"abc","amount":5.0}',
            id="order, spaces and spelling",
        ),
        pytest.param(
            with_extra('"x":[1.50,{"é":1e400}],"x":null'),
            '{"x":[1.50,{"é":1e400}],"x":null,'.encode() + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="more fields",
        ),
        pytest.param(
            with_extra('"session_id" : "mine"'),
            b'{"original_session_id":"mine",' + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="a session id of its own",
        ),
        pytest.param(
            with_extra('"amount":[1, 2]'),
            b'{"original_amount":[1, 2],' + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="an amount of its own",
        ),
        pytest.param(
            with_extra(r'"am\u006funt":1,"session_id":2,"amount":3'),
            b'{"original_amount":3,"original_session_id":2,' + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="both, in disguise and twice",
        ),
        pytest.param(
            with_extra('"amount":1,"original_amount":2'),
            b'{"original_original_amount":1,"original_amount":2,' + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="an amount of its own, twice over",
        ),
        pytest.param(
            with_extra('"amount":1, "x" : 1.50 ,"\\u00e9":" "'),
            '{"original_amount":1,"x":1.50,"é":" ",'.encode() + EVENT[1:-1] + b',"session_id":"abc","amount":5.0}',
            id="an amount of its own among others",
        ),
    ],
)
def test_a_visit_is_the_event_as_it_came_with_two_more_fields(value, visit):
    assert encode_visits([decode_event(value, 0)], b"abc", b"5.0") == [visit]


def test_a_suspicious_visit_has_session_user_and_type():
    assert encode_suspicious(b"abc", b"-7", 2) == b'{"session_id":"abc","user_id":-7,"type":2}'
