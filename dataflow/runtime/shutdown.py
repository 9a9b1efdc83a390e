"""How the process ends: what SIGTERM and SIGINT do, what is said, and the exit code.

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
from typing import Protocol

from dataflow.observability import lifecycle, liveness, logs, metrics, summary
from dataflow.observability.formatting import pluralize
from dataflow.runtime.errors import exit_with_error
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

EXIT_NOTHING_READABLE = 3  # at the end of the input: messages were read, and none of them was a row
EXIT_NOT_SAVED = 4  # a stop without the last snapshot

_SIGNALS = signal.SIGTERM, signal.SIGINT
_EXIT_DELAY_S = 0.5  # processes of a cluster that are stopped together must not report each other as lost


class Watch(Protocol):
    """What is needed of `StoreWatch`."""

    def start(self) -> None: ...
    def check(self) -> None: ...


class Shutdown:
    """Ends this process on a signal, or after the engine has returned.

    The first signal drains the job if it has a recovery store and has begun to read. A second one, or the end of the
    time that a drain may take, stops it without a last snapshot: it waits some seconds until Kafka has acknowledged
    every row, says what is not saved, and exits with code 4.

    Args:
        has_store: whether there is a recovery store, for the last snapshot of a drain.
        drain_timeout_s: how long a drain may take.
    """

    def __init__(self, has_store: bool, drain_timeout_s: float = 20.0) -> None:
        self._has_store = has_store
        self.drain_timeout_s = drain_timeout_s
        self._store_watch: Watch | None = None
        self._is_told = False  # a signal has come to this process; another one may have told it to drain before that
        self._end = threading.Lock()  # held by the thread that ends the process; never released

    def install(self) -> None:
        """Handles the signals from now on. Call it in the main thread."""
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, _ignore)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._handle, args=(receiver, sender), name="signals", daemon=True).start()
        threading.Thread(target=self._limit_drain, name="drain timeout", daemon=True).start()

    def watch(self, store: Watch) -> None:
        """Looks from now on, and at the end, whether the recovery store is there."""
        self._store_watch = store
        store.start()

    def finish(self) -> int:
        """Says what the run has done. Called when the engine has returned; signals change nothing from here on.

        Returns:
            The exit code: 0, or 3 if the run came to the end of its input and no message in it was a row. The process
            ends with 1 and one line if the recovery store, and the last snapshot with it, is gone.
        """
        self._end.acquire()
        try:
            if self._store_watch is not None:
                self._store_watch.check()
        except UserError as error:
            exit_with_error(str(error))
        totals = summary.log_totals()
        summary.log_pending(totals.pending)
        at_end = not lifecycle.is_ending()  # a live job ends only when it is told to
        return EXIT_NOTHING_READABLE if at_end and totals.nothing_readable else 0

    def finish_and_exit(self) -> None:
        """The same as an exit hook of the interpreter: sets the exit code of a program that ends by itself."""
        code = self.finish()
        if code:
            self._run_exit_hooks()
            os._exit(code)

    def _handle(self, receiver: socket.socket, sender: socket.socket) -> None:
        while numbers := receiver.recv(16):  # the wake-up writes the number of each signal, one byte
            for number in numbers:
                if number in _SIGNALS:
                    self._on_signal()
        sender.close()

    def _on_signal(self) -> None:
        is_first, self._is_told = not self._is_told, True
        if not self._has_store or not liveness.has_polled():
            self._stop("")
        elif is_first:
            lifecycle.drain_requested.set()
        else:
            self._stop("a second signal came")

    def _limit_drain(self) -> None:
        lifecycle.drain_requested.wait()
        log.info("stopping: finishing what has been read", extra=logs.event("draining"))
        time.sleep(self.drain_timeout_s)
        self._stop(f"it took longer than {self.drain_timeout_s:g} s (VISITS_DRAIN_TIMEOUT)")

    def _stop(self, cut_short: str) -> None:
        """Ends the process.

        Args:
            cut_short: why a drain is not finished; "": there was none.
        """
        if not self._end.acquire(blocking=False):
            return
        lifecycle.stop_requested.set()
        self._run_exit_hooks()
        time.sleep(_EXIT_DELAY_S)
        summary.log_totals()
        os._exit(self._say_how(cut_short))

    def _say_how(self, cut_short: str) -> int:
        """Logs the last line of a stop, and returns the exit code."""
        unacknowledged = int(metrics.value(metrics.unacknowledged))
        if unacknowledged:
            cut_short += f"{', and ' if cut_short else ''}Kafka has not acknowledged {pluralize(unacknowledged, 'row')}"
        if cut_short:
            log.warning(
                "stopped without a last snapshot: %s. What was read since the snapshot before is not saved; the next start "
                "replays it, and no row is lost or written twice. Change neither settings nor version until it has",
                cut_short,
                extra=logs.event("not-saved"),
            )
            return EXIT_NOT_SAVED
        if not liveness.has_polled():
            line = "stopped before anything was read"
        else:
            line = "stopped; without a recovery store, the next start reads again what this one has read, and writes no row twice"
        log.info(line, extra=logs.event("stopped"))
        return 0

    def _run_exit_hooks(self) -> None:
        try:
            for hook in lifecycle.exit_hooks:
                hook()
        except UserError as error:
            exit_with_error(str(error))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Keeps Python from ending the process; the signal has been written to the wake-up socket."""
