"""Attribution of amounts: which purchase row gives its amount to which purchase event."""

import msgspec

from dataflow.clickstream.records import Event, Match, Purchase
from dataflow.streaming.interval_join import JoinSpec

PURCHASE = "purchase"  # the event_type that has an amount


class PurchaseKey(msgspec.Struct, array_like=True, gc=False):
    """As much of a purchase event as the join holds."""

    time: int
    user: bytes
    page: int


def purchase_keys(events: list[Event]) -> list[PurchaseKey]:
    """The purchase events among events."""
    return [PurchaseKey(event.time, event.user, event.page) for event in events if event.event_type == PURCHASE]


def match(key: PurchaseKey | Event, purchase: Purchase) -> Match:
    """Pairs a purchase event with a purchase row. Of several matches the greatest counts; see `Match` for the order."""
    return Match(
        key.time,
        key.page == purchase.page,
        -abs(key.time - purchase.time),
        purchase.time,
        float(purchase.amount),
        purchase.amount,
        key.user,
    )


AMOUNTS = JoinSpec(Event, purchase_keys, PurchaseKey, Purchase, match)
