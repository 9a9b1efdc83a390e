"""What a snapshot keeps of an open session: not its events, which are still in Kafka, but where they stand there.

That is 5 bytes an event instead of some 150. A resume reads the events again, so the input topic has to retain them
as long as their session is open and the job stands still.
"""

from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

import msgspec

from dataflow.clickstream.records import Event, Match
from dataflow.clickstream.sessions import SessionAccumulator


class EventFetcher(Protocol):
    """Reads events again."""

    def prefetch(self, positions: Iterable[int]) -> None:
        """These will be asked for."""

    def event(self, position: int) -> Event:
        """One that has been announced, once."""


class SessionReferences(msgspec.Struct, array_like=True):
    """A session's fold as it stands in a snapshot."""

    first: int  # position of its first event
    count: int  # of its events
    steps: bytes  # from each event's position to the next one's, MessagePack integers end to end
    best: Match | None


class ReferenceSerializer:
    """A `Keeper` for `Visit`; `reread` gets the events back.

    A visit's events only become more, at the end of the list. So those that were packed for the last snapshot stay
    packed, and the next one costs what came in between.
    """

    type = SessionReferences

    def __init__(self, fetcher: EventFetcher) -> None:
        self._fetcher = fetcher

    def pack(self, accumulator: SessionAccumulator, before: SessionReferences | None) -> SessionReferences:
        events, count = accumulator.events, len(accumulator.events)
        if before is None:
            first = events[0].position
            return SessionReferences(first, count, _steps(first, events[1:]), accumulator.best)
        if before.count < count:
            before.steps += _steps(events[before.count - 1].position, events[before.count :])
            before.count = count
        before.best = accumulator.best
        return before

    def prefetch(self, references: SessionReferences) -> None:
        self._fetcher.prefetch(_positions(references))

    def unpack(self, references: SessionReferences) -> SessionAccumulator:
        return SessionAccumulator(
            [self._fetcher.event(position) for position in _positions(references)], references.best
        )


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
