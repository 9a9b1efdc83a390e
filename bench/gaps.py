"""The job, with a watch on how long its worker stands still: ``python -m bench.gaps FILE ARGUMENTS OF THE JOB ...``.

A worker asks its input for more many times a second, unless it is busy. With no traffic nothing but snapshots makes it
busy, so the gaps between two questions are how long each snapshot takes, the engine's own writing included.
"""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dataflow import __main__ as job
from dataflow.kafka import source
from dataflow.streaming.batches import PolledBatch

SHORTEST = 0.03  # seconds; the input rests for 0.02


def main() -> int:
    """Runs the job; gaps are appended to FILE, a line each: when one ended, and how long it was, in seconds."""
    file = Path(sys.argv.pop(1)).open("a", buffering=1)  # to the end of the process  # noqa: SIM115
    asked: dict[int, float] = {}
    next_batch = source._Split.next_batch

    def watched(split: source._Split) -> Sequence[PolledBatch]:
        thread, now = threading.get_ident(), time.monotonic()
        if now > asked.get(thread, now) + SHORTEST:
            file.write(f"{now:.3f} {now - asked[thread]:.3f}\n")
        try:
            return next_batch(split)
        finally:
            asked[thread] = time.monotonic()

    setattr(source._Split, "next_batch", watched)  # noqa: B010
    return job.main()


def longest(file: Path, begin: float, interval: float) -> list[float]:
    """The longest gap in each interval from a time on, the rest being what a busy machine does."""
    found: dict[int, float] = {}
    for line in file.read_text().splitlines():
        ended, gap = map(float, line.split())
        if ended > begin:
            number = int((ended - begin) / interval)
            found[number] = max(found.get(number, 0.0), gap)
    return [*found.values()]


if __name__ == "__main__":
    sys.exit(main())
