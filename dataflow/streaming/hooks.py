"""What the operators report to whoever runs them: metrics count it, the dashboard looks at it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dataflow.streaming.interval_join import IntervalJoin
from dataflow.streaming.session_windows import SessionWindows
from dataflow.streaming.watermark import WatermarkTracker


def _ignore(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the operators, each called once a batch by a worker thread. All of them default to doing nothing.

    Args:
        on_late: rows of a source ("topic/partition") were behind the shard's watermark; their number.
        on_unmatched: rows of the join's right side were decided to have no match; their number.
        on_sessions: how the sessions of a shard changed: change in the number of open ones, begun, closed.
        on_snapshot: a part of a step was snapshotted: the step's id, the bytes of its state in the snapshot before
            (0: none) and in this one.
    """

    on_late: Callable[[str, int], None] = _ignore
    on_unmatched: Callable[[int], None] = _ignore
    on_sessions: Callable[[int, int, int], None] = _ignore
    on_snapshot: Callable[[str, int, int], None] = _ignore


@dataclass(frozen=True)
class LiveState:
    """The state of all shards of this process, for a reader in another thread. Each operator adds its own."""

    watermarks: list[WatermarkTracker] = field(default_factory=list)
    joins: list[IntervalJoin] = field(default_factory=list)
    sessions: list[SessionWindows[Any]] = field(default_factory=list)
