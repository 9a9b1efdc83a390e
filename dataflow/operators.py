"""The rules as Bytewax operators, keyed by shard.

A shard is a group of users, its key ``"0"`` to ``"N-1"``. One element is a whole batch: Bytewax spends about 10 us on
every key that it wakes, so a key for every user would cost more than all the rest. No operator asks the wall clock;
all of them are driven by the watermarks that come with the batches.
"""

from dataclasses import dataclass, field

# Callable of typing: Bytewax cannot look into that of collections.abc on Python 3.10
from typing import Any, Callable, Protocol, TypeVar

import bytewax.operators as op
import msgspec
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflow import metrics
from dataflow.batches import Batch, Joined, Ticked, Timed
from dataflow.errors import UserError, inside_engine
from dataflow.pace import Pace
from dataflow.rules.join import IntervalJoin, JoinState, Sides
from dataflow.rules.rows import END
from dataflow.rules.session import Session, Sessions
from dataflow.rules.time import Clock, ClockState
from dataflow.snapshots import Origin, Snapshots

Fold = TypeVar("Fold")


class Keeper(Protocol):
    """What a snapshot keeps of a session's fold."""

    type: Any  # of what is kept; msgspec can encode it

    def pack(self, fold: Any, before: Any) -> Any:
        """What is kept; `before` is what was kept of this session at the last snapshot, None if there was none."""

    def announce(self, kept: Any) -> None:
        """Hears of everything that a process is to unpack, before it has to unpack the first."""

    def unpack(self, kept: Any) -> Any:
        """The fold again."""


class Whole:
    """Keeps folds as they are; `type` is theirs."""

    def __init__(self, type: Any) -> None:
        self.type = type

    def pack(self, fold: Any, before: Any) -> Any:
        return fold

    def announce(self, kept: Any) -> None:
        pass

    def unpack(self, kept: Any) -> Any:
        return kept


@dataclass(frozen=True)
class AtWork:
    """The rules at work in the shards of this process, for whoever wants to look at them; each adds itself."""

    clocks: list[Clock] = field(default_factory=list)
    joins: list[IntervalJoin] = field(default_factory=list)
    sessions: list[Sessions] = field(default_factory=list)


@operator
def clock(
    step_id: str, up: KeyedStream[Batch], lateness: int, origin: Origin, pace: Pace, at_work: AtWork | None = None
) -> KeyedStream[Ticked]:
    """Advances a shard's watermark, and takes out rows that it has passed.

    Args:
        lateness: allowed lateness, in microseconds.
        origin: whose snapshots they are.
        pace: hears how far each source has come.
        at_work: gets the clock of each shard.
    """

    def build(state: ClockState | None) -> Clock:
        made = Clock(lateness)
        if state is not None:
            if state.watermark == END:
                raise UserError("the recovery store is of a run that stopped at the end; start with an empty one")
            made.restore(state)
        if at_work is not None:
            at_work.clocks.append(made)
        return made

    def advance(clock: Clock, batch: Batch) -> Ticked:
        source = batch.time.source
        rows, late = clock.split(source, batch.rows)
        watermark = clock.advance(batch.time)
        if late:
            metrics.count_overtaken(source, len(late))
        pace.hear(source, clock.bounds[source], len(batch.time.sources))
        return Ticked(rows, watermark, late)

    return op.stateful_map("clock", up, _Mapper(step_id, Snapshots(ClockState, origin), build, advance))


@operator
def interval_join(
    step_id: str, up: KeyedStream[Timed], window: int, sides: Sides, origin: Origin, at_work: AtWork | None = None
) -> KeyedStream[Joined]:
    """Finds rows of two sides that belong together.

    Rows from the left go on at once, each match after them as soon as both sides are there. All rows of a batch have to
    be of one side.

    Args:
        window: largest distance between the two, in microseconds.
        sides: who meets whom.
        origin: whose snapshots they are.
        at_work: gets the join of each shard.
    """
    left = sides.left

    def build(state: JoinState | None) -> IntervalJoin:
        made = IntervalJoin(window, sides)
        if state is not None:
            made.restore(state)
        if at_work is not None:
            at_work.joins.append(made)
        return made

    def join(held: IntervalJoin, batch: Timed) -> Joined:
        matches = held.add(batch.rows)
        lefts = batch.rows if batch.rows and type(batch.rows[0]) is left else []
        unmatched = held.expire(batch.watermark)
        if unmatched:
            metrics.unmatched.inc(len(unmatched))
        return Joined(lefts + matches if matches else lefts, batch.watermark, unmatched)

    state: Any = JoinState[sides.seeker, sides.right]
    return op.stateful_map("join", up, _Mapper(step_id, Snapshots(state, origin), build, join))


