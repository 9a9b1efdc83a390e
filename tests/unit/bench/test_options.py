"""Command lines of the measurements: what they accept and refuse."""

from argparse import ArgumentTypeError

import pytest

from bench.on_time import case
from producer.options import whole


def test_counts_are_whole_and_at_least_1():
    assert whole("1") == 1
    assert whole("10000000") == 10_000_000


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e6", "many", "", "²"])
def test_other_numbers_are_refused(text):
    with pytest.raises(ArgumentTypeError, match="is not a whole number above 0"):
        whole(text)


def test_a_case_is_users_and_events_a_second():
    assert case("20:3") == (20, 3.0)
    assert case("10000:0.5") == (10_000, 0.5)


@pytest.mark.parametrize("text", ["20", "20:", ":3", "0:3", "20:0", "20:-1", "20:inf", "20:nan", "a:b"])
def test_other_cases_are_refused(text):
    with pytest.raises(ArgumentTypeError, match="is not USERS:RATE"):
        case(text)
