"""Mistakes that a user can mend, told in one line."""

import functools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something outside the program is wrong; the text is one line that says what to do."""


def _raise(error: UserError) -> None:
    raise error


_handle = _raise


def install_error_handler() -> None:
    """From now on a `UserError` inside the engine ends the process with its one line and exit code 1.

    An exception would be shown by the engine with some 200 lines of its own. Ending at once is safe: it is what the
    recovery store is for. The same goes for the loss of another process of the cluster, and for a store that cannot
    be written: the engine calls both a panic.
    """
    global _handle
    _handle = _exit
    sys.excepthook = _on_exception
    threading.excepthook = _on_exception_in_thread


def _on_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind.__name__ == "PanicException" and "thread panic" in str(error):
        # at once, since the engine's threads would turn a slower end into an abort
        exit_with_error("another process of the cluster has gone; start all of them again")
    elif "SqliteFailure" in str(error):
        said = re.search(r'Some\("([^"]*)"\)', str(error))
        exit_with_error(
            f"the recovery store cannot be used ({said[1] if said else 'SQLite'}): is its disk full, or away? Mend that "
            "and start again; it resumes from the last snapshot"
        )
    else:
        sys.__excepthook__(kind, error, trace)


def _on_exception_in_thread(args: threading.ExceptHookArgs) -> None:
    """One of our threads has a bug: the job would stand still without it, and not say so."""
    threading.__excepthook__(args)
    exit_with_error(f"its thread {args.thread.name if args.thread else ''} has failed")


def _exit(error: UserError) -> None:
    exit_with_error(str(error))


def exit_with_error(line: str) -> NoReturn:
    """Says why and ends the process with exit code 1, whatever its threads are doing."""
    logging.getLogger("visits").error("%s", line, extra={"event": "failed"})
    os._exit(1)


def inside_engine(function: Callable[P, R]) -> Callable[P, R]:
    """For what the engine calls: a `UserError` in it is handled as `speak_plainly` says, or raised."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _handle(error)
            raise

    return guarded
