"""The whole dataflow, as one chain of named steps.

    user-events ─┐                                                              ┌─ visits
                 ├ decode ─ merge ─ shard ─ track_watermark ─ join ─ session_window
    purchases ───┘            │                   │            │                ├─ suspicious-visits
                        dead-letters         late-events  unmatched-purchases   └─ sessions

Sources and sinks are arguments: Kafka's in production, Bytewax's testing ones in unit tests.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import KeyedStream, Stream
from bytewax.outputs import Sink

from dataflow.clickstream.attribution import amounts
from dataflow.clickstream.inputs import InputTopic, InputTopics, default_inputs
from dataflow.clickstream.outputs import LATE, NO_EVENT, OTHER_ROW, OUTPUTS, Feed, Keyed, OutputSpec, rejecter
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.session_references import EventRestorer, ReferenceSerializer
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, accumulate, finalize, merge
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.batches import JoinedBatch, OnTimeBatch, PolledBatch
from dataflow.streaming.hooks import Hooks, LiveState
from dataflow.streaming.operators import (
    IdentitySerializer,
    StateSerializer,
    interval_join,
    session_window,
    track_watermark,
)
from dataflow.streaming.session_windows import Session
from dataflow.streaming.sharding import sharder
from dataflow.streaming.state import JobFingerprint

FLOW = "visits"  # the name of the dataflow, which begins the ids of its steps


@dataclass(frozen=True)
class Inputs:
    """Makes the sources, one a topic. They emit `PolledBatch`es.

    Args:
        source: makes the source of a topic.
        event_restorer: fetches events again by position; with it, snapshots hold positions, not events.
        topics: those that are read.
    """

    source: Callable[[InputTopic], Source[PolledBatch]]
    event_restorer: EventRestorer | None = None
    topics: InputTopics = field(default_factory=default_inputs)

    def read(self, flow: Dataflow) -> Stream[PolledBatch]:
        """Adds the sources to a dataflow."""
        streams = []
        for kind, has_kind in ("events", True), ("purchases", False):
            of_kind = [topic for topic in self.topics if topic.has_events == has_kind]
            for number, topic in enumerate(of_kind):
                step = f"read_{kind}_{number}" if number else f"read_{kind}"
                streams.append(op.input(step, flow, self.source(topic)))
        return op.merge("merge", *streams)


class Observer(Protocol):
    """Looks at what flows by, such as the dashboard."""

    live_state: LiveState

    def attach(
        self,
        polled: Stream[PolledBatch],
        on_time: KeyedStream[OnTimeBatch],
        unmatched: Stream[tuple[Purchase, str]],
        closed: KeyedStream[list[ClosedSession]],
    ) -> None:
        """Adds steps to the dataflow that look at these streams and emit nothing; unmatched rows come with the reason."""


def build(
    inputs: Inputs,
    sinks: Mapping[str, Sink[Keyed]],
    rules: Rules,
    alignment: SourceAlignment | None = None,
    fingerprint: JobFingerprint | None = None,
    hooks: Hooks | None = None,
    observer: Observer | None = None,
) -> Dataflow:
    """Builds the dataflow.

    Args:
        inputs: make the two sources.
        sinks: one for each of `OUTPUTS`, by its name; an optional output without one is left out.
        rules: the numbers in the rules.
        alignment: is shared with the sources.
        fingerprint: identifies the job in snapshots.
        hooks: are called by the operators.
        observer: looks at what flows by; without one, no step is added for it.
    """
    alignment, fingerprint, hooks = (
        alignment or SourceAlignment(),
        fingerprint or JobFingerprint(rules.shards),
        hooks or Hooks(),
    )
    live_state = observer.live_state if observer is not None else None
    serializer: StateSerializer = (
        ReferenceSerializer(inputs.event_restorer)
        if inputs.event_restorer is not None
        else IdentitySerializer(SessionAccumulator)
    )
    # ids of stateful steps are keys in the recovery store: a job resumes only where they stay as they are
    flow = Dataflow(FLOW)
    polled = inputs.read(flow)
    batches = op.flat_map("shard", polled, sharder(rules.shards))
    on_time = track_watermark("clock", batches, rules.lateness, fingerprint, alignment, hooks, live_state)
    joined = interval_join(
        "join_purchases",
        on_time,
        rules.window,
        amounts(rules.kinds, inputs.topics.own_amounts, inputs.topics.mixed),
        fingerprint,
        rules.retention,
        hooks,
        live_state,
    )
    sessions = session_window(
        "session_window",
        joined,
        rules.gap,
        rules.retention,
        fingerprint,
        SessionAccumulator,
        accumulate,
        merge,
        serializer,
        hooks,
        live_state,
    )
    closed = op.map_value("finish", sessions, finalizer(rules))

    reject = rejecter(inputs.topics)
    late_in_partition = op.flat_map("take_late", polled, lambda batch: batch.late)
    late_in_shard = op.flat_map("take_overtaken", on_time, lambda keyed: keyed[1].late)
    late = op.branch(
        "split_late", op.merge("merge_late", late_in_partition, late_in_shard), lambda row: type(row) is Event
    )
    unmatched = op.flat_map("take_unmatched", joined, lambda keyed: unmatched_rows(keyed[1]))
    feeds: dict[Feed, Stream[Any]] = {
        Feed.CLOSED_SESSIONS: closed,
        Feed.LATE_EVENTS: op.map("reject_late_events", late.trues, lambda row: reject(row, LATE)),
        Feed.UNREADABLE: op.flat_map("take_unreadable", polled, lambda batch: batch.unreadable),
        Feed.UNMATCHED_PURCHASES: op.merge(
            "merge_unmatched",
            op.map("reject_late_purchases", late.falses, lambda row: reject(row, LATE)),
            op.map("reject_unmatched", unmatched, lambda row_and_reason: reject(*row_and_reason)),
        ),
    }
    for spec in OUTPUTS:
        if spec.optional and spec.name not in sinks:
            continue
        encoded = op.flat_map(f"encode_{spec.step_name}", feeds[spec.feed], partial(_encode, spec, rules))
        op.output(f"write_{spec.step_name}", encoded, sinks[spec.name])
    if observer is not None:
        observer.attach(polled, on_time, unmatched, closed)
    return flow


def unmatched_rows(batch: JoinedBatch) -> Iterator[tuple[Purchase, str]]:
    """The purchase rows of a batch that no event took, each with the reason."""
    for row in batch.unmatched:
        yield row, NO_EVENT
    for row in batch.left_over:
        yield row, OTHER_ROW


def finalizer(rules: Rules) -> Callable[[list[Session[SessionAccumulator]]], list[ClosedSession]]:
    """Makes what turns closed session windows into results."""
    return lambda sessions: [finalize(session, rules) for session in sessions]


def _encode(spec: OutputSpec, rules: Rules, element: Any) -> Iterator[Keyed]:
    return spec.encode(element, rules)
