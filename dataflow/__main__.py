"""``python -m dataflow``: the job for production.

The same as ``python -m bytewax.run dataflow:flow``, with what an operator would have to do by hand: makes the recovery
store, finds a free port for the engine's API, and stops cleanly on SIGTERM and SIGINT.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path

from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from dataflow.observability import lifecycle, logs
from dataflow.runtime.cluster import ProcessInfo, addresses, process_id, processes
from dataflow.runtime.job import make_flow
from dataflow.runtime.recovery_store import open_store
from dataflow.streaming.errors import UserError, exit_with_error

log = logging.getLogger("visits")

_COMMANDS = "explain", "redrive"
_API_PORT = "BYTEWAX_DATAFLOW_API_PORT"
_FAREWELL = 0.5  # seconds; processes of a cluster that are stopped together do not take each other for lost


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dataflow",
        description="Turns click streams into sessions. Settings come from the environment (VISITS_*) and .env; see README.",
        epilog="Beside the job: `python -m dataflow explain` says why something came out as it did, `python -m dataflow "
        "redrive` puts dead letters and late events back; each has its own --help.",
    )

    def option(short: str, long: str, variable: str, default: str | int | None, help: str, **kind: type) -> None:
        value = os.environ.get(variable, default)
        parser.add_argument(short, long, default=value, help=f"{help} [{variable}; default {default}]", **kind)

    option(
        "-w", "--workers-per-process", "BYTEWAX_WORKERS_PER_PROCESS", "1", "worker threads of this process", type=int
    )
    option("-i", "--process-id", "BYTEWAX_PROCESS_ID", process_id(), "number of this process in a cluster", type=int)
    option("-a", "--addresses", "BYTEWAX_ADDRESSES", addresses(), "host:port of all processes in it, ;-separated")
    option("-r", "--recovery-directory", "BYTEWAX_RECOVERY_DIRECTORY", "recovery", "the recovery store", type=Path)
    option("-s", "--snapshot-interval", "BYTEWAX_SNAPSHOT_INTERVAL", "10", "seconds between snapshots", type=float)
    option(
        "-b", "--backup-interval", "BYTEWAX_RECOVERY_BACKUP_INTERVAL", "0", "keep snapshots so many seconds", type=float
    )
    arguments = parser.parse_args()
    if (arguments.process_id is None) != (arguments.addresses is None):
        parser.error("a cluster needs both --process-id and --addresses")
    return arguments


def _prepare_api() -> None:
    """Finds the engine's API, which serves the metrics, a port and a place for its file.

    The engine dies if its port is taken, as it is by a second process on one machine, and it writes `dataflow.json`
    into the working directory, which need not be writable.
    """
    os.environ.setdefault("BYTEWAX_DATAFLOW_API_CACHE_PATH", tempfile.gettempdir())
    if _API_PORT in os.environ:
        return
    for port in (3030, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            os.environ[_API_PORT] = str(probe.getsockname()[1])
            return


def _stop(signum: int, frame: object) -> None:
    lifecycle.stop_requested.set()
    try:
        for act in lifecycle.exit_hooks:
            act()
    except UserError as error:
        exit_with_error(str(error))
    time.sleep(_FAREWELL)
    log.info("stopped", extra=logs.event("stopped"))
    os._exit(0)


def main() -> int:
    """Runs the job until it is told to stop, or a command beside it; returns the exit code."""
    if sys.argv[1:] and sys.argv[1] in _COMMANDS:
        return import_module(f"dataflow.{sys.argv[1]}.command").main(sys.argv[2:])
    logs.start()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        arguments = _arguments()
        number = arguments.process_id or 0
        # first: it finds most mistakes, and leaves nothing behind
        job = make_flow(ProcessInfo(number, store=None, processes=processes(arguments.addresses)))
        open_store(arguments.recovery_directory, number)
    except UserError as error:
        logs.fail(error)
    _prepare_api()
    cli_main(
        job,
        workers_per_process=arguments.workers_per_process,
        process_id=arguments.process_id,
        addresses=arguments.addresses.split(";") if arguments.addresses else None,
        epoch_interval=timedelta(seconds=arguments.snapshot_interval),
        recovery_config=RecoveryConfig(arguments.recovery_directory, timedelta(seconds=arguments.backup_interval)),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
