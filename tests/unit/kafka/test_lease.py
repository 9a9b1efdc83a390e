"""One running copy of the job: a lease in the job's metadata, here in memory."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import lease as module
from dataflow.kafka.job_metadata import MetadataEntry
from dataflow.kafka.lease import Holder, Lease
from dataflow.streaming.errors import UserError

FIRST, SECOND = ("late-events", 0), ("visits", 0)
STARTS = {FIRST: 5, SECOND: 7}
ELSEWHERE = Holder("another-host", "1", "42")


class Metadata:
    """Stores entries; `on_read` runs before each read, as other processes do in between."""

    def __init__(self) -> None:
        self.entries = {partition_id: MetadataEntry(offset) for partition_id, offset in STARTS.items()}
        self.on_read: Callable[[], None] = lambda: None
        self.answers = True

    def read(self, partition_ids):
        self.on_read()
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return {each: self.entries[each] for each in partition_ids}

    def write(self, entries):
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        self.entries |= entries

    def poll(self) -> None:
        pass

    def hold(self, holder: Holder, renewals: int) -> None:
        self.entries[FIRST] = MetadataEntry(5, " ".join([*holder, str(renewals)]))


class Thread:
    """The keeper's thread, which never runs here."""

    def __init__(self, target, name, daemon) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self, timeout_s: float) -> None:
        pass


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Iterator[SimpleNamespace]:
    """Time passes only while the lease sleeps."""
    clock = SimpleNamespace(now=1_000.0)
    clock.monotonic = lambda: clock.now

    def sleep(seconds: float) -> None:
        clock.now += seconds

    clock.sleep = sleep
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "threading", SimpleNamespace(Event=threading.Event, Thread=Thread))
    return clock


@pytest.fixture
def metadata() -> Metadata:
    return Metadata()


def lease_in(metadata: Metadata) -> Lease:
    return Lease(metadata, STARTS, "shop")


def test_a_free_lease_is_taken_at_once_and_keeps_the_start_offset(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    assert clock.now < 1_001
    assert lease.is_held()
    assert metadata.entries[FIRST].offset == 5
    assert metadata.entries[FIRST].text.split()[:3] == [*Holder.this()]
    assert metadata.entries[SECOND] == MetadataEntry(7)


def test_the_lease_of_a_process_of_this_host_that_has_ended_is_taken_at_once(metadata, clock, monkeypatch):
    def no_such_process(pid: int, signal: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(module.os, "kill", no_such_process)
    metadata.hold(Holder.this()._replace(pid="1"), 7)
    lease_in(metadata).take()
    assert clock.now < 1_001


def test_a_lease_that_nobody_renews_for_7_s_is_taken_over(metadata, clock):
    metadata.hold(ELSEWHERE, 7)
    lease_in(metadata).take()
    assert 1_007 <= clock.now < 1_009


def test_a_lease_that_is_renewed_is_an_error_that_names_its_holder(metadata):
    renewals = iter(range(100))
    metadata.on_read = lambda: metadata.hold(ELSEWHERE, next(renewals))
    with pytest.raises(UserError, match=r"^another copy of job 'shop' is running \(process 42 on another-host\)"):
        lease_in(metadata).take()


def test_of_two_that_start_at_once_the_earlier_one_stops(metadata):
    lease = lease_in(metadata)
    reads = iter(range(2))

    def other_one_writes_last() -> None:
        if next(reads) == 1:
            metadata.hold(ELSEWHERE, 1)

    metadata.on_read = other_one_writes_last
    with pytest.raises(UserError, match=r"has taken over \(process 42 on another-host\), so this one stops"):
        lease.take()


def test_a_lease_is_valid_for_4_s_without_a_renewal(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    clock.sleep(3.9)
    assert lease.is_held()
    clock.sleep(0.2)
    assert not lease.is_held()


class Waits:
    """In place of the event that the keeper waits for: `rounds` renewals, then the release."""

    def __init__(self, clock: SimpleNamespace, rounds: int) -> None:
        self._clock, self._rounds = clock, rounds

    def wait(self, seconds: float) -> bool:
        self._clock.sleep(seconds)
        self._rounds -= 1
        return self._rounds < 0

    def is_set(self) -> bool:
        return self._rounds < 0


def keep(lease: Lease, clock: SimpleNamespace, rounds: int) -> None:
    lease._released = Waits(clock, rounds)
    lease._keep()


def test_the_keeper_renews_every_second_and_clears_the_lease_on_release(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    texts = []
    metadata.on_read = lambda: texts.append(metadata.entries[FIRST].text)
    keep(lease, clock, rounds=3)
    assert [text.split()[3] for text in texts] == ["1", "2", "3"]
    assert lease.held_until == clock.now - 1 + 4
    assert metadata.entries[FIRST] == MetadataEntry(5)


def test_a_renewal_that_kafka_does_not_answer_does_not_prolong_the_lease(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    before = lease.held_until
    metadata.answers = False
    keep(lease, clock, rounds=3)
    assert lease.held_until == before


def test_a_holder_that_finds_another_one_stops(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    metadata.hold(ELSEWHERE, 1)
    with pytest.raises(UserError, match=r"has taken over .* run only one$"):
        keep(lease, clock, rounds=1)


def test_every_hour_all_start_offsets_are_written_again(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    del metadata.entries[SECOND]
    keep(lease, clock, rounds=3_600)
    assert SECOND not in metadata.entries
    lease = lease_in(metadata)
    lease.take()
    keep(lease, clock, rounds=3_602)
    assert metadata.entries[SECOND] == MetadataEntry(7)


def test_a_process_of_another_host_is_never_known_to_have_ended():
    assert not ELSEWHERE.has_ended()
    assert Holder.this().has_ended()  # what a former process with this one's PID has left
