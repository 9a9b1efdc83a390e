"""What a run has done, said when it ends: rows read and written, sessions, and rows that became no part of a session."""

import logging

from prometheus_client import Counter

from dataflow.observability import logs, metrics
from dataflow.observability.formatting import pluralize

log = logging.getLogger("visits")


class Totals:
    """The totals of this process so far."""

    def __init__(self) -> None:
        self.read = _counts(metrics.rows_read)
        self.written = _counts(metrics.rows_written)
        self.sessions = int(metrics.value(metrics.sessions_closed))
        self.late = int(metrics.value(metrics.rows_late))
        self.dead = int(metrics.value(metrics.dead_letters))
        self.ignored = int(metrics.value(metrics.rows_ignored))
        self.unmatched = int(metrics.value(metrics.unmatched))
        self.left_out = int(metrics.value(metrics.rows_left_out))
        self.pending = int(metrics.value(metrics.rows_pending))

    @property
    def nothing_readable(self) -> bool:
        """Whether messages were read that were not to be left out, and not one of them was a row."""
        return 0 < sum(self.read.values()) - self.ignored <= self.dead

    @property
    def mostly_lost(self) -> bool:
        """Whether most of what was read became no part of a session, and this run is the first to find that."""
        read, lost = sum(self.read.values()), self.late + self.dead + self.unmatched
        # more than was read: purchases that a run before had read
        return lost <= read and lost - self.left_out > read / 2

    def __str__(self) -> str:
        read, written = _listed(self.read, "from"), _listed(self.written, "to")
        lost = f"{self.late:,} late, {self.dead:,} dead letters, {self.unmatched:,} unmatched purchases"
        if self.ignored:
            lost += f", {self.ignored:,} left out as the mapping says"
        there = (
            f"; {pluralize(self.left_out, 'row')} not written, because the outputs had them" if self.left_out else ""
        )
        return (
            f"read {read or 'nothing'}; closed {self.sessions:,} sessions; wrote {written or 'nothing'}; {lost}{there}"
        )


def log_totals() -> Totals:
    """Logs the totals, as a warning if most rows were late, dead or unmatched; returns them."""
    totals = Totals()
    if totals.mostly_lost:
        advice = "; the headers of their rows in the output topics say why"
        log.warning("most of what was read became no visit: %s%s", totals, advice, extra=logs.event("totals"))
    else:
        log.info("%s", totals, extra=logs.event("totals"))
    return totals


def log_pending(rows: int) -> None:
    """Warns after a stop that the replay has not made these rows of the outputs again yet; 0: says nothing."""
    if rows:
        log.warning(
            "%s in the outputs from before this run are still to be made again, because their sessions have not closed in it. "
            "Change neither settings nor version yet: start the job as it is, and stop it when they have closed "
            "(visits_rows_pending is 0). If a line then says that they were not made again, inputs or settings are not what "
            "they were: `python -m dataflow verify` tells what is twice",
            pluralize(rows, "row"),
            extra=logs.event("rows-pending"),
        )


def _counts(counter: Counter) -> dict[str, int]:
    return {topic: int(count) for topic, count in metrics.by_topic(counter).items() if count}


def _listed(counts: dict[str, int], preposition: str) -> str:
    return ", ".join(f"{count:,} {preposition} {topic}" for topic, count in counts.items())
