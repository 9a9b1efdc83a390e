"""Shutdown of this process: whether it was requested, and the hooks that run before the process ends.

A drain is the clean way: sources end, what has been read is finished, and a last snapshot is taken. A stop ends the process
as soon as Kafka has acknowledged what was written; the next start replays from the last snapshot.
"""

import threading
from collections.abc import Callable

drain_requested = threading.Event()
stop_requested = threading.Event()

# called in order before a stopped process ends; each may raise a UserError
exit_hooks: list[Callable[[], None]] = []


def is_ending() -> bool:
    """Whether a drain or a stop has been requested."""
    return drain_requested.is_set() or stop_requested.is_set()


def block_if_stopping() -> None:
    """Blocks forever once a stop has been requested. Called before any new work is started."""
    if stop_requested.is_set():
        threading.Event().wait()
