"""The job's clock: wall time that never steps, and that all processes of a cluster share.

A host's wall clock may jump, when somebody sets it or a virtual machine is moved. Elapsed time must not: event time of
idle partitions advances with it. So this clock is the wall time at the start of the process plus the monotonic time
since. The processes of a cluster mix their times, so each process but the first takes over the first one's clock if its
own differs.
"""

import logging
import time

from dataflow.observability import logs
from dataflow.streaming.time import SECOND

log = logging.getLogger("visits")

_STEP_US = 1 * SECOND  # a jump of the wall clock that is reported
_SKEW_US = 2 * SECOND  # a difference between two processes' clocks that is corrected; less is within what is measured


class JobClock:
    """Times in microseconds since the Unix epoch."""

    def __init__(self) -> None:
        self._base = self._host_base = _wall() - _monotonic()
        self._step = 0  # by how much the host's clock has jumped, as far as it was reported

    def now(self) -> int:
        """The time by this clock."""
        return self._base + _monotonic()

    def wall(self) -> int:
        """The later of this clock and the host's, for the question whether a row is of the future."""
        return max(self.now(), _wall())

    def adjust_to(self, leader: int) -> None:
        """Takes over the clock of the first process if ours differs by more than 2 s. Call it before any row is read.

        Args:
            leader: the time by the first process's clock, at most about a second ago.
        """
        difference = leader - self.now()
        if abs(difference) > _SKEW_US:
            self._base += difference
            log.warning(
                "the clock of this host is %.1f s %s that of the job's first process, whose time is used; correct it",
                abs(difference) / SECOND,
                "behind" if difference > 0 else "ahead of",
                extra=logs.event("clock-skew"),
            )

    def report_step(self) -> None:
        """Logs it once if the host's wall clock has jumped. Called by one thread, about once a second."""
        step = _wall() - _monotonic() - self._host_base
        if abs(step - self._step) > _STEP_US:
            log.warning(
                "the host's clock has jumped by %+.1f s; event time does not follow it",
                (step - self._step) / SECOND,
                extra=logs.event("clock-step"),
            )
            self._step = step


def _wall() -> int:
    return time.time_ns() // 1_000


def _monotonic() -> int:
    return time.monotonic_ns() // 1_000


clock = JobClock()  # of this process
