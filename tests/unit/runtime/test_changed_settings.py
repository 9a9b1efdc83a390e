"""A change of settings waits until no row would be written again, in another form."""

import pytest

from dataflow.kafka.job_metadata import MetadataEntry, Note
from dataflow.kafka.replayed_rows import PendingRows
from dataflow.kafka.sink import SinkState
from dataflow.runtime.changed_settings import (
    changes,
    noted_settings,
    refuse,
    refuse_other_inputs,
    rows_to_replay,
    with_notes,
)
from dataflow.streaming.errors import UserError

ONE, TWO = ("visits", 0), ("visits", 1)
ENTRIES = {ONE: MetadataEntry(10, Note("id", {"session_gap": 20.0})), TWO: MetadataEntry(20, Note("id"))}


def test_settings_are_noted_once_a_topic_beside_its_id():
    noted = with_notes(ENTRIES, {"session_gap": 30.0}, {"visits": "other"}, {"clicks": "one"})
    assert noted == {
        ONE: MetadataEntry(10, Note("other", {"session_gap": 30.0}, {"clicks": "one"})),
        TWO: MetadataEntry(20, Note("other")),
    }
    assert noted_settings(noted) == {"session_gap": 30.0}


def test_an_id_that_brokers_do_not_tell_stays_as_it_was_noted():
    assert with_notes(ENTRIES, {}, {}, {})[TWO].note.topic_id == "id"


NOTED = {ONE: MetadataEntry(10, Note(inputs={"clicks": "one"})), TWO: MetadataEntry(20)}
SOME_ROWS, NO_ROWS = {ONE: 10, TWO: 21}, {ONE: 10, TWO: 20}


@pytest.mark.parametrize(
    ("ids", "ends", "from_latest", "is_refused"),
    [
        pytest.param({"clicks": "one"}, SOME_ROWS, False, False, id="the same"),
        pytest.param({}, SOME_ROWS, False, False, id="not known now"),
        pytest.param({"clicks": "one", "more": "two"}, SOME_ROWS, False, False, id="another one not known then"),
        pytest.param({"clicks": "two"}, SOME_ROWS, False, True, id="created again, with rows of the one before"),
        pytest.param({"clicks": "two"}, NO_ROWS, False, False, id="created again before there was a row"),
        pytest.param({"clicks": "two"}, NO_ROWS, True, True, id="the noted beginning says nothing in it"),
    ],
)
def test_an_input_that_was_created_again_is_refused_also_without_a_snapshot(ids, ends, from_latest, is_refused):
    if not is_refused:
        refuse_other_inputs(NOTED, ids, lambda: ends, from_latest)
    else:
        with pytest.raises(UserError, match=r"^topic clicks was created again since the job began with it; start over"):
            refuse_other_inputs(NOTED, ids, lambda: ends, from_latest)


def test_a_setting_that_was_never_noted_has_not_changed():
    assert changes({"gap": 20.0, "old": 1}, {"gap": 30.0, "new": "x"}) == {"gap": (20.0, 30.0)}
    assert changes({}, {"gap": 30.0}) == {}


@pytest.mark.parametrize(
    ("states", "ends", "rows"),
    [
        pytest.param({}, {ONE: 10, TWO: 20}, 0, id="nothing was written"),
        pytest.param({}, {ONE: 13, TWO: 20}, 3, id="without a snapshot all rows of the job"),
        pytest.param(
            {ONE: SinkState(13, PendingRows(), 2), TWO: SinkState(21, PendingRows(), 2)},
            {ONE: 13, TWO: 21},
            0,
            id="stopped: all is in the snapshot",
        ),
        pytest.param({ONE: SinkState(12, PendingRows(), 2)}, {ONE: 13, TWO: 21}, 2, id="killed after it"),
        pytest.param(
            {ONE: SinkState(13, PendingRows(10, b"\5", [b"digest"]), 2)},
            {ONE: 13, TWO: 20},
            3,
            id="killed in the middle of a replay",
        ),
    ],
)
def test_rows_after_the_last_snapshot_and_pending_ones_are_to_be_replayed(states, ends, rows):
    assert rows_to_replay(ENTRIES, states, ends) == rows


def test_a_change_with_rows_to_replay_is_refused_and_the_line_says_what_to_do():
    with pytest.raises(UserError) as refused:
        refuse({"session_gap": (20.0, 1_800.0), "partitioner": ("crc32", "murmur2")}, 31_106)
    assert str(refused.value).startswith(
        "31,106 rows in the outputs were written with VISITS_SESSION_GAP=20, VISITS_PARTITIONER=crc32 and would be "
        "written again with 1800, murmur2. Start the job as it was, "
    )
    assert "\n" not in str(refused.value)


def test_a_change_with_nothing_to_replay_is_allowed():
    refuse({"session_gap": (20.0, 1_800.0)}, 0)
    refuse({}, 5)
