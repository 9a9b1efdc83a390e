"""What is shown while rows are sent: a line that changes on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from producer import timestamps

_EVERY_ON_TERMINAL, _EVERY_ELSEWHERE = 0.2, 10.0  # seconds


class Display:
    """One kind of work after the other, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._every = _EVERY_ON_TERMINAL if self._console.is_terminal else _EVERY_ELSEWHERE
        self._line = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._line.add_task("", total=None)
        self._shown_at = self._counted_at = time.monotonic()
        self._counted = 0
        self._rate = 0.0

    def __enter__(self) -> "Display":
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.stop()

    def tell(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def reading(self, rows: int, name: str) -> None:
        if self._is_time():
            self._show(f"reading {name}: {rows:,} rows")

    def sending(self, user_events: int, purchases: int, queued: int, event_time: float, share: float | None) -> None:
        """`share` is how much of all is sent, None where there is no end."""
        if not self._is_time():
            return
        self._count(user_events + purchases)
        done = "" if share is None else f"{share:.0%}, "
        self._show(
            f"{done}{user_events:,} events, {purchases:,} purchases, {self._rate:,.0f} rows/s, {queued:,} queued, "
            f"event time {timestamps.utc_text(event_time)}"
        )

    def _is_time(self) -> bool:
        return time.monotonic() - self._shown_at >= self._every

    def _show(self, text: str) -> None:
        self._shown_at = time.monotonic()
        if self._console.is_terminal:
            self._line.update(self._task, description=text)
        else:
            self.tell(text)

    def _count(self, rows: int) -> None:
        elapsed = time.monotonic() - self._counted_at
        if elapsed >= 1:
            self._rate = (rows - self._counted) / elapsed
            self._counted_at, self._counted = time.monotonic(), rows
