"""The rows of the output topics against those that a report expects."""

from collections import Counter

import pytest
from support.explained import SETTINGS, explained
from support.logs import EVENTS, PURCHASES, event, log

from dataflow.tools.explain.compare import (
    DUPLICATE,
    MISSING,
    MISSING_OPTIONAL,
    UNEXPECTED,
    Found,
    compare,
    in_topics,
    message_origin,
)

TOPIC = SETTINGS.topic_visits


@pytest.fixture
def report():
    """Of a session that has long been closed."""
    return explained({EVENTS: log(event(0), event(3), event(60, user=2)), PURCHASES: []})


def test_the_expected_rows_give_no_difference(report):
    found = Found(b"1", [])
    found.rows = report.written
    assert compare(report, found, SETTINGS) == []
    assert in_topics(report.sessions[0], found, SETTINGS) == "written"


@pytest.mark.parametrize(
    ("change", "what", "state"),
    [
        (lambda rows: rows - Counter([next(iter(rows))]), MISSING, "written in part"),
        (lambda rows: rows + Counter([next(iter(rows))]), DUPLICATE, "written"),
        (lambda rows: rows + Counter([(b"1", b"{}", ())]), UNEXPECTED, "written"),
    ],
    ids=["missing", "twice", "unexpected"],
)
def test_each_kind_of_difference_is_named(report, change, what, state):
    found = Found(b"1", [])
    found.rows = {**report.written, TOPIC: change(report.written[TOPIC])}
    assert [(each.rows, each.what) for each in compare(report, found, SETTINGS) if each.topic == TOPIC] == [(1, what)]
    assert in_topics(report.sessions[0], found, SETTINGS) == state


def test_a_session_may_lack_its_row_in_a_topic_that_came_later(report):
    found = Found(b"1", [])
    found.rows = {topic: rows for topic, rows in report.written.items() if topic != SETTINGS.topic_sessions}
    assert [(each.topic, each.what) for each in compare(report, found, SETTINGS)] == [("sessions", MISSING_OPTIONAL)]
    assert in_topics(report.sessions[0], found, SETTINGS) == "written, but not to sessions"


def test_nothing_is_missing_in_a_topic_that_is_not_there(report):
    found = Found(b"1", [], absent=["sessions"])
    found.rows = {topic: rows for topic, rows in report.written.items() if topic != SETTINGS.topic_sessions}
    assert compare(report, found, SETTINGS) == []
    assert in_topics(report.sessions[0], found, SETTINGS) == "written"


def test_no_row_at_all_is_not_written_yet(report):
    assert in_topics(report.sessions[0], Found(b"1", []), SETTINGS) == "not written yet"


def test_the_origin_of_a_rejected_row_is_in_its_headers():
    headers = [("reason", b"late"), ("topic", b"clicks"), ("partition", b"3"), ("offset", b"41")]
    assert message_origin(headers) == "clicks/3/41"
    assert message_origin([*headers, ("part", b"2")]) == "clicks/3/41/2"
