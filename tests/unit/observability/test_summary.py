"""What a run says at its end."""

import logging

import pytest

from dataflow.observability import metrics, summary

COUNTERS = {
    "rows_read": metrics.rows_read,
    "rows_written": metrics.rows_written,
    "rows_late": metrics.rows_late,
    "dead_letters": metrics.dead_letters,
    "unmatched": metrics.unmatched,
    "sessions_closed": metrics.sessions_closed,
    "left_out": metrics.rows_left_out,
    "ignored": metrics.rows_ignored,
    "pending": metrics.rows_pending,
}


@pytest.fixture
def totals_of(monkeypatch, caplog):
    """The line at the end of a run with the given counts; counts by topic where the counter has topics."""

    def totals(**counts):
        of_counter = {id(counter): counts.get(name, 0) for name, counter in COUNTERS.items()}

        def by_topic(counter):
            found = of_counter[id(counter)]
            return found if isinstance(found, dict) else {"": found}

        monkeypatch.setattr(summary.metrics, "by_topic", by_topic)
        monkeypatch.setattr(summary.metrics, "value", lambda counter: sum(by_topic(counter).values()))
        caplog.set_level(logging.INFO)
        found = summary.log_totals()
        return found, caplog.records[-1]

    return totals


def test_a_run_says_what_it_has_read_and_written(totals_of):
    totals, record = totals_of(
        rows_read={"clicks": 1_200, "purchases": 3}, rows_written={"visits": 1_190}, sessions_closed=17, rows_late=10
    )
    assert record.getMessage() == (
        "read 1,200 from clicks, 3 from purchases; closed 17 sessions; wrote 1,190 to visits; "
        "10 late, 0 dead letters, 0 unmatched purchases"
    )
    assert record.levelno == logging.INFO
    assert not totals.nothing_readable


def test_a_run_that_lost_most_of_what_it_read_warns(totals_of):
    _, record = totals_of(rows_read={"clicks": 100}, rows_late=40, dead_letters=11)
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("most of what was read became no visit: read 100 from clicks;")


def test_a_replay_that_wrote_nothing_because_all_was_there_does_not_warn(totals_of):
    _, record = totals_of(rows_read={"clicks": 100}, rows_late=40, dead_letters=11, left_out={"late": 40, "dead": 11})
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith("; 51 rows not written, because the outputs had them")


def test_purchases_that_a_run_before_has_read_do_not_warn(totals_of):
    _, record = totals_of(unmatched=3)
    assert record.levelno == logging.INFO


@pytest.mark.parametrize(("read", "dead", "expected"), [(0, 0, False), (5, 4, False), (5, 5, True)])
def test_a_run_knows_whether_anything_could_be_read(totals_of, read, dead, expected):
    totals, _ = totals_of(rows_read={"clicks": read}, dead_letters=dead)
    assert totals.nothing_readable == expected


def test_a_run_without_messages_says_so(totals_of):
    _, record = totals_of()
    assert record.getMessage().startswith("read nothing; closed 0 sessions; wrote nothing;")


def test_messages_left_out_on_purpose_are_no_loss_and_are_told(totals_of):
    totals, record = totals_of(rows_read={"clicks": 5}, ignored={"clicks": 5})
    assert not totals.nothing_readable
    assert record.levelname == "INFO"
    assert ", 5 left out as the mapping says" in record.getMessage()
    totals, _ = totals_of(rows_read={"clicks": 5}, ignored={"clicks": 3}, dead_letters=2)
    assert totals.nothing_readable
