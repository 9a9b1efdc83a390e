"""Random mappings and random messages: the job and the reference, which share no code, make the same of them."""

import tempfile
from collections import Counter
from dataclasses import fields
from io import StringIO
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.logs import LONG_AFTER, Job, Logs, Message, Plan, batch_answer, topic_of
from support.mapped import RANDOMS, logs_of, mapped_logs, mapped_message, mapping_text, rules_of
from support.strategies import SHARDS, plans, read

from dataflow.clickstream.inputs import mapped_inputs
from dataflow.clickstream.mapping.spec import Mapping, parse
from dataflow.clickstream.records import TEXT_USER, Event
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import encode_visits
from dataflow.clickstream.users import user_json
from dataflow.runtime.settings import Settings
from dataflow.streaming.partition_reader import Ignored, NotTakenApart, Unreadable
from dataflow.streaming.position import PART_LIMIT
from dataflow.tools.balance import MATCHED, Balance
from dataflow.tools.explain.collect import ObservedPartition
from dataflow.tools.explain.render import Renderer, as_data
from dataflow.tools.explain.report import build_report, part_of, rows_of
from dataflow.tools.reference import NOT_A_ROW, Answer, Record, Row
from dataflow.tools.reference_mapping import MappedShape


def by_job(mapping: Mapping, topic: str, record: Record) -> list[tuple[Any, ...]]:
    decoder = mapped_inputs(mapping).decoder_of(topic)
    message = Message(record, topic)
    made = []
    for part in decoder.parts(message) if decoder.parts is not None else [message]:
        number = part.offset() % PART_LIMIT if decoder.parts is not None else None
        try:
            row = decoder.decode(part.value(), part.offset(), part)
        except Ignored:
            continue
        except Unreadable as error:
            where = None if isinstance(error, NotTakenApart) else number
            made.append(("unreadable", part.value(), str(error), where))
            continue
        if isinstance(row, Event):
            encode_visits([row], b"", b"0")
            id = user_json(row.user, row.form & TEXT_USER != 0).decode()
            made.append(
                (
                    row.event_type,
                    row.time,
                    row.user.decode(),
                    id,
                    row.value,
                    row.page or None,
                    row.amount,
                    part.value(),
                    number,
                )
            )
        else:
            made.append(
                (None, row.time, row.user.decode(), None, row.value, row.page, row.amount, part.value(), number)
            )
    return made


def by_reference(mapping: Mapping, topic: str, record: Record) -> list[tuple[Any, ...]]:
    made = []
    for row in MappedShape(mapping).read(topic, 0, record):
        if isinstance(row, Row):
            id = row.user_json if row.kind is not None else None
            made.append(
                (
                    row.kind,
                    row.microseconds,
                    row.user,
                    id,
                    row.value,
                    row.page,
                    row.amount_text,
                    row.message,
                    row.origin.part,
                )
            )
        else:
            made.append(("unreadable", row.value, row.reason, row.origin.part))
    return made


@given(RANDOMS)
def test_job_and_reference_read_any_message_alike(rng):
    mapping, topic, record = mapped_message(rng)
    job, reference = by_job(mapping, topic, record), by_reference(mapping, topic, record)
    for number, row in enumerate(reference):
        if row[0] == "unreadable" and row[2] == NOT_A_ROW and number < len(job) and len(job[number]) == len(row):
            job[number] = (*job[number][:2], NOT_A_ROW, job[number][3])
    assert job == reference


def assert_right(job: Job, mapping: Mapping, logs: Logs, rules: Rules) -> None:
    """The outputs are the batch answer, and each purchase row is in one place."""
    balance = Balance()
    right = batch_answer(logs, rules, balance, MappedShape(mapping))
    found = job.written.answer(right)
    for topic in fields(Answer):
        assert getattr(found, topic.name) == getattr(right, topic.name), topic.name
    assert balance.is_even
    unmatched = Counter(headers[1:] for _, _, headers in found.unmatched_purchases.elements())
    assert unmatched.total() == len(unmatched)
    places = {place: rows for place, (rows, _) in balance.places.items()}
    assert unmatched.total() == balance.rows - places[MATCHED] - places["unreadable"]


@given(RANDOMS, st.data(), SHARDS)
def test_any_mapped_logs_in_any_order_give_the_batch_answer(rng, data, shards):
    mapping, logs = mapped_logs(rng)
    rules = rules_of(mapping, shards=shards)
    job = Job(logs, rules, inputs=mapped_inputs(mapping))
    read(job, data.draw(plans(logs), "plan"))
    assert_right(job, mapping, logs, rules)


@settings(max_examples=max(settings.default.max_examples // 5, 10))
@given(RANDOMS)
def test_a_report_of_explain_has_exactly_the_mapped_rows_that_the_job_writes_of_a_user(rng):
    text = mapping_text(rng)
    mapping = parse(text)
    logs, inputs, rules = logs_of(rng, mapping), mapped_inputs(mapping), rules_of(mapping)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        of_job = Settings(_env_file=None, mapping=file.name, stop_at_end=True)
        job = Job(logs, rules, inputs=inputs)
        read(job, Plan())
        written = [rows_of(job.written.elements(field.name)) for field in fields(Answer)]
        for user in {row[0] for rows in written[:3] for row in rows}:
            partitions = [
                ObservedPartition(source, inputs.decoder_of(topic_of(source)), rules.lateness, LONG_AFTER, user)
                for source in logs
            ]
            for partition in partitions:
                for record in logs[partition.source]:
                    partition.read(Message(record, topic_of(partition.source)))
            report = build_report(user, partitions, of_job.rules, of_job, LONG_AFTER)
            for topic, rows in zip(of_job.outputs, written, strict=True):
                if topic != of_job.topic_dead_letters:  # whose rows need not tell their user
                    of_user = Counter({row: count for row, count in rows.items() if row[0] == user})
                    assert report.written.get(topic, Counter()) == of_user, topic
            part = part_of(report, lambda session: True, lambda row: True, lambda dead: True)
            Renderer(Console(file=StringIO()), report, rules, lambda told: "written", asked_for=None).part(part)
            msgspec.json.encode(as_data(report, part, rules, lambda told: "written", [], []))


@given(RANDOMS, st.data())
def test_a_crash_at_any_point_changes_no_mapped_row(rng, data):
    mapping, logs = mapped_logs(rng)
    rules = rules_of(mapping)
    job = Job(logs, rules, inputs=mapped_inputs(mapping))
    for _ in range(data.draw(st.integers(1, 2), "crashes")):
        for source, count in data.draw(plans(logs, 8), "then read").steps:
            job.feed(job.partitions.poll(source, count))
        snapshot = job.snapshot()
        for source, count in data.draw(plans(logs, 8), "then read, and crash").steps:
            job.feed(job.partitions.poll(source, count))
        job.resume(snapshot)
    read(job, data.draw(plans(logs), "at last read"))
    assert_right(job, mapping, logs, rules)
