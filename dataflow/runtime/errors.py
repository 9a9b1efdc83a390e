"""How the process ends when something fails: one line and exit code 1 for what a user can correct.

Ending at once is safe at any moment. A resume goes on from the recovery store and from what the topics hold.
"""

import logging
import os
import re
import sys
import threading
from types import TracebackType
from typing import NoReturn

from dataflow.runtime.recovery_store import IF_LOST
from dataflow.streaming.errors import UserError, set_handler


def install_error_handler() -> None:
    """From now on a `UserError` inside the engine ends the process with its one line and exit code 1.

    So do failures that the engine reports in its own way: the loss of another process of the cluster, addresses that
    cannot be used, and a recovery store that cannot be written, or whose files do not belong together. Any other
    exception ends the process after its traceback, in a thread of ours too.
    """
    set_handler(_exit)
    sys.excepthook = _on_exception
    threading.excepthook = _on_exception_in_thread


def exit_with_error(line: str) -> NoReturn:
    """Logs why, and ends the process with exit code 1, whatever its threads are doing."""
    logging.getLogger("visits").error("%s", line, extra={"event": "failed"})
    os._exit(1)


def _exit(error: UserError) -> None:
    exit_with_error(str(error))


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind.__name__ == "PanicException" and "thread panic" in str(error):
        # at once: the engine's threads would turn a slower exit into an abort
        exit_with_error("another process of the cluster has gone; start all of them again")
    elif "SqliteFailure" in str(error):
        cause = re.search(r'Some\("([^"]*)"\)', str(error))
        exit_with_error(
            f"the recovery store cannot be used ({cause[1] if cause else 'SQLite'}): is its disk full, or away? "
            "Correct that and start again; the job resumes from the last snapshot"
        )
    elif found := re.search(r"failed to initialize networking: (.*)", str(error)):
        exit_with_error(
            f"the processes of the cluster cannot be connected ({found[1]}): is one of the addresses (-a) in use by another "
            "program, or not of this host?"
        )
    elif kind.__module__ == "bytewax.recovery":
        exit_with_error(f"the recovery store cannot be resumed: {error}; {IF_LOST}")
    else:
        sys.__excepthook__(kind, error, trace)
        os._exit(1)  # without the totals, which belong to a run that has ended


def _on_exception_in_thread(args: threading.ExceptHookArgs) -> None:
    # without this thread the job would stand still in silence
    threading.__excepthook__(args)
    exit_with_error(f"thread {args.thread.name if args.thread else '?'} has failed")
