"""Inputs that can hardly be meant as they are: it is told once, with what to do, and is over with the first row that fits."""

import pytest

from dataflow.clickstream.input_check import NO_PAGE_VIEW, NO_PURCHASE, UNREADABLE, InputCheck
from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.records import Event, Purchase
from dataflow.streaming.batches import PolledBatch, RejectedRecord
from dataflow.streaming.time import MIN_TIME
from dataflow.streaming.watermark import SourceProgress

TIME = SourceProgress("clicks/0", MIN_TIME, 0, None, ("clicks/0",))
KINDS = Kinds(frozenset({"view"}), frozenset({"buy"}))


class Told(list[str]):
    """The lines that were told."""


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def check(told: Told) -> InputCheck:
    return InputCheck(KINDS, told.append)


def events(kind: str, count: int) -> PolledBatch:
    return PolledBatch([Event(1, b"1", b"{}", 0, 1, kind)] * count, TIME, [], [])


def unreadable(reason: str, count: int) -> PolledBatch:
    return PolledBatch([], TIME, [], [RejectedRecord(None, b"", reason, "clicks/0", 0)] * count)


def test_a_hundred_unreadable_messages_and_no_other_are_told_with_the_usual_reason(check, told):
    check.look(unreadable("no user", 60))
    check.look(unreadable("no time", 39))
    assert told == []
    check.look(unreadable("no time", 1))
    check.look(unreadable("no time", 50))
    assert [line.partition(";")[0] for line in told] == [
        "none of the first 100 messages can be read, most often because: no user"
    ]
    assert check.has(UNREADABLE)


def test_the_first_message_that_can_be_read_ends_it(check):
    check.look(unreadable("no user", 100))
    check.look(PolledBatch([Purchase(1, b"1", b"{}", 0, 1, b"5")], TIME, [], []))
    assert check.problems() == {}
    check.look(unreadable("no user", 1_000))
    assert check.problems() == {}


@pytest.mark.parametrize(("problem", "few", "found"), [(NO_PAGE_VIEW, 1_000, "view"), (NO_PURCHASE, 10_000, "buy")])
def test_no_event_of_a_kind_among_many_is_told_with_the_kinds_that_there_are(check, told, problem, few, found):
    other = "buy" if found == "view" else "view"
    check.look(events(other, few - 1))
    assert told == []
    check.look(events("scroll", 1))
    assert len(told) == 1
    assert f"none of the first {few:,} events is a " in told[0]
    assert f"({found})" in told[0]
    assert f"the kinds are {other} ({few - 1:,}), scroll (1)" in told[0]
    check.look(events(found, 1))
    assert not check.has(problem)


def test_rows_of_purchases_are_no_events_without_a_kind(check, told):
    check.look(PolledBatch([Purchase(1, b"1", b"{}", 0, 1, b"5")] * 20_000, TIME, [], []))
    assert told == []
