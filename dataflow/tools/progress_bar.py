"""Progress on standard error: a line that changes on a terminal, a new line every few seconds elsewhere."""

import time
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn

_TERMINAL_INTERVAL_S = 0.1

Self = TypeVar("Self", bound="ProgressBar")


class ProgressBar:
    """Shows one piece of work after the other. A context manager: on a terminal the line is gone after it.

    Args:
        bar: whether the total is known, so that a bar and a percentage are drawn; otherwise a spinner.
        line_interval_s: seconds between two lines where standard error is not a terminal.
    """

    def __init__(self, bar: bool = True, line_interval_s: float = 5.0) -> None:
        self._console = Console(stderr=True)
        self._interval_s = _TERMINAL_INTERVAL_S if self._console.is_terminal else line_interval_s
        text = TextColumn("{task.description}", markup=False)
        columns: list[ProgressColumn] = [text, BarColumn(), TaskProgressColumn()] if bar else [SpinnerColumn(), text]
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._task = self._progress.add_task("", total=None)
        self._name = ""
        self._shown_at = time.monotonic()

    def __enter__(self: Self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, name: str) -> None:
        """Names what is read from now on."""
        self._name = name
        self._progress.reset(self._task, total=None, description=f"reading {name}")

    def __call__(self, done: int, total: int) -> None:
        """Reports rows read, of how many. May be called for each row: it shows them only when it is time."""
        if not self.is_due():
            return
        if self._console.is_terminal:
            self._shown_at = time.monotonic()
            self._progress.update(self._task, completed=done, total=total)
        else:
            self.show(f"reading {self._name}: {done:,} of {total:,} rows")

    def is_due(self) -> bool:
        """Whether it is time to show something again. Ask before making a text for `show`."""
        return time.monotonic() >= self._shown_at + self._interval_s

    def show(self, text: str) -> None:
        """Shows a text in place of the one before; where there is no terminal, on a new line."""
        self._shown_at = time.monotonic()
        if self._console.is_terminal:
            self._progress.update(self._task, description=text)
        else:
            self.print(text)

    def print(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
