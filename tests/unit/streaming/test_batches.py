"""Batches survive the way to another process unchanged."""

import pickle

import pytest

from dataflow.clickstream.records import Event, Purchase
from dataflow.streaming.batches import ShardBatch
from dataflow.streaming.time import MIN_TIME
from dataflow.streaming.watermark import SourceProgress

TIME = SourceProgress("user-events/0", MIN_TIME, 2**60, None, ("user-events/0", "purchases/0"))
EVENT = Event(-5, b"-7", b"\xff{}", 2**61, -(2**63), "päge", 6, b"1.50")
PURCHASE = Purchase(5, b"9" * 4300, b"{}", 0, 2**63 - 1, b"-0.50")


@pytest.mark.parametrize("rows", [[], [EVENT, EVENT], [PURCHASE]], ids=["nothing but time", "events", "purchases"])
def test_a_batch_survives_the_way_to_another_process(rows):
    sent = ShardBatch(rows, TIME)
    received = pickle.loads(pickle.dumps(sent))
    assert received == sent
    assert [type(row) for row in received.rows] == [type(row) for row in rows]
