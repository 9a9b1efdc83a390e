"""The rows that the page lists, as the probe sees them pass."""

from support.logs import EVENTS, NOON, PURCHASES, Plan, Written, bytewax_flow, event, log, purchase, session_id

from dataflow.clickstream.rules import Rules
from dataflow.dashboard.probe import SHOWN, ListedRow


def test_late_rows_are_listed_with_how_late_they_were(probe, job):
    late = event(0, user=7)
    job.read(EVENTS, event(60), event(12.5), late, now=60)
    newest, older = probe.lists().late
    assert newest == ListedRow(
        "about 60 s below the highest time of its partition", late.decode(), f"{EVENTS}/2", NOON, "7"
    )
    assert older.reason == "about 47.5 s below the highest time of its partition"


def test_a_row_late_after_an_idle_partition_says_so(probe, job):
    job.read(PURCHASES, purchase(0, 1), now=0)
    job.read(EVENTS, event(0), now=0, caught_up_at=0)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=100)
    job.read(EVENTS, event(1), now=101)
    assert [each.reason for each in probe.lists().late] == ["its partition was idle, and the watermark passed it"]


def test_a_late_row_in_the_last_batch_of_a_run_is_listed(probe, job):
    job.partitions.logs[EVENTS].extend(log(event(60), event(0)))
    job.feed(job.partitions.poll(EVENTS, 2, end=True))
    assert [each.reason for each in probe.lists().late] == ["below the highest time of its partition"]


def test_dead_letters_are_listed_with_the_reason_and_their_beginning(probe, job):
    job.read(EVENTS, b"\xff{", None, b"x" * 5_000, now=0)
    newest, middle, oldest = probe.lists().dead_letters
    assert newest.text == "x" * 200 + "… (5,000 bytes)"
    assert (middle.reason, middle.text, middle.where) == ("the message has no value", "(no value)", f"{EVENTS}/1")
    assert (oldest.reason, oldest.text) == ("not UTF-8: invalid start byte at byte 0", "\\xff{")


def test_suspicious_visits_and_unmatched_purchases_are_listed(probe, job):
    job.read(EVENTS, *(event(at, user=7) for at in range(6)), event(0, "click", user=8), now=6)
    job.read(PURCHASES, purchase(0, 5, user=9), now=6)
    job.end()
    assert {(each.user, each.reason, each.text) for each in probe.lists().suspicious} == {
        ("7", "too many events", session_id(7, 0)),
        ("8", "too few page views", session_id(8, 0)),
    }
    assert [(each.user, each.reason) for each in probe.lists().unmatched] == [("9", "no purchase event in its time")]


def test_a_purchase_row_that_was_beaten_by_another_is_listed_with_that_reason(probe, job):
    job.read(EVENTS, event(0, "purchase"), now=0)
    job.read(PURCHASES, purchase(0, 5), purchase(1, 6), now=1)
    job.end()
    assert [(each.reason, each.where) for each in probe.lists().unmatched] == [
        ("another row was taken", "purchases/0/1")
    ]


def test_only_the_last_few_rows_are_listed_and_changes_counted(probe, job):
    assert probe.changes == 0
    job.read(EVENTS, *[b"junk %d" % number for number in range(100)], now=0)
    assert [each.where for each in probe.lists().dead_letters] == [f"{EVENTS}/{99 - each}" for each in range(SHOWN)]
    assert probe.changes == 1
    job.read(EVENTS, event(0), now=0)
    assert probe.changes == 1


def test_without_a_probe_the_dataflow_has_no_step_for_it(probe):
    flows = [bytewax_flow({}, Plan(), Rules(), Written(), probe=each) for each in (None, probe)]
    without, watched = ({step.step_name for step in flow.substeps} for flow in flows)
    assert watched - without == {"observe_polled", "observe_on_time", "observe_unmatched", "observe_closed"}
