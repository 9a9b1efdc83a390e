"""What `explain` says of a user is what the job writes of that user, row for row, and it says why."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import fields
from io import StringIO

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from logs import EVENTS, LONG_AFTER, PURCHASES, Job, Logs, Message, Written, event, log, purchase, stored, wall
from rich.console import Console
from test_any_order import FEWER, LOGS, SHARDS, logs_and_plans, read

from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.clickstream.topology import Rules
from dataflow.runtime.settings import Settings
from dataflow.streaming.partition_reader import Unreadable
from dataflow.tools.explain.collect import ObservedPartition
from dataflow.tools.explain.render import Renderer, as_data
from dataflow.tools.explain.report import CLOSED_BY_CLOCK, CLOSED_BY_LOG, OPEN, Report, build_report, part_of, rows_of
from dataflow.tools.reference import Answer, Record

SETTINGS = Settings(_env_file=None)
TO_THE_END = SETTINGS.model_copy(update={"stop_at_end": True})
TOPICS = dict(zip(SETTINGS.outputs, (field.name for field in fields(Answer)), strict=True))


def explained(
    logs: Logs,
    user: int = 1,
    rules: Rules = Rules(),
    settings: Settings = SETTINGS,
    asked: int = LONG_AFTER,
    overtaken: Collection[str] = (),
) -> Report:
    partitions = []
    for source, records in logs.items():
        decode = decode_event if source.startswith("user-events") else decode_purchase
        partition = ObservedPartition(source, decode, rules.lateness, asked, b"%d" % user)
        for record in records:
            partition.read(Message(record))
        partitions.append(partition)
    return build_report(b"%d" % user, partitions, rules, settings, asked, overtaken)


def users(logs: Logs) -> set[int]:
    return {owner(source, record) for source, records in logs.items() for record in records} - {None}


def owner(source: str, record: Record) -> int | None:
    decode = decode_event if source.startswith("user-events") else decode_purchase
    try:
        return int(decode(record.value, 0).user)
    except Unreadable:
        return None


def written_of(written: Written, user: int, topic: str) -> Counter:
    rows = rows_of(written.elements(TOPICS[topic]))
    if topic != SETTINGS.topic_dead_letters:
        return Counter({row: count for row, count in rows.items() if row[0] == b"%d" % user})
    return Counter({row: count for row, count in rows.items() if row[1] and b'"user_id":%d,' % user in row[1]})


@given(logs_and_plans(), SHARDS, st.integers(1, 8), st.integers(0, 3))
def test_what_is_said_of_a_user_is_what_the_job_writes_of_that_user(logs_and_plan, shards, most, fewest):
    logs, plan = logs_and_plan
    rules = Rules(shards=shards, max_events=most, min_page_views=fewest)
    job = Job(logs, rules)
    read(job, plan)
    for user in users(logs):
        story = explained(logs, user, rules, TO_THE_END)
        for topic in SETTINGS.outputs:
            assert story.written.get(topic, Counter()) == written_of(job.written, user, topic), topic
        assert not any(rows for rows in story.to_come.values())


@given(LOGS)
def test_a_session_is_said_to_be_closed_by_the_log_exactly_if_a_job_that_has_read_all_has_closed_it(logs):
    job = Job(logs)
    for source, records in logs.items():
        job.feed(job.partitions.poll(source, len(records)))
    for user in users(logs):
        told = explained(logs, user)
        visits = written_of(job.written, user, SETTINGS.topic_visits)
        for session in told.sessions:
            is_written = any(session.identity.encode() in row[1] for row in visits)
            assert is_written == (session.state == CLOSED_BY_LOG), session


@FEWER
@given(LOGS, st.booleans())
def test_everything_can_be_drawn_and_told_to_machines(logs, stop_at_end):
    for user in users(logs):
        story = explained(logs, user, settings=TO_THE_END if stop_at_end else SETTINGS)
        part = part_of(story, lambda session: True, lambda row: True, lambda dead: True)
        text = StringIO()
        drawing = Renderer(Console(file=text), story, Rules(), lambda told: "written", asked_for=None)
        drawing.head()
        drawing.part(part)
        drawing.end([], [])
        data = json.loads(msgspec.json.encode(as_data(story, part, Rules(), lambda told: "written", [], [])))
        events = [event["message"] for session in data["sessions"] for event in session["events"]]
        assert all(where in text.getvalue() for where in events)
        rows = [row["message"] for kind in ("late", "unmatched_purchases", "dead_letters") for row in data[kind]]
        assert sorted(events + [row for row in rows if row.startswith("user-events")]) == sorted(
            f"{source}/{record.offset}"
            for source, records in logs.items()
            if source.startswith("user-events")
            for record in records
            if owner(source, record) == user
        )


# --- why ---


def only(told: list):
    (one,) = told
    return one


def beaten_by(story: Report) -> list[tuple[bytes, str | None]]:
    """What the one purchase event could take, best first, and why it did not."""
    step = only([step for step in only(story.sessions).steps if step.event.event_type == "purchase"])
    return [(each.seen.row.amount, each.beaten_by) for each in step.candidates]


def test_each_candidate_is_told_why_another_was_better():
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


def test_the_amount_is_told_to_be_that_of_the_last_purchase_event_that_has_one():
    buys = [event(at, "purchase") for at in (0, 10, 20)]
    session = only(explained({EVENTS: log(*buys), PURCHASES: log(purchase(0, 3), purchase(11, 4))}).sessions)
    assert (session.finished.amount, session.paid_by.seen.where) == (b"4", "user-events/0/1")


def test_a_session_is_told_to_begin_after_a_gap():
    story = explained({EVENTS: log(event(0), event(20), event(40.5)), PURCHASES: []})
    assert [[step.gap for step in told.steps] for told in story.sessions] == [[None, 20_000_000], [20_500_000]]


def test_late_is_told_with_the_row_that_had_set_the_mark_and_how_far_below():
    story = explained({EVENTS: log(stored(8, event(30, user=2)), event(1, user=2), event(2), event(3)), PURCHASES: []})
    late = only(story.late)
    assert (late.where, late.max_timestamp.offset, late.max_timestamp.time - late.row.time) == (
        "user-events/0/2",
        0,
        6_000_000,
    )
    assert only(only(story.sessions).steps).seen.where == "user-events/0/3"  # 5 s below is on time


def test_a_session_that_is_open_is_told_when_it_closes_and_who_holds_the_watermark():
    logs = {
        EVENTS: log(stored(1, event(0)), stored(11, event(10))),
        "user-events/1": [],
        PURCHASES: log(purchase(4, 1)),
    }
    story = explained(logs, asked=wall(20))
    session = only(story.sessions)
    assert (session.state, story.waiting.lowest) == (OPEN, "user-events/1")
    assert session.due == wall(10 + 20 + 5 + 1)  # gap, lateness, and the second that the row was on its way
    assert only(explained(logs, asked=wall(36)).sessions).state == OPEN
    assert only(explained(logs, asked=wall(36) + 1).sessions).state == CLOSED_BY_CLOCK


def test_a_purchase_row_that_has_met_nobody_is_undecided_as_long_as_it_may():
    logs = {EVENTS: log(stored(11, event(10))), PURCHASES: log(purchase(9, 1), purchase(8, 2))}
    story = explained(logs, asked=wall(20))  # the clock has come to 19, less the lateness
    assert [seen.row.amount for seen in story.unmatched] == [b"2"]
    assert [seen.row.amount for seen in story.undecided] == [b"1"]


def test_a_row_that_the_job_had_to_go_on_without_is_told_as_it_did():
    logs = {EVENTS: log(event(0), event(10), event(20)), PURCHASES: []}
    story = explained(logs, settings=TO_THE_END, overtaken=["user-events/0/1"])
    assert [seen.where for seen in story.overtaken] == ["user-events/0/1"]
    assert [step.gap for step in only(story.sessions).steps] == [None, 20_000_000]
    assert story.written[SETTINGS.topic_late_events].total() == 1
