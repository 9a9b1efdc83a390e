"""What open sessions weigh: ``python -m bench.memory [--users 100000]``.

So many users, each with a session of one event, then of 15, read from JSON by the job's own decoder and folded by its
own rules; each size in a process of its own. What memory the two differ by is the events', the rest the session's. Then
the same once a snapshot has been taken, which leaves what it packed with each session.
"""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.state import resident
from dataflow.clickstream.records import Event
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import decode_event
from dataflow.clickstream.session_references import ReferenceSerializer, SessionReferences
from dataflow.clickstream.sessions import SessionAccumulator, accumulate, merge
from dataflow.streaming.hooks import Hooks
from dataflow.streaming.operators import SessionLogic
from dataflow.streaming.position import position
from dataflow.streaming.session_windows import SessionWindows
from dataflow.streaming.state import JobFingerprint, StateCodec

FEW, MANY = 1, 15  # events of a session
_START = 1_704_067_200
_ROW = b'{"event_type":"page-view","user_id":%d,"page_id":%d,"timestamp":%d.%03d}'
_PARTITIONS = 8


class Held(NamedTuple):
    """Bytes for all sessions."""

    before: int  # any snapshot
    after: int
    row: int  # of one event's JSON text


class _NoRestorer:
    """Nothing is resumed here."""

    def prefetch(self, positions: Iterable[int]) -> None: ...

    def event(self, position: int) -> Event:
        raise KeyError(position)


def measure(users: int, events: int) -> Held:
    """Called in a process that has done nothing else."""
    serializer = ReferenceSerializer(_NoRestorer())
    rules = Rules()
    sessions = SessionWindows(rules.gap, rules.retention, SessionAccumulator, accumulate, merge)
    codec: StateCodec[Any] = StateCodec(list[tuple[bytes, int, int, SessionReferences]], JobFingerprint(1))
    logic = SessionLogic("sessions", sessions, codec, serializer, [], Hooks())
    at_first = resident()
    for number in range(events):
        for user in range(users):
            row = _ROW % (user, number, _START + number, user % 1_000)
            offset = (number * users + user) // _PARTITIONS
            sessions.add([decode_event(row, position(user % _PARTITIONS, offset))])
    before = resident() - at_first
    logic.snapshot()
    return Held(before, resident() - at_first, len(row))


def alone(users: int, events: int) -> Held:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, users, events).result()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000, help="open sessions (default: 100,000)")
    users, console = parser.parse_args().users, Console()
    few, many = (alone(users, events) for events in (FEW, MANY))
    table = Table("bytes", "an open event", "an open session beside", box=None)
    for name, less, more in (("before a snapshot", few.before, many.before), ("after it", few.after, many.after)):
        event = (more - less) / users / (MANY - FEW)
        table.add_row(name, f"{event:.0f}", f"{less / users - FEW * event:.0f}")
    console.print(table)
    console.print(f"an event's own text is {many.row} bytes of it")


if __name__ == "__main__":
    main()
