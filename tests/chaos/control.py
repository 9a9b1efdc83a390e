"""``python -m chaos.control``: the job with Bytewax's own Kafka sink in place of ours. Under a kill it has to fail.

Everything else, sources, rules and recovery, is the job's.
"""

import sys
from collections.abc import Iterable
from itertools import chain
from unittest.mock import patch

from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from dataflow import __main__ as program
from dataflow.clickstream.outputs import Keyed
from dataflow.runtime import job
from dataflow.runtime.settings import load
from dataflow.streaming.batches import OutgoingRecords

MODULE = "chaos.control"


class PlainSink(DynamicSink[Keyed]):
    """Bytewax's sink, fed with our batches."""

    def __init__(self, topic: str, *_: object) -> None:
        self._sink = KafkaSink(load().brokers.split(","), topic)

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Partition":
        return _Partition(self._sink.build(step_id, worker_index, worker_count))


class _Partition(StatelessSinkPartition[Keyed]):
    def __init__(self, sink: StatelessSinkPartition) -> None:
        self._sink = sink

    def write_batch(self, items: list[Keyed]) -> None:
        self._sink.write_batch([*chain.from_iterable(_messages(output) for _, output in items)])

    def close(self) -> None:
        self._sink.close()


def _messages(output: OutgoingRecords) -> Iterable[KafkaSinkMessage]:
    return (KafkaSinkMessage(output.key, value, headers=output.headers or []) for value in output.values)


if __name__ == "__main__":
    with patch.object(job, "KafkaSink", PlainSink):
        sys.exit(program.main())
