"""``python -m dataflow``: the job for production.

The same as ``python -m bytewax.run dataflow:flow``, with what an operator would have to do by hand: makes the recovery
store, finds a free port for the engine's API, and stops cleanly on SIGTERM and SIGINT.
"""

import argparse
import fcntl
import logging
import os
import signal
import socket
import sqlite3
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from dataflow import flow, shutdown
from dataflow.errors import UserError

log = logging.getLogger("visits")

_API_PORT = "BYTEWAX_DATAFLOW_API_PORT"
_FAREWELL = 0.5  # seconds; processes of a cluster that are stopped together do not take each other for lost
_STORE_PARTITIONS = 4  # files of the store; more workers than this share them


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dataflow",
        description="Turns click streams into sessions. Settings come from the environment (VISITS_*) and .env; see README.",
    )

    def option(short: str, long: str, variable: str, default: str | None, help: str, **kind: type) -> None:
        value = os.environ.get(variable, default)
        parser.add_argument(short, long, default=value, help=f"{help} [{variable}; default {default}]", **kind)

    option(
        "-w", "--workers-per-process", "BYTEWAX_WORKERS_PER_PROCESS", "1", "worker threads of this process", type=int
    )
    option("-i", "--process-id", "BYTEWAX_PROCESS_ID", None, "number of this process in a cluster, from 0", type=int)
    option("-a", "--addresses", "BYTEWAX_ADDRESSES", None, "host:port of every process of the cluster, ;-separated")
    option("-r", "--recovery-directory", "BYTEWAX_RECOVERY_DIRECTORY", "recovery", "the recovery store", type=Path)
    option("-s", "--snapshot-interval", "BYTEWAX_SNAPSHOT_INTERVAL", "10", "seconds between snapshots", type=float)
    option(
        "-b", "--backup-interval", "BYTEWAX_RECOVERY_BACKUP_INTERVAL", "0", "keep snapshots so many seconds", type=float
    )
    arguments = parser.parse_args()
    if (arguments.process_id is None) != (arguments.addresses is None):
        parser.error("a cluster needs both --process-id and --addresses")
    return arguments


def open_store(directory: Path) -> None:
    """Makes the recovery store if it is not there; processes that share the directory do not get in each other's way."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if parts := list(directory.glob("part-*.sqlite3")):
            for part in parts:
                with closing(sqlite3.connect(part)) as database:
                    database.execute("PRAGMA schema_version")  # fails if it is none
            log.info("recovery store %s: resuming", directory)
        else:
            init_db_dir(directory, _STORE_PARTITIONS)
            log.info("recovery store %s: new", directory)


def _choose_api_port() -> None:
    """The engine dies if its port is taken, as it is by a second process on one machine."""
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
    shutdown.requested.set()
    try:
        for act in shutdown.last_acts:
            act()
    except UserError as error:
        print(f"visits: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    time.sleep(_FAREWELL)
    log.info("stopped")
    os._exit(0)


def main() -> int:
    """Runs the job until it is told to stop; returns the exit code."""
    arguments = _arguments()
    job = flow()
    try:
        open_store(arguments.recovery_directory)
    except (OSError, sqlite3.DatabaseError) as error:
        sys.exit(f"visits: the recovery store {arguments.recovery_directory} cannot be used: {error}")
    _choose_api_port()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    cli_main(
        job,
        workers_per_process=arguments.workers_per_process,
        # as a cluster even if it is one of one: a lone worker cannot be interrupted
        process_id=arguments.process_id or 0,
        addresses=arguments.addresses.split(";") if arguments.addresses else [],
        epoch_interval=timedelta(seconds=arguments.snapshot_interval),
        recovery_config=RecoveryConfig(arguments.recovery_directory, timedelta(seconds=arguments.backup_interval)),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
