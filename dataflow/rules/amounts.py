"""Which amount belongs to which purchase event: the two sides of this job's join, and what a match is."""

import msgspec

from dataflow.rules.join import Sides
from dataflow.rules.rows import Event, Match, Purchase

PURCHASE = "purchase"  # the event_type that has an amount


class Buyer(msgspec.Struct, array_like=True, gc=False):
    """As much of a purchase event as the join has to hold."""

    time: int
    user: bytes
    page: int


def buyers(events: list[Event]) -> list[Buyer]:
    """The purchase events among events."""
    return [Buyer(event.time, event.user, event.page) for event in events if event.event_type == PURCHASE]


def match(buyer: Buyer | Event, purchase: Purchase) -> Match:
    """Pairs a purchase event with an amount; matches compare as the rules of choice say."""
    return Match(
        buyer.time,
        buyer.page == purchase.page,
        -abs(buyer.time - purchase.time),
        purchase.time,
        float(purchase.amount),
        purchase.amount,
        buyer.user,
    )


AMOUNTS = Sides(Event, buyers, Buyer, Purchase, match)
