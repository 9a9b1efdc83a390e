"""One partition's messages: rows on time, late rows, and what cannot be read."""

import pytest
from support.logs import EVENTS, PURCHASES, Message, event, log, purchase, stored, wall

from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.streaming.partition_reader import PartitionReader, TopicDecoder
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND
from dataflow.streaming.watermark import SourceProgress

LATENESS = 5 * SECOND
AHEAD = "timestamp is more than 60 s ahead of the clock"


def reader(max_timestamp=MIN_TIME) -> PartitionReader:
    return PartitionReader(EVENTS, TopicDecoder(decode_event), LATENESS, max_timestamp)


def read(reader: PartitionReader, *messages, now: float = 0):
    time = SourceProgress(EVENTS, MIN_TIME, wall(now), wall(now), (EVENTS, PURCHASES))
    return reader.read(map(Message, log(*messages)), time)


def seconds(rows: list) -> list[float]:
    return [(row.time - wall(0)) / SECOND for row in rows]


@pytest.mark.parametrize(
    ("messages", "late"),
    [
        pytest.param([event(0), event(-5)], [], id="exactly the lateness below the mark"),
        pytest.param([event(0), event(-5.000001)], [-5.000001], id="a microsecond more"),
        pytest.param([event(0), event(-6), event(-4)], [-6], id="one late row between others"),
        pytest.param([event(0), b"junk", event(-6)], [-6], id="junk in between changes nothing"),
        pytest.param(
            [stored(0, event(40)), stored(0, event(-5))], [], id="a fast clock counts up to when Kafka stored its row"
        ),
        pytest.param([stored(0, event(40)), stored(0, event(-6))], [-6], id="and that far it counts"),
        pytest.param([event(40), stored(0, event(0))], [0], id="a record without timestamp counts in full"),
        pytest.param([event(0), event(30), event(20)], [20], id="late although its session is open"),
    ],
)
def test_a_row_is_late_by_the_rows_before_it_in_its_partition(messages, late):
    poll = read(reader(), *messages, now=60)
    assert seconds(poll.late) == late
    assert len(poll.rows) + len(poll.late) + len(poll.unreadable) == len(messages)


def test_lateness_does_not_depend_on_batch_boundaries():
    rows = [event(0), event(30), event(24), event(26), event(25)]
    one = reader()
    in_pieces = [late for row in rows for late in seconds(read(one, row, now=60).late)]
    assert in_pieces == seconds(read(reader(), *rows, now=60).late) == [24]


@pytest.mark.parametrize(
    ("message", "now", "reason"),
    [
        pytest.param(stored(0, event(60)), 100, None, id="60 s ahead of its own timestamp"),
        pytest.param(stored(0, event(60.000001)), 100, AHEAD, id="a microsecond more"),
        pytest.param(stored(0, event(60)), 0, None, id="60 s ahead of the wall clock"),
        pytest.param(
            event(60.000001), 0, AHEAD, id="a microsecond more than the wall clock, without a timestamp of its own"
        ),
        pytest.param(
            event(60.000001), 0.000001, None, id="60 s ahead of the wall clock, without a timestamp of its own"
        ),
        pytest.param(
            stored(1000, event(100)), 0, AHEAD, id="stored in the future by its own word, ahead of the wall clock"
        ),
        pytest.param(stored(3600, event(-3600)), 0, None, id="an hour old"),
    ],
)
def test_a_row_from_the_future_is_unreadable(message, now, reason):
    poll = read(reader(), message, now=now)
    assert [rejected.reason for rejected in poll.unreadable] == ([reason] if reason else [])
    assert len(poll.rows) == (reason is None)


def test_a_row_from_the_future_does_not_move_the_max_timestamp():
    one = reader()
    read(one, event(0), event(3600), now=0)
    assert one.max_timestamp == wall(0)


@pytest.mark.parametrize("timestamp", [(0, -1), (0, 0), (1, 0), (1, -1), (2, -1)])
def test_a_record_without_a_kafka_timestamp_is_not_capped_by_it(timestamp):
    class Timeless(Message):
        def timestamp(self):
            return timestamp

    one = reader()
    poll = one.read([Timeless(log(event(0))[0])], SourceProgress(EVENTS, MIN_TIME, wall(0), None, (EVENTS,)))
    assert len(poll.rows) == 1
    assert one.max_timestamp == wall(0)


def test_a_batch_carries_the_progress_of_its_source():
    poll = read(reader(), event(0), event(-1), now=7)
    assert poll.time == SourceProgress(EVENTS, wall(0), wall(7), wall(7), (EVENTS, PURCHASES))


def test_an_empty_batch_carries_the_unchanged_max_timestamp():
    one = reader()
    assert read(one).time.max_timestamp == MIN_TIME
    read(one, event(3), now=3)
    assert read(one).time.max_timestamp == wall(3)


def test_a_resumed_reader_starts_with_its_max_timestamp():
    poll = read(reader(wall(0)), event(-6), event(-5))
    assert (seconds(poll.late), seconds(poll.rows)) == ([-6], [-5])


def test_an_unreadable_message_has_its_key_value_and_origin():
    message = Message(log(b"junk")[0]._replace(key=b"k", offset=41))
    poll = reader().read([message], SourceProgress(EVENTS, MIN_TIME, wall(0), None, (EVENTS,)))
    (rejected,) = poll.unreadable
    assert (rejected.key, rejected.value, rejected.source, rejected.offset) == (b"k", b"junk", EVENTS, 41)
    assert rejected.reason.startswith("JSON is malformed")


def test_purchases_are_read_by_the_same_rules():
    one = PartitionReader(PURCHASES, TopicDecoder(decode_purchase), LATENESS)
    poll = one.read(
        map(Message, log(purchase(0, 1), purchase(-5, 2), purchase(-6, 3), event(0))),
        SourceProgress(PURCHASES, MIN_TIME, wall(0), None, ()),
    )
    assert [row.amount for row in poll.rows] == [b"1", b"2"]
    assert [row.amount for row in poll.late] == [b"3"]
    assert [rejected.reason for rejected in poll.unreadable] == ["Object missing required field `amount`"]
    assert poll.time.max_timestamp < MAX_TIME
