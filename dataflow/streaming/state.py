"""The state of a step as bytes, for the recovery store.

MessagePack by msgspec: compact, fast, and with a version that is checked on reading, unlike a pickle. A header in front
of the state says which job it is of, so that no other job resumes from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from dataflow.streaming.errors import START_OVER, UserError, inside_engine

VERSION = 5  # of all states; increment it when a state changes its form
_OLDEST = 4  # that can be read; a state of a version before the present one goes through its codec's converters

State = TypeVar("State")
Converter = Callable[[Any], Any]  # of a state in MessagePack's types, from one version to the next
Settings = Mapping[str, float | str]


def _ignore(name: str, before: float | str, now: float | str) -> None:
    pass


@dataclass(frozen=True)
class JobFingerprint:
    """Which job states belong to.

    Args:
        shards: number of shards; a resume with another number is refused.
        topics: names of all topics that are read and written; a resume with others is refused.
        job: its name; a resume under another is refused.
        settings: those that decide what is written and may change between runs, by name.
        on_change: called with the name of a changed setting, its value when the state was written, and its value now.
        topic_ids: Kafka's ids of the topics, by name. Offsets mean nothing in a topic of the same name that was created
            later, so a resume with another id is refused. Topics whose id is not known are left out.
        optional_topics: those of `topics` that may be new since the state was written.
    """

    shards: int
    topics: tuple[str, ...] = ()
    job: str = ""
    settings: Settings = field(default_factory=dict)
    on_change: Callable[[str, float | str, float | str], None] = _ignore
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    optional_topics: tuple[str, ...] = ()


class _Version(msgspec.Struct, array_like=True):
    version: int


class _Head(msgspec.Struct, array_like=True):
    version: int
    shards: int
    topics: list[str]
    settings: dict[str, float | str]
    state: msgspec.Raw
    job: str = ""  # of stores written before it was noted
    topic_ids: dict[str, str] = {}


class StateCodec(Generic[State]):
    """Encodes and decodes the states of one type.

    Args:
        state: the type.
        fingerprint: of the job.
        converters: by version, what makes the state of the next version of it. Versions in which this state did not
            change are left out.
    """

    def __init__(self, state: Any, fingerprint: JobFingerprint, converters: Mapping[int, Converter] = {}) -> None:
        self._fingerprint = fingerprint
        self._converters = converters
        self._topics = list(fingerprint.topics)
        self._settings = dict(fingerprint.settings)
        self._topic_ids = dict(fingerprint.topic_ids)
        self._first = msgspec.msgpack.Decoder(_Version)
        self._head = msgspec.msgpack.Decoder(_Head)
        self._state = msgspec.msgpack.Decoder(state)

    def pack(self, state: State) -> bytes:
        packed = msgspec.Raw(msgspec.msgpack.encode(state))
        return msgspec.msgpack.encode(
            _Head(
                VERSION,
                self._fingerprint.shards,
                self._topics,
                self._settings,
                packed,
                self._fingerprint.job,
                self._topic_ids,
            )
        )

    def settings(self, data: bytes) -> Settings:
        """The settings under which a state was packed. Raises UserError as `unpack` does."""
        self._check_version(data)
        return self._head.decode(data).settings

    def topics(self, data: bytes) -> list[str]:
        """The topics of the job that packed a state. Raises UserError as `unpack` does."""
        self._check_version(data)
        return self._head.decode(data).topics

    @inside_engine
    def unpack(self, data: bytes) -> State:
        """Raises UserError if the bytes are not of this job, or of a version that cannot be read."""
        version = self._check_version(data)
        head = self._head.decode(data)
        self._check(head)
        packed: bytes | msgspec.Raw = head.state
        if version < VERSION:
            state = msgspec.msgpack.decode(packed)
            for each in range(version, VERSION):
                state = self._converters.get(each, _same)(state)
            packed = msgspec.msgpack.encode(state)
        decoded: State = self._state.decode(packed)
        return decoded

    def _check_version(self, data: bytes) -> int:
        try:
            version = self._first.decode(data).version
        except (msgspec.DecodeError, TypeError):
            raise UserError("the recovery store holds something else than this job's state; use an empty one") from None
        if not _OLDEST <= version <= VERSION:
            raise UserError(
                f"the recovery store was written by another version of this job (state {version}, this one reads "
                f"{_OLDEST} to {VERSION}); resume with that version, or {START_OVER}"
            )
        return version

    def _check(self, head: _Head) -> None:
        if head.shards != self._fingerprint.shards:
            raise UserError(
                f"the recovery store was written with {head.shards} shards and this job has {self._fingerprint.shards}; "
                f"set VISITS_SHARDS={head.shards}, or {START_OVER}"
            )
        optional = self._fingerprint.optional_topics
        if head.topics != [name for name in self._topics if name in head.topics or name not in optional]:
            strange = [name for name in head.topics if name not in self._topics]
            raise UserError(
                f"the recovery store is of a job with other topics ({', '.join(strange or head.topics)}); "
                f"set VISITS_TOPIC_* as they were, or {START_OVER}"
            )
        if head.job and head.job != self._fingerprint.job:
            raise UserError(
                f"the recovery store is of the job {head.job!r} and this one is {self._fingerprint.job!r}; "
                f"set VISITS_GROUP={head.job}, or {START_OVER}"
            )
        for name, before in head.topic_ids.items():
            if self._topic_ids.get(name, before) != before:
                raise UserError(
                    f"topic {name} was created again since the recovery store was written: offsets in the store mean "
                    f"other rows now; {START_OVER}"
                )
        for name, value in head.settings.items():
            if self._settings.get(name, value) != value:
                self._fingerprint.on_change(name, value, self._settings[name])


def _same(state: Any) -> Any:
    return state
