"""The job's own command: ``python -m dataflow`` without a subcommand.

Does what ``python -m bytewax.run dataflow:flow`` does. It also creates the recovery store, finds a free port for the
engine's API.
"""

import argparse
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from dataflow.observability import logs
from dataflow.runtime.cluster import ProcessInfo, addresses, parse_addresses, process_id
from dataflow.runtime.job import make_flow
from dataflow.runtime.options import directory, seconds, whole_number
from dataflow.runtime.recovery_store import open_store
from dataflow.runtime.settings import log_options
from dataflow.runtime.shutdown import Shutdown
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_API_PORT = "BYTEWAX_DATAFLOW_API_PORT"
_DEFAULT_API_PORT = 3030
EXIT_WRONG_COMMAND_LINE = 2


def main(arguments: Sequence[str], epilog: str = "") -> int:
    """Runs the job until its input ends or a signal stops it.

    Args:
        arguments: the command line, without the program's name.
        epilog: text at the end of ``--help``, as it is.

    Returns:
        The exit code, see `Shutdown.finish`. A `UserError` ends the process with one line and exit code 1, a wrong command
        line with 2.
    """
    logs.start(*log_options())
    shutdown = Shutdown(has_store=True)
    shutdown.install()
    try:
        options = _options(arguments, epilog)
        number = options.process_id or 0
        # build the flow before the store: it finds most mistakes, and leaves nothing behind
        cluster = parse_addresses(options.addresses)
        process_info = ProcessInfo(number, options.recovery_directory, cluster, options.workers_per_process)
        flow = make_flow(process_info, shutdown)
        shutdown.watch(open_store(options.recovery_directory, number))
    except UserError as error:
        logs.fail(error)
    _prepare_api()
    cli_main(
        flow,
        workers_per_process=options.workers_per_process,
        process_id=options.process_id,
        addresses=list(cluster) or None,
        epoch_interval=timedelta(seconds=options.snapshot_interval),
        recovery_config=RecoveryConfig(options.recovery_directory, timedelta(seconds=options.backup_interval)),
    )
    code = shutdown.finish()
    log.info("stopped", extra=logs.event("stopped"))
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, in the log's format."""

    def error(self, message: str) -> NoReturn:
        log.error("%s; --help lists the options", message, extra=logs.event("failed"))
        sys.exit(EXIT_WRONG_COMMAND_LINE)


def _options(arguments: Sequence[str], epilog: str) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m dataflow",
        usage="%(prog)s [options]\n       %(prog)s COMMAND [options]" if epilog else None,
        description="Turns click streams into sessions.\n"
        "Settings come from the environment (VISITS_*) and from .env; docs/settings.md lists them.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def option(
        flags: tuple[str, str], variable: str, default: str | int | None, text: str, kind: Callable[[str], Any]
    ) -> None:
        value = os.environ.get(variable, default)
        parser.add_argument(
            *flags, type=_from(variable, kind), default=value, help=f"{text} [{variable}; default {default}]"
        )

    option(
        ("-w", "--workers-per-process"),
        "BYTEWAX_WORKERS_PER_PROCESS",
        "1",
        "number of workers in this process",
        whole_number,
    )
    option(
        ("-i", "--process-id"),
        "BYTEWAX_PROCESS_ID",
        process_id(),
        "number of this process in its cluster",
        whole_number,
    )
    option(("-a", "--addresses"), "BYTEWAX_ADDRESSES", addresses(), "host:port of every process, separated by ';'", str)
    option(
        ("-r", "--recovery-directory"),
        "BYTEWAX_RECOVERY_DIRECTORY",
        "recovery",
        "folder of the recovery store",
        directory,
    )
    option(("-s", "--snapshot-interval"), "BYTEWAX_SNAPSHOT_INTERVAL", "10", "time between snapshots, seconds", seconds)
    option(
        ("-b", "--backup-interval"),
        "BYTEWAX_RECOVERY_BACKUP_INTERVAL",
        "0",
        "how long old snapshots are kept, seconds",
        seconds,
    )
    options = parser.parse_args(arguments)
    if (options.process_id is None) != (options.addresses is None):
        parser.error("a cluster needs both --process-id and --addresses")
    return options


def _from(variable: str, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads an option's value; an error also names the variable, from which a wrong value may have come."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} (or {variable})") from None

    return read


def _prepare_api() -> None:
    """Chooses the port and the folder of the engine's API, which serves the metrics.

    The engine ends with an error if its port is taken, for example by a second process on one machine. It also writes
    `dataflow.json` into the working directory, which may be read-only.
    """
    os.environ.setdefault("BYTEWAX_DATAFLOW_API_CACHE_PATH", tempfile.gettempdir())
    if _API_PORT in os.environ:
        return
    for port in (_DEFAULT_API_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            os.environ[_API_PORT] = str(probe.getsockname()[1])
            return
