"""One running copy of the job: a lease in the job's metadata, here in memory."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import lease as module
from dataflow.kafka.job_metadata import LeaseRecord, MetadataEntry, Note
from dataflow.kafka.lease import Lease, LeaseFollower, Process
from dataflow.observability import lifecycle
from dataflow.streaming.errors import UserError

FIRST, SECOND, LAST = ("late-events", 0), ("visits", 0), ("visits", 1)
ENTRIES = {FIRST: MetadataEntry(5, Note("id-late")), SECOND: MetadataEntry(7), LAST: MetadataEntry(9)}
HERE = LeaseRecord("this start", "host", "boot", "1", "10", "100")
ELSEWHERE = LeaseRecord("another start", "another-host", "another boot", "1", "42", "100")
CLOCK = SimpleNamespace(now=lambda: 1_700_000_000_000_000)


class Metadata:
    """Stores entries; `on_read` runs before each read, as other processes do in between."""

    def __init__(self) -> None:
        self.entries = dict(ENTRIES)
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

    def hold(self, lease: LeaseRecord | None, renewals: int = 0) -> None:
        lease = msgspec.structs.replace(lease, renewals=renewals) if lease is not None else None
        self.entries[FIRST] = MetadataEntry(5, Note("id-late", lease=lease))

    @property
    def lease(self) -> LeaseRecord | None:
        return self.entries[FIRST].note.lease


class ThisProcess:
    """The process of a lease, and which others are known to have ended."""

    def __init__(self, *ended: LeaseRecord) -> None:
        self._ended = {lease.id for lease in ended}

    def record(self) -> LeaseRecord:
        return HERE

    def has_ended(self, record: LeaseRecord) -> bool:
        return record.id in self._ended


class Thread:
    """The lease's thread, which never runs here."""

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
    monkeypatch.setattr(module, "threading", SimpleNamespace(Event=threading.Event, Thread=Thread, Lock=threading.Lock))
    monkeypatch.setattr(lifecycle, "drain_requested", threading.Event())
    monkeypatch.setattr(lifecycle, "stop_requested", threading.Event())
    return clock


@pytest.fixture
def metadata() -> Metadata:
    return Metadata()


def lease_in(metadata: Metadata, *ended: LeaseRecord, processes: int = 1) -> Lease:
    return Lease(metadata, ENTRIES, "shop", CLOCK, ThisProcess(*ended), processes)


