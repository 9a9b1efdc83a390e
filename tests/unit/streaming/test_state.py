"""States as bytes: they are restored as they were; state of another job is refused with the reason."""

import copy
from decimal import Decimal

import msgspec
import pytest

from dataflow.clickstream.attribution import PurchaseKey, amounts, match
from dataflow.clickstream.records import Event, Match, Purchase
from dataflow.clickstream.sessions import SessionAccumulator
from dataflow.streaming.errors import UserError
from dataflow.streaming.hooks import Hooks
from dataflow.streaming.interval_join import IntervalJoin, JoinState
from dataflow.streaming.position import position
from dataflow.streaming.state import VERSION, JobFingerprint, StateCodec
from dataflow.streaming.stateful_adapter import StateHolder
from dataflow.streaming.time import MAX_TIME, MIN_TIME
from dataflow.streaming.watermark import WATERMARK_CONVERTERS, WatermarkState

JOB = JobFingerprint(8, ("user-events", "visits"), "night", topic_ids={"visits": "id-1"})
JOIN = JoinState[PurchaseKey, Purchase]
EVENT = Event(-5, b"-7", b"{}\xc3\xa9", position(65_535, 2**45), -(2**63), "päge")
PURCHASE = Purchase(5, b"9" * 4300, b"{}", 0, 2**63 - 1, b"-0.50")


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(WatermarkState, WatermarkState({}, MIN_TIME, MIN_TIME), id="clock before any row"),
        pytest.param(
            WatermarkState,
            WatermarkState({"a/0": 1_710_331_200_000_001, "b/0": MIN_TIME, "c/0": MAX_TIME}, 2**62, -5),
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
def test_a_packed_state_is_restored_as_it_was(kind, state):
    snapshots = StateCodec(kind, JOB)
    assert snapshots.unpack(snapshots.pack(state)) == state


def test_a_packed_state_tells_its_settings_whatever_they_are_now():
    was, now = JobFingerprint(8, settings={"session_gap": 20.0}), JobFingerprint(8, settings={"session_gap": 30.0})
    assert StateCodec(int, now).settings(StateCodec(int, was).pack(1)) == {"session_gap": 20.0}


def test_times_are_restored_as_exact_integers():
    snapshots = StateCodec(WatermarkState, JOB)
    state = snapshots.unpack(
        snapshots.pack(WatermarkState({"a": 9_007_199_254_740_993}, 9_007_199_254_740_993, MIN_TIME))
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
            msgspec.msgpack.encode([3, 8, [], {}, 1]),
            "the recovery store was written by another version of this job (state 3, this one reads 4 to 5)",
            id="a version that is dropped",
        ),
        pytest.param(
            StateCodec(list[int], JobFingerprint(8, JOB.topics, topic_ids={"visits": "id-0"})).pack([1]),
            "topic visits was created again since the recovery store was written",
            id="a topic created again",
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
def test_state_of_another_job_or_version_is_refused_in_one_line(data, reason):
    with pytest.raises(UserError) as caught:
        StateCodec(list[int], JOB).unpack(data)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


MORE = JobFingerprint(8, (*JOB.topics, "sessions"), optional_topics=("sessions",))


@pytest.mark.parametrize("topics", [JOB.topics, MORE.topics], ids=["without it", "with it"])
def test_a_job_with_an_optional_topic_goes_on_from_a_state(topics):
    data = StateCodec(int, JobFingerprint(8, topics)).pack(1)
    assert StateCodec(int, MORE).unpack(data) == 1
    assert StateCodec(int, MORE).topics(data) == list(topics)


@pytest.mark.parametrize(
    "topics", [("user-events", "sessions"), ("user-events", "visits", "other"), ("visits", "user-events")]
)
def test_only_an_optional_topic_may_be_new(topics):
    with pytest.raises(UserError, match="is of a job with other topics"):
        StateCodec(int, MORE).unpack(StateCodec(int, JobFingerprint(8, topics)).pack(1))


def test_an_optional_topic_may_not_disappear():
    data = StateCodec(int, MORE).pack(1)
    with pytest.raises(UserError, match=r"is of a job with other topics \(sessions\)"):
        StateCodec(int, JobFingerprint(8, JOB.topics, optional_topics=("sessions",))).unpack(data)


def test_the_engines_copy_at_a_snapshot_is_the_bytes_of_that_moment():
    join = IntervalJoin(5, amounts())
    bought = msgspec.structs.replace(EVENT, event_type="purchase")
    join.add([bought])
    snapshots = StateCodec(JOIN, JOB)
    copied = copy.deepcopy(StateHolder(join, "join", snapshots, Hooks()))
    join.add([PURCHASE])
    assert type(copied) is bytes
    assert snapshots.unpack(copied) == JoinState([PurchaseKey(EVENT.time, EVENT.user, EVENT.page)], [])


def test_a_changed_setting_is_reported_with_both_values():
    changes = []
    data = StateCodec(int, JobFingerprint(8, settings={"session_gap": 20, "match_window": 5})).pack(1)
    later = JobFingerprint(
        8, settings={"session_gap": 30.5, "match_window": 5}, on_change=lambda *change: changes.append(change)
    )
    assert StateCodec(int, later).unpack(data) == 1
    assert changes == [("session_gap", 20, 30.5)]


@pytest.mark.parametrize("then", [{}, {"visits": "id-1"}], ids=["not known then", "the same"])
@pytest.mark.parametrize("now", [{}, {"visits": "id-1"}], ids=["not known now", "as then"])
def test_a_topic_whose_id_has_not_changed_as_far_as_is_known_is_the_same(then, now):
    data = StateCodec(int, JobFingerprint(8, topic_ids=then)).pack(1)
    assert StateCodec(int, JobFingerprint(8, topic_ids=now)).unpack(data) == 1


def test_a_state_of_the_version_before_is_converted():
    old = msgspec.msgpack.encode([4, 8, [], {"session_gap": 20.0}, [{"a/0": 5}, 7, 1_700_000_000_000_000, 3], "night"])
    codec = StateCodec(WatermarkState, JobFingerprint(8, job="night"), WATERMARK_CONVERTERS)
    assert codec.unpack(old) == WatermarkState({"a/0": 5}, 7, 3)
    assert codec.unpack(codec.pack(codec.unpack(old))) == WatermarkState({"a/0": 5}, 7, 3)


def test_a_match_of_version_4_has_its_amount_as_a_float():
    best = [5, True, 0, 5, 19.9, b"19.90", b"1"]
    old = msgspec.msgpack.encode([4, 8, [], {}, [[b"1", 5, 5, [[], best]]], ""])
    codec = StateCodec(list[tuple[bytes, int, int, SessionAccumulator]], JobFingerprint(8))
    ((_, _, _, fold),) = codec.unpack(old)
    assert fold == SessionAccumulator([], Match(5, True, 0, 5, Decimal("19.9"), b"19.90", b"1"))


def test_a_state_that_has_not_changed_since_the_version_before_is_read_as_it_is():
    assert StateCodec(list[int], JobFingerprint(8)).unpack(msgspec.msgpack.encode([4, 8, [], {}, [1, 2], ""])) == [1, 2]
