"""The text of a dead letter's reason, and its category."""

import pytest

from dataflow.clickstream import dead_letters
from dataflow.clickstream.dead_letters import KINDS
from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.streaming.partition_reader import Unreadable


@pytest.mark.parametrize(
    ("value", "reason", "kind"),
    [
        (None, "the message has no value", "empty"),
        (b"", "the message is empty", "empty"),
        (b"nope", "JSON is malformed: invalid character (byte 4)", "json"),
        (b"\xff", "not UTF-8: invalid start byte at byte 0", "encoding"),
        (b'{"a":' * 100_000, "JSON is nested too deeply", "json"),
        (b"[]", "Expected `object`, got `array`", "fields"),
        (b'{"amount":"1","user_id":1,"page_id":1,"timestamp":1}', "amount is not a number", "amount"),
        (b'{"amount":1e400,"user_id":1,"page_id":1,"timestamp":1}', "amount is out of range", "amount"),
    ],
    ids=["none", "empty", "no JSON", "no UTF-8", "too deep", "no object", "text", "too large"],
)
def test_an_unreadable_purchase_has_this_reason_and_kind(value, reason, kind):
    with pytest.raises(Unreadable) as caught:
        decode_purchase(value, 0)
    assert (str(caught.value), caught.value.kind) == (reason, kind)


def test_a_timestamp_in_milliseconds_is_out_of_range():
    value = b'{"event_type":"click","user_id":1,"page_id":1,"timestamp":1710331200000}'
    with pytest.raises(Unreadable, match=r"^timestamp is out of range; it must be in seconds$") as caught:
        decode_event(value, 0)
    assert caught.value.kind == "time"


def test_every_reason_has_a_known_kind():
    made = [
        getattr(dead_letters, name)() for name in ("no_value", "out_of_range", "not_a_number", "too_large_a_number")
    ]
    assert {each.kind for each in made} <= set(KINDS)
