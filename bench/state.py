"""What the job still holds when many users have come once and gone.

    python -m bench.state [--users 1000000]

Drives the whole dataflow in this process, from a source that makes its messages up to a sink that counts them, with
the recovery store on. Users arrive evenly over some hours of event time, and every one views a page, clicks and buys
something. The table shows, a tenth of the users at a time, the memory of the process, the size of its recovery store and
how many sessions there are: none of it may grow with the users who have gone. In the end what the store holds is counted
against what is still open by the rules.
"""

import argparse
import gc
import heapq
import pickle
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from rich.console import Console
from rich.table import Table

from dataflow.clickstream.inputs import InputTopic
from dataflow.clickstream.outputs import OUTPUTS, VISITS, Keyed
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.topology import Inputs, build
from dataflow.streaming.alignment import AlignedSource, SourceAlignment
from dataflow.streaming.batches import PolledBatch
from dataflow.streaming.interval_join import JoinState
from dataflow.streaming.partition_reader import PartitionReader
from dataflow.streaming.session_windows import Session
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MIN_TIME, SECOND
from dataflow.streaming.watermark import SourceProgress

PARTITIONS = 4  # of each topic
HOURS = 4  # of event time, in which all users come
START = 1_700_000_000 * SECOND
SLICE = 10 * SECOND  # of event time in one poll

CLICK, BUY, PAY = 2 * SECOND, 4 * SECOND, 5 * SECOND  # after the page view
VISIT = BUY  # from a session's first event to its last

ROUNDS = 10  # lines of the table
SOURCES = tuple(f"{topic}/{partition}" for topic in ("user-events", "purchases") for partition in range(PARTITIONS))


class Message(NamedTuple):
    """As much of a Kafka message as the reader needs."""

    time: int
    user: int
    text: str
    number: int = 0

    def key(self) -> bytes:
        return b"%d" % self.user

    def value(self) -> bytes:
        return (self.text % (self.user, self.time / SECOND)).encode()

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time // 1_000


def event(event_type: str) -> str:
    return f'{{"event_type":"{event_type}","page_id":1,"user_id":%d,"timestamp":%.6f}}'


EVENTS = (0, event("page-view")), (CLICK, event("click")), (BUY, event("purchase"))
PURCHASES = ((PAY, '{"amount":9.5,"page_id":1,"user_id":%d,"timestamp":%.6f}'),)


@dataclass(frozen=True)
class Crowd:
    """All users, who arrive one after the other."""

    users: int

    def arrival(self, user: int) -> int:
        return START + user * HOURS * 3_600 * SECOND // self.users

    def messages(self, partition: int, steps: tuple[tuple[int, str], ...]) -> Iterator[Message]:
        """One partition's, in order of time."""

        def step(after: int, text: str) -> Iterator[Message]:
            return (
                Message(self.arrival(user) + after, user, text) for user in range(partition, self.users, PARTITIONS)
            )

        return heapq.merge(*(step(after, text) for after, text in steps))

    def still_open(self, rules: Rules) -> int:
        """How many sessions are open when all rows have been read: the slowest partition is the one to say."""
        watermark = self.arrival(self.users - PARTITIONS) + VISIT - rules.lateness
        return sum(self.arrival(user) + VISIT + rules.retention >= watermark for user in range(self.users))


