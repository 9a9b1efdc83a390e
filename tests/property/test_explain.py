"""A report of `explain` has exactly the rows that the job writes of a user."""

import json
from collections import Counter
from dataclasses import fields
from io import StringIO

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.explained import SETTINGS, TO_THE_END, explained, owner, users
from support.logs import Job, Written
from support.strategies import FEWER, LOGS, RUSHES, SHARDS, THRESHOLDS, chains, logs_and_plans, read

from dataflow.clickstream.rules import Rules
from dataflow.tools.explain.render import Renderer, as_data
from dataflow.tools.explain.report import CLOSED_BY_LOG, part_of, rows_of
from dataflow.tools.reference import Answer

TOPICS = dict(zip(SETTINGS.outputs, (field.name for field in fields(Answer)), strict=True))


def written_of(written: Written, user: int, topic: str) -> Counter:
    rows = rows_of(written.elements(TOPICS[topic]))
    if topic != SETTINGS.topic_dead_letters:
        return Counter({row: count for row, count in rows.items() if row[0] == b"%d" % user})
    return Counter({row: count for row, count in rows.items() if row[1] and b'"user_id":%d,' % user in row[1]})


@given(logs_and_plans(), SHARDS, THRESHOLDS)
def test_a_report_has_exactly_the_rows_that_the_job_writes_of_a_user(logs_and_plan, shards, thresholds):
    logs, plan = logs_and_plan
    rules = Rules(shards=shards, thresholds=thresholds)
    job = Job(logs, rules)
    read(job, plan)
    for user in users(logs):
        story = explained(logs, user, rules, TO_THE_END)
        for topic in SETTINGS.outputs:
            assert story.written.get(topic, Counter()) == written_of(job.written, user, topic), topic
        assert not any(rows for rows in story.to_come.values())
        for session in story.sessions:
            taken = [step.taken.match for step in session.steps if step.taken is not None]
            assert session.result.amount == (max(taken).amount if taken else b"0")
            assert (session.paid_by is None) == (not taken)


NARROW_AND_WIDE = st.sampled_from([Rules(), Rules(gap=4_000_000), Rules(gap=1_000_000, window=2_000_000)])


@given(LOGS | RUSHES | chains().map(lambda logs_and_plan: logs_and_plan[0]), NARROW_AND_WIDE)
def test_a_session_is_closed_by_the_log_exactly_if_the_job_closes_it(logs, rules):
    job = Job(logs, rules)
    for source, records in logs.items():
        job.feed(job.partitions.poll(source, len(records)))
    for user in users(logs):
        told = explained(logs, user, rules)
        visits = written_of(job.written, user, SETTINGS.topic_visits)
        for session in told.sessions:
            is_written = any(session.identity.encode() in row[1] for row in visits)
            assert is_written == (session.state == CLOSED_BY_LOG), session


@FEWER
@given(LOGS | RUSHES, st.booleans())
def test_any_report_can_be_drawn_and_encoded_as_json(logs, stop_at_end):
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
