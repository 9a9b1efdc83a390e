"""The interval join: which purchase rows become amounts, and when. Times are small integers; the window is 5."""

from itertools import permutations

import pytest

from dataflow.clickstream.attribution import amounts
from dataflow.clickstream.records import Event, Purchase
from dataflow.streaming.interval_join import Decided, IntervalJoin
from dataflow.streaming.time import MAX_TIME, MIN_TIME

WINDOW = 5


def bought(time: int, page: int = 1, user: bytes = b"1") -> Event:
    """A purchase event."""
    return Event(time, user, b"event at %d" % time, time, page, "purchase")


def paid(time: int, amount: str, page: int = 1, user: bytes = b"1") -> Purchase:
    """A row of `purchases`."""
    return Purchase(time, user, amount.encode(), time, page, amount.encode())


def join_of(*rows: Event | Purchase, retention: float = MAX_TIME) -> IntervalJoin:
    join = IntervalJoin(WINDOW, amounts(), retention)
    for row in rows:
        join.add([row])
    return join


def told(decided: Decided) -> tuple[list[tuple[int, str]], list[str], list[str]]:
    """Times of events with their amounts; amounts without an event in their time; amounts that are left over."""
    return (
        sorted((match.time, match.amount.decode()) for match in decided.matches),
        sorted(row.amount.decode() for row in decided.unmatched),
        sorted(row.amount.decode() for row in decided.left_over),
    )


@pytest.mark.parametrize(
    ("rows", "matches", "unmatched", "left_over"),
    [
        pytest.param([bought(100), paid(100, "9")], [(100, "9")], [], [], id="at the same time"),
        pytest.param([bought(100), paid(105, "9")], [(100, "9")], [], [], id="exactly the window after"),
        pytest.param([bought(100), paid(106, "9")], [], ["9"], [], id="just past the window after"),
        pytest.param([bought(100), paid(95, "9")], [(100, "9")], [], [], id="exactly the window before"),
        pytest.param([bought(100), paid(94, "9")], [], ["9"], [], id="just past the window before"),
        pytest.param([bought(100, user=b"1"), paid(100, "9", user=b"2")], [], ["9"], [], id="another user's amount"),
        pytest.param(
            [bought(100), paid(99, "8"), paid(102, "9")], [(100, "8")], [], ["9"], id="an event takes one row"
        ),
        pytest.param([bought(98), bought(102), paid(100, "9")], [(102, "9")], [], [], id="a row belongs to one event"),
        pytest.param(
            [bought(100), bought(104), paid(103, "10"), paid(107, "20")],
            [(100, "10"), (104, "20")],
            [],
            [],
            id="two purchases, each booked a little later",
        ),
        pytest.param(
            [paid(94, "7"), paid(96, "8"), paid(106, "9"), bought(100)],
            [(100, "8")],
            ["7", "9"],
            [],
            id="stretches side by side",
        ),
        pytest.param(
            [bought(100), bought(103), paid(108, "9")], [(103, "9")], [], [], id="events alone are no stretch"
        ),
        pytest.param(
            [paid(100, "7"), paid(103, "8"), bought(108)], [(108, "8")], ["7"], [], id="rows alone are no stretch"
        ),
        pytest.param(
            [bought(100), bought(100), paid(100, "5"), paid(100, "5"), paid(100, "5")],
            [(100, "5"), (100, "5")],
            [],
            ["5"],
            id="twins",
        ),
    ],
)
def test_events_and_rows_are_paired_one_to_one_in_any_order_of_arrival(rows, matches, unmatched, left_over):
    for arrivals in permutations(rows):
        assert told(join_of(*arrivals).decide(MAX_TIME)) == (matches, unmatched, left_over)


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        pytest.param([bought(100)], 100, id="an event"),
        pytest.param([paid(100, "9")], 100, id="a row"),
        pytest.param([bought(100), paid(104, "9")], 104, id="a pair"),
        pytest.param([bought(100), paid(104, "9"), bought(109)], 109, id="a stretch"),
        pytest.param([bought(100), paid(104, "9"), bought(109), paid(114, "8")], 114, id="a longer stretch"),
    ],
)
def test_a_stretch_is_decided_when_no_row_on_time_can_be_linked_to_it(rows, last):
    join = join_of(*rows)
    assert join.decide(MIN_TIME) == Decided()
    for watermark in range(last, last + WINDOW + 1):
        assert join.decide(watermark) == Decided()  # exactly the window away, a row may still come
    decided = join.decide(last + WINDOW + 1)
    assert len(decided.matches) == sum(type(row) is Event for row in rows) - (len(rows) % 2 and type(rows[0]) is Event)
    assert join.undecided == {}


