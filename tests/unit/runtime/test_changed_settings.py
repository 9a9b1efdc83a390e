"""A change of settings waits until no row would be written again, in another form."""

import pytest

from dataflow.kafka.job_metadata import MetadataEntry, Note
from dataflow.kafka.replayed_rows import PendingRows
from dataflow.kafka.sink import SinkState
from dataflow.runtime.changed_settings import (
    changes,
    named,
    noted_settings,
    refuse,
    refuse_lost_rows,
    refuse_old_store,
    refuse_other_inputs,
    refuse_other_mapping,
    rows_before_change,
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


def test_a_run_to_the_end_may_follow_any_run_and_no_other_may_replay_its_rows():
    live, to_the_end = {"stop_at_end": 0.0}, {"stop_at_end": 1.0}
    assert changes(live, to_the_end) == {}
    assert changes(to_the_end, to_the_end) == {}
    assert changes(to_the_end, live) == {"stop_at_end": (1.0, 0.0)}


@pytest.mark.parametrize(
    ("ends", "rows"),
    [
        pytest.param((15, 20), 0, id="the store of the last stop"),
        pytest.param((12, 20), 3, id="an older one"),
        pytest.param((17, 25), 0, id="a snapshot after the change"),
        pytest.param(None, 5, id="no store"),
    ],
)
def test_rows_from_before_the_last_change_of_settings_are_not_replayed(ends, rows):
    entries = {ONE: MetadataEntry(10, Note(since=15)), TWO: MetadataEntry(20, Note(since=20))}
    states = (
        {} if ends is None else {ONE: SinkState(ends[0], PendingRows(), 2), TWO: SinkState(ends[1], PendingRows(), 2)}
    )
    assert rows_before_change(entries, states) == rows
    if not rows:
        refuse_old_store(rows)
    else:
        with pytest.raises(
            UserError, match=rf"^{rows} rows in the outputs were written before the settings were changed"
        ):
            refuse_old_store(rows)


def test_a_change_notes_where_each_partition_ended_and_the_next_start_keeps_that():
    noted = with_notes(ENTRIES, {}, {}, {}, {"clicks": 7}, {ONE: 15, TWO: 21})
    assert [entry.note.since for entry in noted.values()] == [15, 21]
    again = with_notes(noted, {}, {}, {}, {"clicks": 9})
    assert [entry.note.since for entry in again.values()] == [15, 21]
    assert again[ONE].note.firsts == {"clicks": 7}


@pytest.mark.parametrize(
    ("noted", "firsts", "rows", "is_refused"),
    [
        pytest.param({"clicks": 7}, {"clicks": 7}, 5, False, id="all rows are there"),
        pytest.param({"clicks": 7}, {"clicks": 8}, 5, True, id="one is gone"),
        pytest.param({"clicks": 7}, {"clicks": 8}, 0, False, id="nothing was written"),
        pytest.param({}, {"clicks": 8}, 5, False, id="not noted"),
    ],
)
def test_a_replay_without_a_store_is_refused_where_retention_has_removed_rows(noted, firsts, rows, is_refused):
    if not is_refused:
        refuse_lost_rows(noted, firsts, rows)
    else:
        with pytest.raises(
            UserError, match=r"^without its recovery store the job would read clicks again .* start over"
        ):
            refuse_lost_rows(noted, firsts, rows)


def test_a_list_of_the_mapping_is_called_by_its_place_in_the_file():
    assert named("events.purchases") == "[events] purchases"
    assert named("session_gap") == "VISITS_SESSION_GAP"


@pytest.mark.parametrize(
    ("before", "has_snapshot", "rows", "is_refused"),
    [
        pytest.param({"mapping": "a"}, True, 5, False, id="the same"),
        pytest.param({"mapping": "b"}, True, 0, True, id="open sessions would be read again"),
        pytest.param({"mapping": "b"}, False, 5, True, id="rows would be written again"),
        pytest.param({"mapping": "b"}, False, 0, False, id="nothing was read or written by it"),
        pytest.param({}, True, 5, False, id="the first start"),
    ],
)
def test_another_way_to_read_messages_is_refused_once_it_has_been_used(before, has_snapshot, rows, is_refused):
    if not is_refused:
        refuse_other_mapping(before, {"mapping": "a"}, has_snapshot, rows)
    else:
        with pytest.raises(UserError, match=r"^the mapping reads messages in another way than when .* start over"):
            refuse_other_mapping(before, {"mapping": "a"}, has_snapshot, rows)
