"""Recorded files in the shape of a mapping: each line is sent as it is, to the topic that the mapping names for it."""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.records import Purchase
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import Ignored, Unreadable
from dataflow.streaming.time import SECOND
from producer.recording import UNREADABLE, Complain, Line, open_lines
from producer.rows import Row


class MappedRecording:
    """A file of messages that a mapping can read: JSON as it stands in the file, or an object of texts a line of CSV.

    Args:
        path: of the file.
        inputs: the topics of the mapping. A line is tried as an event, then as a purchase row.

    Raises:
        UserError: there is no such file.
    """

    def __init__(self, path: Path, inputs: InputTopics) -> None:
        self._path = path
        events = next(topic for topic in inputs if topic.has_events)
        purchases = [topic for topic in inputs if not topic.has_events]
        self._topics = events, *purchases[:1]
        try:
            _, self._lines = open_lines(path)
        except (*UNREADABLE, csv.Error) as error:
            raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None

    def rows(self, complain: Complain) -> Iterator[Row]:
        """The rows in the file's order; lines that make no row are complained of and left out, kinds to ignore silently."""
        try:
            for line in self._lines:
                if isinstance(line.content, ValueError):
                    complain(line.number, str(line.content))
                    continue
                try:
                    yield self._row(line)
                except Ignored:
                    continue
                except ValueError as error:
                    complain(line.number, "not UTF-8" if isinstance(error, UnicodeError) else str(error))
        except UNREADABLE as error:
            raise UserError(f"cannot read {self._path} to its end: {error}") from None

    def _row(self, line: Line) -> Row:
        value = line.text or msgspec.json.encode(line.content)
        problems = []
        for topic in self._topics:
            decoder = topic.decoder
            message = _Message(value, topic.name)
            try:
                part = decoder.parts(message)[0] if decoder.parts is not None else message
                row = decoder.decode(part.value(), 0, part)
            except (Unreadable, IndexError) as error:
                problems.append(str(error))
                continue
            return Row(row.time / SECOND, isinstance(row, Purchase), row.user.decode(), value)
        raise ValueError(problems[0])


class _Message:
    """A line as decoders need it: without what only Kafka knows."""

    def __init__(self, value: bytes, topic: str) -> None:
        self._value = value
        self._topic = topic

    def topic(self) -> str:
        return self._topic

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 0, -1

    def headers(self) -> None:
        return None
