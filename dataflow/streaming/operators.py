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

from dataflow.observability import metrics
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.batches import JoinedBatch, OnTimeBatch, ShardBatch, WatermarkedBatch
from dataflow.streaming.errors import UserError, inside_engine
from dataflow.streaming.interval_join import IntervalJoin, JoinSpec, JoinState
from dataflow.streaming.session_windows import Session, SessionWindows
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MAX_TIME
from dataflow.streaming.watermark import WatermarkState, WatermarkTracker

Fold = TypeVar("Fold")


class StateSerializer(Protocol):
    """What a snapshot keeps of a session's fold."""

    type: Any  # of what is kept; msgspec can encode it

    def pack(self, fold: Any, before: Any) -> Any:
        """What is kept; `before` is what was kept of this session at the last snapshot, None if there was none."""

    def prefetch(self, references: Any) -> None:
        """Hears of everything that a process is to unpack, before it has to unpack the first."""

    def unpack(self, references: Any) -> Any:
        """The fold again."""


class IdentitySerializer:
    """Keeps folds as they are; `type` is theirs."""

    def __init__(self, type: Any) -> None:
        self.type = type

    def pack(self, fold: Any, before: Any) -> Any:
        return fold

    def prefetch(self, references: Any) -> None:
        pass

    def unpack(self, references: Any) -> Any:
        return references


@dataclass(frozen=True)
class LiveState:
    """The rules at work in the shards of this process, for whoever wants to look at them; each adds itself."""

    clocks: list[WatermarkTracker] = field(default_factory=list)
    joins: list[IntervalJoin] = field(default_factory=list)
    sessions: list[SessionWindows] = field(default_factory=list)


@operator
def track_watermark(
    step_id: str,
    up: KeyedStream[ShardBatch],
    lateness: int,
    fingerprint: JobFingerprint,
    alignment: SourceAlignment,
    live_state: LiveState | None = None,
) -> KeyedStream[OnTimeBatch]:
    """Advances a shard's watermark, and takes out rows that it has passed.

    Args:
        lateness: allowed lateness, in microseconds.
        origin: whose snapshots they are.
        pace: hears how far each source has come.
        at_work: gets the clock of each shard.
    """

    def build(state: WatermarkState | None) -> WatermarkTracker:
        made = WatermarkTracker(lateness)
        if state is not None:
            if state.watermark == MAX_TIME:
                raise UserError("the recovery store is of a run that stopped at the end; start with an empty one")
            made.restore(state)
        if live_state is not None:
            live_state.clocks.append(made)
        return made

    def advance(tracker: WatermarkTracker, batch: ShardBatch) -> OnTimeBatch:
        source = batch.time.source
        rows, late = tracker.split(source, batch.rows)
        watermark = tracker.advance(batch.time)
        if late:
            metrics.count_overtaken(source, len(late))
        alignment.hear(source, tracker.source_watermarks[source], len(batch.time.sources))
        return OnTimeBatch(rows, watermark, late)

    return op.stateful_map(
        "clock", up, _StatefulAdapter(step_id, StateCodec(WatermarkState, fingerprint), build, advance)
    )


@operator
def interval_join(
    step_id: str,
    up: KeyedStream[WatermarkedBatch],
    window: int,
    spec: JoinSpec,
    fingerprint: JobFingerprint,
    live_state: LiveState | None = None,
) -> KeyedStream[JoinedBatch]:
    """Finds rows of two sides that belong together.

    Rows from the left go on at once, each match after them as soon as both sides are there. All rows of a batch have to
    be of one side.

    Args:
        window: largest distance between the two, in microseconds.
        sides: who meets whom.
        origin: whose snapshots they are.
        at_work: gets the join of each shard.
    """
    left = spec.left

    def build(state: JoinState | None) -> IntervalJoin:
        made = IntervalJoin(window, spec)
        if state is not None:
            made.restore(state)
        if live_state is not None:
            live_state.joins.append(made)
        return made

    def join(held: IntervalJoin, batch: WatermarkedBatch) -> JoinedBatch:
        matches = held.add(batch.rows)
        lefts = batch.rows if batch.rows and type(batch.rows[0]) is left else []
        unmatched = held.expire(batch.watermark)
        if unmatched:
            metrics.unmatched.inc(len(unmatched))
        return JoinedBatch(lefts + matches if matches else lefts, batch.watermark, unmatched)

    state: Any = JoinState[spec.probe, spec.right]
    return op.stateful_map("join", up, _StatefulAdapter(step_id, StateCodec(state, fingerprint), build, join))


