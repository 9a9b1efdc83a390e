"""Proposes a mapping for messages, by the names and the values of their fields."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dataflow.clickstream.mapping.times import parse_time

_DEPTH = 6
_EXAMPLES = 3
_PER_LEVEL = 2  # ranks that a path loses for each dot
_MOST_PATHS = 3
_KINDS = 20  # listed
_YEARS = 946_684_800_000_000, 4_102_444_800_000_000  # 2000 and 2100, microseconds: times of events are in between
_PLAIN_NAME = re.compile(r"[^.\[\]\"=@][^.\[\]\"]*")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")

PAGE_VIEW = re.compile(
    r"page.?view|screen.?view|page.*viewed|(^|_)(view|page|screen)$|^\$(pageview|screen)$|^(home|catalog)$",
    re.IGNORECASE,
)
PURCHASE = re.compile(
    r"purchas|transaction|^buy$|^order$|order.*(complet|plac|paid|creat)|checkout.*complet|^sale$", re.IGNORECASE
)


@dataclass
class Field:
    """A path that leads to values in some messages; by the message's number, the (last) value in it."""

    path: str
    found: dict[int, str] = field(default_factory=dict)

    @cached_property
    def values(self) -> Counter[str]:
        """How often each value was found."""
        return Counter(self.found.values())

    @property
    def name(self) -> str:
        """The last name in the path, or the key that chose an item, without case and punctuation."""
        keys = re.findall(r"\[key=([^\]]*)\]", self.path)
        last = keys[-1] if keys else self.path.replace('"', "").rpartition(".")[2]
        return re.sub(r"[^a-z]", "", last.lower()) or self.path.lower()


@dataclass(frozen=True)
class Role:
    """How the path of one of our fields is recognised.

    Args:
        names: what such fields are called, the best first, without case and punctuation, between spaces.
        fits: whether the values that were seen can be such.
    """

    names: str
    fits: Callable[[Field], bool]


def _share(found: Field, test: Callable[[str], bool]) -> float:
    return sum(count for value, count in found.values.items() if test(value)) / (found.values.total() or 1)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _is_time(text: str) -> bool:
    try:
        return _YEARS[0] <= parse_time(text) < _YEARS[1]
    except ValueError:
        return False


