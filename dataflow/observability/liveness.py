"""Liveness of this process' workers: the longest running callback, and the time since the last poll.

A callback that waits for Kafka sends heartbeats, because a restart would not help it. Between callbacks the engine is
in control. It lets no worker poll while another worker, maybe in another process, waits in a snapshot. So a missing
poll means a fault only after a long time.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_inside: dict[int, float] = {}  # by thread that is in a callback: when it entered or sent its last heartbeat, monotonic
_polled: float | None = None  # when any worker last polled, monotonic; None: not yet, or no source is left
_has_polled = False  # ever


def monitored(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a callback of the engine that should return soon."""

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
    """Reports that this callback is waiting. Call it in loops that wait for something outside this process."""
    thread = threading.get_ident()
    if thread in _inside:
        _inside[thread] = time.monotonic()


@contextmanager
def acquire_with_heartbeat(lock: threading.Lock) -> Iterator[None]:
    """Acquires a lock whose holder may be waiting, and sends heartbeats meanwhile."""
    while not lock.acquire(timeout=1):
        heartbeat()
    try:
        yield
    finally:
        lock.release()


def record_poll() -> None:
    """Records that a worker has polled a source."""
    global _polled, _has_polled
    _polled = time.monotonic()
    _has_polled = True


def clear_poll() -> None:
    """Resets the last poll time: a worker has no source left. Workers that have sources set it again."""
    global _polled
    _polled = None


def has_polled() -> bool:
    """Whether any worker has ever polled a source."""
    return _has_polled


def longest_call() -> float:
    """Seconds since the start, or the last heartbeat, of the longest running callback."""
    since = list(_inside.values())
    return time.monotonic() - min(since) if since else 0.0


def since_poll() -> float | None:
    """Seconds since any worker last polled; None: no poll yet, or no source is left."""
    polled = _polled
    return time.monotonic() - polled if polled is not None else None