@pytest.mark.parametrize(
    ("last", "matches"),
    [
        pytest.param(None, [(100, "1"), (106, "2")], id="none"),
        pytest.param(bought(112), [(106, "1"), (112, "2")], id="an event"),
        pytest.param(paid(97, "3"), [(100, "1"), (106, "2")], id="a row before"),
    ],
)
def test_the_last_row_of_a_stretch_can_change_all_of_its_pairs(last, matches):
    join = join_of(bought(100), paid(103, "1"), bought(106), paid(109, "2"))
    if last is not None:
        join.decide(min(last.time, 97))
        join.add([last])
    assert told(join.decide(MAX_TIME))[0] == matches


def test_stretches_are_decided_one_after_the_other():
    join = join_of(paid(103, "3"), paid(101, "1"), bought(120), paid(102, "2"), paid(121, "4"))
    assert [told(join.decide(watermark)) for watermark in (106, 107, 108, 109, 126, 127)] == [
        ([], [], []),
        ([], ["1"], []),
        ([], ["2"], []),
        ([], ["3"], []),
        ([], [], []),
        ([(120, "4")], [], []),
    ]
    assert join.undecided == {}


def test_a_resumed_join_decides_as_before_also_in_the_middle_of_a_stretch():
    rows = [bought(100), paid(104, "4"), bought(108), paid(112, "2"), bought(200), paid(201, "1", user=b"2")]
    whole = told(join_of(*rows).decide(MAX_TIME))
    for watermark in (MIN_TIME, 106, 110, 114):
        before = join_of(*rows[:-1])
        assert before.decide(watermark) == Decided()
        after = IntervalJoin(WINDOW, amounts())
        after.restore(before.state())
        after.add(rows[-1:])
        assert told(after.decide(MAX_TIME)) == whole


def test_a_user_with_an_old_undecided_event_is_held_until_the_stretch_is_decided():
    retention = 12
    join = join_of(bought(100), paid(104, "4"), bought(108), paid(112, "2"), bought(116), retention=retention)
    join.add([bought(100, user=b"2")])
    for watermark in range(106, 122):
        assert join.decide(watermark).matches == []
        if watermark > 100 + retention:
            assert join.held == {b"1": 100}
    assert len(join.decide(122).matches) == 2
    assert join.held == {}


def test_no_user_is_held_for_a_pair_that_is_decided_in_time():
    join = join_of(bought(100), paid(105, "4"), retention=2 * WINDOW)
    for watermark in range(100, 111):
        join.decide(watermark)
        assert join.held == {}
    assert len(join.decide(111).matches) == 1


def test_the_moment_when_events_are_decided_is_known_by_the_rows_so_far():
    join = join_of(bought(100), paid(104, "4"), bought(109), bought(130))
    assert join.decided_after(b"1", 99) == MIN_TIME
    assert join.decided_after(b"1", 100) == join.decided_after(b"1", 129) == 109 + WINDOW
    assert join.decided_after(b"1", 130) == 130 + WINDOW
    assert join.decided_after(b"2", 130) == MIN_TIME
    join.decide(115)
    assert join.decided_after(b"1", 129) == MIN_TIME


def test_a_long_stretch_costs_no_more_a_row_than_a_short_one():
    join = IntervalJoin(WINDOW, amounts())
    for time in range(0, 40_000, 4):
        join.add([bought(time) if time % 8 else paid(time, "1")])
        join.decide(time)
    rows = join.undecided[b"1"]
    assert rows.linked_lefts + rows.linked_rights >= 10_000 - 4  # all but the last have been looked at, and once
    assert len(join.decide(MAX_TIME).matches) == 5_000
