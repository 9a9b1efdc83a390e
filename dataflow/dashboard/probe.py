"""The dashboard's probe: reads the live state of this process' shards, and remembers the last rejected rows.

No work is done per row. Open sessions and waiting purchase rows are read from the operators' own state, and only while
somebody views the page. These reads come from another thread. They use operations that are atomic under the interpreter
lock (`dict.get`, `list`), and change nothing. Late rows, dead letters and closed sessions pass only once. They come as
lists, of which the probe remembers the last few.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import bytewax.operators as op
import msgspec
from bytewax.operators import KeyedStream, Stream

from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.outputs import NO_EVENT, OTHER_ROW
from dataflow.clickstream.records import InputRecord, Purchase
from dataflow.clickstream.sessions import ClosedSession
from dataflow.clickstream.suspicion import label_of
from dataflow.dashboard.swim_lane import SwimLane, UserHistory
from dataflow.observability.formatting import duration, shortened, unix_seconds
from dataflow.streaming.batches import OnTimeBatch, PolledBatch, RejectedRecord
from dataflow.streaming.hooks import LiveState
from dataflow.streaming.sharding import number_of, shard_of
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time

SHOWN = 8  # entries of each list

_UNMATCHED_BECAUSE = {NO_EVENT: "no purchase event in its time", OTHER_ROW: OTHER_ROW}


class ListedRow(msgspec.Struct):
    """An entry of a list: a rejected row, or a suspicious session."""

    reason: str
    text: str  # the row's value, or the session id
    where: str = ""  # "topic/partition/offset", and the part of a message that holds several rows
    time: float | None = None  # event time, Unix seconds
    user: str = ""


class RowLists(msgspec.Struct):
    """The last entries of each kind, newest first."""

    suspicious: list[ListedRow]
    late: list[ListedRow]
    dead_letters: list[ListedRow]
    unmatched: list[ListedRow]


class _SuspiciousSession:
    """A suspicious session. There may be many, so its texts are made only for a viewer."""

    __slots__ = ("user", "identity", "start", "suspicion")

    def __init__(self, session: ClosedSession) -> None:
        self.user = session.user
        self.identity = session.identity
        self.start = session.events[0].time
        self.suspicion = session.suspicion or 0  # never 0: the session is suspicious

    def listed(self) -> ListedRow:
        return ListedRow(
            reason=label_of(self.suspicion),
            text=self.identity.decode(),
            time=unix_seconds(self.start),
            user=shortened(self.user),
        )


class DashboardProbe:
    """Observes the shards of this process and their output.

    Args:
        shards: number of shards of the job.
        inputs: the topics that are read.
        kinds: names of the kinds of events.
    """

    def __init__(self, shards: int, inputs: InputTopics, kinds: Kinds = DEFAULT_KINDS) -> None:
        self.shards = shards
        self.here: set[int] = set()  # the shards of this process
        self.live_state = LiveState()
        self.changes = 0  # number of changes of the lists
        self._suspicious: deque[_SuspiciousSession] = deque(maxlen=SHOWN)
        self._late: deque[ListedRow] = deque(maxlen=SHOWN)
        self._dead_letters: deque[ListedRow] = deque(maxlen=SHOWN)
        self._unmatched: deque[ListedRow] = deque(maxlen=SHOWN)
        self._inputs = inputs
        self._kinds = kinds
        self._histories: dict[bytes, UserHistory] = {}  # of the users that are followed
        self._lock = threading.Lock()  # guards _histories

    def attach(
        self,
        polled: Stream[PolledBatch],
        on_time: KeyedStream[OnTimeBatch],
        unmatched: Stream[tuple[Purchase, str]],
        closed: KeyedStream[list[ClosedSession]],
    ) -> None:
        """Adds steps to the dataflow that observe these streams, many batches per call, and emit nothing."""
        op.flat_map_batch("observe_polled", polled, self.observe_polled)
        op.flat_map_batch("observe_on_time", on_time, self.observe_on_time)
        op.flat_map_batch("observe_unmatched", unmatched, self.observe_unmatched)
        op.flat_map_batch("observe_closed", closed, self.observe_closed)

    # --- called by the workers ---

    def observe_polled(self, batches: list[PolledBatch]) -> tuple[()]:
        for batch in batches:
            if batch.late:
                self._add_late(batch.late, late_reason(batch.time.max_timestamp))
            if batch.unreadable:
                self._add(self._dead_letters, map(_listed_dead_letter, batch.unreadable[-SHOWN:]))
        return ()

    def observe_on_time(self, keyed: list[tuple[str, OnTimeBatch]]) -> tuple[()]:
        for key, batch in keyed:
            self.here.add(number_of(key))
            if batch.late:
                self._add_late(batch.late, lambda row: "its partition was idle, and the watermark passed it")
        return ()

    def observe_unmatched(self, rows: list[tuple[Purchase, str]]) -> tuple[()]:
        for row, _ in rows if self._histories else ():
            if history := self._histories.get(row.user):
                history.add_unmatched(row)
        self._add(self._unmatched, (self._listed(row, _UNMATCHED_BECAUSE[reason]) for row, reason in rows[-SHOWN:]))
        return ()

    def observe_closed(self, keyed: list[tuple[str, list[ClosedSession]]]) -> tuple[()]:
        for _, sessions in keyed:
            for session in sessions if self._histories else ():
                if history := self._histories.get(session.user):
                    history.add_closed(session)
            suspicious = (_SuspiciousSession(each) for each in reversed(sessions) if each.suspicion is not None)
            if last := list(islice(suspicious, SHOWN)):
                self._suspicious.extend(reversed(last))
                self.changes += 1
        return ()

    def _add_late(self, rows: list[InputRecord], reason: Callable[[InputRecord], str]) -> None:
        for row in rows if self._histories else ():
            if history := self._histories.get(row.user):
                history.add_late(row)
        self._add(self._late, (self._listed(row, reason(row)) for row in rows[-SHOWN:]))

    def _add(self, entries: deque[ListedRow], new: Iterable[ListedRow]) -> None:
        new = list(new)
        if new:
            entries.extend(new)
            self.changes += 1

    def _listed(self, row: InputRecord, reason: str) -> ListedRow:
        address = self._inputs.address(row)
        return ListedRow(reason, shortened(row.value), str(address), unix_seconds(row.time), shortened(row.user))

    # --- called for the page, from its threads ---

    def lists(self) -> RowLists:
        """The last entries of each kind."""
        suspicious = [session.listed() for session in list(self._suspicious)[::-1]]
        others = self._late, self._dead_letters, self._unmatched
        return RowLists(suspicious, *(list(entries)[::-1] for entries in others))

    def watermark(self) -> Time:
        """The lowest watermark of this process' shards."""
        return min((tracker.watermark for tracker in list(self.live_state.watermarks)), default=MIN_TIME)

    def max_timestamps(self) -> dict[str, Time]:
        """By source of the job: the max timestamp that all shards of this process have reached."""
        lowest: dict[str, Time] = {}
        for tracker in list(self.live_state.watermarks):
            for source, max_timestamp in list(tracker.max_timestamps.items()):
                lowest[source] = min(max_timestamp, lowest.get(source, max_timestamp))
        return lowest

    def newest_users(self) -> list[str]:
        """At most SHOWN users with an open session: the last ones of each shard that opened one."""
        users = [list(islice(reversed(windows.open), SHOWN)) for windows in list(self.live_state.sessions)]
        return [shortened(each[rank]) for rank in range(SHOWN) for each in users if rank < len(each)][:SHOWN]

    def shard_of(self, user: bytes) -> int:
        """The number of the shard that a user belongs to."""
        return shard_of(user, self.shards)

    @contextmanager
    def follow(self, user: bytes) -> Iterator[Callable[[], SwimLane]]:
        """Remembers a user's late rows, unmatched rows and closed sessions; yields the function that makes the lane."""
        with self._lock:
            history = self._histories.setdefault(user, UserHistory(user, self._inputs, self._kinds))
            history.followers += 1
        try:
            yield lambda: history.lane(list(self.live_state.sessions), list(self.live_state.joins))
        finally:
            with self._lock:
                history.followers -= 1
                if not history.followers:
                    del self._histories[user]


def late_reason(max_timestamp: Time) -> Callable[[InputRecord], str]:
    """Makes the function that says how far a late row lies below the max timestamp of its partition.

    Args:
        max_timestamp: after the poll. It may be higher than at the row, so the distance is rounded; `explain` is exact.
    """

    def reason(row: InputRecord) -> str:
        if max_timestamp == MAX_TIME:  # the poll reached the end at which the job stops
            return "below the highest time of its partition"
        return f"about {duration(int(round(max_timestamp - row.time, -5)))} below the highest time of its partition"

    return reason


def _listed_dead_letter(record: RejectedRecord) -> ListedRow:
    where = f"{record.source}/{record.offset}"
    return ListedRow(record.reason, shortened(record.value), where if record.part is None else f"{where}/{record.part}")
