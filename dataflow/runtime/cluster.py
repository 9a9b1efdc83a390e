"""This process and its cluster, by the command line or the engine's own variables."""

import argparse
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dataflow.observability import lifecycle, liveness, logs
from dataflow.runtime.options import directory, seconds, whole_number
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_ADDRESS = re.compile(r"([^\s:;,]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
_PATIENCE_S = 5.0  # processes that are started together need some seconds to find each other


class ProcessInfo(NamedTuple):
    """This process in its cluster.

    Args:
        process_id: its number, from 0.
        store: directory of its recovery store; None: it has none.
        addresses: of all processes, "host:port"; empty: there is no other one.
        workers: of each process.
    """

    process_id: int
    store: Path | None
    addresses: tuple[str, ...] = ()
    workers: int = 1

    @property
    def processes(self) -> int:
        """The number of processes."""
        return max(1, len(self.addresses))

    @classmethod
    def from_environment(cls) -> "ProcessInfo":
        """Reads the engine's command line, of which it needs these options only, and the environment. Raises UserError."""
        given = os.environ.get
        parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        parser.add_argument("-i", "--process-id", type=whole_number, default=process_id() or 0)
        parser.add_argument("-r", "--recovery-directory", type=directory, default=given("BYTEWAX_RECOVERY_DIRECTORY"))
        parser.add_argument("-a", "--addresses", default=addresses())
        workers = given("BYTEWAX_WORKERS_PER_PROCESS", "1")
        parser.add_argument("-w", "--workers-per-process", type=whole_number, default=workers)
        # read only to be checked: the engine takes a negative interval for none
        parser.add_argument("-s", "--snapshot-interval", type=seconds, default=given("BYTEWAX_SNAPSHOT_INTERVAL"))
        parser.add_argument("-b", "--backup-interval", type=seconds, default=given("BYTEWAX_RECOVERY_BACKUP_INTERVAL"))
        try:
            options = parser.parse_known_args()[0]
        except argparse.ArgumentError as error:
            raise UserError(str(error)) from None
        return cls(
            options.process_id,
            options.recovery_directory,
            parse_addresses(options.addresses),
            options.workers_per_process,
        )

    def check(self) -> None:
        """Raises UserError if the engine could not start like this; it would panic, or end at once without a word."""
        if self.workers < 1:
            raise UserError(f"a process has at least one worker, not {self.workers} (-w)")
        if not 0 <= self.process_id < self.processes:
            raise UserError(
                f"there is no process {self.process_id} in a cluster of {self.processes}: they are numbered from 0 (-i)"
            )

    def say_if_waiting(self) -> None:
        """Logs a line if the other processes of the cluster have not come within some seconds. Returns at once."""
        if self.processes > 1:
            threading.Thread(target=self._say_if_waiting, name="cluster", daemon=True).start()

    def _say_if_waiting(self) -> None:
        time.sleep(_PATIENCE_S)
        if liveness.since_poll() is None and not lifecycle.is_ending():
            others = [address for number, address in enumerate(self.addresses) if number != self.process_id]
            log.info(
                "waiting for the other processes of the cluster: %s", ", ".join(others), extra=logs.event("cluster")
            )


def parse_addresses(text: str | None) -> tuple[str, ...]:
    """The addresses of a cluster's processes, separated by semicolons. Raises UserError if one is not "host:port"."""
    found = tuple(text.split(";")) if text else ()
    for address in found:
        if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65_535:
            raise UserError(f"{address!r} is not host:port; a cluster's addresses are separated by ';' (-a)")
    if len({*found}) < len(found):
        raise UserError(f"two processes of the cluster have one address: {text} (-a)")
    return found


def process_id() -> int | None:
    """The number of this process by the environment; None if that says nothing. Raises UserError.

    Like the engine, it understands Kubernetes: the number at the end of the pod's name.
    """
    pod, stateful_set = os.environ.get("BYTEWAX_POD_NAME"), os.environ.get("BYTEWAX_STATEFULSET_NAME")
    text = os.environ.get("BYTEWAX_PROCESS_ID")
    if text is None and pod and stateful_set:
        text = pod.removeprefix(stateful_set + "-")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise UserError(
            f"the process id has to be a whole number, not {text!r} (BYTEWAX_PROCESS_ID or BYTEWAX_POD_NAME)"
        )
    return int(text)


def addresses() -> str | None:
    """The addresses of all processes by the environment, separated by semicolons. Raises UserError."""
    text = os.environ.get("BYTEWAX_ADDRESSES")
    file = os.environ.get("BYTEWAX_HOSTFILE_PATH")
    if text is None and file is not None:
        try:
            return ";".join(Path(file).read_text().split())
        except OSError as error:
            raise UserError(f"the file of addresses, BYTEWAX_HOSTFILE_PATH, cannot be read: {error}") from None
    return text
