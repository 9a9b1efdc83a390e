"""Event time, the interval join and session windows as Bytewax operators, keyed by shard.

A shard is a group of users. One element of the stream is a batch of one shard: Bytewax spends about 10 us on every key
that it wakes, so a key for every user would cost more than everything else. No operator reads the wall clock; all are
driven by the watermarks that arrive with the batches.
"""

# Callable of typing: Bytewax inspects the annotations, and on Python 3.10 cannot read that of collections.abc
from functools import partial
from typing import Any, Callable, Generic, Mapping, Protocol, TypeVar  # noqa: UP035

import bytewax.operators as op
import msgspec
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.batches import JoinedBatch, OnTimeBatch, ShardBatch, WatermarkedBatch
from dataflow.streaming.errors import START_OVER, UserError, inside_engine
from dataflow.streaming.hooks import Hooks, LiveState
from dataflow.streaming.interval_join import IntervalJoin, JoinSpec, JoinState
from dataflow.streaming.session_windows import Session, SessionWindows
from dataflow.streaming.state import Converter, JobFingerprint, StateCodec
from dataflow.streaming.stateful_adapter import StatefulAdapter
from dataflow.streaming.time import MAX_TIME, Time
from dataflow.streaming.watermark import WATERMARK_CONVERTERS, WatermarkState, WatermarkTracker

Fold = TypeVar("Fold")

_NO_HOOKS = Hooks()


class StateSerializer(Protocol):
    """Decides what a snapshot holds of a session's fold."""

    type: Any  # of what `pack` returns; msgspec can encode it
    converters: Mapping[int, Converter]  # of what it returned in versions before; see `StateCodec`

    def pack(self, fold: Any, packed: Any) -> Any:
        """What the snapshot holds of a fold; `packed` is what the last snapshot held of it, None if there was none."""

    def prefetch(self, packed: Any) -> None:
        """Announces something that will be unpacked; called for all of them before the first is."""

    def unpack(self, packed: Any) -> Any:
        """The fold again."""


class IdentitySerializer:
    """Holds whole folds in snapshots; `type` is theirs."""

    converters: Mapping[int, Converter] = {}

    def __init__(self, type: Any) -> None:
        self.type = type

    def pack(self, fold: Any, packed: Any) -> Any:
        return fold

    def prefetch(self, packed: Any) -> None:
        pass

    def unpack(self, packed: Any) -> Any:
        return packed


@operator
def track_watermark(
    step_id: str,
    up: KeyedStream[ShardBatch],
    lateness: int,
    fingerprint: JobFingerprint,
    alignment: SourceAlignment,
    hooks: Hooks = _NO_HOOKS,
    live_state: LiveState | None = None,
) -> KeyedStream[OnTimeBatch]:
    """Advances each shard's watermark, and separates the rows that it has already passed.

    Args:
        step_id: id of the step; a key in the recovery store.
        up: batches by shard.
        lateness: allowed lateness, in microseconds.
        fingerprint: identifies the job in snapshots.
        alignment: is told how far each source has come.
        hooks: `on_late` and `on_snapshot` are called.
        live_state: gets the tracker of each shard.
    """

    def build(state: WatermarkState | None) -> WatermarkTracker:
        tracker = WatermarkTracker(lateness)
        if state is not None:
            if state.watermark == MAX_TIME:
                raise UserError(
                    f"the recovery store is of a run that closed every session at the end (VISITS_STOP_AT_END); {START_OVER}"
                )
            tracker.restore(state)
        if live_state is not None:
            live_state.watermarks.append(tracker)
        return tracker

    def advance(tracker: WatermarkTracker, batch: ShardBatch) -> OnTimeBatch:
        source = batch.time.source
        rows, late = tracker.split(source, batch.rows)
        watermark = tracker.advance(batch.time)
        if late:
            hooks.on_late(source, len(late))
        alignment.update(source, tracker.source_watermarks[source], len(batch.time.sources))
        return OnTimeBatch(rows, watermark, late)

    codec: StateCodec[WatermarkState] = StateCodec(WatermarkState, fingerprint, WATERMARK_CONVERTERS)
    return op.stateful_map("clock", up, StatefulAdapter(step_id, codec, build, advance, hooks))


