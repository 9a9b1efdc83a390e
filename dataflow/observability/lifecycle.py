"""Shutdown of this process: whether it was requested, and the hooks that run before the process ends."""

import threading
from collections.abc import Callable

stop_requested = threading.Event()

# called in order before the process ends; each may raise a UserError
exit_hooks: list[Callable[[], None]] = []


def block_if_stopping() -> None:
    """Blocks forever once a stop has been requested. Called before any new work is started."""
    if stop_requested.is_set():
        threading.Event().wait()
