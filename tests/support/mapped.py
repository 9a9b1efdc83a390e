"""Random mappings, and random messages that most of them can read.

They are made by a `random.Random`, which takes a tenth of the time of Hypothesis' strategies; a seed is all that a test
draws.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from dataflow.clickstream.inputs import mapped_inputs
from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.mapping.spec import Mapping, parse
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import AddedFields
from dataflow.tools.reference import Record

from .logs import NOON, Logs

RANDOMS = st.integers(0, 2**64).map(Random)

# --- mappings ---

CLICKS, MORE, PAID, BOTH = "clicks", "app.clicks", "paid", "mixed"

_USERS = ["u", "user.id", '"odd.name"', "list[0].id", "list[-1]", "params[key=u].value", "blob.u", "user.deep.id"]
_USERS += ["@key", "@key.id", "@header.u", "@header.h.id", "@message.client", "=everybody"]
_KINDS = ["blob.k", "user.kind", "params[key=k].value", "@header.k", "=view"]
_PAGES = ["blob.p", "list[1]", "params[key=p].value", "@message.p", '"odd.name"']
_TIMES = ["at", "blob.t", "params[key=t].value", "@timestamp"]
_AMOUNTS = ["blob.a", "params[key=a].value"]


def _paths(rng: Random, pool: Sequence[str], usual: str) -> list[str]:
    """Most of them end with the field that nearly every message has."""
    if rng.random() < 0.2:
        return rng.sample(pool, rng.randint(1, min(3, len(pool))))
    return [*rng.sample(pool, rng.choice([0, 0, 1, 2])), usual]


def _or_not(rng: Random, **entries: Sequence[Any]) -> dict[str, Any]:
    """Some of these entries, each with one of its values."""
    return {name: rng.choice(values) for name, values in entries.items() if rng.random() < 0.17}


def _role(rng: Random) -> dict[str, Any]:
    return {
        "user": _paths(rng, _USERS, "u"),
        "type": _paths(rng, _KINDS, "k"),
        "time": _paths(rng, _TIMES, "t"),
        "page": _paths(rng, _PAGES, "p"),
        "amount": _paths(rng, _AMOUNTS, "a"),
        **_or_not(
            rng,
            time_unit=["s", "ms", "us", "ns"],
            time_zone=["Europe/Berlin", "America/New_York", "Asia/Kathmandu"],
            amount_decimals=[1, 2, 3],
            amount_encoding=["base64"],
            anonymous=[["guest", "5"]],
            no_user=["ignore"],
            no_value=["ignore"],
            ignore=[["ping"]],
        ),
    }


def random_mapping(rng: Random) -> Mapping:
    return parse(mapping_text(rng))


def mapping_text(rng: Random) -> str:
    """A mapping file."""
    events = {
        "topics": rng.choice([CLICKS, [CLICKS, MORE], [CLICKS, BOTH], [BOTH, MORE], BOTH]),
        **_role(rng),
        **_or_not(rng, only=[["view", "buy", "page-view", "purchase"]]),
        "each": rng.choice(["", "", "events", "data.events", "[]"]),
        "page_views": rng.choice([["page-view"], ["view", "page-view"]]),
        "purchases": rng.choice([["purchase"], ["buy", "purchase"]]),
    }
    if rng.random() < 0.4:
        del events["amount"]
    purchases = {
        "topics": rng.choice([PAID, PAID, BOTH, [BOTH, PAID], [MORE, PAID]]),
        **_role(rng),
        **_or_not(rng, each=["events", "[]"], only=[["order", "buy"]]),
    }
    output = rng.choice([{}, {}, {"session_id": "visit", "amount": "p"}, {"session_id": "original_a", "amount": "a"}])
    tables = {"events": events, "output": output, **({"purchases": purchases} if rng.random() < 0.75 else {})}
    return toml(tables)


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """The text of a mapping file."""
    lines = []
    for table, entries in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    return "\n".join(lines)


# --- messages, as texts of JSON ---

IDS = ["1", '"1"', '"u2"']
ODD_IDS = ["5", '"5"', "5.0", "-0", "1e2", '""', "null", '"guest"', '"\\u00e9 é"', "true"]
ODD_IDS += [
    '"a\\u0000"',
    f'"{"x" * 1001}"',
    f'"{"é" * 1000}"',
    '{"id":1}',
    "[1]",
    '"[1"',
    '" 1"',
    "123456789012345678901234567890",
]
KINDS = ['"view"', '"page-view"', '"purchase"', '"buy"']
ODD_KINDS = ['"order"', '"order"', '"ping"', '""', "null", "null", "7", "false", '"View"']
ODD_TIMES = [
    "null", '""', '"yesterday"', "1e3", "1.5e9", "-1", "-99999999999", "1e99", "1e100", "99999999999999.5", "0.0000005", "true",
    "1700000000123456.49999999999999999999", "1700000000123457.49999999999999999999", f"{NOON}.{'0' * 40}1", '"007"',
    '"2024-03-13"', '"2024-03-13T12:00"', '"2024-03-13T12:00:60Z"', '"2024-03-13T24:00:00Z"', '"2024-02-30T00:00:00Z"',
    '"2024-03-13T12:00:00+24:00"', '"2024-03-13T12:00:00-0130"', '"2024-03-13T12:00:00+01"', '"2024-10-27 02:30:00"',
    '"2024-03-31 02:30:00"', '"1893-04-01 00:06:31"', '"0001-01-01 00:00:00"', '"9999-12-31 23:59:59.9999999"',
    '"2024-03-13t12:00:00,1234565 UTC"', '"2024-03-13T12:00:00 "', '"2024-03-13T12:00:00\\nZ"', '"\\uff12024-03-13T12:00:00Z"',
    '"2024-03-13T12:00:00.0000004999999999999999999999999999Z"', '"2024-03-13T12:00:00.00000050000000000000000000001"',
]  # fmt: skip
AMOUNTS = ["1", "2.50", '"25.00"', '" 7 "', "1e2", "-3", "0", "5", "5.0", '"CcQ="', '"/w=="', "2500"]
ODD_AMOUNTS = [
    "null", '""', '"much"', "1e999", "-1e308", "1e-99999999", '"1e-9999999999999999999999"', "0e999999999", "-0.0", "true",
    "12345678901234567890123456789012345.67", '"1,50"', '"1.50 €"', '"\\u0661"', '"1\\u0663"', '"="', '"CcQ"', '"C cQ="', "1234",
    "9" * 401, '"+1"', '"01"', '"1."', '"\\u00a02\\u2003"', f'"{"A" * 4000}"', "[1]", "{}", "1E+2", "1e-2",
]  # fmt: skip
PAGES = ["1", '"1"', '"/a"', "null", '""', "1.0", "{}"]
OTHERS = ["1", '"x"', '{"y":[1.50, 2]}', '"é\\n"']
ODD_TEXTS = [
        "", " ", "null", "1", "1e999", '"x"', '"{"', '"[1,"', "[]", "{}", "{", '{"u":1', "NaN", "\x0b{}", "{}\x0c", '{"u":NaN}', '{"u":"\\ud800"}',
        '{"u":1,"u":2,"k":"view","t":1}', '{"u":"\x01"}', '{"u":1}x', "\ufeff{}", '{"blob":"{\\"u\\":\\"\\\\ud800\\"}","t":1}',
        '{"events":"[{}]"}', '{"data":"{"}', '{"data":[{"events":[]}]}', '"\\"{}\\""',
    ]  # fmt: skip
ODD_VALUES = [
    None,
    b"[" * 20_000,
    b'{"blob":"' + b"[" * 20_000 + b'"}',
    b'{"params":["' + b"[" * 20_000 + b'"],"u":1,"k":"k","t":1}',
    b'{"events":[' + b",".join([b"{}"] * 4_097) + b"]}",
]
KEYS = [None, None, b"1", b"u2", b"", b'{"id":"u2"}', b'{"id":5,"x":"\xff"}', b'"x"', b"\xff", b"{", b"[" * 20_000]  # fmt: skip
HEADERS = [b"u2", b"view", b"", None, b'{"id":1}', b'"\xff"', b"\xff"]
STORED = [0, 0, NOON * 1_000, NOON * 1_000 + 15_123, (NOON + 300) * 1_000]


def quoted(text: str) -> str:
    """A text that holds JSON, as JSON."""
    return json.dumps(text, ensure_ascii=False)


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f"{quoted(name)}:{value}" for name, value in fields.items()) + "}"


class Messages:
    """Makes messages.

    Args:
        rng: decides.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def record(self, each: str, offset: int = 0) -> Record:
        """A record of a topic whose messages are taken apart like this."""
        choice = self._rng.choice
        headers = [(choice("ukh"), choice(HEADERS)) for _ in range(choice([0, 0, 1, 2, 3]))]
        return Record(choice(KEYS), self._value(each), choice(STORED), offset, tuple(headers))

    def _is(self, chance: float) -> bool:
        return self._rng.random() < chance

    def _some(self, usual: Sequence[str], odd: Sequence[str]) -> str:
        return self._rng.choice(odd if self._is(0.17) else usual)

    def _value(self, each: str) -> bytes | None:
        rng = self._rng
        form = rng.randrange(25)
        if form == 0:
            return rng.choice(ODD_VALUES)
        if form == 1:
            return rng.choice(ODD_TEXTS).encode(errors="surrogatepass")
        if form == 2:
            text = _object(self._few())
        elif form == 3:
            text = self._whole(rng.choice(["[]", "events", "data.events"]))
        else:
            text = self._whole(each) if each else self._item()
        if form == 4:
            text = quoted(text)
        before, after = rng.choice(["", "", "", " ", "\n\t"]), rng.choice(["", "", "", " ", "\r\n"])
        value = (before + text + after).encode()
        if form == 5:
            at = rng.randrange(len(value) + 1)
            value = value[:at] + rng.randbytes(rng.randrange(4)) + value[at + rng.randrange(4) :]
        return value

    def _whole(self, each: str) -> str:
        """A message with several events, or one event where that is another form of it."""
        rng = self._rng
        if each == "[]" and self._is(0.3):
            return self._item()
        items = [
            rng.choice([quoted(self._item()), "1", "null", "[]", '"x"', '"{"', "{}"])
            if self._is(0.15)
            else self._item()
            for _ in range(rng.choice([0, 1, 2, 3]))
        ]
        array = f"[{', '.join(items)}]"
        if each == "[]":
            return array
        more = {name: rng.choice(OTHERS) for name in ("session_id", "amount", "é") if self._is(0.2)}
        inner = _object({"client": self._id(), "events": array, "p": rng.choice(PAGES), **more})
        if each == "events":
            return inner
        return _object({"client": self._id(), "data": quoted(inner) if self._is(0.3) else inner, **more})

    def _item(self) -> str:
        """An event, or a purchase row."""
        rng = self._rng
        fields = {"t": self._time(), "k": self._kind(), "u": self._id(), "a": self._some(AMOUNTS, ODD_AMOUNTS)}
        makers = {
            "p": lambda: rng.choice(PAGES),
            "user": self._user,
            "odd.name": self._id,
            "list": self._list,
            "params": self._params,
            "blob": self._blob,
            "at": self._time,
        }
        fields |= {name: make() for name, make in makers.items() if self._is(0.4)}
        # names of fields that visits get, and such as they are renamed to
        others = "session_id", "amount", "visit", "original_a", "original_amount", "é"
        fields |= {name: rng.choice(OTHERS) for name in others if self._is(0.15)}
        if self._is(0.2):
            del fields[rng.choice(list(fields))]
        names = list(fields)
        rng.shuffle(names)
        return _object({name: fields[name] for name in names})

    def _few(self) -> dict[str, str]:
        makers = {"u": self._id, "k": self._kind, "t": self._time, "p": lambda: self._rng.choice(PAGES)}
        makers["a"] = lambda: self._some(AMOUNTS, ODD_AMOUNTS)
        return {name: make() for name, make in makers.items() if self._is(0.5)}

    def _id(self) -> str:
        return self._some(IDS, ODD_IDS)

    def _kind(self) -> str:
        return self._some(KINDS, ODD_KINDS)

    def _time(self) -> str:
        rng = self._rng
        if self._is(0.08):
            return rng.choice(ODD_TIMES)
        at, second = NOON + 5 * rng.randrange(25), rng.randrange(60)
        texts = [str(at), f'"{at}"', f"{at}.000001", f"{at}000", f"{at}000000000", f'"2024-03-13T12:00:{second:02}Z"']
        texts += [f'"2024-03-13 13:00:{second:02}.5+0100"', f'"2024-03-31 {second % 24:02}:30:00"']
        return rng.choice(texts)

    def _perhaps_quoted(self, text: str) -> str:
        return self._rng.choice([quoted(text), quoted(f" {text}\n")]) if self._is(0.25) else text

    def _user(self) -> str:
        deep = _object({"id": self._id()}) if self._is(0.5) else self._id()
        return self._perhaps_quoted(_object({"id": self._id(), "kind": self._kind(), "deep": deep}))

    def _list(self) -> str:
        rng = self._rng
        first = rng.choice([self._id(), rng.choice(PAGES), _object({"id": self._id()})])
        return f"[{','.join([first, *(self._id() for _ in range(rng.randrange(3)))])}]"

    def _params(self) -> str:
        items = [
            self._rng.choice(["1", "null", '"{"', '{"key":null}', '"x"'])
            if self._is(0.15)
            else self._perhaps_quoted(_object({"key": quoted(name), "value": value}))
            for name, value in self._few().items()
        ]
        return self._perhaps_quoted(f"[{','.join(items)}]")

    def _blob(self) -> str:
        if self._is(0.1):
            return self._rng.choice(['"{"', '"[[[["', '"nonsense"', "[]"])
        return self._perhaps_quoted(_object(self._few()))


def mapped_message(rng: Random) -> tuple[Mapping, str, Record]:
    """A mapping, one of its topics, and a message of that."""
    mapping = random_mapping(rng)
    topic = rng.choice(mapped_inputs(mapping).names)
    return mapping, topic, Messages(rng).record(mapping.role_of(topic).each, 9)


def mapped_logs(rng: Random) -> tuple[Mapping, Logs]:
    """A mapping, and what one to three partitions of each of its topics hold."""
    mapping = random_mapping(rng)
    return mapping, logs_of(rng, mapping)


def logs_of(rng: Random, mapping: Mapping) -> Logs:
    messages = Messages(rng)
    return {
        f"{topic}/{partition}": [
            messages.record(mapping.role_of(topic).each, offset) for offset in range(rng.randrange(12))
        ]
        for topic in mapped_inputs(mapping).names
        for partition in range(rng.randint(1, 3))
    }


def rules_of(mapping: Mapping, **numbers: Any) -> Rules:
    """The rules of a job with a mapping."""
    names = AddedFields(mapping.output.session_id, mapping.output.amount)
    return Rules(kinds=Kinds(mapping.page_views, mapping.purchase_kinds), added=names, **numbers)
