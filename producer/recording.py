"""Recorded files: CSV or one JSON object a line, plain or gzipped, turned into rows."""

import csv
import gzip
import hashlib
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from dataflow.streaming.errors import UserError
from producer import timestamps
from producer.rows import Row

_LOOK_AHEAD = 1000  # lines of JSON that show which columns there are
UNREADABLE = OSError, EOFError, zlib.error  # the last two: gzip that is cut off or damaged
_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]*")

Complain = Callable[[int, str], None]  # takes a line number and what is wrong with the line


class Line(NamedTuple):
    """A line of a file: its number, its columns or what is wrong with it, and the JSON of these columns."""

    number: int
    content: dict[str, Any] | ValueError
    text: bytes = b""


class RecordedLines:
    """The lines of a file, of which a subclass makes rows.

    Raises:
        UserError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._columns, self._lines = open_lines(path)
        except (*UNREADABLE, csv.Error) as error:
            raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None

    def rows(self, complain: Complain) -> Iterator[Row]:
        """The rows in the file's order; lines that make no row are complained of and left out."""
        try:
            for line in self._lines:
                if isinstance(line.content, ValueError):
                    complain(line.number, str(line.content))
                    continue
                try:
                    row = self._row(line.content, line.text)
                except ValueError as error:  # UnicodeEncodeError too
                    complain(line.number, "not UTF-8" if isinstance(error, UnicodeError) else str(error))
                else:
                    if row is not None:
                        yield row
        except UNREADABLE as error:
            raise UserError(f"cannot read {self._path} to its end: {error}") from None

    def _row(self, content: dict[str, Any], text: bytes) -> Row | None:
        """The row of a line; None: it is left out in silence. Raises ValueError, with what is wrong."""
        raise NotImplementedError


class Recording(RecordedLines):
    """A file of user events, purchases, or both.

    `columns` says from which column a field comes, if not from that of its own name, and `constants` are fields
    that have one value throughout, over any column of that name. Columns not named there stay as they are.

    Raises:
        UserError: there is no such file, or it lacks a column.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], constants: Mapping[str, str]) -> None:
        super().__init__(path)
        self._fields = {column: [f for f, c in columns.items() if c == column] for column in columns.values()}
        self._constants = constants
        self._check(self._columns, columns)

    def _row(self, content: dict[str, Any], text: bytes) -> Row:
        return _row(self._renamed(content))

    def _check(self, found: list[str], columns: Mapping[str, str]) -> None:
        there = f"it has {', '.join(found)}" if found else "it is empty"
        for field, column in columns.items():
            if column not in found:
                raise UserError(f"{self._path} has no column {column!r} for {field}; {there}")
        known = {*found, *columns, *self._constants}
        for field in ("user_id", "page_id", "timestamp"):
            if field not in known:
                raise UserError(
                    f"{self._path} has no column {field!r}; {there}; use --map {field}=COLUMN or --set {field}=VALUE"
                )
        if not known & {"event_type", "amount"}:
            raise UserError(
                f"{self._path} has neither a column 'event_type' nor 'amount'; {there}; use --map event_type=COLUMN"
            )

    def _renamed(self, line: dict[str, Any]) -> dict[str, Any]:
        kept = {column: value for column, value in line.items() if column not in self._fields}
        mapped = {field: line[column] for column, fields in self._fields.items() if column in line for field in fields}
        return {**kept, **mapped, **self._constants}


def integer_id(text: str) -> int:
    """The integer that `text` is, else a stable 63-bit hash of it (BLAKE2b)."""
    if _CANONICAL_INTEGER.fullmatch(text):
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _row(fields: dict[str, Any]) -> Row:
    """A row of purchases if there is an amount and no event type, else of user-events.

    Raises:
        ValueError: a field is missing or isn't what it should be.
    """
    event_type, amount = fields.get("event_type"), fields.get("amount")
    purchase = amount not in (None, "") and event_type in (None, "")
    if purchase:
        first: dict[str, Any] = {"amount": _number(amount)}
    elif event_type in (None, ""):
        raise ValueError("neither event_type nor amount")
    elif not isinstance(event_type, str):
        raise ValueError(f"event_type {event_type!r} is not text")
    else:
        first = {"event_type": event_type}
    for name in ("user_id", "page_id"):
        first[name] = _integer(name, fields)
    first["timestamp"] = timestamps.parse(_present("timestamp", fields))
    empty = {"amount", "event_type"} - first.keys()  # the other topic's field, as a CSV file of both has it
    rest = {name: v for name, v in fields.items() if name not in first and (name not in empty or v not in (None, ""))}
    for name in ("user_id", "page_id"):
        if isinstance(fields[name], str) and str(first[name]) != fields[name]:
            rest["original_" + name] = fields[name]
    return Row(first["timestamp"], purchase, first["user_id"], msgspec.json.encode({**first, **rest}))


def _present(name: str, fields: dict[str, Any]) -> Any:
    value = fields.get(name)
    if value is None or value == "":
        raise ValueError(f"no {name}")
    return value


def _integer(name: str, fields: dict[str, Any]) -> int:
    value = _present(name, fields)
    if isinstance(value, str):
        return integer_id(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{name} {value!r} is neither an integer nor text")


def _number(value: Any) -> int | float:
    try:
        number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"amount {value!r} is not a number")
    return number


def open_lines(path: Path) -> tuple[list[str], Iterator[Line]]:
    """The columns of a file and its lines; the first byte tells its format, not its name."""
    stream = path.open("rb")
    if stream.peek(2)[:2] == b"\x1f\x8b":
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream))
    start = stream.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        raise UserError(f"{path} is one JSON array; one object a line is needed")
    if start != b"{":
        return _read_csv(stream)
    lines = _read_json(stream)
    head = list(islice(lines, _LOOK_AHEAD))
    columns = dict.fromkeys(column for line in head if isinstance(line.content, dict) for column in line.content)
    return list(columns), chain(head, lines)


def _read_json(stream: BinaryIO) -> Iterator[Line]:
    decoder = msgspec.json.Decoder()
    for number, text in enumerate(stream, 1):
        text = text.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        try:
            content = decoder.decode(text)
        except UnicodeDecodeError:
            content = ValueError("not UTF-8")
        except msgspec.MsgspecError as error:
            content = ValueError(str(error))
        yield Line(number, content if isinstance(content, dict | ValueError) else ValueError("not a JSON object"), text)


def _read_csv(stream: io.BufferedReader) -> tuple[list[str], Iterator[Line]]:
    # a byte that is not UTF-8 spoils its own line only, when that is encoded again
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    start = stream.peek(1).split(b"\n", 1)[0]
    delimiter = max(",", ";", "\t", key=lambda sign: start.count(sign.encode()))
    reader = csv.reader(text, delimiter=delimiter)
    header = next(reader, [])

    def lines() -> Iterator[Line]:
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(reader.line_num, ValueError(str(error)))
                continue
            if len(cells) == len(header):
                yield Line(reader.line_num, dict(zip(header, cells, strict=True)))
            elif cells:
                yield Line(reader.line_num, ValueError(f"{len(cells)} fields where the header has {len(header)}"))

    return header, lines()
