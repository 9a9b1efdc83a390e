"""Which purchase event takes which purchase row. Times are small integers; the window is 5."""

from itertools import permutations

import msgspec
import pytest

from dataflow.clickstream.attribution import PurchaseKey, amounts, match, pair_purchases
from dataflow.clickstream.records import Purchase
from dataflow.streaming.interval_join import JoinState
from dataflow.streaming.state import JobFingerprint, StateCodec

WINDOW = 5


def bought(time: int, page: int = 1) -> PurchaseKey:
    return PurchaseKey(time, b"1", page)


def paid(time: int, amount: str, page: int = 1, position: int = 0, value: bytes = b"") -> Purchase:
    return Purchase(time, b"1", value or amount.encode(), position, page, amount.encode())


def amounts_of(keys: list[PurchaseKey], rows: list[Purchase]) -> list[tuple[int, str]]:
    """The times of the events that take a row, and the amounts."""
    pairs = pair_purchases(keys, rows, WINDOW)
    return sorted((keys[key].time, rows[row].amount.decode()) for key, row in pairs)


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        pytest.param([paid(100, "1", page=2), paid(105, "2", page=1)], "2", id="own page before nearest"),
        pytest.param([paid(100, "1", page=1), paid(105, "2", page=1)], "1", id="of the own page the nearest"),
        pytest.param([paid(100, "1", page=2), paid(105, "2", page=3)], "1", id="of other pages the nearest"),
        pytest.param([paid(106, "1", page=1), paid(105, "2", page=2)], "2", id="another page, if the own is too far"),
        pytest.param([paid(98, "2"), paid(101, "1")], "1", id="nearest before larger"),
        pytest.param([paid(98, "2"), paid(102, "1")], "1", id="of equally near ones the later"),
        pytest.param([paid(102, "9"), paid(102, "10")], "10", id="of the same time the larger, as numbers"),
        pytest.param([paid(102, "-10"), paid(102, "-9")], "-9", id="the larger of negative ones"),
        pytest.param([paid(102, "5"), paid(102, "5.0")], "5.0", id="of equal ones one spelling, always the same"),
        pytest.param([paid(102, "0"), paid(102, "-0.0")], "0", id="zeros too"),
        pytest.param([paid(102, "1e1"), paid(102, "9.5")], "1e1", id="as numbers, not as text"),
        pytest.param(
            [paid(102, "9007199254740993"), paid(102, "9007199254740992.5")],
            "9007199254740993",
            id="as exact numbers, not as floats",
        ),
        pytest.param([paid(102, "1e-99999999999999999999"), paid(102, "-1")], "1e-99999999999999999999", id="nearly 0"),
    ],
)
def test_the_row_that_a_lone_event_takes_does_not_depend_on_the_order(rows, taken):
    for order in permutations(rows):
        assert amounts_of([bought(100)], sorted(order, key=lambda row: row.time)) == [(100, taken)]


@pytest.mark.parametrize(
    ("keys", "rows", "pairs"),
    [
        pytest.param(
            [bought(100), bought(104)],
            [paid(103, "10"), paid(107, "20")],
            [(100, "10"), (104, "20")],
            id="two purchases of one page, each booked 3 later",
        ),
        pytest.param(
            [bought(100, 1), bought(101, 2)],
            [paid(101, "10", 1), paid(100, "20", 2)],
            [(100, "10"), (101, "20")],
            id="each of its own page, though the other is nearer",
        ),
        pytest.param(
            [bought(100, 1), bought(106, 2)],
            [paid(102, "10", 2), paid(108, "20", 2)],
            [(100, "10"), (106, "20")],
            id="the nearest of the own page, and the rest for the others",
        ),
        pytest.param(
            [bought(100, 2), bought(104, 1)],
            [paid(103, "10", 1), paid(112, "20", 1)],
            [(104, "10")],
            id="of the own page first, even if fewer get a row in the end",
        ),
        pytest.param(
            [bought(100, 1), bought(100, 2)],
            [paid(100, "10", 3), paid(101, "20", 3)],
            [(100, "10"), (100, "20")],
            id="events of one time",
        ),
        pytest.param(
            [bought(100), bought(103)],
            [paid(101, "10"), paid(101, "20"), paid(101, "30")],
            [(100, "20"), (103, "30")],
            id="of rows of one time the largest, in order",
        ),
    ],
)
def test_competing_events_share_the_rows(keys, rows, pairs):
    for key_order in permutations(keys):
        for order in permutations(rows):
            in_order = (sorted(some, key=lambda each: each.time) for some in (key_order, order))
            assert amounts_of(*in_order) == pairs


def test_rows_that_differ_in_nothing_but_their_place_are_taken_by_their_place():
    twins = [paid(100, "7", position=position) for position in (3, 1, 2)]
    for order in permutations(twins):
        ((_, row),) = pair_purchases([bought(100)], order, WINDOW)
        assert order[row].position == 3


def test_rows_that_differ_in_their_message_only_are_told_apart_by_it():
    rows = [paid(100, "7", position=2, value=b"a"), paid(100, "7", position=1, value=b"b")]
    ((_, row),) = pair_purchases([bought(100)], rows, WINDOW)
    assert rows[row].value == b"b"


def test_a_match_of_a_later_event_is_greater_whatever_its_amount():
    early, late = match(bought(100), paid(100, "99")), match(bought(101), paid(105, "1", page=2))
    assert late > early


def old_row(time: int, is_matched: bool, user: bytes = b"1") -> list:
    """A purchase row as version 4 had it."""
    return [time, user, b"" if is_matched else b"{}", time, 1, b"9", is_matched]


@pytest.mark.parametrize(
    ("keys", "rows", "keys_after", "rows_after"),
    [
        pytest.param([], [], [], [], id="nothing"),
        pytest.param([[100, b"1", 1]], [old_row(106, False)], [100], [106], id="not matched"),
        pytest.param([[100, b"1", 1]], [old_row(105, True)], [], [], id="a pair"),
        pytest.param([[98, b"1", 1], [102, b"1", 2]], [old_row(100, True)], [], [], id="a row that served two events"),
        pytest.param([[106, b"1", 1]], [old_row(100, True)], [106], [], id="an event beyond the window of the row"),
        pytest.param([[100, b"1", 1]], [old_row(100, True, b"2")], [100], [], id="a row of another user"),
        pytest.param(
            [[100, b"1", 1]], [old_row(99, True), old_row(101, True)], [], [], id="an event that met two rows"
        ),
    ],
)
def test_what_version_4_has_matched_is_not_paired_again(keys, rows, keys_after, rows_after):
    old = msgspec.msgpack.encode([4, 8, [], {}, [keys, rows], ""])
    codec = StateCodec(JoinState[PurchaseKey, Purchase], JobFingerprint(8), amounts().converters(WINDOW))
    state = codec.unpack(old)
    assert [key.time for key in state.lefts] == keys_after
    assert state.rights == [Purchase(time, b"1", b"{}", time, 1, b"9") for time in rows_after]
    assert codec.unpack(codec.pack(state)) == state
