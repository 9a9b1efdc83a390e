"""This process and its cluster, by the command line or the engine's own variables."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

from dataflow.streaming.errors import UserError


class ProcessInfo(NamedTuple):
    """The number of a process in its cluster, its recovery store if it has one, and the number of processes."""

    process_id: int
    store: Path | None
    processes: int = 1

    @classmethod
    def from_environment(cls) -> "ProcessInfo":
        """Reads the engine's command line, of which it needs these options only, and the environment. Raises UserError."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-i", "--process-id", type=int, default=process_id() or 0)
        store = os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
        parser.add_argument("-r", "--recovery-directory", type=Path, default=Path(store) if store else None)
        parser.add_argument("-a", "--addresses", default=addresses())
        options = parser.parse_known_args()[0]
        return cls(options.process_id, options.recovery_directory, processes(options.addresses))


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


def processes(addresses: str | None) -> int:
    """The number of processes in a cluster, by their addresses, separated by semicolons."""
    return len(addresses.split(";")) if addresses else 1


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
