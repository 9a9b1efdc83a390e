"""The records of a shop's click stream: events, purchase rows, and matches of the two.

Times are microseconds of event time; what a user is, `dataflow.clickstream.users` says.
"""

from decimal import Decimal, InvalidOperation

import msgspec

from dataflow.streaming.batches import messagepack_types

PLAIN, TEXT_USER, NUMBER_PAGE = 1, 2, 4  # bits of an event's form


class Event(msgspec.Struct, array_like=True, gc=False, order=True):
    """A row of `user-events`. Events sort by time, and those of one time by their content, never by arrival."""

    time: int
    user: bytes
    value: bytes  # the message as it came
    position: int  # in its topic, see `dataflow.streaming.position`
    page: int | str  # "": none
    event_type: str
    # PLAIN: fields can be appended before the last byte of `value`; TEXT_USER: the id came as a text, not as a number;
    # NUMBER_PAGE: a page that is a text here came as a number
    form: int = PLAIN
    amount: bytes = b""  # of a purchase, if the event tells it itself: the number's own text


def amount_size(amount: bytes) -> Decimal:
    """The exact number of an amount's text."""
    text = amount.decode()
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent too large for a Decimal: its number is as good as 0
        return Decimal(float(text))


class Purchase(msgspec.Struct, array_like=True, gc=False):
    """A row of `purchases`."""

    time: int
    user: bytes
    value: bytes
    position: int
    page: int | str | None
    amount: bytes  # the number's own text, which visits will carry

    @property
    def size(self) -> Decimal:
        """The amount as an exact number."""
        return amount_size(self.amount)


InputRecord = Event | Purchase  # a readable row of an input topic

messagepack_types.update((Event, Purchase))


class Match(msgspec.Struct, array_like=True, gc=False, order=True):
    """A purchase event and the row that it takes. Of all the matches of a session, the greatest gives its amount.

    The order of the fields is the rule: the session's last purchase event; of several at that time the one with a row of
    its own page, then the nearest row, then the later, then the larger; the text only settles between ``5`` and ``5.0``.
    """

    time: int  # of the purchase event
    same_page: bool
    nearness: int  # minus the distance between event and row
    paid_at: int
    size: Decimal  # the amount
    amount: bytes  # and its text
    user: bytes
