"""Recorded files in the shape of a mapping: each line is sent as it is, to the topic that the mapping names for it."""

from pathlib import Path
from typing import Any

import msgspec

from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.records import Purchase
from dataflow.streaming.partition_reader import Ignored, Unreadable
from dataflow.streaming.time import SECOND
from dataflow.tools.try_mapping.sample import SampledMessage
from producer.recording import RecordedLines
from producer.rows import Row


class MappedRecording(RecordedLines):
    """A file of messages that a mapping can read: JSON as it stands in the file, or an object of texts a line of CSV.

    Args:
        path: of the file.
        inputs: the topics of the mapping. A line is tried as an event, then as a purchase row; of kinds that are to be
            ignored no row is made.

    Raises:
        UserError: there is no such file.
    """

    def __init__(self, path: Path, inputs: InputTopics) -> None:
        super().__init__(path)
        events = next(topic for topic in inputs if topic.has_events)
        purchases = [topic for topic in inputs if not topic.has_events]
        self._topics = events, *purchases[:1]

    def _row(self, content: dict[str, Any], text: bytes) -> Row | None:
        value = text or msgspec.json.encode(content)
        problems = []
        for topic in self._topics:
            decoder = topic.decoder
            message = SampledMessage(topic.name, value, 0)
            try:
                part = decoder.parts(message)[0] if decoder.parts is not None else message
                row = decoder.decode(part.value(), 0, part)
            except Ignored:
                return None
            except (Unreadable, IndexError) as error:
                problems.append(str(error))
            else:
                return Row(row.time / SECOND, isinstance(row, Purchase), row.user.decode(), value)
        raise ValueError(problems[0])
