"""The mapping file: TOML, with a table for each role of a message, `[events]` and `[purchases]`.

docs/mapping.md describes every entry. `load` reads one and checks all of it, so that a decoder made of it cannot fail
for a reason that is in the file.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from importlib import import_module, resources
from pathlib import Path as FilePath
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from dataflow.clickstream.mapping import paths
from dataflow.streaming.errors import UserError
from dataflow.streaming.position import TOPIC_LIMIT

PRESETS = "dataflow.clickstream.mapping", "presets"

Text = str | list[str]
Rejection = Literal["dead-letter", "ignore"]
NoSchema = Literal["json"]

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
KIND_LISTS = ("page_views", "purchases", "ignore", "only")
FIELDS = ("user", "type", "page", "time", "amount", "event_id")


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """What both tables of the file have: which messages play the role, and where the fields are in them.

    Paths are tried in order, and the first that leads to something counts; see `dataflow.clickstream.mapping.paths`.
    """

    topics: Text
    format: NoSchema = "json"
    decode: str = ""  # "module:function" that makes JSON's types of a message, instead of a format
    each: str = ""  # path to an array whose items are the events; "[]": the message is the array
    user: Text = []
    type: Text = []
    page: Text = []
    time: Text = []
    amount: Text = []
    event_id: Text = []
    time_unit: Literal["", "s", "ms", "us", "ns"] = ""
    time_zone: str = "UTC"  # of times without an offset
    amount_decimals: int = 0  # the amount is in units of so many decimals: 2 for cents
    amount_encoding: Literal["", "base64"] = ""  # base64: of a big-endian integer, as Debezium writes decimals
    only: list[str] = []  # other kinds are ignored
    ignore: list[str] = []
    anonymous: list[str] = []  # ids that are no user
    no_user: Rejection = "dead-letter"
    no_value: Rejection = "dead-letter"  # messages without a value, as Debezium and compaction write them

    @cached_property
    def topic_names(self) -> tuple[str, ...]:
        return (self.topics,) if isinstance(self.topics, str) else tuple(self.topics)

    def paths(self, field: str) -> tuple[paths.Path, ...]:
        """The paths of one of our fields."""
        written: Text = getattr(self, field)
        return tuple(map(paths.parse, [written] if isinstance(written, str) else written))

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @cached_property
    def decode_function(self) -> Callable[[Any], Any] | None:
        """What `decode` names, imported."""
        if not self.decode:
            return None
        module, _, name = self.decode.partition(":")
        function: Callable[[Any], Any] = getattr(import_module(module), name)
        return function


class Events(Role, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The table `[events]`."""

    page_views: list[str] = msgspec.field(default_factory=lambda: ["page-view"])
    purchases: list[str] = msgspec.field(default_factory=lambda: ["purchase"])


class Purchases(Role, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The table `[purchases]`."""


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names of the fields that visits get."""

    session_id: str = "session_id"
    amount: str = "amount"


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A mapping file."""

    events: Events
    purchases: Purchases | None = None
    output: Output = Output()
    rules: dict[str, float] = {}  # settings of the rules, by their names in lower case

    @cached_property
    def reading(self) -> str:
        """A short text that stands for how messages are read: for everything but the lists of kinds and the rules."""
        roles = [
            msgspec.structs.replace(role, **{name: [] for name in KIND_LISTS if hasattr(role, name)})
            for role in (self.events, self.purchases)
            if role is not None
        ]
        return blake2b(msgspec.msgpack.encode((roles, self.output)), digest_size=8).hexdigest()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The lists of kinds, by the table and the entry that they are in."""
        lists = {}
        for table, role in ("events", self.events), ("purchases", self.purchases):
            for name in KIND_LISTS:
                if hasattr(role, name):
                    lists[f"{table}.{name}"] = ", ".join(sorted(getattr(role, name)))
        return lists

    def role_of(self, topic: str) -> Role:
        """The table whose `each`, `decode`, `no_value` and `format` hold for a topic: `[events]` if it is in both."""
        if topic in self.events.topic_names or self.purchases is None:
            return self.events
        return self.purchases

    @property
    def page_views(self) -> frozenset[str]:
        """The kinds of events that are page views."""
        return frozenset(self.events.page_views)

    @property
    def purchase_kinds(self) -> frozenset[str]:
        """The kinds of events that are purchases."""
        return frozenset(self.events.purchases)


def preset_names() -> list[str]:
    """The mappings that ship with the package."""
    folder = resources.files(PRESETS[0]) / PRESETS[1]
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def load(name: str) -> Mapping:
    """Reads a mapping.

    Args:
        name: path of a file, or the name of a preset.

    Raises:
        UserError: there is no such file, or it is not right; one line that says what.
    """
    if name in preset_names():
        text = (resources.files(PRESETS[0]) / PRESETS[1] / f"{name}.toml").read_text()
    else:
        try:
            text = FilePath(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"the mapping {name} cannot be read: {why}; presets are {', '.join(preset_names())}"
            ) from None
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"the mapping {name}: {error}") from None


