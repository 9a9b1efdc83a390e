"""The sink's logic for one partition, with an in-memory delivery in place of Kafka."""

from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import msgspec
import pytest

from dataflow.kafka.deduplication import record_digest
from dataflow.kafka.replayed_rows import PendingRows
from dataflow.kafka.sink import SINK_CONVERTERS, KafkaSink, SinkState
from dataflow.observability import metrics
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import START_OVER, UserError
from dataflow.streaming.state import JobFingerprint, StateCodec

STEP, TOPIC, PARTITIONS = "job.visits", "visits", 8
Row = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


class InMemoryDelivery:
    """Partitions as lists of rows. What one process has written stays for the next one."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], list[Row]] = {}
        self.refusal: str | None = None
        self.flushes = 0

    def acquire(self) -> None:
        pass

    def resume(self, partition_id: tuple[str, int], begin: int | None) -> Iterator[tuple[int, bytes]]:
        for offset, (key, value, headers) in enumerate(self.partitions.get(partition_id, [])):
            if offset >= (begin or 0):
                yield offset, record_digest(key, value, list(headers))

    def write(self, partition_id: tuple[str, int], records: Sequence[OutgoingRecords]) -> None:
        if self.refusal is not None:
            raise UserError(self.refusal)
        rows = self.partitions.setdefault(partition_id, [])
        rows.extend((each.key, value, tuple(each.headers or ())) for each in records for value in each.values)

    def checkpoint(self, partition_id: tuple[str, int]) -> int:
        return len(self.partitions.get(partition_id, []))

    def flush(self) -> None:
        self.flushes += 1


@pytest.fixture
def delivery() -> InMemoryDelivery:
    return InMemoryDelivery()


CODEC = StateCodec(SinkState, JobFingerprint(8), SINK_CONVERTERS)


def sink_to(
    delivery: InMemoryDelivery, partitions: int = PARTITIONS, replay_is_over: Callable[[], bool] = lambda: False
) -> KafkaSink:
    return KafkaSink(TOPIC, partitions, crc32, delivery, CODEC, replay_is_over)


def partition_of(delivery: InMemoryDelivery, snapshot: bytes | None = None):
    """Partition 0, as of a snapshot."""
    return sink_to(delivery).build_part(STEP, "00000", snapshot)


def records(*values: bytes | None, headers=None) -> OutgoingRecords:
    return OutgoingRecords(b"key", list(values), headers)


def written(delivery: InMemoryDelivery) -> list[bytes | None]:
    return [value for _, value, _ in delivery.partitions.get((TOPIC, 0), [])]


def test_rows_of_a_new_job_are_written_in_order(delivery):
    partition = partition_of(delivery)
    partition.write_batch([records(b"a", b"b"), records(b"c")])
    assert written(delivery) == [b"a", b"b", b"c"]


def test_replayed_rows_that_are_there_are_skipped_and_new_ones_written(delivery):
    partition = partition_of(delivery)
    partition.write_batch([records(b"a")])
    snapshot = partition.snapshot()
    partition.write_batch([records(b"b", b"c")])  # and then a kill
    resumed = partition_of(delivery, snapshot)
    resumed.write_batch([records(b"b", b"c", b"d")])
    assert written(delivery) == [b"a", b"b", b"c", b"d"]


def test_a_replayed_row_is_skipped_once_for_each_copy_that_is_there(delivery):
    partition = partition_of(delivery)
    snapshot = partition.snapshot()
    partition.write_batch([records(b"same", b"same")])
    resumed = partition_of(delivery, snapshot)
    resumed.write_batch([records(b"same", b"same", b"same")])
    assert written(delivery) == [b"same"] * 3


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(OutgoingRecords(b"other", [b"a"]), id="key"),
        pytest.param(OutgoingRecords(b"key", [None]), id="no value"),
        pytest.param(OutgoingRecords(b"key", [b"a"], [("reason", b"late")]), id="headers"),
    ],
)
def test_a_row_that_differs_in_key_value_or_headers_is_not_skipped(delivery, other):
    partition_of(delivery).write_batch([records(b"a")])
    partition_of(delivery).write_batch([other])
    assert len(written(delivery)) == 2


def test_a_job_killed_before_its_first_snapshot_skips_all_its_rows(delivery):
    partition_of(delivery).write_batch([records(b"a", b"b")])
    partition_of(delivery).write_batch([records(b"a", b"b", b"c")])
    assert written(delivery) == [b"a", b"b", b"c"]


def test_rows_that_the_replay_has_not_reached_stay_pending_over_snapshots_and_kills(delivery):
    partition = partition_of(delivery)
    snapshot = partition.snapshot()
    partition.write_batch([records(b"a", b"b", b"b", b"c")])
    resumed = partition_of(delivery, snapshot)
    resumed.write_batch([records(b"b")])
    snapshot = resumed.snapshot()
    state = CODEC.unpack(snapshot)
    assert state.end == 4
    assert [offset for offset in range(4) if offset in state.pending] == [0, 2, 3]
    again = partition_of(delivery, snapshot)
    again.write_batch([records(b"c", b"b", b"a", b"d")])
    assert written(delivery) == [b"a", b"b", b"b", b"c", b"d"]
    assert CODEC.unpack(again.snapshot()).pending == PendingRows(0)


def test_a_pending_row_and_its_copy_after_the_snapshot_are_both_skipped(delivery):
    partition = partition_of(delivery)
    snapshot = partition.snapshot()
    partition.write_batch([records(b"same")])
    resumed = partition_of(delivery, snapshot)
    snapshot = resumed.snapshot()  # one copy is pending
    resumed.write_batch([records(b"same", b"same")])  # the second one is written
    again = partition_of(delivery, snapshot)
    again.write_batch([records(b"same", b"same", b"new")])
    assert written(delivery) == [b"same", b"same", b"new"]


def test_pending_rows_of_a_state_of_version_4_are_skipped(delivery):
    partition = partition_of(delivery)
    partition.write_batch([records(b"a", b"b")])
    old = [4, 8, [], {}, [2, [record_digest(b"key", b"b", None)], PARTITIONS], ""]
    resumed = partition_of(delivery, msgspec.msgpack.encode(old))
    snapshot = resumed.snapshot()
    for killed_and_resumed in resumed, partition_of(delivery, snapshot):
        killed_and_resumed.write_batch([records(b"b")])
        assert written(delivery) == [b"a", b"b"]


def test_rows_that_no_replay_makes_again_are_forgotten_two_snapshots_after_it_is_over(delivery, caplog):
    partition = partition_of(delivery)
    partition.write_batch([records(b"worded otherwise by the next version")])
    is_over = False
    resumed = sink_to(delivery, replay_is_over=lambda: is_over).build_part(STEP, "00000", None)
    for over, pending in (False, 1), (False, 1), (True, 1), (True, 0):
        is_over = over
        state = CODEC.unpack(resumed.snapshot())
        assert len([offset for offset in range(state.end) if offset in state.pending]) == pending
    assert "visits/0: 1 rows of the run before were not made again" in caplog.text


def test_rows_that_a_replay_has_still_to_make_are_counted(delivery):
    before = metrics.value(metrics.rows_pending)
    partition_of(delivery).write_batch([records(b"a", b"b", b"c")])
    resumed = partition_of(delivery)
    assert metrics.value(metrics.rows_pending) == before + 3
    resumed.write_batch([records(b"b", b"new")])
    assert metrics.value(metrics.rows_pending) == before + 2
    resumed.write_batch([records(b"a", b"c")])
    assert metrics.value(metrics.rows_pending) == before


@pytest.mark.parametrize("over", [True, False])
def test_rows_that_were_not_made_again_are_told_at_the_end_if_no_replay_will_make_them(delivery, caplog, over):
    partition_of(delivery).write_batch([records(b"worded otherwise by the next version")])
    before = metrics.value(metrics.rows_pending)
    resumed = sink_to(delivery, replay_is_over=lambda: over).build_part(STEP, "00000", None)
    resumed.snapshot()
    resumed.close()
    assert ("visits/0: 1 rows of the run before were not made again" in caplog.text) == over
    assert metrics.value(metrics.rows_pending) == before + (not over)


def test_another_number_of_partitions_is_refused_in_one_line(delivery):
    snapshot = partition_of(delivery).snapshot()
    with pytest.raises(UserError) as refused:
        sink_to(delivery, partitions=11).build_part(STEP, "00000", snapshot)
    text = str(refused.value)
    assert text.startswith("visits had 8 partitions when the job last ran")
    assert text.endswith(START_OVER)
    assert "\n" not in text


def test_a_snapshot_of_something_else_is_refused_in_one_line(delivery):
    with pytest.raises(UserError, match=r"^the recovery store holds "):
        partition_of(delivery, b"something else")


def test_a_refused_row_is_an_error_of_the_user(delivery):
    partition = partition_of(delivery)
    delivery.refusal = "visits/0: Kafka refuses a row: Message too large"
    with pytest.raises(UserError, match=r"^visits/0: Kafka refuses a row"):
        partition.write_batch([records(b"a")])


def test_closing_a_partition_waits_for_acknowledgements(delivery):
    partition_of(delivery).close()
    assert delivery.flushes == 1


def test_each_partition_is_a_part_in_an_order_that_text_keeps(delivery):
    parts = sink_to(delivery, partitions=11).list_parts()
    assert sorted(parts) == parts
    assert [int(part) for part in parts] == [*range(11)]


def test_the_partitioner_chooses_the_part_of_a_key(delivery):
    assert sink_to(delivery).part_fn("7") == crc32(b"7")
