"""The records of a shop's click stream: events and purchase rows.

A user is the JSON text of its id, and at once the key of every record that is written for it.
"""

import msgspec

from dataflow.streaming.batches import messagepack_types


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

    def mark_matched(self) -> None:
        self.matched = True
        self.value = b""  # is only needed of those that never meet an event


InputRecord = Event | Purchase

messagepack_types.update((Event, Purchase))


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
