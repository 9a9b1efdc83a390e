"""Some messages of a file or of topics, to try a mapping on."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dataflow.kafka.range_reader import OffsetRange, RangeReader
from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError


@dataclass(frozen=True)
class SampledMessage:
    """A message as decoders need it."""

    source: str
    data: bytes | None
    number: int
    record_key: bytes | None = None
    stored: int = 0  # when Kafka stored it, milliseconds; 0: not known
    record_headers: Any = None

    def topic(self) -> str:
        return self.source

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.data

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> tuple[int, int]:
        return (1, self.stored) if self.stored else (0, -1)

    def headers(self) -> Any:
        return self.record_headers


def from_file(file: Path, topic: str, count: int) -> list[SampledMessage]:
    """The first messages of a file: an object of texts for each line of a CSV file with a header, otherwise each line.

    Args:
        file: plain or gzipped.
        topic: what the messages stand for.
        count: how many at most.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return [
            SampledMessage(topic, None if line == b"null" else line, number)
            for number, line in enumerate(islice(_lines(file), count))
        ]
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _lines(file: Path) -> Iterator[bytes]:
    opened = gzip.open if file.suffix == ".gz" else open
    if file.name.removesuffix(".gz").endswith(".csv"):
        with opened(file, "rt", newline="", encoding="utf-8-sig") as text:
            yield from (json.dumps(row).encode() for row in csv.DictReader(text))
    else:
        with opened(file, "rb") as lines:
            yield from (stripped for line in lines if (stripped := line.rstrip(b"\r\n")))


def from_topics(settings: Settings, topics: list[str], count: int) -> list[SampledMessage]:
    """The last messages of topics.

    Args:
        settings: say where Kafka is.
        topics: their names.
        count: how many of each topic, at most.

    Raises:
        UserError: Kafka does not answer, or lacks a topic.
    """
    reader = RangeReader(settings.client, settings.group + "-look", topics)
    ranges = {}
    for partition_id, whole in reader.ranges(topics).items():
        share = -(-count // reader.partitions[partition_id[0]])
        ranges[partition_id] = OffsetRange(max(whole.begin, whole.end - share), whole.end)
    return [
        SampledMessage(
            message.topic(),
            message.value(),
            message.offset(),
            message.key(),
            max(0, message.timestamp()[1]),
            message.headers(),
        )
        for message in reader.read(ranges)
    ]
