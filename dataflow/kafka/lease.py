"""A lease, so that a second copy of the job does not write what the first one writes.

The job's first process holds the lease, an entry of the job's metadata (see `dataflow.kafka.job_metadata`), and renews
it every second. A new instance exits if the lease is live; otherwise it takes the lease over, and a former holder that
still runs sees that and stops. A holder that cannot renew the lease writes nothing until it can.

As with every lease, a process that is frozen for longer than the lease is valid can have rows in flight when it wakes
up. Kafka could only refuse those in a transaction.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException

from dataflow.kafka.client import while_waiting
from dataflow.kafka.job_metadata import JobMetadata, MetadataEntry
from dataflow.kafka.offsets import PartitionId, retry_until_answered
from dataflow.observability import logs
from dataflow.streaming.errors import UserError, inside_engine

log = logging.getLogger("visits")

_RENEW_INTERVAL_S = 1.0
_VALID_FOR_S = 4.0  # how long a renewal allows its holder to write
_OBSERVE_S = 7.0  # a lease that is not renewed for so long has no holder: more than _VALID_FOR_S and a renewal
_SETTLE_S = 0.3  # in which two that start at the same moment see each other
_REFRESH_INTERVAL_S = 3_600.0  # Kafka forgets metadata that is not written for a week
_POLL_INTERVAL_S = 0.05  # while the lease is not held


class Holder(NamedTuple):
    """A process, by its host, its PID namespace and its PID."""

    host: str
    namespace: str
    pid: str

    @classmethod
    def this(cls) -> "Holder":
        """This process."""
        try:
            namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
        except OSError:
            namespace = "-"  # not Linux
        return cls(socket.gethostname(), namespace, str(os.getpid()))

    def has_ended(self) -> bool:
        """Whether the process has certainly ended, or is this one. Of another host's process that is not known."""
        this = Holder.this()
        if (self.host, self.namespace) != (this.host, this.namespace):
            return False
        if self.pid == this.pid:
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
        metadata: of the job.
        start_offsets: all entries of the metadata, which the lease keeps from being forgotten. The lease is the text of
            the first one.
        name: of the job, for messages.
    """

    def __init__(self, metadata: JobMetadata, start_offsets: Mapping[PartitionId, int], name: str) -> None:
        self._metadata = metadata
        self._start_offsets = dict(start_offsets)
        self._partition_id = min(self._start_offsets)
        self._name = name
        self._own = Holder.this()
        self._renewals = 0
        self.held_until = 0.0  # monotonic
        self._released = threading.Event()
        self._keeper: threading.Thread | None = None

    def take(self) -> None:
        """Returns as the holder. Raises UserError if another copy of the job is running."""
        text = retry_until_answered(self._read, self._metadata.poll)
        if text and not Holder(*text.split()[:3]).has_ended():
            self._observe(text)
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
            while_waiting()
            time.sleep(_POLL_INTERVAL_S)

    def release(self) -> None:
        """Lets another copy start at once if Kafka answers within a second; if not, that copy observes for a while.

        The keeper's thread does it: at interpreter shutdown, when this may be called, Python 3.12 starts no threads.
        """
        self._released.set()
        if self._keeper is not None:
            self._keeper.join(_RENEW_INTERVAL_S)

    def _observe(self, text: str) -> None:
        log.info(
            "the lease of job %r is held by %s; watching whether it is renewed",
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
                    others = {
                        partition_id: MetadataEntry(offset)
                        for partition_id, offset in self._start_offsets.items()
                        if partition_id != self._partition_id
                    }
                    self._metadata.write(others)
                    refreshed = asked
            except KafkaException:
                continue
            self.held_until = asked + _VALID_FOR_S
        self._clear()

    def _clear(self) -> None:
        try:
            self._metadata.write({self._partition_id: MetadataEntry(self._start_offsets[self._partition_id])})
        except KafkaException:
            pass  # the next instance observes the lease until it has run out

    def _check(self, text: str) -> None:
        if text and not self._released.is_set() and text.split()[:3] != [*self._own]:
            raise UserError(
                f"another copy of job {self._name!r} has taken over ({_described(text)}), so this one stops; run only one"
            )

    def _read(self) -> str:
        entry = self._metadata.read([self._partition_id]).get(self._partition_id)
        return entry.text if entry is not None else ""

    def _renew(self) -> None:
        if not self._released.is_set():
            self._renewals += 1
            text = " ".join([*self._own, str(self._renewals)])
            self._metadata.write({self._partition_id: MetadataEntry(self._start_offsets[self._partition_id], text)})


def _described(text: str) -> str:
    host, _, pid, *_ = [*text.split(), "", "", ""]
    return f"process {pid} on {host}" if host else "nobody"
