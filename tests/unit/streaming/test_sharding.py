"""Shards are spread evenly over workers, and each worker keeps its Python thread state."""

import threading
from collections import Counter

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.run import cli_main
from bytewax.testing import TestingSink, TestingSource

from dataflow.streaming import worker_threads
from dataflow.streaming.sharding import engine_hash, key_of, number_of


def where_keys_go(keys, workers):
    """The thread that the engine has sent each key to."""
    found = []
    flow = Dataflow("keys")
    keyed = op.input("read", flow, TestingSource([(key, None) for key in keys]))
    op.output("write", op.stateful_map("at", keyed, lambda state, _: (True, threading.get_ident())), TestingSink(found))
    cli_main(flow, workers_per_process=workers)
    return dict(found)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_engine_sends_a_key_to_the_worker_that_its_hash_names(workers):
    keys = [f"{'x' * length}{number}" for length in (0, 6, 7, 8, 30) for number in range(8)]
    went = where_keys_go(keys, workers)
    assert len({(went[key], engine_hash(key) % workers) for key in keys}) == workers  # a thread for each number


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 6, 8, 12])
def test_shards_are_spread_over_workers_like_partitions(workers):
    assert [engine_hash(key_of(shard)) % workers for shard in range(24)] == [shard % workers for shard in range(24)]


def test_8_shards_are_4_and_4_on_2_workers():
    went = where_keys_go([key_of(shard) for shard in range(8)], 2)
    assert sorted(Counter(went.values()).values()) == [4, 4]


def test_a_key_says_which_shard_it_is_of():
    assert [number_of(key_of(shard)) for shard in range(24)] == list(range(24))


def test_keys_of_shards_differ_and_are_the_same_in_every_process():
    keys = [key_of(shard) for shard in range(64)]
    assert len(set(keys)) == 64
    assert keys[:8] == ["0.76", "1.99", "2.366", "3.213", "4.163", "5.48", "6.61", "7.134"]  # stand in recovery stores


class Remembering(FixedPartitionedSource):
    """Notes in something of its thread's own that it was there, and later whether that is still known."""

    def __init__(self, keep, seen):
        self.keep, self.seen, self.own = keep, seen, threading.local()

    def list_parts(self):
        return ["one", "two"]

    def build_part(self, step_id, for_part, resume_state):
        if self.keep:
            worker_threads.keep_thread_state()
        self.own.was_here = True
        return Part(self)


class Part(StatefulSourcePartition):
    def __init__(self, source):
        self.source = source

    def next_batch(self):
        self.source.seen.append(hasattr(self.source.own, "was_here"))
        raise StopIteration

    def snapshot(self):
        return None


@pytest.mark.parametrize("keep", [True, False])
def test_a_worker_keeps_its_python_thread_state_once_told(keep):
    seen = []
    flow = Dataflow("threads")
    op.output("write", op.input("read", flow, Remembering(keep, seen)), TestingSink([]))
    cli_main(flow, workers_per_process=2)
    assert seen == [keep, keep]
