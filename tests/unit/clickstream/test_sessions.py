"""A session: its events, its amount and its id."""

from itertools import permutations

import pytest

from dataflow.clickstream.attribution import match
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.sessions import SessionAccumulator, accumulate, merge, session_id


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


@pytest.mark.parametrize("split", range(5))
def test_a_sessions_revenue_is_the_sum_of_all_its_amounts(split):
    rows = [FIRST, SECOND, match(FIRST, paid(100, "0.10")), match(SECOND, paid(110, "0.2"))]
    for arrivals in permutations(rows):
        assert str(fold(*arrivals).revenue) == "0.30"
        assert str(merge(fold(*arrivals[:split]), fold(*arrivals[split:])).revenue) == "0.30"
    assert str(fold(FIRST).revenue) == "0"


def test_a_session_id_is_a_fixed_hash_of_user_and_start_time():
    assert session_id(b"1", 1_710_331_200_000_000) == b"5990e35e960eb8e25b3b0916dd0d0c6a"


def test_session_ids_of_other_users_and_other_times_differ():
    ids = {session_id(b"%d" % user, start) for user in (-1, 1, 11, 12) for start in (-1, 0, 1, 11, 12, 112)}
    assert len(ids) == 24
    assert all(len(each) == 32 and int(each, 16) for each in ids)


def test_a_session_id_does_not_depend_on_what_came_after_the_first_event():
    assert session_id(b"1", 5) == session_id(b"1", 5)
