"""The page's feed of a job that reads `clicks`, for tests of the views and of the server."""

from types import SimpleNamespace

from dataflow.dashboard.probe import DashboardProbe
from dataflow.dashboard.views import DashboardFeed
from dataflow.observability.progress import Progress
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.time import SECOND

from .logs import NOON


class Ends:
    """So many partitions; the first one ends at offset 10."""

    def __init__(self, partitions: int) -> None:
        self.sources = tuple(f"clicks/{number}" for number in range(partitions))

    def end(self, source: str) -> SimpleNamespace | None:
        return SimpleNamespace(offset=10) if source == "clicks/0" else None

    def back_at(self, source: str) -> int:
        return 0


def feed_of(probe: DashboardProbe, partitions: int = 2, place: tuple[int, int] | None = None) -> DashboardFeed:
    pace = SourceAlignment()
    progress = Progress(Ends(partitions), pace, lateness=5 * SECOND)
    progress.record_position("clicks/0", 4, None)
    for number in range(partitions):
        pace.update(f"clicks/{number}", (NOON + number) * SECOND, partitions)
    return DashboardFeed(*(place or (0, 1)), probe, progress, lambda: True)
