"""Source alignment: sources of a backlog stay close in event time, and never pause each other for good."""

import pytest

from dataflow.streaming.alignment import MAX_DRIFT, MAX_ROWS_AHEAD, AlignedSource, SourceAlignment
from dataflow.streaming.time import MAX_TIME, MIN_TIME

NOW = 1_000_000_000


def pace(**bounds) -> SourceAlignment:
    """Where each source stands; of the sources there are as many as are named."""
    made = SourceAlignment()
    for source, bound in bounds.items():
        made.update(source, bound, len(bounds))
    return made


def runner(pace: SourceAlignment, *polls: tuple[float, int]) -> AlignedSource:
    """That has read so many rows, polls of them, each up to a time."""
    made = AlignedSource(pace)
    for mark, rows in polls:
        made.record_read(rows, mark)
    return made


@pytest.mark.parametrize(
    ("ahead", "rows", "waits"),
    [
        pytest.param(MAX_DRIFT + 1, MAX_ROWS_AHEAD, True, id="too far ahead in time and in rows"),
        pytest.param(MAX_DRIFT, MAX_ROWS_AHEAD, False, id="just as far as it may in time"),
        pytest.param(MAX_DRIFT + 1, MAX_ROWS_AHEAD - 1, False, id="just as far as it may in rows"),
        pytest.param(1_000 * MAX_DRIFT, MAX_ROWS_AHEAD - 1, False, id="far ahead, but so sparse that it is nothing"),
        pytest.param(0, 1_000 * MAX_ROWS_AHEAD, False, id="many rows, but of the same time"),
        pytest.param(-MAX_DRIFT, 1_000 * MAX_ROWS_AHEAD, False, id="it is the slowest itself"),
    ],
)
def test_a_source_is_paused_when_ahead_in_time_and_in_rows(ahead, rows, waits):
    assert runner(pace(slow=NOW, fast=NOW + ahead), (NOW + ahead, rows)).is_paused() == waits


def test_only_rows_beyond_the_drift_count():
    together = pace(slow=NOW, fast=NOW + 2 * MAX_DRIFT)
    fast = runner(
        together,
        (NOW, 1_000 * MAX_ROWS_AHEAD),
        (NOW + MAX_DRIFT, 1_000 * MAX_ROWS_AHEAD),
        (NOW + 2 * MAX_DRIFT, MAX_ROWS_AHEAD - 1),
    )
    assert not fast.is_paused()
    fast.record_read(1, NOW + 2 * MAX_DRIFT)
    assert fast.is_paused()


def test_a_source_stays_paused_until_the_slowest_is_near():
    together = pace(slow=NOW, fast=NOW + 2 * MAX_DRIFT)
    fast = runner(together, (NOW + 2 * MAX_DRIFT, MAX_ROWS_AHEAD))
    for moved in (0, 1, MAX_DRIFT - 1):
        together.update("slow", NOW + moved, 2)
        assert fast.is_paused()
    together.update("slow", NOW + MAX_DRIFT, 2)
    assert not fast.is_paused()


@pytest.mark.parametrize(
    ("bounds", "waits"),
    [
        pytest.param({"slow": MIN_TIME, "fast": NOW}, True, id="one that has not read a row yet, and may have some"),
        pytest.param({"slow": MAX_TIME, "fast": MAX_TIME}, False, id="ones that have ended"),
        pytest.param({"slow": MAX_TIME, "fast": NOW + 2 * MAX_DRIFT}, False, id="one that has ended"),
        pytest.param(
            {"slow": NOW + 2 * MAX_DRIFT, "fast": NOW + 2 * MAX_DRIFT},
            False,
            id="one that has run dry and claims the present",
        ),
        pytest.param({}, False, id="no shard lives here, or none has heard anything yet"),
    ],
)
def test_a_source_with_nothing_to_read_pauses_no_other(bounds, waits):
    assert runner(pace(**bounds), (NOW + 2 * MAX_DRIFT, MAX_ROWS_AHEAD)).is_paused() == waits


def test_a_source_not_heard_of_yet_pauses_the_others():
    some = SourceAlignment()
    some.update("fast", NOW, 2)
    assert some.slowest() == MIN_TIME
    some.update("slow", NOW - 5, 2)
    assert some.slowest() == NOW - 5
