"""The state of a shard as bytes, for the recovery store.

MessagePack by msgspec: compact, fast, and of a version that is checked when it is read, unlike a pickle.
"""

from typing import Any, Generic, TypeVar

import msgspec

from dataflow.errors import UserError, inside_engine

VERSION = 1  # of everything that is written here; count up when a state changes its form

State = TypeVar("State")


class _Head(msgspec.Struct, array_like=True):
    version: int
    shards: int
    state: msgspec.Raw


class Snapshots(Generic[State]):
    """Writes and reads the states of one type, `state`, of a job with so many `shards`."""

    def __init__(self, state: Any, shards: int) -> None:
        self.shards = shards
        self._head = msgspec.msgpack.Decoder(_Head)
        self._state = msgspec.msgpack.Decoder(state)

    def pack(self, state: State) -> bytes:
        return msgspec.msgpack.encode(_Head(VERSION, self.shards, msgspec.Raw(msgspec.msgpack.encode(state))))

    @inside_engine
    def unpack(self, data: bytes) -> State:
        """Raises UserError if the bytes are not of this version and shard count."""
        try:
            head = self._head.decode(data)
        except (msgspec.DecodeError, TypeError):
            raise UserError("the recovery store holds something else than this job's state; use an empty one") from None
        if head.version != VERSION:
            raise UserError(
                f"the recovery store was written by another version of this job (state {head.version}, "
                f"this one writes {VERSION}); resume with that version, or start with an empty store"
            )
        if head.shards != self.shards:
            raise UserError(
                f"the recovery store was written with {head.shards} shards and this job has {self.shards}; "
                f"set VISITS_SHARDS={head.shards}, or start with an empty store"
            )
        return self._state.decode(head.state)
