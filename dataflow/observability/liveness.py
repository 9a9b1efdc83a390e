"""Whether the workers of this process make progress, for the liveness probe.

What counts is how long a worker has been inside one call of ours. A loop in there that waits for Kafka says so, since to
be started again does not help it. Between calls a worker is the engine's, which lets none poll while another one, maybe
in another process, waits in a snapshot: that no source has been polled means something only after a long time.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_inside: dict[int, float] = {}  # threads in a call, and when they came in or last said that they wait; monotonic
_polled: float | None = None  # when any worker has last polled; None: none yet, or none any more


def monitored(function: Callable[P, R]) -> Callable[P, R]:
    """For what the engine calls and what should return soon."""

    @functools.wraps(function)
    def watched(*args: P.args, **kwargs: P.kwargs) -> R:
        thread = threading.get_ident()
        _inside[thread] = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            del _inside[thread]

    return watched


def heartbeat() -> None:
    """To be called in loops that wait for something outside of the process."""
    thread = threading.get_ident()
    if thread in _inside:
        _inside[thread] = time.monotonic()


@contextmanager
def acquire_with_heartbeat(lock: threading.Lock) -> Iterator[None]:
    """Holds a lock whose holder may be waiting."""
    while not lock.acquire(timeout=1):
        heartbeat()
    try:
        yield
    finally:
        lock.release()


def record_poll() -> None:
    """A worker has come round to its sources."""
    global _polled
    _polled = time.monotonic()


def clear_poll() -> None:
    """A worker has no more sources; if others have, they poll again."""
    global _polled
    _polled = None


def longest_call() -> float:
    """Seconds since the worker that has been in its call the longest was last heard of."""
    since = list(_inside.values())
    return time.monotonic() - min(since) if since else 0.0


def since_poll() -> float | None:
    """Seconds since any worker has polled."""
    polled = _polled
    return time.monotonic() - polled if polled is not None else None
