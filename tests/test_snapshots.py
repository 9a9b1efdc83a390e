"""States as bytes: what is written comes back, and what is not this job's is refused with the reason."""

import copy

import msgspec
import pytest

from dataflow import metrics
from dataflow.errors import UserError
from dataflow.kept import KeptVisits
from dataflow.operators import _Held
from dataflow.rules.amounts import AMOUNTS, Buyer, match
from dataflow.rules.join import IntervalJoin, JoinState
from dataflow.rules.rows import END, NEVER, Event, Purchase, position
from dataflow.rules.time import ClockState
from dataflow.rules.visits import Visit, add_row, unite
from dataflow.snapshots import VERSION, Origin, Snapshots

JOB = Origin(8, ("user-events", "visits"), "night")
JOIN = JoinState[Buyer, Purchase]
EVENT = Event(-5, b"-7", b"{}\xc3\xa9", position(65_535, 2**45), -(2**63), "päge", True)
PURCHASE = Purchase(5, b"9" * 4300, b"{}", 0, 2**63 - 1, b"-0.50")


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(ClockState, ClockState({}, NEVER, 0, NEVER), id="clock before any row"),
        pytest.param(
            ClockState,
            ClockState({"a/0": 1_710_331_200_000_001, "b/0": NEVER, "c/0": END}, 2**62, 2**62, -5),
            id="clock",
        ),
        pytest.param(JOIN, JoinState([], []), id="empty join"),
        pytest.param(JOIN, JoinState([Buyer(-5, b"-7", -(2**63))], [PURCHASE]), id="join"),
        pytest.param(
            list[tuple[bytes, int, int, Visit]],
            [(b"1", 1, 2, Visit([EVENT], match(EVENT, PURCHASE))), (b"2", 3, 3, Visit([EVENT]))],
            id="sessions",
        ),
    ],
)
def test_a_state_comes_back_as_it_was(kind, state):
    snapshots = Snapshots(kind, JOB)
    assert snapshots.unpack(snapshots.pack(state)) == state


def test_times_come_back_as_exact_numbers():
    snapshots = Snapshots(ClockState, JOB)
    state = snapshots.unpack(snapshots.pack(ClockState({"a": 9_007_199_254_740_993}, 9_007_199_254_740_993, 0, NEVER)))
    assert type(state.high) is type(state.marks["a"]) is int
    assert state.high == 9_007_199_254_740_993


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            Snapshots(list[int], Origin(4, JOB.topics)).pack([1]),
            "the recovery store was written with 4 shards and this job has 8; set VISITS_SHARDS=4",
            id="shards",
        ),
        pytest.param(
            Snapshots(list[int], Origin(8, ("clicks", "visits"))).pack([1]),
            "the recovery store is of a job with other topics (clicks); set VISITS_TOPIC_* as they were",
            id="topics",
        ),
        pytest.param(
            Snapshots(list[int], Origin(8, JOB.topics, "day")).pack([1]),
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
        Snapshots(list[int], JOB).unpack(data)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_what_the_engine_copies_at_a_snapshot_is_bytes_of_that_moment():
    join = IntervalJoin(5, AMOUNTS)
    bought = msgspec.structs.replace(EVENT, event_type="purchase")
    join.add([bought])
    snapshots = Snapshots(JOIN, JOB)
    copied = copy.deepcopy(_Held(join, snapshots, metrics.StateSize("join")))
    join.add([PURCHASE])
    assert type(copied) is bytes
    assert snapshots.unpack(copied) == JoinState([Buyer(EVENT.time, EVENT.user, EVENT.page)], [])


def test_a_setting_that_may_change_is_told_with_its_old_and_its_new_value():
    told = []
    data = Snapshots(int, Origin(8, numbers={"session_gap": 20, "match_window": 5})).pack(1)
    later = Origin(8, numbers={"session_gap": 30.5, "match_window": 5}, on_change=lambda *change: told.append(change))
    assert Snapshots(int, later).unpack(data) == 1
    assert told == [("session_gap", 20, 30.5)]


class Topic:
    """Where events can be read again; notes what it is told beforehand."""

    def __init__(self, events):
        self.announced = []
        self._events = {event.position: event for event in events}

    def announce(self, positions):
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
    visit, events = Visit([]), standing_at(*places[: snapshots_after[-1]])
    topic = Topic(events)
    keeper, kept = KeptVisits(topic), None
    snapshots = Snapshots(keeper.type, JOB)
    for count in snapshots_after:
        visit.events += events[len(visit.events) : count]
        kept = keeper.pack(visit, kept)
    visit.best = match(EVENT, PURCHASE)
    data = snapshots.pack(keeper.pack(visit, kept))
    assert EVENT.value not in data
    resumed = snapshots.unpack(data)
    keeper.announce(resumed)
    assert topic.announced == [event.position for event in events]
    assert keeper.unpack(resumed) == visit


def test_what_is_kept_of_a_session_that_a_row_unites_with_the_next_is_all_of_both():
    first, second, between = standing_at((0, 1), (0, 2), (1, 7))
    one, other = Visit([first]), Visit([second])
    keeper = KeptVisits(Topic([first, second, between]))
    kept = keeper.pack(one, None)
    keeper.pack(other, None)
    add_row(unite(one, other), between)
    assert keeper.unpack(keeper.pack(one, kept)) == Visit([first, second, between])
