"""What travels between the steps: many rows at a time, each batch with the time it brings.

Rows and time take the same road. A batch's time counts only after its rows, or it would make them late.
"""

import msgspec

from dataflow.rules.rows import Event, Purchase, Rejected, Row, Time
from dataflow.rules.time import SourceTime


class Poll(msgspec.Struct):
    """What one poll of one partition gave."""

    rows: list[Row]  # readable and on time
    time: SourceTime
    late: list[Row]
    unreadable: list[Rejected]


class Batch(msgspec.Struct):
    """A shard's part of a poll, so all its rows are of one side; it may be empty, its time counts all the same."""

    rows: list[Row]
    time: SourceTime

    def __reduce__(self) -> tuple:
        """What most of the traffic between processes is; pickles of rows take four times as long."""
        return _unpacked, (_encode(self.rows), bool(self.rows) and type(self.rows[0]) is Event, self.time)


_encode = msgspec.msgpack.Encoder().encode
_events = msgspec.msgpack.Decoder(list[Event]).decode
_purchases = msgspec.msgpack.Decoder(list[Purchase]).decode


def _unpacked(rows: bytes, are_events: bool, time: SourceTime) -> Batch:
    return Batch((_events if are_events else _purchases)(rows), time)


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