def parse(text: str) -> Mapping:
    """The mapping in a file's text. Raises ValueError, with what is wrong."""
    try:
        tables = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    try:
        mapping = msgspec.convert(tables, Mapping)
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error))) from None
    _check("events", mapping.events, required=("user", "type", "time"))
    if mapping.purchases is not None:
        _check("purchases", mapping.purchases, required=("user", "time", "amount"))
    _check_kinds(mapping.events)
    if mapping.purchases is not None:
        events, purchases = set(mapping.events.topic_names), set(mapping.purchases.topic_names)
        if events & purchases and len(events | purchases) > TOPIC_LIMIT:
            raise ValueError(f"where a topic is in both tables, there are at most {TOPIC_LIMIT} topics")
    if mapping.output.session_id == mapping.output.amount:
        raise ValueError("[output]: session_id and amount have one name")
    return mapping


def _check(table: str, role: Role, required: Sequence[str]) -> None:
    if not role.topic_names or len(role.topic_names) > TOPIC_LIMIT:
        raise ValueError(f"[{table}] topics: 1 to {TOPIC_LIMIT} names")
    for name in role.topic_names:
        if not _TOPIC.fullmatch(name) or role.topic_names.count(name) > 1:
            raise ValueError(f"[{table}] topics: {name!r} is no topic's name, or there twice")
    for field in FIELDS:
        try:
            found = role.paths(field)
        except ValueError as error:
            raise ValueError(f"[{table}] {field}: {error}") from None
        if field in required and not found:
            raise ValueError(
                f'[{table}] has no {field}; say where it is in a message, or {field} = "=..." for a constant'
            )
    if role.each and role.each != "[]":
        try:
            each = paths.parse(role.each)
        except ValueError as error:
            raise ValueError(f"[{table}] each: {error}") from None
        if each.root != paths.EVENT or not all(isinstance(step, str) for step in each.steps):
            raise ValueError(
                f'[{table}] each: names of fields such as data.events, or "[]" if the message is the array'
            )
    if (role.only or role.ignore) and not role.type:
        raise ValueError(f"[{table}] only and ignore need type, which says where the kind is")
    try:
        role.zone  # noqa: B018
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"[{table}] time_zone: there is no zone {role.time_zone!r}") from None
    if not 0 <= role.amount_decimals <= 18:
        raise ValueError(f"[{table}] amount_decimals: 0 to 18")
    try:
        role.decode_function  # noqa: B018
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"[{table}] decode: {role.decode!r} is no function as module:function: {error}") from None


def _check_kinds(events: Events) -> None:
    twice = set(events.page_views) & set(events.purchases) | (set(events.page_views) | set(events.purchases)) & set(
        events.ignore
    )
    if twice:
        raise ValueError(f"[events]: {min(twice)!r} is in two of page_views, purchases and ignore")


def _explained(error: str) -> str:
    """An error of msgspec's, in the words of the file."""
    where = re.search(r" - at `\$\.?([^`]*)`$", error)
    text = error[: where.start()] if where else error
    table = f"[{where[1].partition('.')[0]}] " if where and where[1] else ""
    if found := re.search(r"unknown field `([^`]*)`", text):
        names = (*Mapping.__struct_fields__, *Events.__struct_fields__, *Output.__struct_fields__)
        near = difflib.get_close_matches(found[1], names, n=1)
        return f"{table}there is no {found[1]}{f'; did you mean {near[0]}?' if near else ''}"
    if found := re.search(r"missing required field `([^`]*)`", text):
        return f"{table or ''}{found[1]} is missing"
    entry = where[1].partition(".")[2] if where else ""
    return f"{table}{entry + ': ' if entry else ''}{text[:1].lower()}{text[1:]}"
