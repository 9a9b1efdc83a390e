"""What a snapshot holds of an open session: where its events are, not the events."""

import msgspec
import pytest

from dataflow.clickstream.attribution import match
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.session_references import ReferenceSerializer
from dataflow.clickstream.sessions import SessionAccumulator, accumulate, merge
from dataflow.streaming.position import position
from dataflow.streaming.state import JobFingerprint, StateCodec

JOB = JobFingerprint(8, ("user-events", "visits"), "night")
EVENT = Event(-5, b"-7", b"{}\xc3\xa9", position(65_535, 2**45), -(2**63), "päge", True)
PURCHASE = Purchase(5, b"9" * 4300, b"{}", 0, 2**63 - 1, b"-0.50")


class Topic:
    """Where events can be read again; records what is prefetched."""

    def __init__(self, events):
        self.prefetched = []
        self._events = {event.position: event for event in events}

    def prefetch(self, positions):
        self.prefetched.extend(positions)

    def event(self, wanted):
        return self._events[wanted]


def standing_at(*places):
    return [msgspec.structs.replace(EVENT, position=position(partition, offset)) for partition, offset in places]


@pytest.mark.parametrize(
    "snapshots_after",
    [
        pytest.param([2], id="at once"),
        pytest.param([1, 2], id="an event at a time"),
        pytest.param([20, 20, 21, 65_600], id="many, none, one, very many"),
    ],
)
def test_a_snapshot_holds_positions_of_events_after_any_earlier_snapshots(snapshots_after):
    places = [(3, 9), (2, 4), *((5, 2**45 + offset) for offset in range(70_000))]
    visit, events = SessionAccumulator([]), standing_at(*places[: snapshots_after[-1]])
    topic = Topic(events)
    serializer, packed = ReferenceSerializer(topic), None
    snapshots = StateCodec(serializer.type, JOB)
    for count in snapshots_after:
        visit.events += events[len(visit.events) : count]
        packed = serializer.pack(visit, packed)
    accumulate(visit, match(EVENT, PURCHASE))
    data = snapshots.pack(serializer.pack(visit, packed))
    assert EVENT.value not in data
    resumed = snapshots.unpack(data)
    serializer.prefetch(resumed)
    assert topic.prefetched == [event.position for event in events]
    assert serializer.unpack(resumed) == visit


@pytest.mark.parametrize(
    ("best", "revenue"),
    [(None, "0"), ([5, True, 0, 5, 19.9, b"19.90", b"1"], "19.90")],
    ids=["no amount", "an amount"],
)
def test_a_session_of_version_4_has_the_amount_that_it_knows_as_revenue(best, revenue):
    (event,) = standing_at((0, 1))
    old = msgspec.msgpack.encode([event.position, 1, b"", best])
    serializer = ReferenceSerializer(Topic([event]))
    converted = serializer.converters[4](msgspec.msgpack.decode(old))
    references = msgspec.msgpack.decode(msgspec.msgpack.encode(converted), type=serializer.type)
    assert str(serializer.unpack(references).revenue) == revenue


def test_a_snapshot_of_merged_sessions_has_the_events_of_both():
    first, second, between = standing_at((0, 1), (0, 2), (1, 7))
    one, other = SessionAccumulator([first]), SessionAccumulator([second])
    serializer = ReferenceSerializer(Topic([first, second, between]))
    packed = serializer.pack(one, None)
    serializer.pack(other, None)
    accumulate(merge(one, other), between)
    assert serializer.unpack(serializer.pack(one, packed)) == SessionAccumulator([first, second, between])