class Made(FixedPartitionedSource[PolledBatch, None]):
    """A topic that is made up while it is read; it keeps pace with the others as Kafka's do.

    `meter` looks at the process now and then.
    """

    def __init__(
        self,
        topic: InputTopic,
        crowd: Crowd,
        steps: tuple[Any, ...],
        rules: Rules,
        pace: SourceAlignment,
        meter: "Meter",
    ) -> None:
        self._topic, self._crowd, self._steps = topic, crowd, steps
        self._rules, self._alignment, self._meter = rules, pace, meter

    def list_parts(self) -> list[str]:
        return [f"{self._topic.name}/{partition}" for partition in range(PARTITIONS)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Partition":
        messages = self._crowd.messages(int(for_part.rpartition("/")[2]), self._steps)
        return _Partition(
            messages,
            PartitionReader(for_part, self._topic.decoder, self._rules.lateness),
            AlignedSource(self._alignment),
            self._meter,
        )


class _Partition(StatefulSourcePartition[PolledBatch, None]):
    def __init__(
        self, messages: Iterator[Message], reader: PartitionReader, runner: AlignedSource, meter: "Meter"
    ) -> None:
        self._messages, self._reader, self._alignment, self._meter = messages, reader, runner, meter
        self._next = next(messages, None)
        self._upto = START

    def next_batch(self) -> list[PolledBatch]:
        self._meter.look(self._upto)
        if self._next is None:
            raise StopIteration  # without a word of an end, so that what is open stays open
        if self._alignment.is_paused():
            return []
        self._upto += SLICE
        messages = []
        while self._next is not None and self._next.time < self._upto:
            messages.append(self._next)
            self._next = next(self._messages, None)
        poll = self._reader.read(messages, SourceProgress(self._reader.source, MIN_TIME, self._upto, None, SOURCES))
        self._alignment.record_read(len(messages), self._reader.max_timestamp)
        return [poll]

    def snapshot(self) -> None:
        return None


class Counted(DynamicSink[Keyed]):
    """Counts rows and forgets them."""

    def __init__(self) -> None:
        self.rows = 0

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Counter":
        return _Counter(self)


class _Counter(StatelessSinkPartition[Keyed]):
    def __init__(self, sink: Counted) -> None:
        self._sink = sink

    def write_batch(self, items: list[Keyed]) -> None:
        self._sink.rows += sum(len(output.values) for _, output in items)


class Store:
    """The job's recovery store, looked at from outside."""

    def __init__(self, directory: Path, shards: int) -> None:
        self._directory = directory
        self._sessions: StateCodec[list[Any]] = StateCodec(list, JobFingerprint(shards))
        self._join: StateCodec[JoinState[Any, Any]] = StateCodec(JoinState[Any, Any], JobFingerprint(shards))
        init_db_dir(directory, 1)

    def size(self) -> int:
        return sum(file.stat().st_size for file in self._directory.iterdir())

    def sessions(self) -> int:
        """How many the last snapshots hold."""
        return sum(map(len, self._last("session_window", self._sessions)))

    def waiting(self) -> int:
        """How many rows of the join the last snapshots hold."""
        return sum(len(state.lefts) + len(state.rights) for state in self._last("join_purchases", self._join))

    def _last(self, step: str, snapshots: StateCodec[Any]) -> list[Any]:
        query = (
            "SELECT ser_change FROM snaps WHERE step_id LIKE ? GROUP BY state_key HAVING snap_epoch = max(snap_epoch)"
        )
        with sqlite3.connect(next(self._directory.glob("part-*.sqlite3"))) as store:
            return [snapshots.unpack(pickle.loads(change)) for (change,) in store.execute(query, [f"%.{step}.%"])]


class Meter:
    """Takes a line of the table whenever another tenth of the users has come."""

    def __init__(self, crowd: Crowd, store: Store, visits: Counted) -> None:
        self._crowd, self._store, self._visits = crowd, store, visits
        self._lines = 0
        self.table = Table("users so far", "visits out", "memory, MiB", "store, MiB", "open sessions", box=None)

    def look(self, now: int) -> None:
        """At this event time."""
        if now >= START + self._lines * HOURS * 3_600 * SECOND // ROUNDS:
            users = self._crowd.users * self._lines // ROUNDS
            cells = users, self._visits.rows, resident() >> 20, self._store.size() / 2**20, sessions()
            self.table.add_row(*(f"{cell:,.1f}" if isinstance(cell, float) else f"{cell:,}" for cell in cells))
            self._lines += 1


def sessions() -> int:
    """How many there are in this process, whoever holds them."""
    return sum(type(each) is Session for each in gc.get_objects())


def resident() -> int:
    """Bytes of memory that this process has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not say")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.state", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000, help="how many come, once each (default: 1,000,000)")
    crowd, rules = Crowd(parser.parse_args().users), Rules()
    visits, rest, pace = Counted(), Counted(), SourceAlignment()
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory), rules.shards)
        meter = Meter(crowd, store, visits)
        inputs = Inputs(lambda topic: Made(topic, crowd, EVENTS if topic.has_events else PURCHASES, rules, pace, meter))
        began = time.monotonic()
        run_main(
            build(inputs, {spec.name: visits if spec is VISITS else rest for spec in OUTPUTS}, rules, pace),
            epoch_interval=timedelta(seconds=1),
            recovery_config=RecoveryConfig(directory),
        )
        took = time.monotonic() - began
        console = Console()
        console.print(meter.table)
        console.print(
            f"at the end, after {took:.0f} s: {store.sessions():,} sessions in the store, "
            f"{crowd.still_open(rules):,} are open by the rules; {store.waiting():,} rows wait in the join; "
            f"{visits.rows:,} visits out"
        )


if __name__ == "__main__":
    main()
