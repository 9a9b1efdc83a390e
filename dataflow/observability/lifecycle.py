"""Whether this process has been told to stop, and what it does before it ends."""

import threading
from collections.abc import Callable

stop_requested = threading.Event()

# called one after the other before the process ends; each may raise a UserError
exit_hooks: list[Callable[[], None]] = []


def block_if_stopping() -> None:
    """Never returns once the process has been told to stop. Called before anything new is begun."""
    if stop_requested.is_set():
        threading.Event().wait()