@operator
def session_window(
    step_id: str,
    up: KeyedStream[WatermarkedBatch],
    gap: int,
    retention: int,
    fingerprint: JobFingerprint,
    builder: Callable[[], Fold],
    folder: Callable[[Fold, Any], Fold],
    merger: Callable[[Fold, Fold], Fold],
    serializer: StateSerializer,
    live_state: LiveState | None = None,
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
    codec = StateCodec(list[tuple[bytes, int, int, serializer.type]], fingerprint)

    def build(data: bytes | None) -> _SessionLogic:
        references = codec.unpack(data) if data is not None else []
        sessions = SessionWindows(gap, retention, builder, folder, merger)
        if live_state is not None:
            live_state.sessions.append(sessions)
        return _SessionLogic(sessions, codec, serializer, references, metrics.StateSize(step_id))

    return op.stateful_batch("sessions", up, build)


_encode = msgspec.msgpack.Encoder().encode


class _SessionLogic(StatefulBatchLogic[WatermarkedBatch, list[Session], bytes]):
    def __init__(
        self,
        sessions: SessionWindows,
        codec: StateCodec,
        serializer: StateSerializer,
        references: list[tuple],
        size: metrics.StateSize,
    ) -> None:
        self.sessions = sessions
        self.codec = codec
        self.serializer = serializer
        self.references = references  # sessions that are still as a snapshot has them
        self.size = size
        self.open = metrics.OpenSessions()
        self.open.are(len(references))
        for *_, fold in references:
            serializer.prefetch(fold)

    def on_batch(self, values: list[WatermarkedBatch]) -> tuple[list[list[Session]], bool]:
        if self.references:
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
        unpack = self.serializer.unpack
        self.sessions.restore(
            Session(user, start, end, unpack(references), references)
            for user, start, end, references in self.references
        )
        self.references = []

    def snapshot(self) -> bytes:
        pack, entries = self.serializer.pack, []
        for sessions in self.sessions.open.values():
            for each in sessions:
                if each.entry is None:
                    each.references = pack(each.fold, each.references)
                    each.entry = msgspec.Raw(_encode((each.user, each.start, each.end, each.references)))
                entries.append(each.entry)
        return self.size.of(self.codec.pack(entries + self.references))


class _StatefulAdapter:
    """A mapper for `stateful_map` whose state is an object here, and bytes in the recovery store.

    Args:
        step: its id.
        snapshots: turns the object's `state()` into bytes and back.
        build: makes the object, from a state or from None.
        apply: the mapper itself, which changes the object in place.
    """

    def __init__(self, step: str, codec: StateCodec, build: Callable, apply: Callable) -> None:
        self._step = step
        self._codec = codec
        self._build = inside_engine(build)
        self._apply = apply

    def __call__(self, held: "_StateHolder | bytes | None", batch: Any) -> tuple["_StateHolder", Any]:
        if not isinstance(held, _StateHolder):  # the first batch, or the first since a resume
            state = self._codec.unpack(held) if held is not None else None
            held = _StateHolder(self._build(state), self._codec, metrics.StateSize(self._step))
        return held, self._apply(held.object, batch)


class _StateHolder:
    """The state of a `stateful_map`; the engine deep-copies it at every snapshot, and gets the bytes."""

    __slots__ = ("object", "_codec", "_size")

    def __init__(self, object: Any, codec: StateCodec, size: metrics.StateSize) -> None:
        self.object = object
        self._codec = codec
        self._size = size

    def __deepcopy__(self, memo: dict) -> bytes:
        return self._size.of(self._codec.pack(self.object.state()))
