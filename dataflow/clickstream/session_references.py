"""Session references: snapshots hold the offsets of the events of open sessions, not the events.

That takes 5 bytes an event instead of some 150. A resume fetches the events again, so the input topic has to retain
them for as long as their session is open and the job stands still.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import accumulate
from typing import Any, Protocol

import msgspec

from dataflow.clickstream.records import Event, Match, amount_size
from dataflow.clickstream.revenue import NO_REVENUE, add_amount
from dataflow.clickstream.sessions import SessionAccumulator
from dataflow.streaming.state import Converter


class EventRestorer(Protocol):
    """Fetches events again of which only positions are known."""

    def prefetch(self, positions: Iterable[int]) -> None:
        """Announces positions whose events will be asked for."""

    def event(self, position: int) -> Event:
        """The event at a position that was announced; it can be asked for once."""


class SessionReferences(msgspec.Struct, array_like=True):
    """What a snapshot holds of a session's events."""

    first: int  # position of its first event
    count: int  # of its events
    steps: bytes  # from each event's position to the next one's, MessagePack integers end to end
    best: Match | None
    revenue: Decimal


def _add_revenue(references: list[Any]) -> list[Any]:
    """Version 4 held the best match alone, so its amount is all that is known of the sum."""
    best = references[3]
    known = add_amount(NO_REVENUE, amount_size(best[5])) if best is not None else NO_REVENUE
    return [*references, str(known)]


class ReferenceSerializer:
    """A `StateSerializer` for `SessionAccumulator`: snapshots hold the positions of events, not the events.

    Args:
        restorer: fetches the events again after a resume.

    Events are only ever appended to a session. What was packed for the last snapshot stays packed, so the next one costs
    only what arrived in between.
    """

    type = SessionReferences
    converters: Mapping[int, Converter] = {4: _add_revenue}

    def __init__(self, restorer: EventRestorer) -> None:
        self._restorer = restorer

    def pack(self, accumulator: SessionAccumulator, packed: SessionReferences | None) -> SessionReferences:
        events, count = accumulator.events, len(accumulator.events)
        if packed is None:
            first = events[0].position
            steps = _steps(first, events[1:])
            return SessionReferences(first, count, steps, accumulator.best, accumulator.revenue)
        if packed.count < count:
            packed.steps += _steps(events[packed.count - 1].position, events[packed.count :])
            packed.count = count
        packed.best, packed.revenue = accumulator.best, accumulator.revenue
        return packed

    def prefetch(self, packed: SessionReferences) -> None:
        self._restorer.prefetch(_positions(packed))

    def unpack(self, packed: SessionReferences) -> SessionAccumulator:
        events = [self._restorer.event(position) for position in _positions(packed)]
        return SessionAccumulator(events, packed.best, packed.revenue)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


def _steps(last: int, events: list[Event]) -> bytes:
    steps = []
    for event in events:
        position = event.position
        steps.append(position - last)
        last = position
    header = 1 if len(steps) < 16 else 3 if len(steps) < 1 << 16 else 5  # how long MessagePack's own count is
    return _encode(steps)[header:]


def _positions(references: SessionReferences) -> Iterable[int]:
    """Of all events, in the order in which they came."""
    steps = _decode(b"\xdd" + (references.count - 1).to_bytes(4, "big") + references.steps)  # 0xdd: so many follow
    return accumulate(steps, initial=references.first)