@operator
def interval_join(
    step_id: str,
    up: KeyedStream[WatermarkedBatch],
    window: int,
    spec: JoinSpec,
    fingerprint: JobFingerprint,
    retention: Time,
    hooks: Hooks = _NO_HOOKS,
    live_state: LiveState | None = None,
) -> KeyedStream[JoinedBatch]:
    """Pairs rows of two sides whose times are at most `window` apart.

    Rows of the left side are emitted at once, and each match after them as soon as it is decided: when the watermark has
    passed all rows that it may depend on. If no stretch of linked rows (see `dataflow.streaming.interval_join`) reaches
    farther, that is when it has passed the left row by more than twice the window. All rows of a batch must be of one
    side.

    Args:
        step_id: id of the step; a key in the recovery store.
        up: batches by shard.
        window: largest distance in time between the two rows, in microseconds; exactly this far apart still matches.
        spec: which rows can match, and what a match is.
        fingerprint: identifies the job in snapshots.
        retention: that of the session windows which get the matches, in microseconds, at least twice the window. They are
            told which sessions have to wait for longer. MAX_TIME if there are no session windows.
        hooks: `on_unmatched` and `on_snapshot` are called.
        live_state: gets the join of each shard.
    """
    left, own, mixed = spec.left, spec.own, spec.mixed

    def build(state: JoinState[Any, Any] | None) -> IntervalJoin:
        join = IntervalJoin(window, spec, retention)
        if state is not None:
            join.restore(state)
        if live_state is not None:
            live_state.joins.append(join)
        return join

    def match(join: IntervalJoin, batch: WatermarkedBatch) -> JoinedBatch:
        rows = batch.rows
        if mixed:
            join.add([row for row in rows if type(row) is not left])
            rows = [row for row in rows if type(row) is left]
        join.add(rows)
        decided = join.decide(batch.watermark)
        if decided.unmatched or decided.left_over:
            hooks.on_unmatched(len(decided.unmatched) + len(decided.left_over))
        if not rows or type(rows[0]) is not left:
            rows = []
        elif own is not None:
            rows = rows + own(rows)
        if decided.matches:
            rows = rows + decided.matches
        return JoinedBatch(rows, batch.watermark, decided.unmatched, decided.left_over, join.held)

    state: Any = JoinState[spec.probe, spec.right]  # type: ignore[name-defined]
    codec: StateCodec[JoinState[Any, Any]] = StateCodec(state, fingerprint, spec.converters(window))
    return op.stateful_map("join", up, StatefulAdapter(step_id, codec, build, match, hooks))


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
    hooks: Hooks = _NO_HOOKS,
    live_state: LiveState | None = None,
) -> KeyedStream[list[Session[Fold]]]:
    """Folds each user's rows into sessions, and emits lists of sessions that the watermark has closed.

    A session waits for matches of a join before it that are not decided yet.

    Args:
        step_id: id of the step; a key in the recovery store.
        up: batches by shard.
        gap: longest pause within a session, in microseconds; exactly this long is still the same session.
        retention: keep a session open for this long after its last row, if longer than the gap, in microseconds.
        fingerprint: identifies the job in snapshots.
        builder: starts a fold.
        folder: adds a row to a fold and returns it.
        merger: adds the fold of the next session to a fold and returns it.
        serializer: decides what snapshots hold of a fold; `IdentitySerializer(type)` holds all of it.
        hooks: `on_sessions` and `on_snapshot` are called.
        live_state: gets the session windows of each shard.
    """
    state: Any = list[tuple[bytes, int, int, serializer.type]]  # type: ignore[name-defined]
    converters = {version: partial(_convert_folds, convert) for version, convert in serializer.converters.items()}
    codec: StateCodec[Any] = StateCodec(state, fingerprint, converters)

    def build(data: bytes | None) -> SessionLogic[Fold]:
        restored = codec.unpack(data) if data is not None else []
        windows = SessionWindows(gap, retention, builder, folder, merger)
        if live_state is not None:
            live_state.sessions.append(windows)
        return SessionLogic(step_id, windows, codec, serializer, restored, hooks)

    return op.stateful_batch("sessions", up, build)


def _convert_folds(convert: Converter, sessions: list[list[Any]]) -> list[list[Any]]:
    return [[user, start, end, convert(packed)] for user, start, end, packed in sessions]


_encode = msgspec.msgpack.Encoder().encode


class SessionLogic(StatefulBatchLogic[WatermarkedBatch, list[Session[Fold]], bytes], Generic[Fold]):
    """The sessions of one shard, as the engine's `stateful_batch` drives them.

    Restored sessions stay packed until the first batch: by then every shard has announced what it will unpack, so
    events are fetched from Kafka in one pass.
    """

    def __init__(
        self,
        step_id: str,
        windows: SessionWindows[Fold],
        codec: StateCodec[Any],
        serializer: StateSerializer,
        restored: list[tuple[bytes, int, int, Any]],
        hooks: Hooks,
    ) -> None:
        self._step_id = step_id
        self._windows = windows
        self._codec = codec
        self._serializer = serializer
        self._restored = restored  # (user, start, end, packed fold)
        self._hooks = hooks
        self._size = 0  # bytes, of the last snapshot
        self._open = len(restored)  # as the hooks know it
        self._begun = 0
        hooks.on_sessions(self._open, 0, 0)
        for *_, packed in restored:
            serializer.prefetch(packed)

    def on_batch(self, values: list[WatermarkedBatch]) -> tuple[list[list[Session[Fold]]], bool]:
        windows = self._windows
        if self._restored:
            self._restore()
        closed: list[Session[Fold]] = []
        for batch in values:
            windows.add(batch.rows)
            closed += windows.close(batch.watermark, batch.held if isinstance(batch, JoinedBatch) else {})
        if closed or windows.count != self._open or windows.begun != self._begun:
            self._hooks.on_sessions(windows.count - self._open, windows.begun - self._begun, len(closed))
            self._open, self._begun = windows.count, windows.begun
        return ([closed] if closed else []), StatefulBatchLogic.RETAIN

    @inside_engine
    def _restore(self) -> None:
        unpack = self._serializer.unpack
        self._windows.restore(
            Session(user, start, end, unpack(packed), packed) for user, start, end, packed in self._restored
        )
        self._restored = []

    def snapshot(self) -> bytes:
        """Packs only the sessions that have changed since the last snapshot."""
        pack = self._serializer.pack
        entries: list[Any] = []
        for sessions in self._windows.open.values():
            for session in sessions:
                if session.snapshot_entry is None:
                    session.packed = pack(session.fold, session.packed)
                    session.snapshot_entry = msgspec.Raw(
                        _encode((session.user, session.start, session.end, session.packed))
                    )
                entries.append(session.snapshot_entry)
        data = self._codec.pack(entries + self._restored)
        self._hooks.on_snapshot(self._step_id, self._size, len(data))
        self._size = len(data)
        return data
