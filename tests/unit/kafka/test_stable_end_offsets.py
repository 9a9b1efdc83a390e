"""The stable end of a partition: consumers can see all rows that its leader had."""

from collections.abc import Callable, Iterable

import pytest

from dataflow.kafka import stable_end_offsets as module
from dataflow.kafka.offsets import EndOffset
from dataflow.kafka.stable_end_offsets import stable_end_offsets

PARTITION = "user-events", 0


@pytest.fixture
def stable_end(monkeypatch) -> Callable[..., int]:
    """Simulates a partition: the end that brokers report and the end of the leader's log, question by question."""

    def ask(reported: Iterable[int], leader: Iterable[int], epoch: int | None = 3) -> int:
        steps = iter(zip(reported, leader, strict=True))
        leader_end = None  # before the first question, which only shows that the brokers are up

        def end_offsets(admin, partition_ids):
            nonlocal leader_end
            if leader_end is None:
                leader_end = 0
                return {PARTITION: EndOffset(0, epoch)}
            reported_end, leader_end = next(steps)
            return {PARTITION: EndOffset(reported_end, epoch)}

        def not_longer(connection, group, ends, margin):
            return {partition_id for partition_id, end in ends.items() if leader_end <= end.offset + margin}

        monkeypatch.setattr(module, "end_offsets", end_offsets)
        monkeypatch.setattr(module, "_not_longer", not_longer)
        monkeypatch.setattr(module, "_QUIET_S", 0)
        return stable_end_offsets(None, None, "group", [PARTITION], lambda: None)[PARTITION]

    return ask


def test_an_end_after_which_the_leader_has_nothing_is_stable(stable_end):
    assert stable_end(reported=[5, 5], leader=[5, 5]) == 5


def test_rows_that_consumers_cannot_see_yet_are_waited_for(stable_end):
    assert stable_end(reported=[5, 5, 7, 7], leader=[7, 7, 7, 7]) == 7


def test_rows_that_others_write_meanwhile_are_not_waited_for(stable_end):
    assert stable_end(reported=[5, 500, 1005], leader=[9, 600, 1200]) == 1005


def test_the_end_of_a_leader_that_reports_no_epoch_is_taken_as_stable(stable_end):
    assert stable_end(reported=[5], leader=[9], epoch=None) == 5
