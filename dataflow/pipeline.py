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

from dataflow.batches import Output, Poll
from dataflow.codec import Decode, decode_event, decode_purchase, encode_suspicious, encode_visits
from dataflow.kept import KeptVisits, Reread
from dataflow.operators import Whole, clock, interval_join, session_window
from dataflow.pace import Pace
from dataflow.page.onlooker import Onlooker
from dataflow.rules.amounts import AMOUNTS
from dataflow.rules.rows import PARTITIONS, SECOND, Event, Rejected, Row
from dataflow.rules.session import Session
from dataflow.rules.visits import Finished, Visit, add_row, finish, unite
from dataflow.shards import sharder
from dataflow.snapshots import Origin

LATE = "late"
NO_EVENT = "no event in its time"

Keyed = tuple[str, Output]  # a sink's element; the text of the key chooses the partition


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

    events: Callable[[Decode], Source[Poll]]
    purchases: Callable[[Decode], Source[Poll]]
    reread: Callable[[Decode], Reread] | None = None
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
    pace: Pace | None = None,
    origin: Origin | None = None,
    onlooker: Onlooker | None = None,
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
    pace, origin = pace or Pace(), origin or Origin(rules.shards)
    at_work = onlooker.at_work if onlooker is not None else None
    keeper = KeptVisits(inputs.reread(decode_event)) if inputs.reread is not None else Whole(Visit)
    flow = Dataflow("visits")
    events = op.input("read_events", flow, inputs.events(decode_event))
    purchases = op.input("read_purchases", flow, inputs.purchases(decode_purchase))
    polls = op.merge("merge", events, purchases)
    batches = op.flat_map("shard", polls, sharder(rules.shards))
    ticked = clock("clock", batches, rules.lateness, origin, pace, at_work)
    joined = interval_join("join_purchases", ticked, rules.window, AMOUNTS, origin, at_work)
    closed = session_window(
        "session_window", joined, rules.gap, rules.window, origin, Visit, add_row, unite, keeper, at_work
    )

    late_in_log = op.flat_map("take_late", polls, lambda poll: poll.late)
    late_in_shard = op.flat_map("take_overtaken", ticked, lambda keyed: keyed[1].late)
    late = op.branch("split_late", op.merge("merge_late", late_in_log, late_in_shard), lambda row: type(row) is Event)
    late_events = op.map("encode_late_events", late.trues, rejecter(inputs.events_topic, LATE))
    late_purchases = op.map("encode_late_purchases", late.falses, rejecter(inputs.purchases_topic, LATE))
    met_nobody = op.flat_map("take_unmatched", joined, lambda keyed: keyed[1].unmatched)
    without_event = op.map("encode_unmatched", met_nobody, rejecter(inputs.purchases_topic, NO_EVENT))
    unmatched = op.merge("merge_unmatched", late_purchases, without_event)

    finished = op.map_value("finish", closed, finisher(rules))
    op.output("write_visits", op.flat_map("encode_visits", finished, visits), outputs.visits)
    op.output("write_suspicious", op.flat_map("encode_suspicious", finished, suspicious), outputs.suspicious_visits)
    op.output("write_late_events", late_events, outputs.late_events)
    op.output("write_dead_letters", op.flat_map("encode_dead_letters", polls, dead_letters), outputs.dead_letters)
    op.output("write_unmatched_purchases", unmatched, outputs.unmatched_purchases)
    if onlooker is not None:
        onlooker.look_on(polls, ticked, met_nobody, finished)
    return flow


def finisher(rules: Rules) -> Callable[[list[Session[Visit]]], list[Finished]]:
    """Makes of sessions that are closed what is to be written of them."""
    most, fewest = rules.max_events, rules.min_page_views
    return lambda sessions: [finish(session, most, fewest) for session in sessions]


def visits(keyed: tuple[str, list[Finished]]) -> Iterator[Keyed]:
    """The rows of sessions, each session's in order of time."""
    for session in keyed[1]:
        rows = encode_visits(session.events, session.identity, session.amount)
        yield session.user.decode(), Output(session.user, rows)


def suspicious(keyed: tuple[str, list[Finished]]) -> Iterator[Keyed]:
    """The suspicious ones among sessions."""
    for session in keyed[1]:
        if session.suspicion is not None:
            row = encode_suspicious(session.identity, session.user, session.suspicion)
            yield session.user.decode(), Output(session.user, [row])


def rejecter(topic: str, reason: str) -> Callable[[Row], Keyed]:
    """Makes of a row of a topic one that says why it is none of a visit."""

    def reject(row: Row) -> Keyed:
        offset, partition = divmod(row.position, PARTITIONS)
        return _rejected(Rejected(row.user, row.value, reason, f"{topic}/{partition}", offset))

    return reject


def dead_letters(poll: Poll) -> Iterator[Keyed]:
    return map(_rejected, poll.unreadable)


def _rejected(message: Rejected) -> Keyed:
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
    return route, Output(message.key, [message.value], headers)
