"""Where a partition ends is known for certain only once consumers are told of all that its leader has."""

from collections.abc import Iterable

import pytest

from dataflow.kafka import stable_end_offsets
from dataflow.kafka.job_metadata import EndOffset

PLACE = "user-events", 0


@pytest.fixture
def partition(monkeypatch):
    """Plays a partition: what consumers are told of its end, and what its leader really has, question by question."""

    def play(told: Iterable[int], has: Iterable[int], epoch: int | None = 3) -> int:
        steps = iter(zip(told, has, strict=True))
        leader = None  # not known before the first question, which only shows that the brokers are there

        def ends_of(admin, places):
            nonlocal leader
            if leader is None:
                leader = 0
                return {PLACE: EndOffset(0, epoch)}
            told, leader = next(steps)
            return {PLACE: EndOffset(told, epoch)}

        def no_longer(connection, group, ends, room):
            return {place for place, end in ends.items() if leader <= end.offset + room}

        monkeypatch.setattr(stable_end_offsets, "ends_of", ends_of)
        monkeypatch.setattr(stable_end_offsets, "_no_longer", no_longer)
        monkeypatch.setattr(stable_end_offsets, "_QUIET_S", 0)
        return stable_end_offsets.stable_end_offsets(None, None, "group", [PLACE], lambda: None)[PLACE]

    return play


def test_an_end_behind_which_the_leader_has_nothing_is_the_end(partition):
    assert partition(told=[5, 5], has=[5, 5]) == 5


def test_rows_that_are_still_hidden_are_waited_for(partition):
    assert partition(told=[5, 5, 7, 7], has=[7, 7, 7, 7]) == 7


def test_rows_that_others_write_meanwhile_are_not_waited_for_to_stop(partition):
    assert partition(told=[5, 500, 1005], has=[9, 600, 1200]) == 1005


def test_a_broker_that_does_not_tell_the_term_is_believed(partition):
    assert partition(told=[5], has=[9], epoch=None) == 5
