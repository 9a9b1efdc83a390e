"""Why a row is where it is: what `explain` says of a user's sessions, amounts and late rows."""

from support.explained import SETTINGS, TO_THE_END, explained
from support.logs import EVENTS, PURCHASES, event, log, purchase, stored, wall

from dataflow.clickstream.outputs import OTHER_ROW
from dataflow.clickstream.rules import Rules
from dataflow.tools.explain.report import CLOSED_BY_CLOCK, OPEN, OTHER_EVENT, Report


def only(told: list):
    (one,) = told
    return one


def beaten_by(story: Report) -> list[tuple[bytes, str | None]]:
    """What the one purchase event could take, best first, and why it did not."""
    step = only([step for step in only(story.sessions).steps if step.event.event_type == "purchase"])
    return [(each.observed.row.amount, each.beaten_by) for each in step.candidates]


def test_each_candidate_has_the_reason_why_another_was_better():
    buy = event(100, "purchase", page=7)
    rows = [purchase(104, 1, page=7), purchase(105, 2, page=7), purchase(100, 3), purchase(94, 4, page=7)]
    assert beaten_by(explained({EVENTS: log(buy), PURCHASES: log(*rows[::-1])})) == [
        (b"1", None),
        (b"2", "nearer"),
        (b"3", "same page"),
    ]
    rows = [purchase(98, "9"), purchase(102, "5"), purchase(102, "6"), purchase(102, "6.0")]
    assert beaten_by(explained({EVENTS: log(buy), PURCHASES: log(*rows)})) == [
        (b"6.0", None),
        (b"6", "by its text"),
        (b"5", "larger"),
        (b"9", "later"),
    ]


def test_the_amount_comes_from_the_last_purchase_event_with_one():
    buys = [event(at, "purchase") for at in (0, 10, 20)]
    session = only(explained({EVENTS: log(*buys), PURCHASES: log(purchase(0, 3), purchase(11, 4))}).sessions)
    assert (session.result.amount, session.paid_by.observed.where) == (b"4", "user-events/0/1")


def test_a_session_has_the_gap_before_each_event():
    story = explained({EVENTS: log(event(0), event(20), event(40.5)), PURCHASES: []})
    assert [[step.gap for step in told.steps] for told in story.sessions] == [[None, 20_000_000], [20_500_000]]


def test_a_late_row_has_the_row_that_made_it_late():
    story = explained({EVENTS: log(stored(8, event(30, user=2)), event(1, user=2), event(2), event(3)), PURCHASES: []})
    late = only(story.late)
    assert (late.where, late.max_timestamp.offset, late.max_timestamp.time - late.row.time) == (
        "user-events/0/2",
        0,
        6_000_000,
    )
    assert only(only(story.sessions).steps).observed.where == "user-events/0/3"  # 5 s below is on time


def test_an_open_session_has_its_closing_time_and_what_it_waits_for():
    logs = {
        EVENTS: log(stored(1, event(0)), stored(11, event(10))),
        "user-events/1": [],
        PURCHASES: log(purchase(4, 1)),
    }
    story = explained(logs, as_of=wall(20))
    session = only(story.sessions)
    assert (session.state, story.watermarks.lowest_source) == (OPEN, "user-events/1")
    assert session.due == wall(10 + 20 + 5 + 1)  # gap, lateness, and the second that the row was on its way
    assert only(explained(logs, as_of=wall(36)).sessions).state == OPEN
    assert only(explained(logs, as_of=wall(36) + 1).sessions).state == CLOSED_BY_CLOCK


def test_an_unmatched_purchase_is_undecided_while_an_event_may_come():
    logs = {EVENTS: log(stored(11, event(10))), PURCHASES: log(purchase(9, 1), purchase(8, 2))}
    story = explained(logs, as_of=wall(20))  # the clock has come to 19, less the lateness
    assert [each.observed.purchase.amount for each in story.unmatched] == [b"2"]
    assert [each.observed.purchase.amount for each in story.undecided] == [b"1"]


def test_a_row_is_undecided_while_its_stretch_goes_on():
    logs = {
        EVENTS: log(stored(11, event(10, "purchase"))),
        PURCHASES: log(stored(13, purchase(9, 1)), stored(13, purchase(12, 2))),
    }
    assert [each.observed.purchase.amount for each in explained(logs, as_of=wall(23)).undecided] == [b"2"]
    story = explained(logs, as_of=wall(23) + 1)
    assert [(each.observed.purchase.amount, each.reason) for each in story.unmatched] == [(b"2", OTHER_ROW)]
    assert story.undecided == []


def test_two_events_that_compete_have_what_the_other_takes():
    logs = {
        EVENTS: log(event(0, "purchase"), event(4, "purchase"), event(8, "purchase")),
        PURCHASES: log(purchase(3, 10), purchase(7, 20)),
    }
    steps = only(explained(logs).sessions).steps
    assert [
        [
            (each.observed.purchase.amount, each.beaten_by, each.taken_by and each.taken_by.row.time)
            for each in step.candidates
        ]
        for step in steps
    ] == [
        [(b"10", OTHER_EVENT, wall(4))],
        [(b"10", None, wall(4)), (b"20", OTHER_EVENT, wall(8))],
        [(b"20", None, wall(8)), (b"10", OTHER_EVENT, wall(4))],
    ]
    assert [step.taken is not None for step in steps] == [False, True, True]


def test_a_session_that_waits_for_a_stretch_has_the_time_at_which_that_is_decided():
    rules = Rules(gap=4_000_000)  # less than twice the window
    logs = {
        EVENTS: log(event(0, "purchase"), event(8, "purchase"), stored(16, event(16, "purchase"))),
        PURCHASES: log(purchase(4, 1), purchase(12, 2)),
    }
    first, second, third = explained(logs, rules=rules, as_of=wall(17)).sessions
    assert (first.state, second.state, third.state) == (OPEN, OPEN, OPEN)
    assert first.due == second.due == wall(16 + 5 + 5)  # the stretch's end, the window, the lateness
    assert third.due == wall(16 + 10 + 5)
    assert [each.state for each in explained(logs, rules=rules, as_of=wall(26)).sessions] == [OPEN] * 3
    closed = explained(logs, rules=rules, as_of=wall(26) + 1).sessions
    assert [each.state for each in closed] == [CLOSED_BY_CLOCK, CLOSED_BY_CLOCK, OPEN]
    assert [each.result.amount for each in closed] == [b"0", b"1", b"2"]


def test_a_row_overtaken_by_the_watermark_is_late_as_in_the_job():
    logs = {EVENTS: log(event(0), event(10), event(20)), PURCHASES: []}
    story = explained(logs, settings=TO_THE_END, overtaken=["user-events/0/1"])
    assert [seen.where for seen in story.overtaken] == ["user-events/0/1"]
    assert [step.gap for step in only(story.sessions).steps] == [None, 20_000_000]
    assert story.written[SETTINGS.topic_late_events].total() == 1
