"""The same job as a textbook has it: one row a key, with Bytewax's own Kafka ends, event clock and session windows.

    python -m bytewax.run bench.textbook:flow

It is here to be measured against, and to show that the tests on real time can fail: its clock goes on while Kafka is
away, so that what comes after an outage or a pause is late and dropped. Nothing in it is worse than it need be: its
clock waits for late rows as long as the job does, and an error of the Kafka client does not end it. It writes `visits`
only. Its settings are the job's; told to stop at the end, its windows close there.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any, NamedTuple

import bytewax.connectors.kafka.operators as kop
import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SessionWindower, fold_window

from dataflow.runtime.settings import load

Row = dict[str, Any]

_KEPT = 60  # seconds for which the join remembers what it has seen


class Hit(NamedTuple):
    """A user event; or, without one, the amount of a purchase event that has gone before."""

    time: float
    event: Row | None
    amount: float | None


class Seen(NamedTuple):
    """A user's purchase events and amounts that can still meet."""

    events: list[Row]
    amounts: list[Row]


def flow() -> Dataflow:
    settings = load()
    brokers, tail = settings.brokers.split(","), not settings.stop_at_end
    clock: EventClock[Any] = EventClock(
        ts_getter=lambda hit: datetime.fromtimestamp(hit.time, timezone.utc),
        wait_for_system_duration=timedelta(seconds=settings.allowed_lateness),
    )
    windower = SessionWindower(gap=timedelta(seconds=settings.session_gap))

    flow = Dataflow("textbook")
    events = kop.input("read_events", flow, brokers=brokers, topics=[settings.topic_user_events], tail=tail)
    purchases = kop.input("read_purchases", flow, brokers=brokers, topics=[settings.topic_purchases], tail=tail)
    rows = op.map("decode", op.merge("merge", events.oks, purchases.oks), decode)
    keyed = op.key_on("key_on_user", rows, lambda row: str(row["user_id"]))
    joined = op.stateful_map("join_purchases", keyed, join(settings.match_window))
    hits = op.flat_map_value("flatten", joined, lambda hits: hits)
    sessions = fold_window("session_window", hits, clock, windower, list, add, list.__add__)
    written = op.flat_map("encode", sessions.down, visits)
    kop.output("write_visits", written, brokers=brokers, topic=settings.topic_visits)
    return flow


def decode(message: KafkaSourceMessage[Any, Any]) -> Row:
    return msgspec.json.decode(message.value, type=Row)


def join(window: float) -> Callable[[Seen | None, Row], tuple[Seen, list[Hit]]]:
    """Sends every event on at once, and an amount when it is found."""

    def meet(seen: Seen | None, row: Row) -> tuple[Seen, list[Hit]]:
        now = row["timestamp"]
        events, amounts = ([old for old in side if old["timestamp"] > now - _KEPT] for side in seen or ([], []))
        if "amount" in row:
            near = [event for event in events if abs(event["timestamp"] - now) <= window]
            return Seen(events, [*amounts, row]), [Hit(event["timestamp"], None, row["amount"]) for event in near]
        if row["event_type"] != "purchase":
            return Seen(events, amounts), [Hit(now, row, None)]
        near = [amount for amount in amounts if abs(amount["timestamp"] - now) <= window]
        best = min(near, key=lambda amount: abs(amount["timestamp"] - now))["amount"] if near else None
        return Seen([*events, row], amounts), [Hit(now, row, best)]

    return meet


def add(hits: list[Hit], hit: Hit) -> list[Hit]:
    hits.append(hit)
    return hits


def visits(closed: tuple[str, tuple[int, list[Hit]]]) -> Iterator[KafkaSinkMessage[bytes, bytes]]:
    """The rows of a session."""
    user, (_, hits) = closed
    hits.sort(key=lambda hit: hit.time)
    identity = blake2b(f"{user}/{hits[0].time}".encode(), digest_size=16).hexdigest()
    amount = next((hit.amount for hit in reversed(hits) if hit.amount is not None), 0)
    for hit in hits:
        if hit.event is not None:
            row = {**hit.event, "session_id": identity, "amount": amount}
            yield KafkaSinkMessage(key=user.encode(), value=msgspec.json.encode(row))
