"""How far a command has read: a line that changes on a terminal, now and then a line elsewhere; on standard error."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

_EVERY_ON_TERMINAL, _EVERY_ELSEWHERE = 0.1, 5.0  # seconds


class ProgressBar:
    """One thing that is read after the other."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._every = _EVERY_ON_TERMINAL if self._console.is_terminal else _EVERY_ELSEWHERE
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._name = ""
        self._told_at = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, name: str) -> None:
        """What is read now."""
        self._name = name
        self._bar.reset(self._task, total=None, description=f"reading {name}")

    def __call__(self, done: int, everything: int) -> None:
        """So many rows are read, of so many; may be told as often as one likes."""
        now = time.monotonic()
        if now < self._told_at + self._every:
            return
        self._told_at = now
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=everything)
        else:
            line = f"reading {self._name}: {done:,} of {everything:,} rows"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
