"""What there is to see in this process, and the last of what has passed.

Nothing here is done for a row. Open sessions and waiting purchase rows are not told of, they are looked up where the
rules hold them, and only when somebody looks: from another thread, in steps that the interpreter's lock makes whole
(`dict.get`, `list`), and never changing anything. What passes once, as late rows, dead letters and closed sessions do,
is already a list when it is seen here, and the last few are kept.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import bytewax.operators as op
import msgspec
from bytewax.operators import KeyedStream, Stream

from dataflow.clickstream.records import Event, InputRecord, Purchase
from dataflow.clickstream.sessions import ClosedSession
from dataflow.clickstream.suspicion import label_of
from dataflow.dashboard.swim_lane import SwimLane, UserHistory, where
from dataflow.observability.formatting import duration, shortened, unix_seconds
from dataflow.streaming.batches import OnTimeBatch, PolledBatch, RejectedRecord
from dataflow.streaming.hooks import LiveState
from dataflow.streaming.sharding import number_of, shard_of
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time

SHOWN = 8  # of each kind


class ListedRow(msgspec.Struct):
    """A row that has become no visit, or a session that is suspicious."""

    reason: str
    text: str
    where: str = ""  # topic/partition/offset
    time: float | None = None  # of the row, in Unix seconds
    user: str = ""


class RowLists(msgspec.Struct):
    """The last of each kind, the newest first."""

    suspicious: list[ListedRow]
    late: list[ListedRow]
    dead_letters: list[ListedRow]
    unmatched: list[ListedRow]


class _SuspiciousSession:
    """A suspicious session. There may be many, so its texts are made only when somebody looks."""

    __slots__ = ("user", "identity", "start", "suspicion")

    def __init__(self, session: ClosedSession) -> None:
        self.user = session.user
        self.identity = session.identity
        self.start = session.events[0].time
        self.suspicion = session.suspicion or 0  # never 0: only suspicious sessions come here

    def noted(self) -> ListedRow:
        return ListedRow(
            reason=label_of(self.suspicion),
            text=self.identity.decode(),
            time=unix_seconds(self.start),
            user=shortened(self.user),
        )


class DashboardProbe:
    """Knows what is at work in the shards of this process, and sees what comes out of them.

    Args:
        shards: how many there are in the job.
        events_topic: name of the events' topic.
        purchases_topic: name of the purchases' topic.
    """

    def __init__(self, shards: int, events_topic: str, purchases_topic: str) -> None:
        self.shards = shards
        self.here: set[int] = set()  # the shards that are in this process
        self.live_state = LiveState()
        self.changes = 0  # of the lists
        self._suspicious: deque[_SuspiciousSession] = deque(maxlen=SHOWN)
        self._late: deque[ListedRow] = deque(maxlen=SHOWN)
        self._dead_letters: deque[ListedRow] = deque(maxlen=SHOWN)
        self._unmatched: deque[ListedRow] = deque(maxlen=SHOWN)
        self._topics = {Event: events_topic, Purchase: purchases_topic}
        self._trails: dict[bytes, UserHistory] = {}
        self._lock = threading.Lock()  # guards who is followed

    def attach(
        self,
        polls: Stream[PolledBatch],
        ticked: KeyedStream[OnTimeBatch],
        unmatched: Stream[Purchase],
        finished: KeyedStream[list[ClosedSession]],
    ) -> None:
        """Adds steps to the dataflow that see what passes, many batches at a time, and let nothing out."""
        op.flat_map_batch("look_at_polls", polls, self.see_polls)
        op.flat_map_batch("look_at_shards", ticked, self.see_shards)
        op.flat_map_batch("look_at_unmatched", unmatched, self.see_unmatched)
        op.flat_map_batch("look_at_sessions", finished, self.see_finished)

    # --- what passes, told by the workers ---

    def see_polls(self, polls: list[PolledBatch]) -> tuple[()]:
        for poll in polls:
            if poll.late:
                self._see_late(poll.late, below(poll.time.max_timestamp))
            if poll.unreadable:
                self._note(self._dead_letters, map(_unreadable, poll.unreadable[-SHOWN:]))
        return ()

    def see_shards(self, keyed: list[tuple[str, OnTimeBatch]]) -> tuple[()]:
        for key, batch in keyed:
            self.here.add(number_of(key))
            if batch.late:
                self._see_late(batch.late, lambda row: "its partition had run dry, and time went on without it")
        return ()

    def see_unmatched(self, rows: list[Purchase]) -> tuple[()]:
        for row in rows if self._trails else ():
            if trail := self._trails.get(row.user):
                trail.see_unmatched(row)
        self._note(self._unmatched, (self._noted(row, "no purchase event in its time") for row in rows[-SHOWN:]))
        return ()

    def see_finished(self, keyed: list[tuple[str, list[ClosedSession]]]) -> tuple[()]:
        for _, finished in keyed:
            for session in finished if self._trails else ():
                if trail := self._trails.get(session.user):
                    trail.see_finished(session)
            last = list(
                islice((_SuspiciousSession(each) for each in reversed(finished) if each.suspicion is not None), SHOWN)
            )
            if last:
                self._suspicious.extend(reversed(last))
                self.changes += 1
        return ()

    def _see_late(self, rows: list[InputRecord], why: Callable[[InputRecord], str]) -> None:
        for row in rows if self._trails else ():
            if trail := self._trails.get(row.user):
                trail.see_late(row)
        self._note(self._late, (self._noted(row, why(row)) for row in rows[-SHOWN:]))

    def _note(self, kept: deque[ListedRow], more: Iterable[ListedRow]) -> None:
        more = list(more)
        if more:
            kept.extend(more)
            self.changes += 1

    def _noted(self, row: InputRecord, reason: str) -> ListedRow:
        place = f"{self._topics[type(row)]}/{where(row)}"
        return ListedRow(reason, shortened(row.value), place, unix_seconds(row.time), shortened(row.user))

    # --- what is there, asked by the page ---

    def lists(self) -> RowLists:
        suspicious = [suspect.noted() for suspect in list(self._suspicious)[::-1]]
        kinds = self._late, self._dead_letters, self._unmatched
        return RowLists(suspicious, *(list(kind)[::-1] for kind in kinds))

    def watermark(self) -> Time:
        """The slowest shard's."""
        return min((clock.watermark for clock in list(self.live_state.watermarks)), default=MIN_TIME)

    def max_timestamps(self) -> dict[str, Time]:
        """Each partition's, as far as all shards of this process have heard; of all processes' partitions."""
        marks: dict[str, Time] = {}
        for clock in list(self.live_state.watermarks):
            for source, mark in list(clock.max_timestamps.items()):
                marks[source] = min(mark, marks.get(source, mark))
        return marks

    def newest_users(self) -> list[str]:
        """Some users who have a session open, the last of each shard to begin one."""
        users = [list(islice(reversed(shard.open), SHOWN)) for shard in list(self.live_state.sessions)]
        return [shortened(each[place]) for place in range(SHOWN) for each in users if place < len(each)][:SHOWN]

    def shard_of(self, user: bytes) -> int:
        return shard_of(user, self.shards)

    @contextmanager
    def follow(self, user: bytes) -> Iterator[Callable[[], SwimLane]]:
        """From now on remembers what passes of a user; gives what draws their lane."""
        with self._lock:
            trail = self._trails.setdefault(user, UserHistory(user))
            trail.followers += 1
        try:
            yield lambda: trail.lane(list(self.live_state.sessions), list(self.live_state.joins))
        finally:
            with self._lock:
                trail.followers -= 1
                if not trail.followers:
                    del self._trails[user]


def below(mark: Time) -> Callable[[InputRecord], str]:
    """Makes what says how far a late row lies below the max timestamp of its partition.

    It is the max timestamp after the poll, which may be higher than at the row; `explain` looks at every row.
    """
    return lambda row: (
        f"{'some ' + duration(int(round(mark - row.time, -5))) + ' ' if mark < MAX_TIME else ''}below the mark of its partition"
    )


def _unreadable(message: RejectedRecord) -> ListedRow:
    return ListedRow(message.reason, shortened(message.value), f"{message.source}/{message.offset}")
