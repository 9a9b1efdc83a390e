"""The row of `sessions`: times, counts, pages and kinds of a closed session."""

import json
from decimal import Decimal

import pytest

from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.records import NUMBER_PAGE, TEXT_USER, Event
from dataflow.clickstream.session_summary import MAX_KIND_NAME, MAX_KINDS, MAX_PAGE, encode_session
from dataflow.clickstream.sessions import ClosedSession

SECOND = 1_000_000
START = 1_700_000_000 * SECOND + 123_456


def seen(after: int = 0, kind: str = "page-view", page: int | str = 1, form: int = TEXT_USER) -> Event:
    """An event so many microseconds after the start."""
    return Event(START + after, b"u-7", b"{}", 0, page, kind, form)


def text_of(*events: Event, kinds: Kinds = DEFAULT_KINDS) -> bytes:
    session = ClosedSession(b"u-7", b"abc", list(events), b"9.50", Decimal("12.00"), None)
    return encode_session(session, kinds)


def row_of(*events: Event, kinds: Kinds = DEFAULT_KINDS) -> dict:
    return json.loads(text_of(*events, kinds=kinds), parse_float=str)


def test_a_row_is_these_very_bytes():
    events = [
        seen(0, page="/a"),
        seen(5 * SECOND, "purchase", "7.0", NUMBER_PAGE),
        seen(30_000_001, "click", ""),
    ]
    assert text_of(*events) == (
        b'{"session_id":"abc","user_id":"u-7",'
        b'"started_at":"2023-11-14T22:13:20.123456Z","ended_at":"2023-11-14T22:13:50.123457Z","duration":30.000001,'
        b'"events":3,"page_views":1,"purchases":1,"amount":9.50,"revenue":12.00,'
        b'"first_page":"/a","last_page":7.0,"suspicious":null,"kinds":{"click":1,"page-view":1,"purchase":1}}'
    )


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (-62_135_596_800 * SECOND, "0001-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (253_402_300_800 * SECOND - 1, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_exact_from_the_year_1_to_the_year_9999(time, text):
    row = row_of(Event(time, b"7", b"{}", 0, 1, "click", TEXT_USER))
    assert (row["started_at"], row["ended_at"], row["duration"]) == (text, text, "0.000000")


def test_page_views_and_purchases_are_counted_by_the_shops_own_names():
    kinds = Kinds(frozenset({"view", "screen"}), frozenset({"buy"}))
    row = row_of(*(seen(kind=kind) for kind in ("view", "screen", "view", "buy", "page-view")), kinds=kinds)
    assert (row["events"], row["page_views"], row["purchases"]) == (5, 3, 1)
    assert row["kinds"] == {"buy": 1, "page-view": 1, "screen": 1, "view": 2}


@pytest.mark.parametrize(
    ("pages", "first", "last"),
    [
        pytest.param([""], None, None, id="none"),
        pytest.param(["", "a", "b", ""], "a", "b", id="events without a page are passed over"),
        pytest.param([0, ""], 0, 0, id="page 0 is one"),
        pytest.param(['"quoted"\n', "é"], '"quoted"\n', "é", id="any text"),
    ],
)
def test_first_and_last_page_are_those_of_events_that_have_one(pages, first, last):
    row = row_of(*(seen(page=page) for page in pages))
    assert (row["first_page"], row["last_page"]) == (first, last)


def test_kinds_are_in_order_of_their_names():
    assert text_of(*(seen(kind=kind) for kind in ("b", "é", "Z", "a"))).endswith(
        '"kinds":{"Z":1,"a":1,"b":1,"é":1}}'.encode()
    )


def test_a_row_stays_small_whatever_the_events_are():
    frequent = [seen(kind="often")] * 2
    page = "\1" * 1_000_000
    many = [seen(kind=f"kind {number:05}", page=page) for number in range(2_000)]
    long = [seen(kind="x" * (MAX_KIND_NAME + 1)), seen(page="1" * 1_000_000, form=NUMBER_PAGE)]
    text = text_of(*many, *frequent, *long)
    assert len(text) < 100_000
    row = json.loads(text)
    assert list(row["kinds"]) == [f"kind {number:05}" for number in range(MAX_KINDS - 1)] + ["often"]
    assert row["events"] == 2_004
    assert row["first_page"] == "\1" * MAX_PAGE
    assert row["last_page"] == "1" * MAX_PAGE
