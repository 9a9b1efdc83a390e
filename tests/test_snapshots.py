"""States as bytes: what is written comes back, and what is not this job's is refused with the reason."""

import copy

import msgspec
import pytest

from dataflow.clickstream.attribution import AMOUNTS, PurchaseKey, match
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.session_references import ReferenceSerializer
from dataflow.clickstream.sessions import SessionAccumulator, accumulate, merge
from dataflow.observability import metrics
from dataflow.streaming.errors import UserError
from dataflow.streaming.interval_join import IntervalJoin, JoinState
from dataflow.streaming.operators import _StateHolder
from dataflow.streaming.position import position
from dataflow.streaming.state import VERSION, JobFingerprint, StateCodec
from dataflow.streaming.time import MAX_TIME, MIN_TIME
from dataflow.streaming.watermark import WatermarkState

JOB = JobFingerprint(8, ("user-events", "visits"), "night")
JOIN = JoinState[PurchaseKey, Purchase]
EVENT = Event(-5, b"-7", b"{}\xc3\xa9", position(65_535, 2**45), -(2**63), "päge", True)
PURCHASE = Purchase(5, b"9" * 4300, b"{}", 0, 2**63 - 1, b"-0.50")


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(WatermarkState, WatermarkState({}, MIN_TIME, 0, MIN_TIME), id="clock before any row"),
        pytest.param(
            WatermarkState,
            WatermarkState({"a/0": 1_710_331_200_000_001, "b/0": MIN_TIME, "c/0": MAX_TIME}, 2**62, 2**62, -5),
            id="clock",
        ),
        pytest.param(JOIN, JoinState([], []), id="empty join"),
        pytest.param(JOIN, JoinState([PurchaseKey(-5, b"-7", -(2**63))], [PURCHASE]), id="join"),
        pytest.param(
            list[tuple[bytes, int, int, SessionAccumulator]],
            [
                (b"1", 1, 2, SessionAccumulator([EVENT], match(EVENT, PURCHASE))),
                (b"2", 3, 3, SessionAccumulator([EVENT])),
            ],
            id="sessions",
        ),
    ],
)
def test_a_state_comes_back_as_it_was(kind, state):
    snapshots = StateCodec(kind, JOB)
    assert snapshots.unpack(snapshots.pack(state)) == state


def test_times_come_back_as_exact_numbers():
    snapshots = StateCodec(WatermarkState, JOB)
    state = snapshots.unpack(
        snapshots.pack(WatermarkState({"a": 9_007_199_254_740_993}, 9_007_199_254_740_993, 0, MIN_TIME))
    )
    assert type(state.high) is type(state.max_timestamps["a"]) is int
    assert state.high == 9_007_199_254_740_993


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            StateCodec(list[int], JobFingerprint(4, JOB.topics)).pack([1]),
            "the recovery store was written with 4 shards and this job has 8; set VISITS_SHARDS=4",
            id="shards",
        ),
        pytest.param(
            StateCodec(list[int], JobFingerprint(8, ("clicks", "visits"))).pack([1]),
            "the recovery store is of a job with other topics (clicks); set VISITS_TOPIC_* as they were",
            id="topics",
        ),
        pytest.param(
            StateCodec(list[int], JobFingerprint(8, JOB.topics, "day")).pack([1]),
            "the recovery store is of the job 'day' and this one is 'night'; set VISITS_GROUP=day",
            id="job",
        ),
        pytest.param(
            msgspec.msgpack.encode([VERSION + 1, 8, [1]]),
            f"the recovery store was written by another version of this job (state {VERSION + 1}",
            id="version",
        ),
        pytest.param(
            msgspec.msgpack.encode({"some": "thing"}),
            "the recovery store holds something else than this job's state",
            id="other data",
        ),
        pytest.param(b"", "the recovery store holds something else than this job's state", id="nothing"),
        pytest.param(17, "the recovery store holds something else than this job's state", id="another engine's state"),
    ],
)
def test_what_is_not_this_jobs_state_is_refused_in_one_line(data, reason):
    with pytest.raises(UserError) as caught:
        StateCodec(list[int], JOB).unpack(data)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_what_the_engine_copies_at_a_snapshot_is_bytes_of_that_moment():
    join = IntervalJoin(5, AMOUNTS)
    bought = msgspec.structs.replace(EVENT, event_type="purchase")
    join.add([bought])
    snapshots = StateCodec(JOIN, JOB)
    copied = copy.deepcopy(_StateHolder(join, snapshots, metrics.StateSize("join")))
    join.add([PURCHASE])
    assert type(copied) is bytes
    assert snapshots.unpack(copied) == JoinState([PurchaseKey(EVENT.time, EVENT.user, EVENT.page)], [])


def test_a_setting_that_may_change_is_told_with_its_old_and_its_new_value():
    told = []
    data = StateCodec(int, JobFingerprint(8, numbers={"session_gap": 20, "match_window": 5})).pack(1)
    later = JobFingerprint(
        8, numbers={"session_gap": 30.5, "match_window": 5}, on_change=lambda *change: told.append(change)
    )
    assert StateCodec(int, later).unpack(data) == 1
    assert told == [("session_gap", 20, 30.5)]


class Topic:
    """Where events can be read again; notes what it is told beforehand."""

    def __init__(self, events):
        self.announced = []
        self._events = {event.position: event for event in events}

    def prefetch(self, positions):
        self.announced.extend(positions)

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
def test_of_an_open_session_it_is_kept_where_its_events_are_however_many_snapshots_there_were(snapshots_after):
    places = [(3, 9), (2, 4), *((5, 2**45 + offset) for offset in range(70_000))]
    visit, events = SessionAccumulator([]), standing_at(*places[: snapshots_after[-1]])
    topic = Topic(events)
    keeper, kept = ReferenceSerializer(topic), None
    snapshots = StateCodec(keeper.type, JOB)
    for count in snapshots_after:
        visit.events += events[len(visit.events) : count]
        kept = keeper.pack(visit, kept)
    visit.best = match(EVENT, PURCHASE)
    data = snapshots.pack(keeper.pack(visit, kept))
    assert EVENT.value not in data
    resumed = snapshots.unpack(data)
    keeper.prefetch(resumed)
    assert topic.announced == [event.position for event in events]
    assert keeper.unpack(resumed) == visit


def test_what_is_kept_of_a_session_that_a_row_unites_with_the_next_is_all_of_both():
    first, second, between = standing_at((0, 1), (0, 2), (1, 7))
    one, other = SessionAccumulator([first]), SessionAccumulator([second])
    keeper = ReferenceSerializer(Topic([first, second, between]))
    kept = keeper.pack(one, None)
    keeper.pack(other, None)
    accumulate(merge(one, other), between)
    assert keeper.unpack(keeper.pack(one, kept)) == SessionAccumulator([first, second, between])
