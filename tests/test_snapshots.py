"""States as bytes: what is written comes back, and what is not this job's is refused with the reason."""

import copy

import msgspec
import pytest

from dataflow.errors import UserError
from dataflow.operators import _Held
from dataflow.rules.join import IntervalJoin, match
from dataflow.rules.rows import END, NEVER, Event, Purchase, Row
from dataflow.rules.time import ClockState
from dataflow.rules.visits import Visit
from dataflow.snapshots import VERSION, Snapshots

EVENT = Event(-5, "päge", -(2**63), b"-7", b"{}\xc3\xa9", "user-events/0", 2**40, True)
PURCHASE = Purchase(5, 2**63 - 1, b"9" * 4300, b"-0.50", b"{}", "purchases/0", 0, True)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(ClockState, ClockState({}, NEVER, 0, NEVER), id="clock before any row"),
        pytest.param(
            ClockState,
            ClockState({"a/0": 1_710_331_200_000_001, "b/0": NEVER, "c/0": END}, 2**62, 2**62, -5),
            id="clock",
        ),
        pytest.param(list[Row], [], id="empty join"),
        pytest.param(list[Row], [EVENT, PURCHASE], id="join"),
        pytest.param(
            list[tuple[bytes, int, int, Visit]],
            [(b"1", 1, 2, Visit([EVENT], match(EVENT, PURCHASE))), (b"2", 3, 3, Visit([EVENT]))],
            id="sessions",
        ),
    ],
)
def test_a_state_comes_back_as_it_was(kind, state):
    snapshots = Snapshots(kind, 8)
    assert snapshots.unpack(snapshots.pack(state)) == state


def test_times_come_back_as_exact_numbers():
    snapshots = Snapshots(ClockState, 8)
    state = snapshots.unpack(snapshots.pack(ClockState({"a": 9_007_199_254_740_993}, 9_007_199_254_740_993, 0, NEVER)))
    assert type(state.high) is type(state.marks["a"]) is int
    assert state.high == 9_007_199_254_740_993


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(
            Snapshots(list[int], 4).pack([1]),
            "the recovery store was written with 4 shards and this job has 8; set VISITS_SHARDS=4",
            id="shards",
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
        Snapshots(list[int], 8).unpack(data)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


def test_what_the_engine_copies_at_a_snapshot_is_bytes_of_that_moment():
    join = IntervalJoin(5)
    join.add(EVENT)
    snapshots = Snapshots(list[Row], 8)
    copied = copy.deepcopy(_Held(join, snapshots))
    join.add(PURCHASE)
    assert type(copied) is bytes
    assert snapshots.unpack(copied) == [EVENT]
