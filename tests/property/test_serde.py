"""Any bytes and any JSON are either a row or unreadable."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from support.logs import EVENTS, NOON, PURCHASES, Job, Plan, batch_answer, log

from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.serde import decode_event, decode_purchase, encode_visits
from dataflow.streaming.partition_reader import Unreadable

NAMES = st.sampled_from(["event_type", "user_id", "page_id", "timestamp", "amount", "session_id", "x"]) | st.text(
    max_size=5
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from(
        [True, False, 2**63, -(2**63) - 1, NOON, NOON + 0.5, NOON * 1000, -0.0, 5e-324, 1.7976931348623157e308]
    ),
)
JSON = st.recursive(
    st.none() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
ODD_NUMBERS = [
    "9" * 4300,
    "-" + "9" * 4300,
    "9" * 4301,
    "0." + "9" * 5000,
    "1e400",
    "-1e400",
    "1E-9999999999",
    "1e9999999999",
    "1e-99999999999999999999",
]
NOT_JSON = ["NaN", "Infinity", "01", "-", "1.", ".5", '"\\ud800"', '"\\udc00\\ud800"', '"\x01"', "'x'"]
SPELLINGS = st.sampled_from(ODD_NUMBERS + NOT_JSON)


def spelled(name: str, text: str) -> str:
    return f"{json.dumps(name)}:{text}"


TEXTS = st.builds(lambda value, ascii: json.dumps(value, ensure_ascii=ascii), JSON, st.booleans()) | SPELLINGS
FIELDS = st.builds(spelled, NAMES, TEXTS)
RIGHT = {
    "event_type": ['"page-view"', '"purchase"', '""', '"\\u00e9"', '"é"'],
    "user_id": ["1", "-0", "123456789012345678901234567890"],
    "page_id": ["1", "-9223372036854775808"],
    "timestamp": ["1710331200", "1710331200.25", "1.7103312e9"],
    "amount": ["1", "2.50", "-1e2"],
}


@st.composite
def almost_rows(draw: st.DrawFn) -> bytes:
    """Objects that have all fields that a row needs, and perhaps something wrong."""
    fields = [
        spelled(name, draw(st.sampled_from(texts)))
        for name, texts in RIGHT.items()
        if name != "amount" or draw(st.booleans())
    ]
    fields += draw(st.lists(FIELDS, max_size=2))
    space = draw(st.sampled_from(["", "", " ", "\n\t"]))
    text = space + "{" + f"{space},{space}".join(draw(st.permutations(fields))) + space + "}" + space
    return text.encode(errors="surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    value = draw(almost_rows())
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.binary(max_size=3)) + value[at + draw(st.integers(0, 3)) :]


MESSAGES = st.one_of(
    st.none(),
    st.binary(max_size=30),
    TEXTS.map(lambda text: text.encode(errors="surrogatepass")),
    almost_rows(),
    damaged(),
)


@given(MESSAGES)
def test_any_message_is_either_a_row_or_unreadable(value):
    for decode, kind in ((decode_event, Event), (decode_purchase, Purchase)):
        try:
            row = decode(value, 0)
        except Unreadable as error:
            assert str(error)
        else:
            assert type(row) is kind
            assert row.value == value


@given(MESSAGES)
def test_any_message_becomes_what_the_batch_answer_says(value):
    job = Job({EVENTS: log(value), PURCHASES: log(value)})
    for poll in Plan().polls(job.partitions):
        job.feed(poll)
    assert job.written.answer() == batch_answer(job.partitions.logs)


@given(almost_rows())
@example(b'{"amount":1,"event_type":"click","user_id":1,"page_id":2,"timestamp":1710331200}')
def test_any_event_becomes_a_visit_with_its_fields_and_two_more(value):
    try:
        event = decode_event(value, 0)
    except Unreadable:
        return
    names = {"session_id": "original_session_id", "amount": "original_amount"}
    own = {names.get(name, name): text for name, text in read(value).items()}
    visit = read(*encode_visits([event], b"abc", b"5.0"))
    assert list(visit) == [*own, "session_id", "amount"]
    assert visit == {**own, "session_id": "abc", "amount": "5.0"}


def read(value: bytes) -> dict[str, Any]:
    return json.loads(value, parse_int=str, parse_float=str)
