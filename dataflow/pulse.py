"""Whether the workers of this process are alive: each says so whenever it polls its sources, or waits and may.

A worker that waits for Kafka stands still for good reason, and is not helped by being started again.
"""

import threading
import time

_last: dict[int, float] = {}  # by thread, monotonic


def polls() -> None:
    """This thread is a worker, and has come round to its sources."""
    _last[threading.get_ident()] = time.monotonic()


def waits() -> None:
    """If this thread is a worker, it waits for something outside of the process: called in the loops that do."""
    if threading.get_ident() in _last:
        polls()


def ends() -> None:
    """This worker has nothing more to poll."""
    _last.pop(threading.get_ident(), None)


def silence() -> float | None:
    """Seconds since the quietest worker was last heard of; None if none has polled yet, or all have ended."""
    heard = list(_last.values())
    return time.monotonic() - min(heard) if heard else None
