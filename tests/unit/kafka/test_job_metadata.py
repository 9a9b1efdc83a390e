"""Where the job began: stored on its first start, and the same on every later one; and what is noted beside it."""

from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition

from dataflow.kafka import job_metadata as module
from dataflow.kafka.job_metadata import JobMetadata, LeaseRecord, MetadataEntry, Note, read_entries
from dataflow.kafka.offsets import EndOffset
from dataflow.streaming.errors import UserError


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


IDS = {"visits": "id-1"}


def offsets(
    metadata: Metadata, partitions: dict[str, int], ids=IDS, is_first: bool = True
) -> dict[tuple[str, int], int]:
    entries = read_entries(metadata, None, partitions, ids, is_first)
    return {partition_id: entry.offset for partition_id, entry in entries.items()}


def test_a_first_start_stores_the_present_ends_and_the_topics_id():
    metadata = Metadata()
    assert offsets(metadata, {"visits": 2}) == {("visits", 0): 100, ("visits", 1): 101}
    note = Note("id-1")
    assert metadata.entries == {("visits", 0): MetadataEntry(100, note), ("visits", 1): MetadataEntry(101, note)}


def test_only_a_first_start_tells_how_many_rows_were_there_before_it():
    metadata, told = Metadata(), []
    for _ in range(2):
        read_entries(metadata, None, {"visits": 2}, IDS, on_begin=lambda topic, rows: told.append((topic, rows)))
    assert told == [("visits", 201)]


def test_a_later_start_returns_what_is_stored():
    stored = MetadataEntry(3, Note("id-1", {"session_gap": 20.0}, lease=LeaseRecord("some start")))
    metadata = Metadata({("visits", 0): stored})
    assert read_entries(metadata, None, {"visits": 1}, IDS) == {("visits", 0): stored}


def test_partitions_added_to_a_topic_since_then_are_left_out():
    metadata = Metadata({("visits", 0): MetadataEntry(3)})
    assert offsets(metadata, {"visits": 5}) == {("visits", 0): 3}


def test_a_topic_that_is_new_to_the_job_begins_at_its_present_ends():
    metadata = Metadata({("visits", 0): MetadataEntry(3)})
    assert offsets(metadata, {"visits": 1, "alerts": 1}) == {("visits", 0): 3, ("alerts", 0): 100}


def test_other_processes_wait_for_what_the_first_one_stores():
    metadata = Metadata(later={("visits", 0): MetadataEntry(3)})
    assert offsets(metadata, {"visits": 1}, is_first=False) == {("visits", 0): 3}


def test_a_process_that_waits_for_long_says_for_what_and_asks_for_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(module, "_TELL_AFTER_S", -1)
    metadata = Metadata(later={("visits", 0): MetadataEntry(3)})
    offsets(metadata, {"visits": 1}, is_first=False)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "waiting for the job's first process (-i 0) to begin with visits"
    ]


@pytest.mark.parametrize("first_has_it", [True, False], ids=["and it has", "and it has not"])
def test_another_process_leaves_out_an_optional_topic_unless_the_first_one_has_it(monkeypatch, first_has_it):
    monkeypatch.setattr(module, "_OPTIONAL_WAIT_S", 0 if not first_has_it else 60)
    later = {("sessions", 0): MetadataEntry(7)} if first_has_it else {}
    metadata = Metadata({("visits", 0): MetadataEntry(3)}, later)
    partitions = {"visits": 1, "sessions": 1}
    entries = read_entries(metadata, None, partitions, {}, is_first=False, optional=["sessions"])
    assert {topic for topic, _ in entries} == ({"visits", "sessions"} if first_has_it else {"visits"})
    assert metadata.entries.keys() == entries.keys()


def test_offsets_of_a_topic_that_was_created_again_are_refused():
    metadata = Metadata({("visits", 0): MetadataEntry(3, Note("id-0"))})
    with pytest.raises(UserError, match=r"^topic visits was created again since the job began with it; start over"):
        offsets(metadata, {"visits": 1})


@pytest.mark.parametrize(("noted", "known"), [("", IDS), ("id-1", {})], ids=["not noted", "not told by brokers"])
def test_a_topic_whose_id_is_not_known_is_taken_for_the_same(noted, known):
    metadata = Metadata({("visits", 0): MetadataEntry(3, Note(noted))})
    assert offsets(metadata, {"visits": 1}, known) == {("visits", 0): 3}


class Committed:
    """A consumer whose group has the given texts."""

    texts: dict[int, str]

    def __init__(self, properties) -> None:
        pass

    def committed(self, partitions, timeout):
        return [TopicPartition(each.topic, each.partition, 3, self.texts[each.partition]) for each in partitions]

    def commit(self, offsets, asynchronous):
        Committed.texts = {each.partition: each.metadata for each in offsets}
        return offsets


def test_a_note_is_read_as_it_was_written(monkeypatch):
    monkeypatch.setattr(module, "Consumer", Committed)
    metadata = JobMetadata(SimpleNamespace(properties={}), "group")
    lease = LeaseRecord("start", "host", "boot", "1", "42", "7", 3, 2**60)
    entry = MetadataEntry(
        3, Note("id", {"session_gap": 0.1, "partitioner": "crc32"}, {"clicks": "one"}, lease, "start")
    )
    metadata.write({("visits", 0): entry})
    assert metadata.read([("visits", 0)]) == {("visits", 0): entry}


def test_a_lease_of_version_0_1_0_is_one_of_a_process_of_which_nothing_is_known(monkeypatch):
    monkeypatch.setattr(module, "Consumer", Committed)
    Committed.texts = {0: "some-host 4026531836 42 7", 1: ""}
    metadata = JobMetadata(SimpleNamespace(properties={}), "group")
    found = metadata.read([("visits", 0), ("visits", 1)])
    assert found[("visits", 1)].note == Note()
    lease = found[("visits", 0)].note.lease
    assert (lease.host, lease.pid, lease.renewals, lease.boot) == ("some-host", "42", 7, "")
