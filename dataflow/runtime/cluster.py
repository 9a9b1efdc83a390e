"""Where this process stands in its cluster: what the command line or the engine's own variables say."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

from dataflow.streaming.errors import UserError


class ProcessInfo(NamedTuple):
    """The number of a process in its cluster, its recovery store if it has one, and how many processes there are."""

    process_id: int
    store: Path | None
    processes: int = 1

    @classmethod
    def as_told(cls) -> "ProcessInfo":
        """By the engine's command line, of which only this is looked at, or the environment. Raises UserError."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("-i", "--process-id", type=int, default=process_id() or 0)
        store = os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
        parser.add_argument("-r", "--recovery-directory", type=Path, default=Path(store) if store else None)
        parser.add_argument("-a", "--addresses", default=addresses())
        told = parser.parse_known_args()[0]
        return cls(told.process_id, told.recovery_directory, processes(told.addresses))


def process_id() -> int | None:
    """The number of this process by the environment; None if it is not one of several.

    Like the engine, it understands Kubernetes: the number at the end of the pod's name. Raises UserError.
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
    """How many processes a cluster has, by their addresses, ;-separated."""
    return len(addresses.split(";")) if addresses else 1


def addresses() -> str | None:
    """The addresses of all processes by the environment, ;-separated. Raises UserError."""
    text = os.environ.get("BYTEWAX_ADDRESSES")
    file = os.environ.get("BYTEWAX_HOSTFILE_PATH")
    if text is None and file is not None:
        try:
            return ";".join(Path(file).read_text().split())
        except OSError as error:
            raise UserError(f"the file of addresses, BYTEWAX_HOSTFILE_PATH, cannot be read: {error}") from None
    return text
