"""Which rows are late, and how far a shard's watermark advances. Times are small integers."""

import pytest

from dataflow.clickstream.records import Event
from dataflow.streaming.time import MAX_TIME, MIN_TIME
from dataflow.streaming.watermark import MaxTimestamp, SourceProgress, WatermarkTracker

LATENESS = 5


@pytest.mark.parametrize(
    "rows",
    # (time, stored, is it late?) in the order of the log
    [
        pytest.param([(100, MAX_TIME, False)], id="the first row never is"),
        pytest.param(
            [(100, MAX_TIME, False), (95, MAX_TIME, False)],
            id="exactly the lateness below the max timestamp is on time",
        ),
        pytest.param([(100, MAX_TIME, False), (94, MAX_TIME, True)], id="just more is late"),
        pytest.param(
            [(94, MAX_TIME, False), (100, MAX_TIME, False)], id="the max timestamp counts only rows before it"
        ),
        pytest.param(
            [(100, MAX_TIME, False), (50, MAX_TIME, True), (96, MAX_TIME, False)],
            id="a late row does not lower the max timestamp",
        ),
        pytest.param([(100, MAX_TIME, False), (94, MAX_TIME, True), (94, MAX_TIME, True)], id="nor does a second one"),
        pytest.param(
            [(100, MAX_TIME, False), (110, MAX_TIME, False), (104, MAX_TIME, True)],
            id="the max timestamp is the highest time",
        ),
        pytest.param([(140, 100, False), (95, 101, False)], id="a fast clock moves it only to the time of storing"),
        pytest.param([(140, 100, False), (94, 101, True)], id="but that far it does"),
        pytest.param(
            [(140, 100, False), (99, 140, False), (120, 141, False), (114, 142, True)],
            id="and right clocks go on from there",
        ),
        pytest.param(
            [(100, 200, False), (95, 200, False), (94, 200, True)],
            id="a time of storing after the row's own does not matter",
        ),
        pytest.param([(140, MAX_TIME, False), (100, 100, True)], id="a record without a timestamp is not capped"),
        pytest.param(
            [(100, 100, False), (130, 90, False), (95, 90, False)],
            id="a time of storing below the max timestamp does not lower it",
        ),
    ],
)
def test_a_row_is_late_beyond_the_lateness_below_the_max_timestamp(rows):
    max_timestamp = MaxTimestamp(LATENESS)
    assert [max_timestamp.is_late(time, stored) for time, stored, _ in rows] == [late for _, _, late in rows]


def test_a_resumed_max_timestamp_goes_on():
    before = MaxTimestamp(LATENESS)
    before.is_late(100, MAX_TIME)
    after = MaxTimestamp(LATENESS, before.high)
    assert not after.is_late(95, MAX_TIME)
    assert after.is_late(94, MAX_TIME)


def says(
    source: str, max_timestamp, now: int = 0, caught_up_at: int | None = None, sources: str = "ab"
) -> SourceProgress:
    return SourceProgress(source, max_timestamp, now, caught_up_at, tuple(sources))


@pytest.mark.parametrize(
    "said",
    # what is heard, and the watermark after it
    [
        pytest.param([(says("a", 100), MIN_TIME)], id="one that has not been heard may hold anything"),
        pytest.param(
            [(says("a", 100), MIN_TIME), (says("b", MIN_TIME), MIN_TIME)], id="so may one that has no row yet"
        ),
        pytest.param([(says("a", 100), MIN_TIME), (says("b", 90), 85)], id="the slowest, less the lateness"),
        pytest.param(
            [(says("a", 100), MIN_TIME), (says("b", 90), 85), (says("b", 200), 95)], id="it goes on as the slowest does"
        ),
        pytest.param([(says("a", 100), MIN_TIME), (says("b", MAX_TIME), 95)], id="one that has ended holds nobody"),
        pytest.param(
            [(says("a", MAX_TIME), MIN_TIME), (says("b", MAX_TIME), MAX_TIME)], id="when all have ended so has time"
        ),
        pytest.param(
            [(says("a", 100), MIN_TIME), (says("b", 90), 85), (says("c", 10, sources="abc"), 85)],
            id="a new slow one does not turn it back",
        ),
        pytest.param(
            [(says("a", 100, sources="abc"), MIN_TIME), (says("b", 90), MIN_TIME), (says("c", 80), 75)],
            id="a batch that does not know of all sources yet does not matter",
        ),
        pytest.param(
            [(says("a", 100, now=1_000), MIN_TIME), (says("b", MIN_TIME, 1_000, caught_up_at=1_000), 95)],
            id="one that is empty and says so keeps step",
        ),
        pytest.param(
            [(says("b", MIN_TIME, 1_000, caught_up_at=1_000), MIN_TIME), (says("a", 100, now=1_000), MIN_TIME)],
            id="but not with rows that were read after it",
        ),
        pytest.param(
            [
                (says("a", 100, now=1_000), MIN_TIME),
                (says("b", 50, 1_007, caught_up_at=1_007), 95),
                (says("a", 100, 1_010, caught_up_at=1_010), 102),
            ],
            id="when all are idle it goes on with the wall clock, as far behind as the highest max timestamp",
        ),
        pytest.param(
            [
                (says("a", 100, now=1_000), MIN_TIME),
                (says("b", 50, 1_007, caught_up_at=1_007), 95),
                (says("a", 101, 1_010), 96),
                (says("b", 51, 1_011), 96),
            ],
            id="a claim ends with the next row, and time stands",
        ),
        pytest.param(
            [
                (says("a", 100, now=1_000), MIN_TIME),
                (says("b", 50, 1_050, caught_up_at=1_002), 95),
                (says("a", 100, 1_060, caught_up_at=1_003), 97),
            ],
            id="a claim counts from the moment it speaks of, not from when it is made",
        ),
        pytest.param(
            [(says("a", 100, now=1_000), MIN_TIME), (says("b", 98, 1_000, caught_up_at=990), 93)],
            id="an old claim never takes back what the max timestamp says",
        ),
        pytest.param(
            [
                (says("a", 1_040, now=1_000), MIN_TIME),
                (says("b", MIN_TIME, 1_002, caught_up_at=1_002), 997),
                (says("a", 1_040, 1_010, caught_up_at=1_010), 997),
                (says("b", MIN_TIME, 1_011, caught_up_at=1_011), 1_006),
            ],
            id="a max timestamp ahead of the wall clock does not take idle sources with it",
        ),
        pytest.param(
            [(says("a", MIN_TIME, 5, caught_up_at=5), MIN_TIME), (says("b", MIN_TIME, 6, caught_up_at=6), MIN_TIME)],
            id="without any row there is no time",
        ),
    ],
)
def test_the_watermark_is_the_slowest_source_less_lateness_and_never_falls(said):
    clock = WatermarkTracker(LATENESS)
    assert [clock.advance(each) for each, _ in said] == [watermark for _, watermark in said]


