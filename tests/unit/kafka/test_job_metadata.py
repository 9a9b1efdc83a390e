"""Where the job began: stored on its first start, and the same on every later one."""

import pytest

from dataflow.kafka import job_metadata as module
from dataflow.kafka.job_metadata import MetadataEntry, start_offsets
from dataflow.kafka.offsets import EndOffset


class Metadata:
    """Stores entries in memory; `later` are those that another process has stored by the second read."""

    def __init__(self, entries=(), later=()) -> None:
        self.entries = dict(entries)
        self._later = dict(later)
        self._reads = 0

    def read(self, partition_ids):
        self._reads += 1
        if self._reads == 2:
            self.entries |= self._later
        return {each: self.entries[each] for each in partition_ids if each in self.entries}

    def write(self, entries):
        self.entries |= entries

    def poll(self) -> None:
        pass


@pytest.fixture(autouse=True)
def ends(monkeypatch):
    """Every partition ends at 100 plus its number."""
    monkeypatch.setattr(module, "_POLL_INTERVAL_S", 0)
    monkeypatch.setattr(
        module,
        "end_offsets",
        lambda admin, partition_ids: {each: EndOffset(100 + each[1], 0) for each in partition_ids},
    )


def test_a_first_start_stores_the_present_ends():
    metadata = Metadata()
    assert start_offsets(metadata, None, {"visits": 2}) == {("visits", 0): 100, ("visits", 1): 101}
    assert metadata.entries == {("visits", 0): MetadataEntry(100), ("visits", 1): MetadataEntry(101)}


def test_a_later_start_returns_what_is_stored():
    metadata = Metadata({("visits", 0): MetadataEntry(3, "host 1 42 7")})
    assert start_offsets(metadata, None, {"visits": 1}) == {("visits", 0): 3}
    assert metadata.entries == {("visits", 0): MetadataEntry(3, "host 1 42 7")}


def test_partitions_added_to_a_topic_since_then_are_left_out():
    metadata = Metadata({("visits", 0): MetadataEntry(3)})
    assert start_offsets(metadata, None, {"visits": 5}) == {("visits", 0): 3}


def test_a_topic_that_is_new_to_the_job_begins_at_its_present_ends():
    metadata = Metadata({("visits", 0): MetadataEntry(3)})
    assert start_offsets(metadata, None, {"visits": 1, "alerts": 1}) == {("visits", 0): 3, ("alerts", 0): 100}


def test_other_processes_wait_for_what_the_first_one_stores():
    metadata = Metadata(later={("visits", 0): MetadataEntry(3)})
    assert start_offsets(metadata, None, {"visits": 1}, is_first=False) == {("visits", 0): 3}
