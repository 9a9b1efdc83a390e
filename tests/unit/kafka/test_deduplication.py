"""Which rows of an output partition a replay must skip."""

import pytest
from confluent_kafka import KafkaError
from support.consumed import TOPIC, MemoryConsumer, end_of_partition, event, row

from dataflow.kafka import deduplication as module
from dataflow.kafka.deduplication import OutputDeduplicator, record_digest
from dataflow.streaming.errors import UserError

ONE, TWO = (TOPIC, 0), (TOPIC, 1)


class Metadata:
    def poll(self) -> None:
        pass


@pytest.fixture
def output(monkeypatch):
    """The deduplicator of partitions with given stable ends, whose rows come from the given polls."""

    def reading(ends, *polls):
        questions = []

        def stable_end_offsets(admin, connection, group, partition_ids, on_retry):
            questions.append(set(partition_ids))
            return ends

        monkeypatch.setattr(module, "stable_end_offsets", stable_end_offsets)
        monkeypatch.setattr(module, "range_consumer", lambda connection, group: MemoryConsumer(*polls))
        return OutputDeduplicator(None, None, Metadata(), dict.fromkeys(ends, 0), "group"), questions

    return reading


def digest_of(value: bytes) -> bytes:
    return record_digest(b"key", value, None)


def test_rows_from_the_offset_to_the_stable_end_are_read_as_offset_and_digest(output):
    polls = [row(3, value=b"a"), row(4, value=b"b")], [row(5, value=b"a"), row(6, value=b"new")]
    deduplicator, _ = output({ONE: 6}, *polls)
    assert [*deduplicator.rows(ONE, 3)] == [(3, digest_of(b"a")), (4, digest_of(b"b")), (5, digest_of(b"a"))]


def test_a_partition_without_rows_after_the_offset_is_not_read(output):
    deduplicator, _ = output({ONE: 6})
    assert [*deduplicator.rows(ONE, 6)] == []
    assert [*deduplicator.rows(ONE, 9)] == []


def test_rows_that_retention_has_removed_are_not_there(output):
    deduplicator, _ = output({ONE: 6}, [end_of_partition(6)])
    assert [*deduplicator.rows(ONE, 3)] == []


def test_the_stable_ends_of_all_partitions_are_asked_for_once(output):
    deduplicator, questions = output({ONE: 0, TWO: 0})
    assert [*deduplicator.rows(ONE, 0), *deduplicator.rows(TWO, 0)] == []
    assert questions == [{ONE, TWO}]


def test_an_error_that_does_not_pass_is_one_of_the_user(output):
    deduplicator, _ = output({ONE: 6}, [event(KafkaError.TOPIC_AUTHORIZATION_FAILED)])
    with pytest.raises(UserError, match=r"^visits/0: cannot be read to find the rows that are there: "):
        [*deduplicator.rows(ONE, 3)]


@pytest.mark.parametrize(
    "other",
    [
        (None, b"v", None),
        (b"k", None, None),
        (b"k", b"w", None),
        (b"k", b"v", [("reason", b"late")]),
        (b"kv", b"", None),
    ],
)
def test_rows_that_differ_have_different_digests(other):
    assert record_digest(*other) != record_digest(b"k", b"v", None)


def test_no_headers_and_an_empty_list_of_headers_are_the_same():
    assert record_digest(b"k", b"v", []) == record_digest(b"k", b"v", None)