_ROLES: Mapping[str, Role] = {
    "user": Role(
        "anonymousid userpseudoid visitorid domainuserid distinctid userid customerid clientid deviceid "
        "cookieid memberid accountid uid visitor user customer client device cookie subject session",
        lambda found: (
            (_share(found, _is_time) < 0.9 or "id" in found.name) and not found.values.keys() <= {"true", "false"}
        ),
    ),
    "time": Role(
        "timestamp eventtime eventtimestamp derivedtstamp time createdat occurredat ts datetime viewtime date "
        "at originaltimestamp sentat receivedat collectortstamp",
        lambda found: _share(found, _is_time) > 0.9,
    ),
    "type": Role(
        "eventtype eventname event action activity name type kind verb op",
        lambda found: _share(found, _is_number) < 0.5 and len(found.values) <= max(20, len(found.found) // 3),
    ),
    "page": Role(
        "path pagepath pageurlpath pageid pageurl pagelocation page url currenturl pathname screenname screen "
        "href productid itemid sku aid product item",
        lambda found: True,
    ),
    "amount": Role(
        "revenue purchaserevenue trtotal total amount ordertotal totalprice grandtotal paid price value sum totalcents",
        lambda found: _share(found, _is_number) > 0.9,
    ),
    "event_id": Role(
        "messageid eventid insertid uuid eventuuid id",
        lambda found: max(found.values.values(), default=0) == 1,
    ),
}
_SEVERAL = ("user", "type", "page", "amount")  # fields of which more than one path may be needed


def fields_of(documents: Iterable[Any]) -> dict[str, Field]:
    """All paths in JSON values that lead to a text or a number, in the order in which they were seen."""
    fields: dict[str, Field] = {}
    for number, document in enumerate(documents):
        for path, value in _leaves(document, ""):
            fields.setdefault(path, Field(path)).found[number] = value
    return fields


def _leaves(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > _DEPTH or value is None:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            step = name if _PLAIN_NAME.fullmatch(name) else f'"{name}"'
            if '"' not in name:
                yield from _leaves(inner, f"{path}.{step}" if path else step, depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("key"), str) and path:
                rest = {name: inner for name, inner in item.items() if name != "key"}
                yield from _leaves(rest, f"{path}[key={item['key']}]", depth + 1)
    elif isinstance(value, str):
        if value[:1] in "{[" and value:
            try:
                yield from _leaves(json.loads(value), path, depth + 1)
            except ValueError:
                pass
            else:
                return
        if value:
            yield path, value
    else:
        yield path, json.dumps(value)


def candidates(role: str, fields: Mapping[str, Field]) -> list[Field]:
    """The paths that may lead to one of our fields, the best first: those with a good name, not deep in the message."""
    names, fits = _ROLES[role].names.split(), _ROLES[role].fits
    ranked = [
        (names.index(found.name) + _PER_LEVEL * found.path.count("."), found)
        for found in fields.values()
        if found.name in names and fits(found)
    ]
    if not ranked:  # no name as expected: those that hold one
        for found in fields.values():
            rank = next((number for number, name in enumerate(names) if len(name) > 3 and name in found.name), None)
            if rank is not None and fits(found):
                ranked.append((rank + _PER_LEVEL * found.path.count("."), found))
    return [found for _, found in sorted(ranked, key=lambda each: each[0])]


def suggestion(topic: str, documents: list[Any]) -> str:
    """The text of a mapping file for messages of one topic.

    Args:
        topic: its name.
        documents: the messages' JSON values.
    """
    each = _array(documents)
    if each is not None:
        documents = [item for document in documents for item in _items(document, each)]
    fields = fields_of(documents)
    chosen = {role: _chosen(role, fields) for role in _ROLES}
    are_purchases = bool(chosen["amount"]) and not chosen["type"]
    lines = ["[purchases]" if are_purchases else "[events]", f'topics     = ["{topic}"]']
    if each is not None:
        lines.append(f'each       = "{each}"')
    lines += [_line(role, paths, len(documents)) for role, paths in chosen.items() if paths or not are_purchases]
    if any(found.name.endswith("cents") for found in chosen["amount"]):
        lines.append("amount_decimals = 2")
    if not are_purchases:
        lines += _kinds(chosen["type"], chosen["amount"])
    return "\n".join(lines) + "\n"


def _kinds(types: list[Field], amounts: list[Field]) -> list[str]:
    """The lists of kinds: by their names, and for purchases otherwise by what has an amount."""
    kind_of: dict[int, str] = {}
    for found in reversed(types):
        kind_of |= found.found
    kinds = Counter(kind_of.values())
    page_views = [kind for kind, _ in kinds.most_common() if PAGE_VIEW.search(kind)]
    purchases = [kind for kind, _ in kinds.most_common() if PURCHASE.search(kind)]
    if not purchases:
        paid = {kind_of[number] for found in amounts for number in found.found if number in kind_of}
        purchases = [kind for kind, _ in kinds.most_common() if kind in paid]
    return [
        f"page_views = {json.dumps(page_views, ensure_ascii=False)}",
        f"purchases  = {json.dumps(purchases, ensure_ascii=False)}",
        f"# kinds: {', '.join(f'{kind} ({count})' for kind, count in kinds.most_common(_KINDS))}",
    ]


def _chosen(role: str, fields: Mapping[str, Field]) -> list[Field]:
    """The paths to write down: the best one, and those with which a value is found in more messages."""
    left = candidates(role, fields)
    chosen: list[Field] = []
    covered: set[int] = set()
    while left and len(chosen) < (_MOST_PATHS if role in _SEVERAL else 1):
        best = left[0] if not chosen else max(left, key=lambda each: len(each.found.keys() - covered))
        if not best.found.keys() - covered:
            break
        chosen.append(best)
        covered |= best.found.keys()
        left.remove(best)
    return chosen


def _line(role: str, paths: list[Field], messages: int) -> str:
    if not paths:
        missing = {"page": "not found; leave it out if there is none", "amount": "not found: a topic of its own?"}
        constant = ' or "=page-view" for a constant' if role == "type" else ""
        return f"# {role:8} = ?  {missing.get(role, 'not found' + constant)}"
    texts = [_quoted(each.path) for each in paths]
    value = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    first = paths[0]
    examples = ", ".join(value[:40] for value, _ in first.values.most_common(_EXAMPLES))
    return f"{role:10} = {value}  # in {len(first.found)} of {messages}: {examples}"


def _quoted(path: str) -> str:
    return f"'{path}'" if '"' in path else f'"{path}"'


def _array(documents: list[Any]) -> str | None:
    """The path to an array of events that messages hold."""
    if documents and all(isinstance(document, list) for document in documents):
        return "[]"
    for name in "events", "batch", "hits", "records", "data", "items":
        arrays: list[Any] = [document.get(name) for document in documents if isinstance(document, dict)]
        if arrays and all(isinstance(array, list) and array and isinstance(array[0], dict) for array in arrays):
            items = [item for array in arrays for item in array]
            if candidates("type", fields_of(items)) or candidates("time", fields_of(items)):
                return name
    return None


def _items(document: Any, each: str) -> list[Any]:
    items = document if each == "[]" else document[each]
    return [item for item in items if isinstance(item, dict)]
