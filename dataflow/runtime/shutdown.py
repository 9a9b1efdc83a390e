"""What SIGTERM and SIGINT do: the job drains, or it stops at once where it cannot.

Signals are handled in a thread of their own, because the main thread may be inside the engine for minutes, for example
while it waits for the other processes of its cluster.
"""

import logging
import os
import signal
import socket
import threading
import time
from types import FrameType

from dataflow.observability import lifecycle, liveness, logs, summary
from dataflow.runtime.errors import exit_with_error
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_SIGNALS = signal.SIGTERM, signal.SIGINT
_EXIT_DELAY_S = 0.5  # processes of a cluster that are stopped together must not report each other as lost


class Shutdown:
    """Ends this process on a signal.

    The first signal drains the job if it has a recovery store and has begun to read. A second one, or the end of the
    time that a drain may take, stops it: it waits until Kafka has acknowledged every row, and exits with code 0.

    Args:
        has_store: whether there is a recovery store, for the last snapshot of a drain.
        drain_timeout_s: how long a drain may take.
    """

    def __init__(self, has_store: bool, drain_timeout_s: float = 20.0) -> None:
        self._has_store = has_store
        self.drain_timeout_s = drain_timeout_s

    def install(self) -> None:
        """Handles the signals from now on. Call it in the main thread."""
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, _ignore)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._handle, args=(receiver, sender), name="signals", daemon=True).start()
        threading.Thread(target=self._limit_drain, name="drain timeout", daemon=True).start()

    def _handle(self, receiver: socket.socket, sender: socket.socket) -> None:
        while numbers := receiver.recv(16):  # the wake-up writes the number of each signal, one byte
            for number in numbers:
                if number in _SIGNALS:
                    self._on_signal()
        sender.close()

    def _on_signal(self) -> None:
        can_drain = self._has_store and liveness.since_poll() is not None
        if can_drain and not lifecycle.is_ending():
            lifecycle.drain_requested.set()
        else:
            self._stop()

    def _limit_drain(self) -> None:
        lifecycle.drain_requested.wait()
        log.info("stopping: finishing what has been read", extra=logs.event("draining"))
        time.sleep(self.drain_timeout_s)
        log.warning(
            "stopping without a last snapshot: it took longer than %g s (VISITS_DRAIN_TIMEOUT); the next start replays "
            "from the snapshot before",
            self.drain_timeout_s,
            extra=logs.event("drain-timeout"),
        )
        self._stop()

    def _stop(self) -> None:
        lifecycle.stop_requested.set()
        try:
            for hook in lifecycle.exit_hooks:
                hook()
        except UserError as error:
            exit_with_error(str(error))
        time.sleep(_EXIT_DELAY_S)
        summary.log_totals()
        log.info("stopped", extra=logs.event("stopped"))
        os._exit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Keeps Python from ending the process; the signal has been written to the wake-up socket."""
