"""Session windows of one user. Times are small integers; the gap is 20."""

from dataclasses import dataclass
from itertools import permutations

import pytest

from dataflow.streaming.session_windows import Session, SessionWindows
from dataflow.streaming.time import MAX_TIME

GAP = 20


@dataclass
class At:
    """A row."""

    time: int
    user: bytes = b"1"


def sessions(hold: int = 0) -> SessionWindows[list[int]]:
    """Whose fold is the list of the rows' times, as they came."""
    return SessionWindows(GAP, hold, list, lambda times, row: [*times, row.time], lambda times, more: times + more)


def found(closed: list[Session]) -> list[tuple[int, int, list[int]]]:
    return [(each.start, each.end, sorted(each.fold)) for each in closed]


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([100], [(100, 100)], id="one row"),
        pytest.param([100, 119], [(100, 119)], id="within the gap"),
        pytest.param([100, 120], [(100, 120)], id="exactly the gap"),
        pytest.param([100, 121], [(100, 100), (121, 121)], id="just past the gap"),
        pytest.param([100, 80], [(80, 100)], id="exactly the gap backwards"),
        pytest.param([100, 79], [(79, 79), (100, 100)], id="just past the gap backwards"),
        pytest.param([100, 110, 105], [(100, 110)], id="in the midst of it"),
        pytest.param([100, 100], [(100, 100)], id="at the same time"),
        pytest.param([100, 140, 120], [(100, 140)], id="merged by a row between, exactly the gap from both"),
        pytest.param([100, 141, 120], [(100, 120), (141, 141)], id="not merged: just past the gap from the later"),
        pytest.param([100, 141, 121], [(100, 100), (121, 141)], id="not merged: just past the gap from the earlier"),
        pytest.param([100, 141, 130], [(100, 100), (130, 141)], id="extended backwards"),
        pytest.param([100, 130, 160, 190, 115, 175, 145], [(100, 190)], id="four merged into two and into one"),
        pytest.param([100, 130, 160, 115, 145], [(100, 160)], id="merged, and merged again"),
        pytest.param([160, 130, 100, 145, 115], [(100, 160)], id="merged from behind"),
        pytest.param([120, 140, 160, 100], [(100, 160)], id="chain backwards"),
        pytest.param([100, 200, 150], [(100, 100), (150, 150), (200, 200)], id="a session between two"),
    ],
)
def test_rows_at_most_the_gap_apart_are_one_session(arrivals, expected):
    open_sessions = sessions()
    for time in arrivals:
        open_sessions.add([At(time)])
    closed = found(open_sessions.close(MAX_TIME))
    assert sorted((start, end) for start, end, _ in closed) == expected
    assert sorted(time for _, _, times in closed for time in times) == sorted(arrivals)
    assert all(start == times[0] and end == times[-1] for start, end, times in closed)
    assert open_sessions.open == {}


@pytest.mark.parametrize("times", [[100, 120, 140, 160], [100, 121, 141, 142], [100, 100, 110, 131, 151]])
def test_sessions_do_not_depend_on_the_order_of_arrival(times):
    results = set()
    for arrivals in permutations(times):
        open_sessions = sessions()
        open_sessions.add(At(time) for time in arrivals)
        results.add(str(sorted(found(open_sessions.close(MAX_TIME)))))
    assert len(results) == 1


def test_opened_sessions_are_counted_also_those_that_merge_later():
    open_sessions = sessions()
    open_sessions.add([At(100), At(110), At(140), At(125)])
    assert (open_sessions.begun, open_sessions.count) == (2, 1)
    open_sessions.close(MAX_TIME)
    assert (open_sessions.begun, open_sessions.count) == (2, 0)


def test_sessions_of_users_are_separate():
    open_sessions = sessions()
    open_sessions.add([At(100, b"1"), At(100, b"2"), At(110, b"1")])
    assert {each.user: each.fold for each in open_sessions.close(MAX_TIME)} == {b"1": [100, 110], b"2": [100]}