@operator
def session_window(
    step_id: str,
    up: KeyedStream[Timed],
    gap: int,
    hold: int,
    origin: Origin,
    builder: Callable[[], Fold],
    folder: Callable[[Fold, Any], Fold],
    merger: Callable[[Fold, Fold], Fold],
    keeper: Keeper,
    at_work: AtWork | None = None,
) -> KeyedStream[list[Session[Fold]]]:
    """Folds each user's rows into sessions and emits those that the watermark has closed, a list at a time.

    Args:
        gap: longest pause inside a session, in microseconds.
        hold: keep a session open so long beyond its last row, if that is longer than the gap.
        origin: whose snapshots they are.
        builder: starts a fold.
        folder: adds a row to a fold and returns it.
        merger: unites a fold with that of the session after it and returns it.
        keeper: what a snapshot keeps of a fold; `Whole(type)` keeps all of it.
        at_work: gets the open sessions of each shard.
    """
    snapshots = Snapshots(list[tuple[bytes, int, int, keeper.type]], origin)

    def build(data: bytes | None) -> _SessionLogic:
        kept = snapshots.unpack(data) if data is not None else []
        sessions = Sessions(gap, hold, builder, folder, merger)
        if at_work is not None:
            at_work.sessions.append(sessions)
        return _SessionLogic(sessions, snapshots, keeper, kept, metrics.StateSize(step_id))

    return op.stateful_batch("sessions", up, build)


_encode = msgspec.msgpack.Encoder().encode


class _SessionLogic(StatefulBatchLogic[Timed, list[Session], bytes]):
    def __init__(
        self, sessions: Sessions, snapshots: Snapshots, keeper: Keeper, kept: list[tuple], size: metrics.StateSize
    ) -> None:
        self.sessions = sessions
        self.snapshots = snapshots
        self.keeper = keeper
        self.kept = kept  # sessions that are still as a snapshot has them
        self.size = size
        self.open = metrics.OpenSessions()
        self.open.are(len(kept))
        for *_, fold in kept:
            keeper.announce(fold)

    def on_batch(self, values: list[Timed]) -> tuple[list[list[Session]], bool]:
        if self.kept:
            self.restore()
        closed = []
        for batch in values:
            self.sessions.add(batch.rows)
            closed += self.sessions.close(batch.watermark)
        self.open.are(self.sessions.count, self.sessions.opened)
        if closed:
            metrics.sessions_closed.inc(len(closed))
        return ([closed] if closed else []), StatefulBatchLogic.RETAIN

    @inside_engine
    def restore(self) -> None:
        unpack = self.keeper.unpack
        self.sessions.restore(Session(user, start, end, unpack(kept), kept) for user, start, end, kept in self.kept)
        self.kept = []

    def snapshot(self) -> bytes:
        pack, entries = self.keeper.pack, []
        for sessions in self.sessions.open.values():
            for each in sessions:
                if each.entry is None:
                    each.kept = pack(each.fold, each.kept)
                    each.entry = msgspec.Raw(_encode((each.user, each.start, each.end, each.kept)))
                entries.append(each.entry)
        return self.size.of(self.snapshots.pack(entries + self.kept))


class _Mapper:
    """A mapper for `stateful_map` whose state is an object here, and bytes in the recovery store.

    Args:
        step: its id.
        snapshots: turns the object's `state()` into bytes and back.
        build: makes the object, from a state or from None.
        apply: the mapper itself, which changes the object in place.
    """

    def __init__(self, step: str, snapshots: Snapshots, build: Callable, apply: Callable) -> None:
        self._step = step
        self._snapshots = snapshots
        self._build = inside_engine(build)
        self._apply = apply

    def __call__(self, held: "_Held | bytes | None", batch: Any) -> tuple["_Held", Any]:
        if not isinstance(held, _Held):  # the first batch, or the first since a resume
            state = self._snapshots.unpack(held) if held is not None else None
            held = _Held(self._build(state), self._snapshots, metrics.StateSize(self._step))
        return held, self._apply(held.object, batch)


class _Held:
    """The state of a `stateful_map`; the engine deep-copies it at every snapshot, and gets the bytes."""

    __slots__ = ("object", "_snapshots", "_size")

    def __init__(self, object: Any, snapshots: Snapshots, size: metrics.StateSize) -> None:
        self.object = object
        self._snapshots = snapshots
        self._size = size

    def __deepcopy__(self, memo: dict) -> bytes:
        return self._size.of(self._snapshots.pack(self.object.state()))
