"""What already stands in the output: how a resumed job knows which rows it need not write again.

A replay makes byte for byte the same rows, so no transactions are needed for each to be there exactly once. A part, one
output partition, remembers its end as of a snapshot; when it resumes, it reads what was written after that, and leaves
out every row that is already there, as often as it is there.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from dataflow.kafka.client import Connection
from dataflow.kafka.job_metadata import JobMetadata, PartitionId, ends_of, retry_until_answered
from dataflow.kafka.stable_end_offsets import stable_end_offsets
from dataflow.observability import lifecycle, liveness
from dataflow.streaming.errors import UserError

Headers = list[tuple[str, bytes]] | None

_MOST = 1_000_000  # rows of one partition that are kept in mind: 150 MB


def record_digest(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """16 bytes that stand for a row."""
    return blake2b(msgspec.msgpack.encode((key, value, headers or None)), digest_size=16).digest()


class OutputDeduplicator:
    """Reads the output topics.

    Args:
        admin: asks the brokers.
        connection: what its consumers start from.
        notes: the job's.
        beginnings: where the job's own rows begin in each partition that it writes to.
        group: name under which the consumers read.
    """

    def __init__(
        self,
        admin: AdminClient,
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
        self._settled: dict[PartitionId, int] = {}
        self._lock = threading.Lock()  # guards _settled

    def ends(self, partition_ids: Iterable[PartitionId]) -> dict[PartitionId, int]:
        """The offsets after the last rows of partitions. Waits for brokers that are away."""
        ends = retry_until_answered(lambda: ends_of(self._admin, partition_ids), self._metadata.poll)
        return {partition_id: end.offset for partition_id, end in ends.items()}

    def rows(self, partition_id: PartitionId, begin: int) -> Counter[bytes]:
        """The fingerprints of a partition's rows from an offset on, and how often each is there.

        Raises:
            UserError: they are too many to be from one interval between two snapshots.
        """
        rows: Counter[bytes] = Counter()
        end = self._settled_end(partition_id)
        if begin >= end:
            return rows
        if end - begin > _MOST:
            raise UserError(
                f"{partition_id[0]}/{partition_id[1]}: {end - begin:,} rows of this job are there, and nothing that says which are "
                "done; resume with its recovery store, or set VISITS_GROUP to a new name to write all again"
            )
        consumer = Consumer(
            {
                "fetch.wait.max.ms": 10,
                **self._connection.properties,
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # rows that retention has removed are not wanted
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(*partition_id, begin)])
        while True:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    if message.offset() >= end:
                        consumer.close()
                        return rows
                    if error is None and message.offset() >= begin:
                        begin = message.offset() + 1  # rows may be handed out again when leaders change
                        rows[record_digest(message.key(), message.value(), message.headers())] += 1
                elif not error.retriable():
                    raise UserError(
                        f"{partition_id[0]}/{partition_id[1]}: cannot be read to see what is there: {error.str()}"
                    )
            liveness.heartbeat()
            lifecycle.block_if_stopping()

    def _settled_end(self, partition_id: PartitionId) -> int:
        """The end of a partition as this process finds it. The first part that asks, asks for all."""
        with self._lock:
            if not self._settled:
                self._settled = stable_end_offsets(
                    self._admin, self._connection, self._group, self.start_offsets.keys(), self._metadata.poll
                )
            return self._settled[partition_id]
