"""The whole dataflow, as a chain of named steps.

    user-events ─┐                                                    ┌─ visits
                 ├ decode ─ merge ─ shard ─ clock ─ join ─ session_window ─ suspicious-visits
    purchases ───┘            │               │      │
                      dead-letters     late-events   unmatched-purchases

Sources and sinks come in as arguments: Kafka's in production, Bytewax's testing ones in the tests.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from dataflow.clickstream.attribution import AMOUNTS
from dataflow.clickstream.records import Event, InputRecord
from dataflow.clickstream.serde import decode_event, decode_purchase, encode_suspicious, encode_visits
from dataflow.clickstream.session_references import EventFetcher, ReferenceSerializer
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, accumulate, finalize, merge
from dataflow.dashboard.probe import DashboardProbe
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.batches import OutgoingRecords, PolledBatch, RejectedRecord
from dataflow.streaming.operators import IdentitySerializer, interval_join, session_window, track_watermark
from dataflow.streaming.partition_reader import Decode
from dataflow.streaming.position import PARTITION_LIMIT
from dataflow.streaming.session_windows import Session
from dataflow.streaming.sharding import sharder
from dataflow.streaming.state import JobFingerprint
from dataflow.streaming.time import SECOND

LATE = "late"
NO_EVENT = "no event in its time"

Keyed = tuple[str, OutgoingRecords]  # a sink's element; the text of the key chooses the partition


@dataclass(frozen=True)
class Rules:
    """The numbers in the rules; times are in microseconds."""

    gap: int = 20 * SECOND
    window: int = 5 * SECOND
    lateness: int = 5 * SECOND
    max_events: int = 5
    min_page_views: int = 1
    shards: int = 8


@dataclass(frozen=True)
class Inputs:
    """Makes the two sources, each told how to decode its messages; they emit a `Poll` at a time.

    `reread` makes what can read events again, by their positions: with it a snapshot need only hold these.
    """

    events: Callable[[Decode], Source[PolledBatch]]
    purchases: Callable[[Decode], Source[PolledBatch]]
    event_fetcher: Callable[[Decode], EventFetcher] | None = None
    events_topic: str = "user-events"
    purchases_topic: str = "purchases"


@dataclass(frozen=True)
class Outputs:
    """The five sinks."""

    visits: Sink[Keyed]
    suspicious_visits: Sink[Keyed]
    late_events: Sink[Keyed]
    dead_letters: Sink[Keyed]
    unmatched_purchases: Sink[Keyed]


def build(
    inputs: Inputs,
    outputs: Outputs,
    rules: Rules,
    alignment: SourceAlignment | None = None,
    fingerprint: JobFingerprint | None = None,
    probe: DashboardProbe | None = None,
) -> Dataflow:
    """Puts the job together.

    Args:
        inputs: the two sources.
        outputs: the five sinks.
        rules: their numbers.
        pace: is shared with sources that keep it.
        origin: stands in the snapshots.
        onlooker: sees what passes; without one nothing is done for it.
    """
    alignment, fingerprint = alignment or SourceAlignment(), fingerprint or JobFingerprint(rules.shards)
    live_state = probe.live_state if probe is not None else None
    serializer = (
        ReferenceSerializer(inputs.event_fetcher(decode_event))
        if inputs.event_fetcher is not None
        else IdentitySerializer(SessionAccumulator)
    )
    flow = Dataflow("visits")
    events = op.input("read_events", flow, inputs.events(decode_event))
    purchases = op.input("read_purchases", flow, inputs.purchases(decode_purchase))
    polled = op.merge("merge", events, purchases)
    batches = op.flat_map("shard", polled, sharder(rules.shards))
    on_time = track_watermark("clock", batches, rules.lateness, fingerprint, alignment, live_state)
    joined = interval_join("join_purchases", on_time, rules.window, AMOUNTS, fingerprint, live_state)
    closed = session_window(
        "session_window",
        joined,
        rules.gap,
        rules.window,
        fingerprint,
        SessionAccumulator,
        accumulate,
        merge,
        serializer,
        live_state,
    )

    late_in_log = op.flat_map("take_late", polled, lambda poll: poll.late)
    late_in_shard = op.flat_map("take_overtaken", on_time, lambda keyed: keyed[1].late)
    late = op.branch("split_late", op.merge("merge_late", late_in_log, late_in_shard), lambda row: type(row) is Event)
    late_events = op.map("encode_late_events", late.trues, rejecter(inputs.events_topic, LATE))
    late_purchases = op.map("encode_late_purchases", late.falses, rejecter(inputs.purchases_topic, LATE))
    met_nobody = op.flat_map("take_unmatched", joined, lambda keyed: keyed[1].unmatched)
    without_event = op.map("encode_unmatched", met_nobody, rejecter(inputs.purchases_topic, NO_EVENT))
    unmatched = op.merge("merge_unmatched", late_purchases, without_event)

    closed_sessions = op.map_value("finish", closed, finalizer(rules))
    op.output("write_visits", op.flat_map("encode_visits", closed_sessions, visits), outputs.visits)
    op.output(
        "write_suspicious", op.flat_map("encode_suspicious", closed_sessions, suspicious), outputs.suspicious_visits
    )
    op.output("write_late_events", late_events, outputs.late_events)
    op.output("write_dead_letters", op.flat_map("encode_dead_letters", polled, dead_letters), outputs.dead_letters)
    op.output("write_unmatched_purchases", unmatched, outputs.unmatched_purchases)
    if probe is not None:
        probe.attach(polled, on_time, met_nobody, closed_sessions)
    return flow


def finalizer(rules: Rules) -> Callable[[list[Session[SessionAccumulator]]], list[ClosedSession]]:
    """Makes of sessions that are closed what is to be written of them."""
    most, fewest = rules.max_events, rules.min_page_views
    return lambda sessions: [finalize(session, most, fewest) for session in sessions]


def visits(keyed: tuple[str, list[ClosedSession]]) -> Iterator[Keyed]:
    """The rows of sessions, each session's in order of time."""
    for session in keyed[1]:
        rows = encode_visits(session.events, session.identity, session.amount)
        yield session.user.decode(), OutgoingRecords(session.user, rows)


def suspicious(keyed: tuple[str, list[ClosedSession]]) -> Iterator[Keyed]:
    """The suspicious ones among sessions."""
    for session in keyed[1]:
        if session.suspicion is not None:
            row = encode_suspicious(session.identity, session.user, session.suspicion)
            yield session.user.decode(), OutgoingRecords(session.user, [row])


def rejecter(topic: str, reason: str) -> Callable[[InputRecord], Keyed]:
    """Makes of a row of a topic one that says why it is none of a visit."""

    def reject(row: InputRecord) -> Keyed:
        offset, partition = divmod(row.position, PARTITION_LIMIT)
        return _rejected(RejectedRecord(row.user, row.value, reason, f"{topic}/{partition}", offset))

    return reject


def dead_letters(poll: PolledBatch) -> Iterator[Keyed]:
    return map(_rejected, poll.unreadable)


def _rejected(message: RejectedRecord) -> Keyed:
    """A message as it came, with headers that say why it is here and where it was."""
    topic, _, partition = message.source.rpartition("/")
    headers = [
        ("reason", message.reason.encode()),
        ("topic", topic.encode()),
        ("partition", partition.encode()),
        ("offset", b"%d" % message.offset),
    ]
    # a message without a key goes where its origin says, so that a replay puts it into the same partition
    route = message.key.decode(errors="replace") if message.key is not None else message.source
    return route, OutgoingRecords(message.key, [message.value], headers)
