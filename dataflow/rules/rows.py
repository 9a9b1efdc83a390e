"""The rows that the rules work on.

Times are integers, microseconds since the Unix epoch: they add and compare exactly, so that "20 s apart" means it.
A user is the JSON text of its id: an integer of any size, and at once the key of every row that is written.
"""

import math

import msgspec

SECOND = 1_000_000  # microseconds

# before and after every time; floats, because they compare with integers of any size
NEVER = -math.inf
END = math.inf

Time = int | float  # a time, or NEVER, or END


PARTITIONS = 1 << 16  # more than any topic has


def position(partition: int, offset: int) -> int:
    """Where a row stands in its topic, as one number."""
    return offset * PARTITIONS + partition


class Event(msgspec.Struct, array_like=True, gc=False, order=True):
    """A row of ``user-events``; events sort by time, and rows of one time by what they hold, never by arrival."""

    time: int
    user: bytes
    value: bytes  # the row as it came
    position: int  # in its topic
    page: int
    event_type: str
    plain: bool = True  # two fields can be added before its last byte


class Purchase(msgspec.Struct, array_like=True, gc=False):
    """A row of ``purchases``."""

    time: int
    user: bytes
    value: bytes
    position: int
    page: int
    amount: bytes  # the number's own text, which is what visits will carry
    matched: bool = False  # has met an event in its time

    def meet(self) -> None:
        self.matched = True
        self.value = b""  # is only needed of those that never meet an event


Row = Event | Purchase


class Match(msgspec.Struct, array_like=True, gc=False, order=True):
    """A purchase event that found an amount. Of all the matches of a session, the greatest gives its amount.

    The order of the fields is the rule: the session's last purchase event; for it the row of the same page, then the
    nearest in time, then the later, then the larger; the text only settles between ``5`` and ``5.0``.
    """

    time: int  # of the purchase event
    same_page: bool
    nearness: int  # minus the distance between event and row
    paid_at: int
    size: float  # the amount
    amount: bytes  # and its text
    user: bytes


class Rejected(msgspec.Struct, array_like=True, gc=False):
    """A message that goes to a topic of its own instead of into a visit, as it came, and why."""

    key: bytes | None
    value: bytes | None
    reason: str
    source: str  # "topic/partition"
    offset: int
    kind: str = ""  # of mistake, one of few; of a message that cannot be read
