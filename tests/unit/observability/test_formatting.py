"""Times, durations, counts and values, as people read them."""

import pytest

from dataflow.observability.formatting import duration, pluralize, shortened, time_of_day, unix_seconds, utc_text
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND

NOON = 1_710_331_200 * SECOND


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (NOON, "2024-03-13 12:00:00"),
        (NOON + 3_500_000, "2024-03-13 12:00:03.5"),
        (NOON + 1, "2024-03-13 12:00:00.000001"),
        (MIN_TIME, "never"),
        (MAX_TIME, "the end"),
        (-(10**18), "before year 1"),
        (10**18, "after year 9999"),
    ],
)
def test_a_time_is_date_and_time_in_utc(time, text):
    assert utc_text(time) == text


def test_a_time_of_day_has_no_date():
    assert time_of_day(NOON + 3_500_000) == "12:00:03.5"


@pytest.mark.parametrize(("microseconds", "text"), [(20 * SECOND, "20 s"), (3_500_000, "3.5 s"), (-1, "-0.000001 s")])
def test_a_duration_is_in_seconds(microseconds, text):
    assert duration(microseconds) == text


@pytest.mark.parametrize(("time", "seconds"), [(NOON + 500_000, 1_710_331_200.5), (MIN_TIME, None), (MAX_TIME, None)])
def test_unix_seconds_are_for_machines(time, seconds):
    assert unix_seconds(time) == seconds


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2000, "2,000 rows")])
def test_a_count_has_its_noun(number, text):
    assert pluralize(number, "row") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "(no value)"),
        (b"{}", "{}"),
        (b"a\nb\x1b", r"a\nb\x1b"),
        (b"\xff", r"\xff"),
        (b"x" * 2_000, "x" * 200 + "… (2,000 bytes)"),
    ],
)
def test_a_value_is_one_printable_line(value, text):
    assert shortened(value) == text
