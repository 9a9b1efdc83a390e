"""A lease, so that a second copy of the job does not write what the first one writes.

The job's first process holds the lease, an entry of the job's metadata (see `dataflow.kafka.job_metadata`), and renews
it every second. A new instance exits if the lease is live; otherwise it takes the lease over, and a former holder that
still runs sees that and stops. The other processes of a cluster follow the lease: they read it every second. A process
that has not seen it renewed for some seconds writes nothing until it has.

A process that is frozen, or cut off from Kafka, for longer than the lease is valid can have rows on their way, in its
client and its network connections, when it comes back. Kafka refuses such rows only within transactions, which are not
used: a reader that does not ask for committed rows only, as Java's do by default, would see rows of aborted
transactions, that is twice; those that do ask would wait for every commit; and the job would need another permission.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from uuid import uuid4

import msgspec
from confluent_kafka import KafkaException

from dataflow.kafka.client import while_waiting
from dataflow.kafka.job_metadata import JobMetadata, LeaseRecord, MetadataEntry, Note
from dataflow.kafka.offsets import PartitionId, retry_until_answered
from dataflow.observability import lifecycle, logs
from dataflow.observability.clock import JobClock
from dataflow.streaming.errors import UserError, inside_engine

log = logging.getLogger("visits")

_RENEW_INTERVAL_S = 1.0
_VALID_FOR_S = 4.0  # how long a renewal allows the job's processes to write
_OBSERVE_S = 7.0  # a lease that is not renewed for so long has no holder: more than _VALID_FOR_S and a renewal
_SETTLE_S = 0.3  # in which two that start at the same moment see each other
_REFRESH_INTERVAL_S = 3_600.0  # Kafka forgets metadata that is not written for a week
_POLL_INTERVAL_S = 0.05  # while the lease is not held


class Process:
    """What tells whether the process of a lease has ended; a test replaces it.

    Args:
        proc: where Linux shows its processes.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def record(self) -> LeaseRecord:
        """A record of this process, for a lease that begins now."""
        pid = str(os.getpid())
        return LeaseRecord(
            uuid4().hex, socket.gethostname(), self._boot(), self._namespace(), pid, self._started(pid) or ""
        )

    def has_ended(self, record: LeaseRecord) -> bool:
        """Whether the process has certainly ended. Of a process on another host that is not known."""
        here = self.record()
        if not here.boot or (record.boot, record.namespace) != (here.boot, here.namespace):
            return False
        return self._started(record.pid) != record.started

    def _boot(self) -> str:
        try:
            return (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""  # not Linux

    def _namespace(self) -> str:
        try:
            return str((self._proc / "self/ns/pid").readlink()).strip("pid:[]")
        except OSError:
            return ""

    def _started(self, pid: str) -> str | None:
        """When a process started, in ticks since the host did; None if there is none of this number."""
        try:
            fields = (self._proc / pid / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return fields[19] if fields[0] != "Z" else None


class _Watched:
    """What holder and followers have in common: a thread that looks at the lease every second."""

    def __init__(
        self,
        metadata: JobMetadata,
        entries: Mapping[PartitionId, MetadataEntry],
        name: str,
        clock: JobClock,
        optional: Collection[str],
    ) -> None:
        self._metadata = metadata
        self._entries = _without_lease(entries)
        in_every_copy = [partition_id for partition_id in self._entries if partition_id[0] not in optional]
        self._partition_id = min(in_every_copy)  # whose note is the lease
        self._drain_id = max(in_every_copy)  # whose note says that all are to drain; with one entry there is none
        self._name = name
        self._clock = clock
        self.held_until = 0.0  # monotonic
        self._released = threading.Event()
        self._told = False  # whether the other processes have been told to drain
        self._thread: threading.Thread | None = None

    def is_held(self) -> bool:
        """Whether the lease was renewed recently enough to write."""
        return time.monotonic() < self.held_until

    def wait_until_held(self) -> None:
        """Returns at once, unless the lease could not be renewed lately."""
        while time.monotonic() > self.held_until:
            while_waiting()
            time.sleep(_POLL_INTERVAL_S)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        raise NotImplementedError

    def _read(self) -> tuple[LeaseRecord | None, str]:
        """The lease, and the id of the lease whose processes are to drain."""
        found = self._metadata.read({self._partition_id, self._drain_id})
        lease = found[self._partition_id].note.lease if self._partition_id in found else None
        return lease, found[self._drain_id].note.drain if self._drain_id in found else ""

    def _pass_on_drain(self, lease: str, drain: str) -> None:
        """Drains if another process of the lease was told to, and tells the others if this one was."""
        if drain == lease:
            self._told = True
            lifecycle.drain_requested.set()
        elif lifecycle.drain_requested.is_set() and not self._told and self._drain_id != self._partition_id:
            self._write(self._drain_id, drain=lease)
            self._told = True

    def _write(self, partition_id: PartitionId, *, lease: LeaseRecord | None = None, drain: str = "") -> None:
        offset, note = self._entries[partition_id]
        changed: Note = msgspec.structs.replace(note, lease=lease, drain=drain)
        self._metadata.write({partition_id: MetadataEntry(offset, changed)})

    def _taken_over(self, lease: LeaseRecord | None) -> UserError:
        return UserError(
            f"another copy of job {self._name!r} has taken over ({_described(lease)}), so this one stops; run only one"
        )


class Lease(_Watched):
    """The lease of one job, held by its first process.

    Args:
        metadata: of the job.
        entries: all entries of the metadata, which the lease keeps from being forgotten. The lease is noted in the first
            one.
        name: of the job, for messages.
        clock: the job's, which followers take over.
        process: says what runs on this host.
        processes: of the job.
        shared: what the other processes must have in common with this one, by name.
        optional: topics that another copy of the job may lack; the lease is noted in none of them.
    """

    def __init__(
        self,
        metadata: JobMetadata,
        entries: Mapping[PartitionId, MetadataEntry],
        name: str,
        clock: JobClock,
        process: Process | None = None,
        processes: int = 1,
        shared: Mapping[str, float | str] = {},
        optional: Collection[str] = (),
    ) -> None:
        super().__init__(metadata, entries, name, clock, optional)
        self._process = process or Process()
        self._processes = processes
        self._own = msgspec.structs.replace(self._process.record(), shared=dict(shared))

    def take(self) -> None:
        """Returns as the holder. Raises UserError if another copy of the job is running."""
        lease, _ = retry_until_answered(self._read, self._metadata.poll)
        if lease is not None and not self._process.has_ended(lease):
            self._observe(lease)
        retry_until_answered(self._renew, self._metadata.poll)
        time.sleep(_SETTLE_S)
        lease, _ = retry_until_answered(self._read, self._metadata.poll)
        self._check(lease)
        self.held_until = time.monotonic() + _VALID_FOR_S
        self._start()

    def join(self) -> None:
        """Nothing: the holder is there already."""

    def note(self, entries: Mapping[PartitionId, MetadataEntry]) -> None:
        """Stores all entries anew, the lease's own with its next renewal. Waits for brokers."""
        self._entries = _without_lease(entries)
        retry_until_answered(self._refresh, self._metadata.poll)

    def release(self) -> None:
        """Lets another copy start at once if Kafka answers within a second; if not, that copy observes for a while.

        The other processes of a cluster may still be writing, unless all have drained. Then the lease is left to expire.
        The thread does it: at interpreter shutdown, when this may be called, Python 3.12 starts no threads.
        """
        if self._processes == 1 or not lifecycle.stop_requested.is_set():
            self._released.set()
            if self._thread is not None:
                self._thread.join(_RENEW_INTERVAL_S)

    def _observe(self, lease: LeaseRecord) -> None:
        log.info(
            "the lease of job %r is held by %s; watching whether it is renewed",
            self._name,
            _described(lease),
            extra=logs.event("lease-taken"),
        )
        deadline = time.monotonic() + _OBSERVE_S
        while time.monotonic() < deadline:
            time.sleep(_RENEW_INTERVAL_S / 2)
            now, _ = retry_until_answered(self._read, self._metadata.poll)
            if now is not None and now != lease:
                raise UserError(
                    f"another copy of job {self._name!r} is running ({_described(now)}), and two would write everything "
                    "twice: stop it first, or set VISITS_GROUP and output topics of your own"
                )

    @inside_engine
    def _run(self) -> None:
        refreshed = time.monotonic()
        while not self._released.wait(_RENEW_INTERVAL_S):
            asked = time.monotonic()
            try:
                lease, drain = self._read()
                self._check(lease)
                self._renew()
                self._pass_on_drain(self._own.id, drain)
                if asked > refreshed + _REFRESH_INTERVAL_S:
                    self._refresh()
                    refreshed = asked
            except KafkaException:
                continue
            self.held_until = asked + _VALID_FOR_S
        self._clear()

    def _refresh(self) -> None:
        without = {self._partition_id, self._drain_id} if lifecycle.drain_requested.is_set() else {self._partition_id}
        others = self._entries.keys() - without
        if others:
            self._metadata.write({partition_id: self._entries[partition_id] for partition_id in others})

    def _clear(self) -> None:
        try:
            self._write(self._partition_id)
        except KafkaException:
            pass  # the next instance observes the lease until it has run out

    def _check(self, lease: LeaseRecord | None) -> None:
        if lease is not None and not self._released.is_set() and lease.id != self._own.id:
            raise self._taken_over(lease)

    def _renew(self) -> None:
        if not self._released.is_set():
            self._own = msgspec.structs.replace(self._own, renewals=self._own.renewals + 1, clock=self._clock.now())
            self._write(self._partition_id, lease=self._own)


class LeaseFollower(_Watched):
    """The lease as a further process of a cluster sees it.

    It follows the lease that is held when the engine runs: the first process takes it before that.

    Args:
        metadata: of the job.
        entries: all entries of the metadata.
        name: of the job, for messages.
        clock: the job's, which is adjusted to that of the first process.
        shared: what this process must have in common with the first one, by name.
        optional: topics that another copy of the job may lack.
    """

    def __init__(
        self,
        metadata: JobMetadata,
        entries: Mapping[PartitionId, MetadataEntry],
        name: str,
        clock: JobClock,
        shared: Mapping[str, float | str] = {},
        optional: Collection[str] = (),
    ) -> None:
        super().__init__(metadata, entries, name, clock, optional)
        self._shared = shared
        self._followed: LeaseRecord | None = None
        self._asked = 0.0  # monotonic, the last time that the lease was read
        self._lock = threading.Lock()  # workers are threads, and each joins

    def take(self) -> None:
        """Nothing: the first process takes it."""

    def join(self) -> None:
        """Finds the lease to follow. Called when the engine runs, before anything is read or written.

        Raises UserError if the first process has other settings, or another recovery store.
        """
        with self._lock:
            while self._followed is None:
                self._asked = time.monotonic()
                self._followed, _ = retry_until_answered(self._read, self._metadata.poll)
                if self._followed is not None:
                    self._compare(self._followed.shared)
                    self._clock.adjust_to(self._followed.clock)
                    self._start()
                else:
                    time.sleep(_POLL_INTERVAL_S)

    def release(self) -> None:
        """Follows no more."""
        self._released.set()

    @inside_engine
    def _run(self) -> None:
        while not self._released.wait(_RENEW_INTERVAL_S):
            asked = time.monotonic()
            try:
                lease, drain = self._read()
                self._check(lease)
                if self._followed is not None:
                    self._pass_on_drain(self._followed.id, drain)
            except KafkaException:
                continue
            if lease is not None and lease != self._followed:  # it was renewed after it was read the last time
                self._followed = lease
                self.held_until = self._asked + _VALID_FOR_S
            self._asked = asked

    def _compare(self, shared: Mapping[str, float | str]) -> None:
        different = [name for name, value in self._shared.items() if shared.get(name, value) != value]
        if different:
            raise UserError(
                f"this process differs from the job's first one in {', '.join(different)}: all processes of a cluster need the "
                "same settings, and the same recovery store (one directory, shared by their hosts)"
            )

    def _check(self, lease: LeaseRecord | None) -> None:
        followed = self._followed
        if followed is not None and lease is not None and lease.id != followed.id and not lifecycle.is_ending():
            raise self._taken_over(lease)


def _without_lease(entries: Mapping[PartitionId, MetadataEntry]) -> dict[PartitionId, MetadataEntry]:
    return {
        partition_id: entry._replace(note=msgspec.structs.replace(entry.note, lease=None, drain=""))
        for partition_id, entry in entries.items()
    }


def _described(lease: LeaseRecord | None) -> str:
    return f"process {lease.pid} on {lease.host}" if lease is not None else "nobody"
