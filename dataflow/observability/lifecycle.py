"""Telling the process to stop.

It ends as soon as Kafka has every row that was handed over, without taking the dataflow apart: what a resume needs is
in the recovery store and in the topics at any moment. (The engine's own way of stopping leaves the other processes of
a cluster waiting for ever.)
"""

import threading
from collections.abc import Callable

stop_requested = threading.Event()

# run, one after the other, before the process ends; each may raise a UserError
exit_hooks: list[Callable[[], None]] = []


def block_if_stopping() -> None:
    """Never returns once the process is to stop: called where something new would be begun."""
    if stop_requested.is_set():
        threading.Event().wait()
