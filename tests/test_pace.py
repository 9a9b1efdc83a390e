"""Sources of a backlog keep in step, and never so that all of them stand still."""

import pytest

from dataflow.pace import AHEAD, ROWS, Pace, Runner
from dataflow.rules.rows import END, NEVER

NOW = 1_000_000_000


def pace(**bounds) -> Pace:
    """Where each source stands; of the sources there are as many as are named."""
    made = Pace()
    for source, bound in bounds.items():
        made.hear(source, bound, len(bounds))
    return made


def runner(pace: Pace, *polls: tuple[float, int]) -> Runner:
    """That has read so many rows, polls of them, each up to a time."""
    made = Runner(pace)
    for mark, rows in polls:
        made.has_read(rows, mark)
    return made


@pytest.mark.parametrize(
    ("ahead", "rows", "waits"),
    [
        pytest.param(AHEAD + 1, ROWS, True, id="too far ahead in time and in rows"),
        pytest.param(AHEAD, ROWS, False, id="just as far as it may in time"),
        pytest.param(AHEAD + 1, ROWS - 1, False, id="just as far as it may in rows"),
        pytest.param(1_000 * AHEAD, ROWS - 1, False, id="far ahead, but so sparse that it is nothing"),
        pytest.param(0, 1_000 * ROWS, False, id="many rows, but of the same time"),
        pytest.param(-AHEAD, 1_000 * ROWS, False, id="it is the slowest itself"),
    ],
)
def test_a_source_waits_when_it_is_ahead_in_time_and_in_rows(ahead, rows, waits):
    assert runner(pace(slow=NOW, fast=NOW + ahead), (NOW + ahead, rows)).must_wait() == waits


def test_only_the_rows_that_are_too_far_ahead_count():
    together = pace(slow=NOW, fast=NOW + 2 * AHEAD)
    fast = runner(together, (NOW, 1_000 * ROWS), (NOW + AHEAD, 1_000 * ROWS), (NOW + 2 * AHEAD, ROWS - 1))
    assert not fast.must_wait()
    fast.has_read(1, NOW + 2 * AHEAD)
    assert fast.must_wait()


def test_it_waits_until_the_slowest_has_come_near_and_not_only_moved():
    together = pace(slow=NOW, fast=NOW + 2 * AHEAD)
    fast = runner(together, (NOW + 2 * AHEAD, ROWS))
    for moved in (0, 1, AHEAD - 1):
        together.hear("slow", NOW + moved, 2)
        assert fast.must_wait()
    together.hear("slow", NOW + AHEAD, 2)
    assert not fast.must_wait()


@pytest.mark.parametrize(
    ("bounds", "waits"),
    [
        pytest.param({"slow": NEVER, "fast": NOW}, True, id="one that has not read a row yet, and may have some"),
        pytest.param({"slow": END, "fast": END}, False, id="ones that have ended"),
        pytest.param({"slow": END, "fast": NOW + 2 * AHEAD}, False, id="one that has ended"),
        pytest.param(
            {"slow": NOW + 2 * AHEAD, "fast": NOW + 2 * AHEAD}, False, id="one that has run dry and claims the present"
        ),
        pytest.param({}, False, id="no shard lives here, or none has heard anything yet"),
    ],
)
def test_nobody_waits_for_one_that_has_nothing_to_read(bounds, waits):
    assert runner(pace(**bounds), (NOW + 2 * AHEAD, ROWS)).must_wait() == waits


def test_one_that_nobody_has_heard_of_is_waited_for():
    some = Pace()
    some.hear("fast", NOW, 2)
    assert some.slowest() == NEVER
    some.hear("slow", NOW - 5, 2)
    assert some.slowest() == NOW - 5
