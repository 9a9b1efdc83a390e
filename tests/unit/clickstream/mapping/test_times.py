"""Times as people write them."""

from zoneinfo import ZoneInfo

import pytest

from dataflow.clickstream.mapping.times import parse_time

BERLIN = ZoneInfo("Europe/Berlin")
MOMENT = 1_700_000_000_123_456  # 2023-11-14 22:13:20.123456 UTC


@pytest.mark.parametrize(
    "text",
    [
        "1700000000.123456",
        "1700000000123.456",
        "1700000000123456",
        "1700000000123456000",
        "1.700000000123456e9",
        "2023-11-14T22:13:20.123456Z",
        "2023-11-14T22:13:20.123456000Z",
        "2023-11-14 22:13:20,123456 UTC",
        "2023-11-14t22:13:20.123456z",
        "2023-11-14T23:13:20.123456+01:00",
        "2023-11-14T23:13:20.123456+0100",
        "2023-11-14T20:13:20.123456-02",
        "2023-11-14 22:13:20.123456",
    ],
)
def test_texts_for_one_moment_are_one_moment(text):
    assert parse_time(text) == MOMENT


@pytest.mark.parametrize(
    ("text", "unit", "microseconds"),
    [
        ("99999999999", "", 99_999_999_999_000_000),
        ("100000000000", "", 100_000_000_000_000),
        ("99999999999999", "", 99_999_999_999_999_000),
        ("100000000000000", "", 100_000_000_000_000),
        ("99999999999999999", "", 99_999_999_999_999_999),
        ("100000000000000000", "", 100_000_000_000_000),
        ("-1.5", "", -1_500_000),
        ("5", "ms", 5_000),
        ("1500", "ns", 2),
        ("2500", "ns", 2),
        ("0.0000005", "s", 0),
        ("1700000000123457.49999999999999999999", "us", 1_700_000_000_123_457),
    ],
)
def test_the_unit_of_a_number_is_told_by_its_size_or_said(text, unit, microseconds):
    assert parse_time(text, unit) == microseconds


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2023-07-01T12:00:00", "2023-07-01T10:00:00Z"),
        ("2023-01-01T12:00:00", "2023-01-01T11:00:00Z"),
        ("2023-10-29T02:30:00", "2023-10-29T00:30:00Z"),  # comes twice; the first one
        ("2023-07-01T12:00:00Z", "2023-07-01T12:00:00Z"),
    ],
)
def test_a_time_without_an_offset_is_of_the_zone_that_is_said(text, utc):
    assert parse_time(text, zone=BERLIN) == parse_time(utc)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("yesterday", "not a time: 'yesterday'"),
        ("", "not a time: ''"),
        ("2023-02-30T00:00:00Z", "no such day: 2023-02-30"),
        ("2023-11-14T24:00:00Z", "no such time of day"),
        ("2023-11-14T22:13:20+25:00", "no such offset"),
        ("2023-11-14", "a date without a time of day: '2023-11-14'"),
        ("nan", "not a time"),
        ("1e99", "out of range"),
        ("-99999999999", "out of range"),
        ("0x10", "not a time"),
        ("\uff12023-11-14T22:13:20Z", "not a time"),
        ("2023-11-14T22:13:20\nZ", "not a time"),
    ],
)
def test_what_is_no_time_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse_time(text)
