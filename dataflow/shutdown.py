"""Telling the process to stop.

It ends as soon as Kafka has every row that was handed over, without taking the dataflow apart: what a resume needs is
in the recovery store and in the topics at any moment. (The engine's own way of stopping leaves the other processes of
a cluster waiting for ever.)
"""

import threading
from collections.abc import Callable

requested = threading.Event()

# run, one after the other, before the process ends; each may raise a UserError
last_acts: list[Callable[[], None]] = []


def stand_still_if_requested() -> None:
    """Never returns once the process is to stop: called where something new would be begun."""
    if requested.is_set():
        threading.Event().wait()
