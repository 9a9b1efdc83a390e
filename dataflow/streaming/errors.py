"""Errors that a user can correct.

They are raised from inside the engine too, which would print some 200 lines around them. A program that runs a flow
may therefore set a handler, which ends the process with one line (see `dataflow.runtime.errors`).
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# advice for when nothing can be resumed; new topics, because what the old ones hold would be written again beside it
START_OVER = "start over: an empty recovery store, a new VISITS_GROUP, and new output topics (VISITS_TOPIC_*)"

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something outside the program is wrong. The text is one line that says what to do about it."""


_handler: Callable[[UserError], None] | None = None


def set_handler(handler: Callable[[UserError], None] | None) -> None:
    """Sets what is called with a `UserError` raised inside the engine; None: the error is only raised."""
    global _handler
    _handler = handler


def inside_engine(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates what the engine calls: a `UserError` goes to the handler, if one is set, and is then raised."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            if _handler is not None:
                _handler(error)
            raise

    return guarded
