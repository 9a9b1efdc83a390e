"""The records of a shop's click stream: events, purchase rows, and matches of the two.

Times are microseconds of event time; what a user is, `dataflow.clickstream.users` says.
"""

import msgspec

from dataflow.streaming.batches import messagepack_types


class Event(msgspec.Struct, array_like=True, gc=False, order=True):
    """A row of `user-events`. Events sort by time, and those of one time by their content, never by arrival."""

    time: int
    user: bytes
    value: bytes  # the message as it came
    position: int  # in its topic, see `dataflow.streaming.position`
    page: int
    event_type: str
    plain: bool = True  # fields can be appended before its last byte


class Purchase(msgspec.Struct, array_like=True, gc=False):
    """A row of `purchases`."""

    time: int
    user: bytes
    value: bytes
    position: int
    page: int
    amount: bytes  # the number's own text, which visits will carry
    matched: bool = False

    def mark_matched(self) -> None:
        self.matched = True
        self.value = b""  # needed only of rows that never match


InputRecord = Event | Purchase  # a readable row of an input topic

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