def row(time: int) -> Event:
    return Event(time, b"1", b"{}", 0, 1, "click")


@pytest.mark.parametrize(
    ("watermark", "max_timestamp", "late"),
    [
        pytest.param(MIN_TIME, MIN_TIME, [], id="at first nothing is late"),
        pytest.param(95, 100, [], id="nor is anything that its own partition calls on time"),
        pytest.param(102, 50, [101], id="unless the partition was idle: from exactly the watermark on it is on time"),
        pytest.param(104, 50, [101, 102, 103], id="and before it is late"),
    ],
)
def test_a_shard_rejects_rows_below_its_watermark(watermark, max_timestamp, late):
    clock = WatermarkTracker(LATENESS)
    clock.watermark = watermark
    clock.max_timestamps["a"] = max_timestamp
    rows = [row(103), row(101), row(102), row(104)]
    on_time, overtaken = clock.split("a", rows)
    assert sorted(each.time for each in overtaken) == late
    assert on_time == [each for each in rows if each.time not in late]


def test_rows_are_judged_before_their_batch_moves_the_watermark():
    clock = WatermarkTracker(LATENESS)
    clock.advance(says("a", 50, sources="a"))
    assert clock.split("a", [row(46), row(900)]) == ([row(46), row(900)], [])
    assert clock.advance(says("a", 900, sources="a")) == 895


def test_a_resumed_tracker_has_all_but_which_sources_are_idle():
    before = WatermarkTracker(LATENESS)
    before.advance(says("a", 100, now=1_000, sources="abc"))
    before.advance(says("c", 80, now=1_000, sources="abc"))
    assert before.advance(says("b", 50, 1_010, caught_up_at=1_010, sources="abc")) == 75
    after = WatermarkTracker(LATENESS)
    after.restore(before.state())
    assert after.watermark == 75
    assert after.advance(says("a", 200, now=2_000, sources="abc")) == 75
    assert after.advance(says("c", 200, now=2_000, sources="abc")) == 75  # b is believed only once it claims anew
    assert after.advance(says("b", 50, 2_001, caught_up_at=2_001, sources="abc")) == 195


def test_time_in_which_no_process_ran_does_not_count():
    before = WatermarkTracker(5)
    before.advance(says("a", 100, now=1_000))
    before.advance(says("b", 90, now=1_000))
    after = WatermarkTracker(5)
    after.restore(before.state())
    assert after.advance(says("a", 100, now=9_000, caught_up_at=9_000)) == 85
    assert after.advance(says("b", 90, now=9_010, caught_up_at=9_010)) == 95
    assert after.advance(says("a", 100, now=9_010, caught_up_at=9_010)) == 105


def test_elapsed_time_is_that_of_the_clock_that_does_not_step():
    tracker = WatermarkTracker(5)
    tracker.advance(says("a", 100, now=1_000)._replace(read_at=1_000))
    tracker.advance(says("b", 100, now=1_000)._replace(read_at=1_000))
    stepped = 600_000
    for source in "ab":
        tracker.advance(says(source, 100, now=1_010 + stepped, caught_up_at=1_010)._replace(read_at=1_010))
    assert tracker.watermark == 105
