"""Lets `stateful_map` work on an object that changes in place.

The engine's `stateful_map` deep-copies its state at every snapshot. The adapter gives it a holder whose deep copy is
the state as bytes, which is what the recovery store wants anyway.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from dataflow.streaming.errors import inside_engine
from dataflow.streaming.hooks import Hooks
from dataflow.streaming.state import StateCodec


class Snapshotted(Protocol):
    """An object that can be snapshotted."""

    def state(self) -> Any:
        """What a snapshot holds of it; `StateCodec` can encode it."""


Object = TypeVar("Object", bound=Snapshotted)


class StatefulAdapter(Generic[Object]):
    """A mapper for `stateful_map`.

    Args:
        step_id: id of the step, for `hooks`.
        codec: turns the object's state into bytes and back.
        build: makes the object, from a state or from None.
        apply: the mapper: changes the object and returns what is emitted.
        hooks: hear of snapshots.
    """

    def __init__(
        self,
        step_id: str,
        codec: StateCodec[Any],
        build: Callable[[Any], Object],
        apply: Callable[[Object, Any], Any],
        hooks: Hooks,
    ) -> None:
        self._step_id = step_id
        self._codec = codec
        self._build = inside_engine(build)
        self._apply = apply
        self._hooks = hooks

    def __call__(self, holder: "StateHolder | bytes | None", batch: Any) -> "tuple[StateHolder, Any]":
        if not isinstance(holder, StateHolder):  # the first batch of a shard, or the first since a resume
            state = self._codec.unpack(holder) if holder is not None else None
            holder = StateHolder(self._build(state), self._step_id, self._codec, self._hooks)
        return holder, self._apply(holder.object, batch)


class StateHolder:
    """The state as the engine sees it: bytes whenever it is copied."""

    __slots__ = ("_codec", "_hooks", "_size", "_step_id", "object")

    def __init__(self, object: Any, step_id: str, codec: StateCodec[Any], hooks: Hooks) -> None:
        self.object = object
        self._step_id = step_id
        self._codec = codec
        self._hooks = hooks
        self._size = 0  # bytes, at the last snapshot

    def __deepcopy__(self, memo: dict[int, Any]) -> bytes:
        packed = self._codec.pack(self.object.state())
        self._hooks.on_snapshot(self._step_id, self._size, len(packed))
        self._size = len(packed)
        return packed
