"""The job as `bench.profile` looks at it: ``python -m bench.profiled RECOVERY SECONDS FILE``, the rest by settings.

The engine runs in the main thread here, so that the profiler sees it and its processor time can be told from that of
Kafka's clients.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from dataflow import flow
from dataflow.runtime.recovery_store import open_store


def main() -> None:
    """Runs to the end and writes the processor seconds of the engine's thread and of the others into FILE."""
    recovery, seconds, file = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    open_store(recovery, 0)
    job = flow()
    thread, process = time.thread_time(), time.process_time()
    drive(job, RecoveryConfig(recovery), timedelta(seconds=seconds))
    thread, process = time.thread_time() - thread, time.process_time() - process
    file.write_text(json.dumps({"engine": thread, "others": process - thread}))


def drive(job: Dataflow, recovery: RecoveryConfig, interval: timedelta) -> None:
    """What counts: everything inside this function."""
    cli_main(job, epoch_interval=interval, recovery_config=recovery)


if __name__ == "__main__":
    main()