@pytest.mark.parametrize(
    ("hold", "watermark", "closes"),
    [
        pytest.param(0, 120, False, id="a row exactly the gap later may still come"),
        pytest.param(0, 121, True, id="now none can"),
        pytest.param(10, 121, True, id="a hold within the gap changes nothing"),
        pytest.param(30, 121, False, id="a hold beyond the gap keeps it"),
        pytest.param(30, 130, False, id="up to its very end"),
        pytest.param(30, 131, True, id="and no longer"),
    ],
)
def test_a_session_closes_once_no_row_on_time_can_extend_it(hold, watermark, closes):
    open_sessions = sessions(hold)
    open_sessions.add([At(100)])
    assert found(open_sessions.close(watermark)) == ([(100, 100, [100])] if closes else [])
    assert bool(open_sessions.open) != closes


def test_a_held_session_waits_and_those_before_it_do_not():
    open_sessions = sessions()
    open_sessions.add([At(100), At(100, b"2"), At(130), At(160)])
    held = {b"1": 130}
    assert found(open_sessions.close(121, held)) == [(100, 100, [100]), (100, 100, [100])]
    assert found(open_sessions.close(151, held)) == found(open_sessions.close(300, held)) == []
    open_sessions.add([At(130)])  # what it has waited for
    assert found(open_sessions.close(300, {b"1": 131})) == [(130, 130, [130, 130])]
    assert found(open_sessions.close(300, {b"2": 100})) == [(160, 160, [160])]
    assert open_sessions.open == {}


def test_a_held_session_is_restored_and_waits_on():
    before = sessions()
    before.add([At(100)])
    assert before.close(200, {b"1": 100}) == []
    after = sessions()
    after.restore(each for held in before.open.values() for each in held)
    assert after.close(200, {b"1": 100}) == []
    assert found(after.close(200)) == [(100, 100, [100])]


def test_an_extended_session_closes_by_its_new_end():
    open_sessions = sessions()
    open_sessions.add([At(100)])
    open_sessions.add([At(115)])
    assert open_sessions.close(135) == []
    assert found(open_sessions.close(136)) == [(100, 115, [100, 115])]


def test_a_merged_session_closes_once_by_its_last_row():
    open_sessions = sessions()
    open_sessions.add([At(100), At(140), At(120)])
    assert open_sessions.close(160) == []
    assert found(open_sessions.close(161)) == [(100, 140, [100, 120, 140])]
    assert open_sessions.close(MAX_TIME) == []


def test_after_a_merge_the_next_row_extends_the_merged_session():
    open_sessions = sessions()
    open_sessions.add([At(100), At(140), At(120), At(160)])
    assert found(open_sessions.close(MAX_TIME)) == [(100, 160, [100, 120, 140, 160])]


def test_a_user_comes_back_after_the_session_has_closed():
    open_sessions = sessions()
    open_sessions.add([At(100)])
    assert len(open_sessions.close(121)) == 1
    open_sessions.add([At(121)])
    assert found(open_sessions.close(MAX_TIME)) == [(121, 121, [121])]


def test_one_user_has_two_open_sessions_and_the_earlier_closes_first():
    open_sessions = sessions()
    open_sessions.add([At(130), At(100)])
    assert found(open_sessions.close(130)) == [(100, 100, [100])]
    assert found(open_sessions.close(MAX_TIME)) == [(130, 130, [130])]


def test_resumed_sessions_extend_merge_and_close_as_before():
    before = sessions()
    before.add([At(140), At(100), At(100, b"2")])
    after = sessions()
    after.restore(
        Session(each.user, each.start, each.end, each.fold) for held in before.open.values() for each in reversed(held)
    )
    after.add([At(120)])
    assert found(after.close(121)) == [(100, 100, [100])]
    assert found(after.close(161)) == [(100, 140, [100, 120, 140])]
    assert after.open == {}
