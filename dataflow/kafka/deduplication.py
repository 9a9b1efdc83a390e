"""Finds the rows that a replay must skip: those that are in the output already.

A replay makes the same rows, byte for byte, so exactly-once output needs no transactions. The state of an output
partition holds its end as of a snapshot. When the job resumes, it reads the rows after that end, and skips one replayed
row for each existing copy.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b

import msgspec
from confluent_kafka import KafkaError

from dataflow.kafka.client import Connection, while_waiting
from dataflow.kafka.job_metadata import JobMetadata
from dataflow.kafka.messages import Headers
from dataflow.kafka.offsets import PartitionId, end_offsets, retry_until_answered, source_name
from dataflow.kafka.range_reader import OffsetRange, range_consumer, read_ranges
from dataflow.kafka.replaceable import Admin
from dataflow.kafka.stable_end_offsets import stable_end_offsets
from dataflow.streaming.errors import UserError


def record_digest(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """16 bytes that stand for a row."""
    return blake2b(msgspec.msgpack.encode((key, value, headers or None)), digest_size=16).digest()


class OutputDeduplicator:
    """Reads the job's output topics.

    Args:
        admin: asks for the ends.
        connection: to the cluster.
        metadata: of the job; polled while brokers are away.
        start_offsets: where the job's own rows begin in each partition that it writes to.
        group: name under which the consumers read.
    """

    def __init__(
        self,
        admin: Admin,
        connection: Connection,
        metadata: JobMetadata,
        start_offsets: Mapping[PartitionId, int],
        group: str,
    ) -> None:
        self._admin = admin
        self._connection = connection
        self._metadata = metadata
        self._group = group
        self.start_offsets = start_offsets
        self._stable_ends: dict[PartitionId, int] = {}
        self._lock = threading.Lock()  # guards _stable_ends

    def ends(self, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, int]:
        """The offsets after the last rows of partitions. Waits for brokers that are away."""
        partition_ids = list(partition_ids)
        ends = retry_until_answered(lambda: end_offsets(self._admin, partition_ids), self._metadata.poll)
        return {partition_id: end.offset for partition_id, end in ends.items()}

    def rows(self, partition_id: PartitionId, begin: int) -> Iterator[tuple[int, bytes]]:
        """Offset and digest of each row of a partition from offset `begin` on, up to its end when the process started."""
        messages = read_ranges(
            partial(range_consumer, self._connection, self._group),  # rows that retention has removed are skipped
            {partition_id: [OffsetRange(begin, self.stable_ends()[partition_id])]},
            on_error=_raise_if_fatal,
            while_waiting=while_waiting,
        )
        for message in messages:
            yield message.offset(), record_digest(message.key(), message.value(), message.headers())

    def stable_ends(self) -> dict[PartitionId, int]:
        """The ends of all partitions when this process started; whoever asks first waits for them."""
        with self._lock:
            if not self._stable_ends:
                self._stable_ends = stable_end_offsets(
                    self._admin, self._connection, self._group, self.start_offsets.keys(), self._metadata.poll
                )
            return self._stable_ends


def _raise_if_fatal(partition_id: PartitionId, error: KafkaError) -> None:
    if not error.retriable():
        raise UserError(f"{source_name(*partition_id)}: cannot be read to find the rows that are there: {error.str()}")
