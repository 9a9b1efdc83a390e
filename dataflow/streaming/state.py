"""The state of a step as bytes, for the recovery store.

MessagePack by msgspec: compact, fast, and with a version that is checked on reading, unlike a pickle. A header in front
of the state says which job it is of, so that no other job resumes from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from dataflow.streaming.errors import UserError, inside_engine

VERSION = 4  # of all states; increment it when a state changes its form

State = TypeVar("State")


def _ignore(name: str, before: float, now: float) -> None:
    pass


@dataclass(frozen=True)
class JobFingerprint:
    """Which job states belong to.

    Args:
        shards: number of shards; a resume with another number is refused.
        topics: names of all topics that are read and written; a resume with others is refused.
        job: its name; a resume under another is refused.
        numbers: settings that may change between runs, by name.
        on_change: called with the name of a changed setting, its value when the state was written, and its value now.
    """

    shards: int
    topics: tuple[str, ...] = ()
    job: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    on_change: Callable[[str, float, float], None] = _ignore


class _Version(msgspec.Struct, array_like=True):
    version: int


class _Head(msgspec.Struct, array_like=True):
    version: int
    shards: int
    topics: list[str]
    numbers: dict[str, float]
    state: msgspec.Raw
    job: str = ""  # of stores written before it was noted


class StateCodec(Generic[State]):
    """Encodes and decodes the states of one type, `state`."""

    def __init__(self, state: Any, fingerprint: JobFingerprint) -> None:
        self._fingerprint = fingerprint
        self._topics = list(fingerprint.topics)
        self._numbers = dict(fingerprint.numbers)
        self._first = msgspec.msgpack.Decoder(_Version)
        self._head = msgspec.msgpack.Decoder(_Head)
        self._state = msgspec.msgpack.Decoder(state)

    def pack(self, state: State) -> bytes:
        packed = msgspec.Raw(msgspec.msgpack.encode(state))
        return msgspec.msgpack.encode(
            _Head(VERSION, self._fingerprint.shards, self._topics, self._numbers, packed, self._fingerprint.job)
        )

    @inside_engine
    def unpack(self, data: bytes) -> State:
        """Raises UserError if the bytes are not of this version and this job."""
        try:
            version = self._first.decode(data).version
        except (msgspec.DecodeError, TypeError):
            raise UserError("the recovery store holds something else than this job's state; use an empty one") from None
        if version != VERSION:
            raise UserError(
                f"the recovery store was written by another version of this job (state {version}, "
                f"this one writes {VERSION}); resume with that version, or start with an empty store"
            )
        head = self._head.decode(data)
        if head.shards != self._fingerprint.shards:
            raise UserError(
                f"the recovery store was written with {head.shards} shards and this job has {self._fingerprint.shards}; "
                f"set VISITS_SHARDS={head.shards}, or start with an empty store"
            )
        if head.topics != self._topics:
            strange = [name for name in head.topics if name not in self._topics]
            raise UserError(
                f"the recovery store is of a job with other topics ({', '.join(strange or head.topics)}); "
                "set VISITS_TOPIC_* as they were, or start with an empty store"
            )
        if head.job and head.job != self._fingerprint.job:
            raise UserError(
                f"the recovery store is of the job {head.job!r} and this one is {self._fingerprint.job!r}; "
                f"set VISITS_GROUP={head.job}, or start with an empty store"
            )
        for name, before in head.numbers.items():
            if self._numbers.get(name, before) != before:
                self._fingerprint.on_change(name, before, self._numbers[name])
        state: State = self._state.decode(head.state)
        return state
