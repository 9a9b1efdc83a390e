"""The bounded reader of ranges of offsets, with a consumer that plays one partition or two from memory."""

from typing import NoReturn

import pytest
from confluent_kafka import KafkaError
from support.consumed import MemoryConsumer, end_of_partition, event, row

from dataflow.kafka import range_reader
from dataflow.kafka.range_reader import OffsetRange, ranges_of, read_ranges
from dataflow.streaming.errors import UserError

ONE, TWO = ("visits", 0), ("visits", 1)


def read(consumer: MemoryConsumer, ranges: dict, **options) -> list[tuple[int, int]]:
    messages = read_ranges(lambda: consumer, ranges, **options)
    return [(message.partition(), message.offset()) for message in messages]


def fail_missing(partition_id: tuple[str, int], offset: int) -> NoReturn:
    raise UserError(f"{partition_id} {offset} is missing")


def test_the_rows_of_a_range_are_read_without_its_end():
    consumer = MemoryConsumer([row(3), row(4)], [row(5), row(6)])
    assert read(consumer, {ONE: [OffsetRange(3, 5)]}) == [(0, 3), (0, 4)]
    assert consumer.assigned == [("visits", 0, 3)]
    assert consumer.closed


def test_partitions_are_read_beside_each_other_and_paused_when_done():
    consumer = MemoryConsumer([row(0), row(7, 1)], [row(1), row(2), row(8, 1)])
    ranges = {ONE: [OffsetRange(0, 3)], TWO: [OffsetRange(7, 8)]}
    assert read(consumer, ranges) == [(0, 0), (1, 7), (0, 1), (0, 2)]
    assert consumer.paused == [1, 0]


def test_empty_ranges_need_no_consumer():
    def no_consumer() -> NoReturn:
        raise AssertionError("a consumer is opened")

    assert list(read_ranges(no_consumer, {ONE: [OffsetRange(5, 5)], TWO: []})) == []


def test_rows_delivered_again_after_a_change_of_leaders_are_dropped():
    consumer = MemoryConsumer([row(0), row(1)], [row(0), row(1), row(2)])
    assert read(consumer, {ONE: [OffsetRange(0, 3)]}) == [(0, 0), (0, 1), (0, 2)]


def test_markers_of_transactions_at_the_end_are_no_rows():
    consumer = MemoryConsumer([row(0), row(1)], [end_of_partition(4)])
    assert read(consumer, {ONE: [OffsetRange(0, 4)]}) == [(0, 0), (0, 1)]


def test_an_end_before_that_of_the_range_is_waited_out():
    consumer = MemoryConsumer([row(0), end_of_partition(1)], [row(1), end_of_partition(2)])
    assert read(consumer, {ONE: [OffsetRange(0, 2)]}) == [(0, 0), (0, 1)]


def test_rows_that_retention_has_removed_are_skipped():
    consumer = MemoryConsumer([row(6), row(7)])
    assert read(consumer, {ONE: [OffsetRange(2, 8)]}) == [(0, 6), (0, 7)]
    consumer = MemoryConsumer([row(9)])
    assert read(consumer, {ONE: [OffsetRange(2, 8)]}) == []


@pytest.mark.parametrize(
    "poll",
    [
        pytest.param([row(3)], id="a later row comes first"),
        pytest.param([end_of_partition(2)], id="the partition ends before it"),
        pytest.param([event(KafkaError._AUTO_OFFSET_RESET)], id="its offset is out of range"),
    ],
)
def test_a_missing_row_is_reported_where_none_may_be_missing(poll):
    consumer = MemoryConsumer(poll)
    with pytest.raises(UserError, match="2 is missing"):
        read(consumer, {ONE: [OffsetRange(2, 3)]}, on_missing=fail_missing)
    assert consumer.closed


def test_near_gaps_are_read_over_and_far_ones_sought_over():
    near, far = 10, 10 + range_reader._SEEK_OVER + 2
    consumer = MemoryConsumer([row(0), row(1), row(near)], [row(near + 1), row(far)])
    ranges = {ONE: [OffsetRange(0, 1), OffsetRange(near, near + 1), OffsetRange(far, far + 1)]}
    assert read(consumer, ranges, on_missing=fail_missing) == [(0, 0), (0, near), (0, far)]
    assert consumer.sought == [far]


def test_progress_counts_offsets_that_are_done_also_where_no_row_was():
    reports = []
    consumer = MemoryConsumer([row(0), row(3), row(0, 1)], [end_of_partition(6)])
    ranges = {ONE: [OffsetRange(0, 6)], TWO: [OffsetRange(0, 1)]}
    read(consumer, ranges, on_progress=lambda done, total: reports.append((done, total)))
    assert reports == [(1, 7), (4, 7), (5, 7), (7, 7)]


def test_an_error_that_does_not_pass_is_one_of_the_user():
    with pytest.raises(UserError, match=r"^visits/0 cannot be read: "):
        read(MemoryConsumer([event(KafkaError.TOPIC_AUTHORIZATION_FAILED)]), {ONE: [OffsetRange(0, 1)]})


def test_an_error_is_handled_as_the_caller_says():
    seen = []
    consumer = MemoryConsumer([event(KafkaError._TRANSPORT)], [row(0)])
    read(consumer, {ONE: [OffsetRange(0, 1)]}, on_error=lambda partition_id, error: seen.append(error.code()))
    assert seen == [KafkaError._TRANSPORT]


def test_the_hook_is_called_after_each_poll():
    calls = []
    read(MemoryConsumer([], [], [row(0)]), {ONE: [OffsetRange(0, 1)]}, while_waiting=lambda: calls.append(1))
    assert len(calls) == 3


def test_without_a_message_for_longer_than_the_timeout_it_gives_up():
    consumer = MemoryConsumer(*[[]] * 3)
    with pytest.raises(UserError, match=r"^Kafka has stopped answering; 1 partitions are not read to their end$"):
        read(consumer, {ONE: [OffsetRange(0, 1)]}, timeout_s=-1)
    assert consumer.closed


def test_a_consumer_that_delivers_nothing_for_long_is_replaced_by_one_that_reads_on(monkeypatch):
    monkeypatch.setattr(range_reader, "_STALLED_AFTER_S", 0.0)
    monkeypatch.setattr(range_reader, "close_aside", lambda consumer: consumer.close())
    stalled, next_one = MemoryConsumer([row(0)], []), MemoryConsumer([row(1)])
    consumers = [next_one, stalled]
    messages = list(read_ranges(consumers.pop, {ONE: [OffsetRange(0, 2)]}))
    assert [message.offset() for message in messages] == [0, 1]
    assert stalled.closed and next_one.closed
    assert next_one.assigned == [("visits", 0, 1)]


def test_a_reader_that_is_left_early_closes_its_consumer():
    consumer = MemoryConsumer([row(0), row(1)])
    messages = read_ranges(lambda: consumer, {ONE: [OffsetRange(0, 2)]})
    next(messages)
    messages.close()
    assert consumer.closed


@pytest.mark.parametrize(
    ("offsets", "ranges"),
    [
        ([], []),
        ([4], [(4, 5)]),
        ([6, 4, 5, 9], [(4, 7), (9, 10)]),
        ([1, 1, 2], [(1, 3)]),
    ],
)
def test_offsets_are_grouped_into_the_fewest_ranges(offsets, ranges):
    assert [*ranges_of(offsets)] == ranges
