"""The output: a Bytewax sink with a part for each partition of a topic, and the rows that a replay must skip.

After a crash, rows that are in the output already are not written again (see `dataflow.kafka.deduplication`).
"""

from collections import Counter
from collections.abc import Callable

import msgspec
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflow.kafka.deduplication import record_digest
from dataflow.kafka.delivery import Delivery
from dataflow.kafka.offsets import PartitionId
from dataflow.observability import liveness, metrics
from dataflow.streaming import worker_threads
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import UserError, inside_engine
from dataflow.streaming.state import StateCodec


class SinkState(msgspec.Struct, array_like=True):
    """The state of a partition in a snapshot."""

    end: int
    pending: list[bytes]  # digests of rows before the end that the replay has not reached yet
    partitions: int  # of the topic, as far as they are written to


class KafkaSink(FixedPartitionedSink[OutgoingRecords, bytes]):
    """All partitions of one topic.

    Args:
        topic: its name.
        partitions: how many of its partitions are written to.
        partitioner: hashes a key to the number that chooses among them.
        delivery: shared by all sinks of the process.
        codec: packs the states of the partitions.
    """

    def __init__(
        self,
        topic: str,
        partitions: int,
        partitioner: Callable[[bytes], int],
        delivery: Delivery,
        codec: StateCodec[SinkState],
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._partitioner = partitioner
        self._delivery = delivery
        self._codec = codec

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
                "job's metadata; start with an empty recovery store and VISITS_GROUP set to a new name"
            )
        replayed = self._delivery.resume(partition_id, state.end if state is not None else None)
        if state is not None:
            replayed = Counter(state.pending) + replayed
        return _PartitionSink(
            partition_id, self._partitions, replayed, self._delivery, self._codec, metrics.StateSize(step_id)
        )


class _PartitionSink(StatefulSinkPartition[OutgoingRecords, bytes]):
    """One output partition; `replayed` are the rows in it that the replay has not reached yet."""

    def __init__(
        self,
        partition_id: PartitionId,
        partitions: int,
        replayed: Counter[bytes],
        delivery: Delivery,
        codec: StateCodec[SinkState],
        size: metrics.StateSize,
    ) -> None:
        self._partition_id = partition_id
        self._partitions = partitions
        self._replayed = replayed
        self._delivery = delivery
        self._codec = codec
        self._counters = metrics.OutputCounters(partition_id[0])
        self._size = size

    @inside_engine
    @liveness.monitored
    def write_batch(self, values: list[OutgoingRecords]) -> None:
        to_write = list(map(self._without_replayed, values)) if self._replayed else values
        self._delivery.write(self._partition_id, to_write)
        self._counters.count(values, to_write)

    @inside_engine
    @liveness.monitored
    def snapshot(self) -> bytes:
        end = self._delivery.checkpoint(self._partition_id)
        return self._size.of(self._codec.pack(SinkState(end, list(self._replayed.elements()), self._partitions)))

    @inside_engine
    def close(self) -> None:
        self._delivery.flush()

    def _without_replayed(self, records: OutgoingRecords) -> OutgoingRecords:
        return OutgoingRecords(
            records.key, [value for value in records.values if not self._skip(records, value)], records.headers
        )

    def _skip(self, records: OutgoingRecords, value: bytes | None) -> bool:
        """Whether a copy of the row is in the partition; each copy counts once."""
        digest = record_digest(records.key, value, records.headers)
        if digest not in self._replayed:
            return False
        self._replayed[digest] -= 1
        if not self._replayed[digest]:
            del self._replayed[digest]
        return True
