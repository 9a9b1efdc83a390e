"""The output: a Bytewax sink with a part for each partition of a topic, and the rows that a replay must skip.

After a crash, rows that are in the output already are not written again (see `dataflow.kafka.deduplication`).
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflow.kafka.deduplication import record_digest
from dataflow.kafka.delivery import Delivery
from dataflow.kafka.offsets import PartitionId, source_name
from dataflow.kafka.replayed_rows import PendingRows, ReplayedRows
from dataflow.observability import liveness, logs, metrics
from dataflow.streaming import worker_threads
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import START_OVER, UserError, inside_engine
from dataflow.streaming.state import StateCodec

log = logging.getLogger("visits")


class SinkState(msgspec.Struct, array_like=True):
    """The state of a partition in a snapshot."""

    end: int
    pending: PendingRows  # rows before the end that the replay has not reached yet
    partitions: int  # of the topic, as far as they are written to


def _place_pending(state: list[Any]) -> list[Any]:
    """Version 4 held the digests of the pending rows, without their offsets."""
    end, digests, partitions = state
    return [end, [0, b"", digests], partitions]


SINK_CONVERTERS = {4: _place_pending}


class KafkaSink(FixedPartitionedSink[OutgoingRecords, bytes]):
    """All partitions of one topic.

    Args:
        topic: its name.
        partitions: how many of its partitions are written to.
        partitioner: hashes a key to the number that chooses among them.
        delivery: shared by all sinks of the process.
        codec: packs the states of the partitions.
        replay_is_over: whether everything that the job had read before it resumed has been read again.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        partitioner: Callable[[bytes], int],
        delivery: Delivery,
        codec: StateCodec[SinkState],
        replay_is_over: Callable[[], bool],
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._partitioner = partitioner
        self._delivery = delivery
        self._codec = codec
        self._replay_is_over = replay_is_over

    def list_parts(self) -> list[str]:
        """The partition numbers; the engine sorts them as text."""
        return [f"{partition:05}" for partition in range(self._partitions)]

    def part_fn(self, item_key: str) -> int:
        """Hashes a key; the engine takes it modulo the number of parts."""
        return self._partitioner(item_key.encode())

    @inside_engine
    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_PartitionSink":
        """Resumes a partition. Raises UserError if the topic is written to in another number of partitions."""
        worker_threads.keep_thread_state()
        partition_id = (self._topic, int(for_part))
        state = self._codec.unpack(resume_state) if resume_state is not None else None
        if state is not None and state.partitions != self._partitions:
            raise UserError(
                f"{self._topic} had {state.partitions} partitions when the job last ran, and Kafka has since forgotten the "
                f"job's metadata; {START_OVER}"
            )
        return _PartitionSink(
            partition_id,
            self._partitions,
            self._replayed(partition_id, state),
            self._delivery,
            self._codec,
            self._replay_is_over,
            metrics.StateSize(step_id),
        )

    def _replayed(self, partition_id: PartitionId, state: SinkState | None) -> ReplayedRows:
        if state is None:
            return ReplayedRows(self._delivery.resume(partition_id, None))
        end, pending = state.end, state.pending
        rows = self._delivery.resume(partition_id, pending.first if pending.bits else end)
        return ReplayedRows((row for row in rows if row[0] >= end or row[0] in pending), pending.digests)


class _PartitionSink(StatefulSinkPartition[OutgoingRecords, bytes]):
    """One output partition; `replayed` are the rows in it that the replay has not reached yet."""

    def __init__(
        self,
        partition_id: PartitionId,
        partitions: int,
        replayed: ReplayedRows,
        delivery: Delivery,
        codec: StateCodec[SinkState],
        replay_is_over: Callable[[], bool],
        size: metrics.StateSize,
    ) -> None:
        self._partition_id = partition_id
        self._partitions = partitions
        self._replayed = replayed
        self._delivery = delivery
        self._codec = codec
        self._replay_is_over = replay_is_over
        self._was_over = False  # at the last snapshot
        self._counters = metrics.OutputCounters(partition_id[0])
        self._counters.change_pending(len(replayed))
        self._size = size

    @inside_engine
    @liveness.monitored
    def write_batch(self, values: list[OutgoingRecords]) -> None:
        to_write = values
        if self._replayed:
            pending = len(self._replayed)
            to_write = list(map(self._without_replayed, values))
            self._counters.change_pending(len(self._replayed) - pending)
        self._delivery.write(self._partition_id, to_write)
        self._counters.count(values, to_write)

    @inside_engine
    @liveness.monitored
    def snapshot(self) -> bytes:
        end = self._delivery.checkpoint(self._partition_id)
        if self._replayed:
            self._forget_rows_that_stay()
        return self._size.of(self._codec.pack(SinkState(end, self._replayed.pending(), self._partitions)))

    @inside_engine
    def close(self) -> None:
        self._delivery.flush()
        if self._replayed and self._replay_is_over():
            self._give_up_rows_that_stay()

    def _forget_rows_that_stay(self) -> None:
        """Forgets rows that no replay will make again, once it is over.

        All shards have told the sinks whatever they had to by the snapshot after that, or when the sinks are closed.
        """
        if self._was_over:
            self._give_up_rows_that_stay()
        self._was_over = self._replay_is_over()

    def _give_up_rows_that_stay(self) -> None:
        log.warning(
            "%s: %d rows of the run before were not made again; they stay beside what is written now",
            source_name(*self._partition_id),
            len(self._replayed),
            extra=logs.event("rows-not-repeated"),
        )
        self._counters.change_pending(-len(self._replayed))
        self._replayed.clear()

    def _without_replayed(self, records: OutgoingRecords) -> OutgoingRecords:
        key, headers, take = records.key, records.headers, self._replayed.take
        values = [value for value in records.values if not take(record_digest(key, value, headers))]
        return OutgoingRecords(key, values, headers)
