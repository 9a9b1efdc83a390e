"""What the producer shows while it reads a file and sends rows."""

import time

from dataflow.tools.progress_bar import ProgressBar
from producer import timestamps

_LINE_INTERVAL_S = 10.0
_RATE_INTERVAL_S = 1.0  # the rate is that of the last second or so


class SendingProgress(ProgressBar):
    """A progress display with texts for reading a recording and for sending rows."""

    def __init__(self) -> None:
        super().__init__(bar=False, line_interval_s=_LINE_INTERVAL_S)
        self._counted_at = time.monotonic()
        self._counted = 0
        self._rate = 0.0  # rows per second

    def reading(self, rows: int, name: str) -> None:
        """Rows read of a file so far."""
        if self.is_due():
            self.show(f"reading {name}: {rows:,} rows")

    def sending(self, user_events: int, purchases: int, queued: int, event_time: float, share: float | None) -> None:
        """Rows sent so far.

        Args:
            user_events: rows of that topic.
            purchases: rows of that topic.
            queued: rows that Kafka has not acknowledged.
            event_time: of the last row, Unix seconds.
            share: sent part of all rows, 0 to 1; None if there is no end.
        """
        if not self.is_due():
            return
        self._measure(user_events + purchases)
        done = "" if share is None else f"{share:.0%}, "
        self.show(
            f"{done}{user_events:,} events, {purchases:,} purchases, {self._rate:,.0f} rows/s, {queued:,} queued, "
            f"event time {timestamps.utc_text(event_time)}"
        )

    def _measure(self, rows: int) -> None:
        elapsed = time.monotonic() - self._counted_at
        if elapsed >= _RATE_INTERVAL_S:
            self._rate = (rows - self._counted) / elapsed
            self._counted_at, self._counted = time.monotonic(), rows
