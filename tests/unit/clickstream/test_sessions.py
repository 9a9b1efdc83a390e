"""A session: its events, its amount, its id, and whether it is suspicious."""

from itertools import permutations

import pytest

from dataflow.clickstream.attribution import match
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.sessions import SessionAccumulator, accumulate, merge, session_id
from dataflow.clickstream.suspicion import suspicion_of


def seen(time: int, event_type: str = "page-view") -> Event:
    return Event(time, b"1", b"", time, 1, event_type)


def paid(time: int, amount: str) -> Purchase:
    return Purchase(time, b"1", b"", time, 1, amount.encode())


def fold(*rows) -> SessionAccumulator:
    visit = SessionAccumulator()
    for row in rows:
        visit = accumulate(visit, row)
    return visit


FIRST, SECOND, THIRD = seen(100, "purchase"), seen(110, "purchase"), seen(120, "purchase")


@pytest.mark.parametrize(
    ("rows", "amount"),
    [
        pytest.param([FIRST], b"0", id="0 if none has one"),
        pytest.param([FIRST, match(FIRST, paid(100, "7.00"))], b"7.00", id="as its row wrote it"),
        pytest.param([FIRST, match(FIRST, paid(100, "0"))], b"0", id="0 if it was free"),
        pytest.param(
            [FIRST, SECOND, match(FIRST, paid(100, "900")), match(SECOND, paid(110, "2"))],
            b"2",
            id="of the last purchase event, not the largest",
        ),
        pytest.param(
            [FIRST, SECOND, THIRD, match(FIRST, paid(100, "1")), match(SECOND, paid(110, "2"))],
            b"2",
            id="of the last that has one",
        ),
        pytest.param(
            [SECOND, match(SECOND, paid(112, "3")), match(SECOND, paid(111, "4"))],
            b"4",
            id="of the best of several rows",
        ),
    ],
)
def test_a_sessions_amount_is_that_of_its_last_purchase_event_with_one(rows, amount):
    assert all(fold(*arrivals).amount == amount for arrivals in permutations(rows))


def test_merged_sessions_have_the_events_of_both_and_the_greater_match():
    early, late = match(FIRST, paid(100, "900")), match(SECOND, paid(110, "2"))
    for one, other in (
        ((FIRST, early), (SECOND, late)),
        ((SECOND, late), (FIRST, early)),
        ((FIRST, early, late), (SECOND,)),
    ):
        merged = merge(fold(*one), fold(*other))
        assert sorted(merged.events) == [FIRST, SECOND]
        assert merged.amount == b"2"
    assert merge(fold(FIRST), fold(SECOND)).amount == b"0"


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        pytest.param(["page-view"], None, id="one page view"),
        pytest.param(["click"], 2, id="no page view"),
        pytest.param(
            ["click", "purchase", "search", "Page-View", "page-view "], 2, id="five events, none quite a page view"
        ),
        pytest.param(["click", "click", "click", "click", "page-view"], None, id="five events, the last a page view"),
        pytest.param(["page-view"] * 5, None, id="five page views"),
        pytest.param(["page-view"] * 6, 1, id="six page views"),
        pytest.param(["click"] * 6, 1, id="six events without a page view are one case, the first"),
    ],
)
def test_more_than_5_events_or_no_page_view_makes_a_session_suspicious(types, kind):
    assert suspicion_of([seen(100, event_type) for event_type in types], {"max_events": 5, "min_page_views": 1}) == kind


@pytest.mark.parametrize(
    ("fewest", "kind"), [(0, None), (1, None), (2, None), (3, 2)], ids="none asked for,one,two,three".split(",")
)
def test_min_page_views_can_be_set(fewest, kind):
    assert suspicion_of([seen(100), seen(100, "click"), seen(100)], {"max_events": 5, "min_page_views": fewest}) == kind


def test_max_events_can_be_set():
    assert suspicion_of([seen(100)], {"max_events": 1, "min_page_views": 1}) is None
    assert suspicion_of([seen(100), seen(100)], {"max_events": 1, "min_page_views": 1}) == 1


def test_a_session_id_is_a_fixed_hash_of_user_and_start_time():
    assert session_id(b"1", 1_710_331_200_000_000) == b"5990e35e960eb8e25b3b0916dd0d0c6a"


def test_session_ids_of_other_users_and_other_times_differ():
    ids = {session_id(b"%d" % user, start) for user in (-1, 1, 11, 12) for start in (-1, 0, 1, 11, 12, 112)}
    assert len(ids) == 24
    assert all(len(each) == 32 and int(each, 16) for each in ids)


def test_a_session_id_does_not_depend_on_what_came_after_the_first_event():
    assert session_id(b"1", 5) == session_id(b"1", 5)
