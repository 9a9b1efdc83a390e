"""Keeps a second copy of the job from writing what the first one writes.

Whoever runs the job holds a lease, a note in Kafka (see `dataflow.kafka.notes`) that it renews every second. Who finds
one that is being renewed does not start. Who finds one that is not takes it over; its holder, should it still be there,
sees that and stops. A holder that cannot renew it writes nothing until it can.

As with every lease, a process that is frozen for longer than the lease runs can still have rows on their way when it
wakes; Kafka could only refuse those in a transaction.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaException

from dataflow.kafka.job_metadata import JobMetadata, MetadataEntry, PartitionId, retry_until_answered
from dataflow.observability import lifecycle, liveness, logs
from dataflow.streaming.errors import UserError, inside_engine

log = logging.getLogger("visits")

_RENEW_INTERVAL_S = 1.0  # seconds between renewals
_VALID_FOR_S = 4.0  # seconds for which a renewal allows to write
_OBSERVE_S = 7.0  # seconds; a lease that is not renewed for so long has nobody: more than _HOLD and a beat
_SETTLE_S = 0.3  # seconds in which two who start at once see each other
_REFRESH_INTERVAL_S = 3_600.0  # seconds; Kafka forgets notes that have not been written for a week


class Holder(NamedTuple):
    """A process, by its host, the namespace that its number is of, and its number."""

    host: str
    namespace: str
    pid: str

    @classmethod
    def this(cls) -> "Holder":
        try:
            namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
        except OSError:
            namespace = "-"  # not Linux
        return cls(socket.gethostname(), namespace, str(os.getpid()))

    def has_ended(self) -> bool:
        """Whether it is certain to have ended; of a process elsewhere that cannot be said."""
        here = Holder.this()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return False
        if self.pid == here.pid:
            return True
        try:
            os.kill(int(self.pid), 0)
        except (ProcessLookupError, ValueError):
            return True
        except PermissionError:
            pass
        return False


class Lease:
    """The lease of one job.

    Args:
        notes: where it is noted.
        beginnings: all notes of the job, which are kept from being forgotten; the lease stands beside the first.
        name: the job's, for messages.
    """

    def __init__(self, metadata: JobMetadata, start_offsets: Mapping[PartitionId, int], name: str) -> None:
        self._metadata = metadata
        self._start_offsets = dict(start_offsets)
        self._partition_id = min(self._start_offsets)
        self._name = name
        self._own = Holder.this()
        self._beats = 0
        self.held_until = 0.0
        self._released = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self) -> None:
        """Returns as its holder. Raises UserError if another copy of the job is running."""
        text = retry_until_answered(self._read, self._metadata.poll)
        if text and not Holder(*text.split()[:3]).has_ended():
            self._watch(text)
        retry_until_answered(self._renew, self._metadata.poll)
        time.sleep(_SETTLE_S)
        self._check(retry_until_answered(self._read, self._metadata.poll))
        self.held_until = time.monotonic() + _VALID_FOR_S
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._keeper.start()

    def is_held(self) -> bool:
        """Whether the lease was renewed recently enough to write."""
        return time.monotonic() < self.held_until

    def wait_until_held(self) -> None:
        """Returns at once, unless the lease could not be renewed lately."""
        while time.monotonic() > self.held_until:
            lifecycle.block_if_stopping()
            liveness.heartbeat()
            time.sleep(0.05)

    def release(self) -> None:
        """Lets another copy start at once, if Kafka answers within a second; if not, that copy has to watch for a while.

        The keeper's thread does it: at interpreter shutdown, when this may be called, Python 3.12 starts no threads.
        """
        self._released.set()
        if self._keeper is not None:
            self._keeper.join(_RENEW_INTERVAL_S)

    def _watch(self, text: str) -> None:
        log.info(
            "the lease of job %r is held by %s; watching whether it lives",
            self._name,
            _described(text),
            extra=logs.event("lease-taken"),
        )
        deadline = time.monotonic() + _OBSERVE_S
        while time.monotonic() < deadline:
            time.sleep(_RENEW_INTERVAL_S / 2)
            now = retry_until_answered(self._read, self._metadata.poll)
            if now and now != text:
                raise UserError(
                    f"another copy of job {self._name!r} is running ({_described(now)}), and two would write everything "
                    "twice: stop it first, or set VISITS_GROUP and output topics of your own"
                )

    @inside_engine
    def _keep(self) -> None:
        refreshed = time.monotonic()
        while not self._released.wait(_RENEW_INTERVAL_S):
            asked = time.monotonic()
            try:
                self._check(self._read())
                self._renew()
                if asked > refreshed + _REFRESH_INTERVAL_S:
                    rest = {
                        partition_id: MetadataEntry(offset)
                        for partition_id, offset in self._start_offsets.items()
                        if partition_id != self._partition_id
                    }
                    self._metadata.write(rest)
                    refreshed = asked
            except KafkaException:
                continue
            self.held_until = asked + _VALID_FOR_S
        self._forget()

    def _forget(self) -> None:
        try:
            self._metadata.write({self._partition_id: MetadataEntry(self._start_offsets[self._partition_id])})
        except KafkaException:
            pass

    def _check(self, text: str) -> None:
        if text and not self._released.is_set() and text.split()[:3] != [*self._own]:
            raise UserError(
                f"another copy of job {self._name!r} has taken over ({_described(text)}), so this one stops; run only one"
            )

    def _read(self) -> str:
        note = self._metadata.read([self._partition_id]).get(self._partition_id)
        return note.text if note is not None else ""

    def _renew(self) -> None:
        if not self._released.is_set():
            self._beats += 1
            text = " ".join([*self._own, str(self._beats)])
            self._metadata.write({self._partition_id: MetadataEntry(self._start_offsets[self._partition_id], text)})


def _described(text: str) -> str:
    host, _, pid, *_ = [*text.split(), "", "", ""]
    return f"process {pid} on {host}" if host else "nobody"
