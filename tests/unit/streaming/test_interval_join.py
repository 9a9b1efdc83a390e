"""The interval join: the amount of each purchase event. Times are small integers; the window is 5."""

from itertools import permutations

import pytest

from dataflow.clickstream.attribution import AMOUNTS, match
from dataflow.clickstream.records import Event, Purchase
from dataflow.streaming.interval_join import IntervalJoin
from dataflow.streaming.time import MAX_TIME, MIN_TIME

WINDOW = 5


def bought(time: int, page: int = 1, user: bytes = b"1") -> Event:
    """A purchase event."""
    return Event(time, user, b"event at %d" % time, time, page, "purchase")


def paid(time: int, amount: str, page: int = 1, user: bytes = b"1") -> Purchase:
    """A row of `purchases`."""
    return Purchase(time, user, amount.encode(), time, page, amount.encode())


def amounts(matches: list) -> list[str]:
    return [each.amount.decode() for each in matches]


@pytest.mark.parametrize(
    "arrivals",
    # rows in the order they arrive, and beside each the amounts of the matches it makes
    [
        pytest.param([(bought(100), []), (paid(100, "9"), ["9"])], id="event first"),
        pytest.param([(paid(100, "9"), []), (bought(100), ["9"])], id="amount first"),
        pytest.param([(bought(100), []), (paid(105, "9"), ["9"])], id="exactly the window after"),
        pytest.param([(bought(100), []), (paid(106, "9"), [])], id="just past the window after"),
        pytest.param([(bought(100), []), (paid(95, "9"), ["9"])], id="exactly the window before"),
        pytest.param([(bought(100), []), (paid(94, "9"), [])], id="just past the window before"),
        pytest.param([(paid(105, "9"), []), (bought(100), ["9"])], id="exactly the window after, the other way round"),
        pytest.param([(paid(106, "9"), []), (bought(100), [])], id="just past it, the other way round"),
        pytest.param([(paid(95, "9"), []), (bought(100), ["9"])], id="exactly the window before, the other way round"),
        pytest.param([(paid(94, "9"), []), (bought(100), [])], id="just past it before, the other way round"),
        pytest.param([(bought(100, user=b"1"), []), (paid(100, "9", user=b"2"), [])], id="another user's amount"),
        pytest.param(
            [(bought(100, page=1), []), (paid(100, "9", page=2), ["9"])], id="another page's, if there is no other"
        ),
        pytest.param(
            [(bought(100), []), (paid(99, "8"), ["8"]), (paid(101, "9"), ["9"])], id="an event meets all of its time"
        ),
        pytest.param(
            [(bought(98), []), (bought(102), []), (paid(100, "9"), ["9", "9"])],
            id="an amount meets all events of its time",
        ),
        pytest.param(
            [(paid(94, "7"), []), (paid(96, "8"), []), (paid(106, "9"), []), (bought(100), ["8"])],
            id="only those of its time",
        ),
        pytest.param(
            [(bought(100), []), (bought(100), []), (paid(100, "5"), ["5", "5"]), (paid(100, "5"), ["5", "5"])],
            id="twins",
        ),
    ],
)
def test_rows_match_in_either_order_of_arrival(arrivals):
    join = IntervalJoin(WINDOW, AMOUNTS)
    assert [amounts(join.add([row])) for row, _ in arrivals] == [found for _, found in arrivals]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        pytest.param([paid(100, "1", page=2), paid(105, "2", page=1)], "2", id="same page before nearest"),
        pytest.param([paid(100, "1", page=1), paid(105, "2", page=1)], "1", id="of the same page the nearest"),
        pytest.param([paid(100, "1", page=2), paid(105, "2", page=2)], "1", id="of other pages the nearest"),
        pytest.param([paid(98, "2"), paid(101, "1")], "1", id="nearest before larger"),
        pytest.param([paid(98, "2"), paid(102, "1")], "1", id="of equally near ones the later"),
        pytest.param([paid(102, "9"), paid(102, "10")], "10", id="of the same time the larger, as numbers"),
        pytest.param([paid(102, "-10"), paid(102, "-9")], "-9", id="the larger of negative ones"),
        pytest.param([paid(102, "5"), paid(102, "5.0")], "5.0", id="of equal ones one spelling, always the same"),
        pytest.param([paid(102, "0"), paid(102, "-0.0")], "0", id="zeros too"),
        pytest.param([paid(102, "1e1"), paid(102, "9.5")], "1e1", id="as numbers, not as text"),
    ],
)
def test_the_choice_among_matches_does_not_depend_on_arrival(rows, best):
    event = bought(100)
    for arrivals in permutations([event, *rows]):
        join = IntervalJoin(WINDOW, AMOUNTS)
        matches = [found for row in arrivals for found in join.add([row])]
        assert max(matches).amount.decode() == best


def test_a_match_of_a_later_event_is_greater_whatever_its_amount():
    early, late = match(bought(100), paid(100, "99")), match(bought(101), paid(105, "1", page=2))
    assert late > early


@pytest.mark.parametrize(
    ("watermark", "held", "unmatched"),
    [
        pytest.param(MIN_TIME, 2, [], id="before any time is known"),
        pytest.param(105, 2, [], id="an event exactly the window away may still come"),
        pytest.param(106, 0, ["9"], id="now none can"),
        pytest.param(MAX_TIME, 0, ["9"], id="at the end"),
    ],
)
def test_expired_rows_are_dropped_and_unmatched_purchases_returned(watermark, held, unmatched):
    join = IntervalJoin(WINDOW, AMOUNTS)
    join.add([paid(100, "9")])
    join.add([bought(100, user=b"2")])
    assert [row.amount.decode() for row in join.expire(watermark)] == unmatched
    state = join.state()
    assert len(state.lefts) + len(state.rights) == held


def test_a_purchase_in_the_window_of_an_event_is_never_unmatched():
    for rows in ([bought(100), paid(100, "9")], [paid(100, "9"), bought(100)]):
        join = IntervalJoin(WINDOW, AMOUNTS)
        for row in rows:
            join.add([row])
        assert join.expire(MAX_TIME) == []


def test_rows_expire_in_event_time_order():
    join = IntervalJoin(WINDOW, AMOUNTS)
    for row in (paid(103, "3"), paid(101, "1"), paid(102, "2")):
        join.add([row])
    assert [[row.value for row in join.expire(watermark)] for watermark in (106, 107, 108, 109)] == [
        [],
        [b"1"],
        [b"2"],
        [b"3"],
    ]
    assert join.lefts == join.rights == {}


def test_a_resumed_join_has_its_rows_and_which_of_them_have_matched():
    before = IntervalJoin(WINDOW, AMOUNTS)
    for row in (bought(100), paid(101, "8"), paid(200, "7"), bought(300)):
        before.add([row])
    after = IntervalJoin(WINDOW, AMOUNTS)
    after.restore(before.state())
    assert amounts(after.add([paid(300, "9")])) == ["9"]
    assert amounts(after.add([bought(199)])) == ["7"]
    assert after.expire(MAX_TIME) == []
