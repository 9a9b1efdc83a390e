"""What the operators report through their hooks. What they emit is in tests of the topology and of any order."""

from typing import Any

from bytewax.testing import TestingSource
from support.engine import Engine
from support.logs import EVENTS, PURCHASES, Partitions, Written, event, log, purchase, wall

from dataflow.clickstream.rules import Rules
from dataflow.clickstream.topology import Inputs, build
from dataflow.streaming.hooks import Hooks
from dataflow.streaming.operators import IdentitySerializer


class Recorder:
    """A flow of one shard without Kafka, and what its hooks have heard."""

    def __init__(self, logs: dict) -> None:
        self.late: list[tuple[str, int]] = []
        self.unmatched: list[int] = []
        self.sessions: list[tuple[int, int, int]] = []
        self.snapshots: list[tuple[str, int, int]] = []
        rules, nothing = Rules(shards=1), TestingSource([])
        hooks = Hooks(
            on_late=lambda *heard: self.late.append(heard),
            on_unmatched=self.unmatched.append,
            on_sessions=lambda *heard: self.sessions.append(heard),
            on_snapshot=lambda *heard: self.snapshots.append(heard),
        )
        inputs = Inputs(lambda topic: nothing)
        self.partitions = Partitions(logs, rules.lateness)
        self.engine = Engine(build(inputs, Written().sinks, rules, hooks=hooks))

    def read(self, source: str, count: int, **claim: Any) -> None:
        self.engine.feed("visits.read_events", self.partitions.poll(source, count, **claim))

    def session_totals(self) -> tuple[int, ...]:
        """Open, begun, closed."""
        return tuple(map(sum, zip(*self.sessions, strict=True)))


def test_sessions_are_reported_as_open_begun_and_closed():
    recorder = Recorder({EVENTS: log(event(0), event(100), event(101, user=2)), PURCHASES: []})
    recorder.read(EVENTS, 3)
    assert recorder.session_totals() == (3, 3, 0)
    recorder.read(EVENTS, 0, end=True)
    recorder.read(PURCHASES, 0, end=True)
    assert recorder.session_totals() == (0, 3, 3)


def test_unmatched_rows_are_counted_when_they_expire():
    recorder = Recorder({EVENTS: log(event(0), event(60)), PURCHASES: log(purchase(1, 5), purchase(60, 5))})
    recorder.read(PURCHASES, 2)
    recorder.read(EVENTS, 2)
    assert sum(recorder.unmatched) == 1


def test_rows_behind_the_watermark_of_an_idle_partition_are_counted_by_source():
    # on time in their own partition; one of them is below the watermark, which went on while it was idle
    other = "user-events/1"
    recorder = Recorder({EVENTS: log(event(100)), other: log(event(50), event(95), event(94)), PURCHASES: []})
    recorder.read(EVENTS, 1, now=wall(100), caught_up_at=wall(100))
    recorder.read(other, 1, now=wall(100), caught_up_at=wall(100))
    recorder.read(PURCHASES, 0, now=wall(100), caught_up_at=wall(100))
    recorder.read(other, 2, now=wall(101))
    assert recorder.late == [(other, 1)]


def test_snapshots_are_reported_by_step_with_sizes_before_and_now():
    recorder = Recorder({EVENTS: log(event(0), event(1)), PURCHASES: []})
    recorder.read(EVENTS, 1)
    recorder.engine.snapshot()
    first = {step: now for step, _, now in recorder.snapshots}
    recorder.snapshots.clear()
    recorder.engine.snapshot()
    assert {step: before for step, before, _ in recorder.snapshots} == first
    assert all(first.values())


def test_the_identity_serializer_holds_the_fold_itself():
    serializer, fold = IdentitySerializer(list), [1]
    assert serializer.unpack(serializer.pack(fold, None)) is fold