def test_a_free_lease_is_taken_at_once_and_keeps_what_is_noted_beside_it(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    assert clock.now < 1_001
    assert lease.is_held()
    assert metadata.entries[FIRST].offset == 5
    assert metadata.entries[FIRST].note.topic_id == "id-late"
    assert metadata.lease == msgspec.structs.replace(HERE, renewals=1, clock=CLOCK.now())
    assert metadata.entries[SECOND] == ENTRIES[SECOND]


def test_the_lease_is_where_a_copy_without_an_optional_topic_looks_for_it(metadata):
    more = {("a-topic", 0): MetadataEntry(1), **ENTRIES, ("z-topic", 3): MetadataEntry(1)}
    Lease(metadata, more, "shop", CLOCK, ThisProcess(), optional=["a-topic", "z-topic"]).take()
    assert metadata.lease == msgspec.structs.replace(HERE, renewals=1, clock=CLOCK.now())


def test_the_lease_of_a_process_of_this_host_that_has_ended_is_taken_at_once(metadata, clock):
    metadata.hold(ELSEWHERE, 7)
    lease_in(metadata, ELSEWHERE).take()
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


def run(lease: Lease | LeaseFollower, clock: SimpleNamespace, rounds: int) -> None:
    lease._released = Waits(clock, rounds)
    lease._run()


def test_the_lease_is_renewed_every_second_and_cleared_on_release(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    seen = []
    metadata.on_read = lambda: seen.append(metadata.lease)
    run(lease, clock, rounds=3)
    assert [each.renewals for each in seen] == [1, 2, 3]
    assert lease.held_until == clock.now - 1 + 4
    assert metadata.entries[FIRST] == ENTRIES[FIRST]


def test_a_renewal_that_kafka_does_not_answer_does_not_prolong_the_lease(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    before = lease.held_until
    metadata.answers = False
    run(lease, clock, rounds=3)
    assert lease.held_until == before


def test_a_holder_that_finds_another_one_stops(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    metadata.hold(ELSEWHERE, 1)
    with pytest.raises(UserError, match=r"has taken over .* run only one$"):
        run(lease, clock, rounds=1)


def test_every_hour_all_entries_are_written_again(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    del metadata.entries[SECOND]
    run(lease, clock, rounds=3_600)
    assert SECOND not in metadata.entries
    lease = lease_in(metadata)
    lease.take()
    run(lease, clock, rounds=3_602)
    assert metadata.entries[SECOND] == ENTRIES[SECOND]


def test_new_notes_are_stored_and_leave_the_lease_to_its_next_renewal(metadata, clock):
    lease = lease_in(metadata)
    lease.take()
    before = metadata.lease
    noted = {key: entry._replace(note=Note("id", {"session_gap": 20.0})) for key, entry in ENTRIES.items()}
    lease.note(noted)
    assert metadata.entries[SECOND] == noted[SECOND]
    assert metadata.lease == before
    run(lease, clock, rounds=1)
    assert metadata.entries[FIRST].note == Note("id", {"session_gap": 20.0})


# --- the processes of a cluster


def follower_of(metadata: Metadata, adjusted: list[int] | None = None) -> LeaseFollower:
    clock = SimpleNamespace(adjust_to=adjusted.append if adjusted is not None else lambda leader: None)
    return LeaseFollower(metadata, ENTRIES, "shop", clock)


def test_a_follower_writes_once_it_has_seen_the_lease_renewed(metadata, clock):
    metadata.hold(HERE, 1)
    follower = follower_of(metadata)
    follower.join()
    assert not follower.is_held()
    renewals = iter(range(2, 100))
    metadata.on_read = lambda: metadata.hold(HERE, next(renewals))
    run(follower, clock, rounds=1)
    assert follower.held_until == clock.now - 2 + 4, "the renewal came after the read before"


def test_a_follower_that_sees_no_renewals_writes_no_more_after_4_s(metadata, clock):
    metadata.hold(HERE, 1)
    follower = follower_of(metadata)
    follower.join()
    metadata.on_read = lambda: metadata.hold(HERE, 2)
    run(follower, clock, rounds=4)
    assert not follower.is_held()


def test_a_follower_of_a_lease_that_another_copy_has_taken_stops(metadata, clock):
    metadata.hold(HERE, 1)
    follower = follower_of(metadata)
    follower.join()
    metadata.hold(ELSEWHERE, 1)
    with pytest.raises(UserError, match=r"has taken over \(process 42 on another-host\), so this one stops"):
        run(follower, clock, rounds=1)


def test_a_follower_takes_over_the_time_of_the_first_process(metadata):
    metadata.entries[FIRST] = MetadataEntry(5, Note(lease=msgspec.structs.replace(HERE, clock=123)))
    adjusted: list[int] = []
    follower_of(metadata, adjusted).join()
    assert adjusted == [123]


@pytest.mark.parametrize(
    ("own", "different"),
    [
        ({"VISITS_SHARDS": 8, "the recovery store (-r)": "a"}, None),
        ({"VISITS_SHARDS": 4, "the recovery store (-r)": "b"}, "VISITS_SHARDS, the recovery store"),
        ({"VISITS_NEW": 1, "the recovery store (-r)": "a"}, None),
    ],
)
def test_a_follower_with_other_settings_or_another_store_than_the_first_process_stops(metadata, own, different):
    shared = {"VISITS_SHARDS": 8, "the recovery store (-r)": "a"}
    metadata.entries[FIRST] = MetadataEntry(5, Note(lease=msgspec.structs.replace(HERE, shared=shared)))
    follower = LeaseFollower(metadata, ENTRIES, "shop", SimpleNamespace(adjust_to=lambda leader: None), own)
    if different is None:
        follower.join()
    else:
        with pytest.raises(UserError, match=f"^this process differs from the job's first one in {different}"):
            follower.join()


def test_a_process_that_is_told_to_drain_tells_the_others(metadata, clock):
    lease = lease_in(metadata, processes=2)
    lease.take()
    follower = follower_of(metadata)
    follower.join()
    lifecycle.drain_requested.set()
    run(follower, clock, rounds=1)
    lifecycle.drain_requested.clear()
    run(lease, clock, rounds=1)
    assert lifecycle.drain_requested.is_set()


def test_a_drain_of_an_earlier_run_is_over(metadata, clock):
    metadata.entries[LAST] = MetadataEntry(9, Note(drain="another start"))
    lease = lease_in(metadata, processes=2)
    lease.take()
    run(lease, clock, rounds=2)
    assert not lifecycle.drain_requested.is_set()


@pytest.mark.parametrize(
    ("processes", "killed", "is_cleared"),
    [(1, True, True), (2, True, False), (2, False, True)],
    ids=["alone", "others may still write", "all have drained"],
)
def test_a_lease_is_released_once_nobody_writes_under_it(metadata, clock, processes, killed, is_cleared):
    lease = lease_in(metadata, processes=processes)
    lease.take()
    if killed:
        lifecycle.stop_requested.set()
    lease.release()
    assert lease._released.is_set() == is_cleared


# --- which process is which


def proc(tmp_path, boot: str = "one boot", **processes: str):
    """A /proc with processes and the ticks at which they started."""
    (tmp_path / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(boot + "\n")
    (tmp_path / "self/ns").mkdir(parents=True, exist_ok=True)
    (tmp_path / "self/ns/pid").unlink(missing_ok=True)
    (tmp_path / "self/ns/pid").symlink_to("pid:[4026531836]")
    for pid, started in processes.items():
        (tmp_path / pid.strip("_")).mkdir(exist_ok=True)
        (tmp_path / pid.strip("_") / "stat").write_text(f"1 (a (strange) name) S {'0 ' * 18}{started} 0")
    return Process(tmp_path)


def lease_of(**fields: str) -> LeaseRecord:
    return LeaseRecord(
        **{"id": "x", "boot": "one boot", "namespace": "4026531836", "pid": "42", "started": "5"} | fields
    )


@pytest.mark.parametrize(
    ("lease", "has_ended"),
    [
        pytest.param(lease_of(), False, id="runs"),
        pytest.param(lease_of(started="4"), True, id="its number is that of a later process"),
        pytest.param(lease_of(pid="43"), True, id="gone"),
        pytest.param(lease_of(boot="another boot", pid="43"), False, id="of another host with perhaps the same name"),
        pytest.param(lease_of(namespace="1", pid="43"), False, id="of another container"),
        pytest.param(lease_of(boot="", pid="43"), False, id="not known where"),
    ],
)
def test_only_of_a_process_of_this_host_is_it_known_that_it_has_ended(tmp_path, lease, has_ended):
    assert proc(tmp_path, _42="5").has_ended(lease) == has_ended


def test_each_start_is_another_one():
    assert Process().record().id != Process().record().id


def test_this_process_has_not_ended():
    assert not Process().has_ended(Process().record())
