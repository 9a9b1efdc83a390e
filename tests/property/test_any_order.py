"""The output is a function of what the partitions hold, and of nothing else.

Random logs, read in random pieces and random order, with random numbers of shards and workers, with and without
crashes: always the batch answer, byte for byte. `make test-long` tries 10,000 of each and says so.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from hypothesis import given
from hypothesis import strategies as st
from support.logs import Job, Logs, Plan, Written, batch_answer, bytewax_flow, event, log, purchase, run, stored, wall
from support.strategies import (
    AMOUNTS,
    FEWER,
    LOGS,
    PAGES,
    RUSHES,
    SHARDS,
    THRESHOLDS,
    TICK,
    TYPES,
    USERS,
    chains,
    logs_and_plans,
    plans,
    read,
    timestamp,
)

from dataflow.clickstream.rules import Rules
from dataflow.tools.balance import MATCHED, Balance
from dataflow.tools.reference import Answer


def in_order_within_sessions(written: Written) -> bool:
    latest: dict[bytes, float] = {}
    for value in written.rows("visits"):
        session = value.rpartition(b',"session_id":"')[2][:32]
        time = timestamp(value)
        if time < latest.get(session, time):
            return False
        latest[session] = time
    return True


def assert_right(written: Written, logs: Logs, rules: Rules = Rules()) -> None:
    """The outputs are the batch answer, visits are in order, and each purchase row is in one place."""
    balance = Balance()
    right, found = batch_answer(logs, rules, balance), written.answer()
    for topic in fields(Answer):
        assert getattr(found, topic.name) == getattr(right, topic.name), topic.name
    assert in_order_within_sessions(written)
    assert balance.is_even
    rejected = Counter(
        headers[1:]  # topic, partition and offset
        for _, _, headers in (found.unmatched_purchases + found.dead_letters).elements()
        if dict(headers)["topic"] == b"purchases"
    )
    assert rejected.total() == len(rejected) == balance.rows - balance.places[MATCHED][0]


@given(logs_and_plans(), SHARDS)
def test_any_batches_in_any_order_on_any_shards_give_the_batch_answer(logs_and_plan, shards):
    logs, plan = logs_and_plan
    rules = Rules(shards=shards)
    job = Job(logs, rules)
    read(job, plan)
    assert_right(job.written, logs, rules)


@given(logs_and_plans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), THRESHOLDS)
def test_any_numbers_in_the_rules_give_the_batch_answer(logs_and_plan, gap, window, lateness, thresholds):
    logs, plan = logs_and_plan
    fives = 5_000_000
    rules = Rules(gap * fives + 1, window * fives, lateness * fives, thresholds=thresholds)
    job = Job(logs, rules)
    read(job, plan)
    assert_right(job.written, logs, rules)


WINDOWS = st.sampled_from([0, 1, 5, 10, 15, 40])  # seconds; some are wider than half of some gaps
GAPS = st.sampled_from([1, 5, 10, 20])


@given(logs_and_plans(RUSHES), WINDOWS, GAPS, SHARDS)
def test_any_order_gives_competing_purchases_the_same_rows(logs_and_plan, window, gap, shards):
    logs, plan = logs_and_plan
    rules = Rules(gap * 1_000_000, window * 1_000_000, shards=shards)
    job = Job(logs, rules)
    read(job, plan)
    assert_right(job.written, logs, rules)


@given(chains(), st.sampled_from([1, 2, 4, 5]), GAPS, st.sampled_from([0, 1, 5]), st.integers(0, 40))
def test_sessions_wait_for_long_stretches_of_purchases(logs_and_plan, window, gap, lateness, resumed_after):
    logs, plan = logs_and_plan
    rules = Rules(gap * 1_000_000, window * 1_000_000, lateness * 1_000_000)
    job = Job(logs, rules)
    for number, poll in enumerate(plan.polls(job.partitions)):
        job.feed(poll)
        if number == resumed_after:
            job.resume(job.snapshot())
    assert_right(job.written, logs, rules)


@given(st.data(), LOGS | RUSHES, WINDOWS)
def test_a_crash_at_any_point_changes_no_row(data, logs, window):
    rules = Rules(window=window * 1_000_000)
    job = Job(logs, rules)
    for _ in range(data.draw(st.integers(1, 3), "crashes")):
        for source, count in data.draw(plans(logs, 8), "then read").steps:
            job.feed(job.partitions.poll(source, count))
        snapshot = job.snapshot()
        for source, count in data.draw(plans(logs, 8), "then read, and crash").steps:
            job.feed(job.partitions.poll(source, count))
        assert_contains(batch_answer(logs, rules), job.written.answer())  # also what the replay will write again
        job.resume(snapshot)
    read(job, data.draw(plans(logs), "at last read"))
    assert_right(job.written, logs, rules)


def assert_contains(all_rows: Answer, rows: Answer) -> None:
    for topic in fields(Answer):
        assert getattr(rows, topic.name) <= getattr(all_rows, topic.name), topic.name


# --- with the wall clock: partitions that run dry and say so ---


@dataclass(frozen=True)
class Live:
    """Rows as they are appended to the partitions, and when; seconds after noon."""

    sources: tuple[str, ...]
    appended: list[tuple[float, str, bytes | tuple]]

    @property
    def last(self) -> float:
        return max((at for at, _, _ in self.appended), default=0.0)

    def logs(self) -> Logs:
        return {source: log(*(row for _, of, row in self.appended if of == source)) for source in self.sources}

    def end(self, source: str, at: float) -> int:
        """How many rows the source held before that moment."""
        return sum(of == source and appended < at for appended, of, _ in self.appended)


SOURCES = ("user-events/0", "user-events/1", "user-events/2", "purchases/0")
PAUSES = st.sampled_from([0, 0.25, 0.5, 1, 2.5, 5, 19.5, 20, 20.25, 26])
# from a row's time to its producer's timestamp, and to its place in the log: together at most the allowed lateness
ON_THE_WAY = st.sampled_from([(0, 0), (0, 0.25), (1, 0), (2.5, 2.5), (0, 5), (5, 0)])
ROWS = st.tuples(
    PAUSES, st.sampled_from(SOURCES), ON_THE_WAY, st.booleans() | st.just(False), TYPES, USERS, PAGES, AMOUNTS
)


@st.composite
def lives(draw: st.DrawFn) -> Live:
    """A shop whose rows are on time, but for some that are late by all that stands before them in their partition."""
    now, appended = 0.0, []
    for pause, source, (to_producer, to_log), is_late, event_type, user, page, amount in draw(
        st.lists(ROWS, max_size=20)
    ):
        now += pause
        created = now + to_producer
        appended.append((created + to_log, source, now, created, is_late, (event_type, user, page, amount)))
    appended.sort(key=lambda row: row[0])
    marks: dict[str, float] = {}
    rows = []
    for at, source, time, created, is_late, (event_type, user, page, amount) in appended:
        if is_late and source in marks:
            time = marks[source] - 5.25
        marks[source] = max(marks.get(source, time), time)
        if source.startswith("purchases"):
            value = purchase(time, amount, user, page)
        else:
            value = event(time, event_type, user, page)
        rows.append((at, source, stored(created, value)))
    return Live(SOURCES, rows)


@dataclass(frozen=True)
class Look:
    """The job looks into a partition, `after` so many seconds."""

    after: float
    source: str
    most: int  # messages
    answered: float | None  # the broker told its end so many seconds ago; None: it does not answer
    restart: bool


LOOKS = st.lists(
    st.builds(
        Look,
        PAUSES,
        st.sampled_from(SOURCES),
        st.integers(0, 5),
        st.sampled_from([None, 0, 0, 0.25, 2.5]),
        st.sampled_from([False] * 5 + [True]),
    ),
    max_size=40,
)


def look(job: Job, live: Live, source: str, now: float, most: int, asked: float | None) -> None:
    """Reads what is there by now, and says to have caught up if that is true."""
    partitions = job.partitions
    has_read = len(partitions.logs[source]) - partitions.unread(source)
    count = max(0, min(most, live.end(source, now) - has_read))
    caught_up = asked is not None and has_read + count >= live.end(source, asked)
    job.feed(partitions.poll(source, count, wall(now), wall(asked) if caught_up else None))


@given(lives(), LOOKS)
def test_idle_partitions_block_nothing_and_change_no_row(live, looks):
    logs = live.logs()
    job = Job(logs)
    now = 0.0
    for each in looks:
        now += each.after
        look(job, live, each.source, now, each.most, None if each.answered is None else now - each.answered)
        if each.restart:
            job.resume(job.snapshot())
    now = max(now, live.last) + TICK
    for source in live.sources:
        look(job, live, source, now, 1_000, None)
    assert not any(job.partitions.unread(source) for source in live.sources)
    now += 20 + 5 + 1
    for source in live.sources:  # no further traffic: everything is out, by rule 9
        look(job, live, source, now, 0, now)
    assert_right(job.written, logs)


# --- the same in Bytewax's own engine, which takes some fifty times longer ---


@FEWER
@given(logs_and_plans(), SHARDS)
def test_one_worker_of_the_engine_gives_the_batch_answer(logs_and_plan, shards):
    logs, plan = logs_and_plan
    rules = Rules(shards=shards)
    assert_right(run(logs, plan, rules), logs, rules)


@FEWER
@given(logs_and_plans(), SHARDS)
def test_two_workers_of_the_engine_give_the_batch_answer(logs_and_plan, shards):
    logs, plan = logs_and_plan
    rules = Rules(shards=shards)
    assert_right(run(logs, plan, rules, workers=2), logs, rules)


@st.composite
def interruptions(draw: st.DrawFn) -> tuple[Logs, Plan, set[int]]:
    """And before which polls the job is interrupted."""
    logs, plan = draw(logs_and_plans())
    return logs, plan, draw(st.sets(st.integers(0, plan.length(logs) - 1), min_size=1, max_size=3))


@FEWER
@given(interruptions())
def test_stops_with_a_recovery_store_change_no_row(interrupted):
    logs, plan, stops = interrupted
    written = Written()
    run_again_and_again(bytewax_flow(logs, plan, Rules(), written, stops=stops), stops)
    assert_right(written, logs)


@FEWER
@given(interruptions())
def test_crashes_with_a_recovery_store_lose_and_invent_no_row(interrupted):
    logs, plan, crashes = interrupted
    written = Written()
    run_again_and_again(bytewax_flow(logs, plan, Rules(), written, crashes=crashes), crashes)
    right, found = batch_answer(logs), written.answer()
    assert_contains(found, right)  # it is for the sink to leave out what a replay writes again
    for topic in fields(Answer):
        assert getattr(found, topic.name).keys() == getattr(right, topic.name).keys(), topic.name


def run_again_and_again(flow: Dataflow, interruptions: set[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        init_db_dir(Path(directory), 1)
        for _ in range(len(interruptions) + 1):
            run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(directory))
