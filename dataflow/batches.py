"""What travels between the steps: many rows at a time, each batch with the time it brings.

Rows and time take the same road. A batch's time counts only after its rows, or it would make them late.
"""

import msgspec

from dataflow.rules.rows import Rejected, Row, Time
from dataflow.rules.time import SourceTime


class Poll(msgspec.Struct):
    """What one poll of one partition gave."""

    rows: list[Row]  # readable and on time
    time: SourceTime
    late: list[Row]
    unreadable: list[Rejected]


class Batch(msgspec.Struct):
    """A shard's part of a poll; it may be empty, its time counts all the same."""

    rows: list[Row]
    time: SourceTime


class Timed(msgspec.Struct):
    """Rows of a shard that are on time, and its watermark once they are in.

    This is what `session_window` takes, from whatever flow: rows need a `time` and a `user`.
    """

    rows: list
    watermark: Time


class Ticked(Timed):
    """A shard's batch after its clock has heard it."""

    late: list[Row]  # on time in their own partition, but it had run dry and the others went on without it


class Joined(Timed):
    """A shard's batch after the join: its rows from the left, then the matches."""

    unmatched: list  # rows from the right whose time is over and that met nobody


class Output(msgspec.Struct):
    """Rows for one topic, all of one key, in order; headers, if any, are each row's."""

    key: bytes | None
    values: list[bytes | None]
    headers: list[tuple[str, bytes]] | None = None
