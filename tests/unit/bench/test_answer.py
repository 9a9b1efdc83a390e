"""The expected answer of the measurements agrees with the reference."""

from collections import Counter

import pytest

from bench.answer import Answer, Digest
from bench.workload import Workload
from dataflow.tools.reference import Log, Record, RuleSettings, answer

STORED = 1_800_000_000_000


def logs(workload: Workload) -> tuple[Log, Log, Answer]:
    events: dict[int, list[Record]] = {}
    purchases: dict[int, list[Record]] = {}
    quick = Answer()
    for row in workload.rows():
        if row.amount is None:
            topic = events
            quick.add_event(row.user, row.time, row.page, row.event_type, row.value)
        else:
            topic = purchases
            quick.add_purchase(row.user, row.time, row.page, row.amount, row.value)
        records = topic.setdefault(workload.partition_of(row.user), [])
        records.append(Record(b"%d" % row.user, row.value, STORED, len(records)))
    quick.finish()
    return events, purchases, quick


def digest(rows: Counter) -> Digest:
    made = Digest()
    for key, value, _ in rows.elements():
        made.add(key, value)
    return made


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("users", [3, 20, 300])
def test_answer_is_that_of_the_reference(monkeypatch, users, skewed):
    monkeypatch.setattr("bench.workload.PRESENT", 100)  # so that 300 users come and go
    events, purchases, quick = logs(Workload(3_000, users, skewed=skewed, seed=users))
    right = answer({"user-events": events, "purchases": purchases}, RuleSettings())
    assert quick.visits == digest(right.visits)
    assert quick.suspicious_visits == digest(right.suspicious_visits)
    assert quick.unmatched_purchases == digest(right.unmatched_purchases)
    assert not right.late_events and not right.dead_letters


def test_workload_has_late_rows_bots_and_unreadable_messages():
    events, purchases, _ = logs(Workload(3_000, 20))
    right = answer({"user-events": events, "purchases": purchases}, RuleSettings())
    amounts = {value.rpartition(b":")[2] for _, value, _ in right.visits}
    assert len(amounts) > 100
    assert right.suspicious_visits and right.unmatched_purchases
    without_a_gap = answer(
        {"user-events": events, "purchases": purchases}, RuleSettings(session_gap=RuleSettings().session_gap - 1)
    )
    assert without_a_gap.suspicious_visits != right.suspicious_visits
    assert answer(
        {"user-events": events, "purchases": purchases},
        RuleSettings(allowed_lateness=RuleSettings().allowed_lateness - 4),
    ).late_events


def test_a_missing_extra_or_changed_row_is_noticed():
    right, wrong = Digest(), Digest()
    for digest in (right, wrong):
        digest.add(b"1", b"a")
        digest.add(b"2", b"b")
    assert right == wrong
    wrong.add(b"2", b"b")
    assert right != wrong
    right.add(b"2", b"c")
    assert right != wrong


def test_order_does_not_matter():
    one, other = Digest(), Digest()
    for row in (b"a", b"b", b"c"):
        one.add(b"1", row)
    for row in (b"c", b"a", b"b"):
        other.add(b"1", row)
    assert one == other


def test_the_same_seed_gives_the_same_workload():
    def values(seed: int) -> list[bytes]:
        return [row.value for row in Workload(500, 20, seed=seed).rows()]

    assert values(1) == values(1)
    assert values(1) != values(2)


def test_many_users_take_turns_and_few_are_present_at_once(monkeypatch):
    monkeypatch.setattr("bench.workload.PRESENT", 10)
    rows = [row for row in Workload(2_000, 1_000).rows() if row.amount is None]
    assert len({row.user for row in rows}) > 200
    first_minute = {row.user for row in rows if row.time < rows[0].time + 60_000}
    assert len(first_minute) < 40
