"""Paths: where in a message a value is.

    after.user_id                       of an object in an object
    "odd.name".x                        a name in quotes may hold dots, brackets and spaces
    items[0].id                         of an array, by position; [-1] is the last one
    params[key=page].value              of an array of objects, the first whose `key` is `page`
    @key  @timestamp  @header.source    of the record itself; a key or header may be JSON: @key.id
    @message.client_id                  of the whole message, where `each` takes it apart
    =page-view                          the text itself

A path goes on through a text that is JSON. What is null or an empty text is not there.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

_NAME = re.compile(r"""[^.\[\]"]+""")
_QUOTED = re.compile(r'"([^"]*)"')
_AT = re.compile(r"\[(-?\d+)\]")
_WHERE = re.compile(r"""\[([^=\[\]"]+|"[^"]*")=([^\]"]*|"[^"]*")\]""")


class Where(NamedTuple):
    """A step into an array of objects: the first one whose field has this text."""

    name: str
    text: str


Step = str | int | Where  # into an object by name, into an array by position, or by the text of a field

CONSTANT, KEY, TIMESTAMP, HEADER, MESSAGE, EVENT = "=", "@key", "@timestamp", "@header", "@message", ""


class Path(NamedTuple):
    """One path.

    `root` is where it begins: the event (""), the whole message, the record's key, timestamp or a header. Of a constant,
    `steps` is the text alone; of a header, the first step is its name.
    """

    root: str
    steps: tuple[Step, ...]
    text: str  # as it was written


def parse(text: str) -> Path:
    """A path as people write it. Raises ValueError, with what is wrong."""
    if text.startswith(CONSTANT):
        return Path(CONSTANT, (text[1:],), text)
    if not text:
        raise ValueError("a path is empty")
    root, rest = EVENT, text
    if text.startswith("@"):
        root, dot, rest = text.partition(".")
        if root not in (KEY, TIMESTAMP, HEADER, MESSAGE):
            raise ValueError(f"{text}: there are @key, @timestamp, @header.NAME and @message.NAME")
        if (root in (HEADER, MESSAGE)) != bool(rest) and root != KEY:
            raise ValueError(
                f"{text}: {'write ' + root + '.NAME' if root != TIMESTAMP else '@timestamp has no fields'}"
            )
        if dot and not rest:
            raise ValueError(f"{text}: a name is missing at its end")
    return Path(root, tuple(_steps(text, rest)), text)


def _steps(text: str, rest: str) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        if found := _AT.match(rest, at):
            steps.append(int(found[1]))
        elif found := _WHERE.match(rest, at):
            steps.append(Where(found[1].strip('"'), found[2].strip('"')))
        else:
            if steps:
                if rest[at] != ".":
                    raise ValueError(f"{text}: a dot is missing before {rest[at:]!r}")
                at += 1
            if found := _QUOTED.match(rest, at) or _NAME.match(rest, at):
                steps.append(found[1] if found.re is _QUOTED else found[0])
            else:
                raise ValueError(f"{text}: no name, [number] or [name=text] at {rest[at:]!r}")
        at = found.end()
    return steps


_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode

_QUOTE, _BRACE, _BRACKET = ord('"'), ord("{"), ord("[")
BLANKS = b" \t\n\r"  # what JSON takes for space

Json = bytes | msgspec.Raw
Node = dict[str, msgspec.Raw] | Sequence[msgspec.Raw]


def open_json(json: Json) -> Node | None:
    """An object's fields or an array's items, each as its own JSON; also of a text that is JSON. None: neither.

    Raises what msgspec raises for text that is not JSON at all.
    """
    json = bytes(json).lstrip(BLANKS)
    first = json[:1]
    if first == b'"':
        json = _text(json).encode().lstrip(BLANKS)
        first = json[:1]
    if first == b"{":
        return _object(json)
    if first == b"[":
        return _array(json)
    return None


class Document:
    """The JSON of one message, or of one event in it. What was opened for one path stays open for the next.

    Args:
        json: its text. Raises msgspec.DecodeError if it is not JSON.
    """

    __slots__ = ("_nodes",)

    def __init__(self, json: Json) -> None:
        self._nodes: dict[tuple[Step, ...], Node | None] = {(): open_json(json)}

    @property
    def root(self) -> Node | None:
        return self._nodes[()]

    def find(self, steps: tuple[Step, ...]) -> msgspec.Raw | None:
        """The JSON at the end of a path; None if the path leads nowhere."""
        return _child(self._node(steps[:-1]), steps[-1])

    def _node(self, steps: tuple[Step, ...]) -> Node | None:
        nodes = self._nodes
        if steps in nodes:
            return nodes[steps]
        found = _child(self._node(steps[:-1]), steps[-1])
        node = nodes[steps] = _opened(found) if found is not None else None
        return node


def _opened(json: msgspec.Raw) -> Node | None:
    try:
        return open_json(json)
    except (msgspec.DecodeError, RecursionError):
        return None  # a text that is not JSON


def _child(node: Node | None, step: Step) -> msgspec.Raw | None:
    if isinstance(node, dict):
        return node.get(step) if isinstance(step, str) else None
    if node is None or isinstance(step, str):
        return None
    if isinstance(step, int):
        return node[step] if -len(node) <= step < len(node) else None
    for item in node:
        fields = _opened(item)
        if isinstance(fields, dict) and (raw := fields.get(step.name)) is not None and text_of(raw) == step.text:
            return item
    return None


def text_of(json: Json) -> str | None:
    """The text of a value, or of a number as it was written; None for null, objects and arrays."""
    json = bytes(json)
    first = json[0]
    if first == _QUOTE:
        return _text(json)
    if first in (_BRACE, _BRACKET) or json == b"null":
        return None
    return json.decode()
