"""Attribution of amounts: which purchase row gives its amount to which purchase event.

An event takes at most one row, and a row belongs to at most one event. Rows of an event's own page are paired first,
page by page, then all events and rows that are left. Each step makes as many pairs as possible, by the rules of
`dataflow.streaming.pairing`; of rows of the same time those with the larger amounts are taken.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.records import Event, Match, Purchase, amount_size
from dataflow.streaming.interval_join import JoinSpec
from dataflow.streaming.pairing import Pairs, pair
from dataflow.streaming.state import Converter


class PurchaseKey(msgspec.Struct, array_like=True, gc=False):
    """As much of a purchase event as the join holds."""

    time: int
    user: bytes
    page: int | str


def match(key: PurchaseKey | Event, purchase: Purchase) -> Match:
    """The match of a purchase event and the row that it takes."""
    return Match(
        key.time,
        key.page == purchase.page,
        -abs(key.time - purchase.time),
        purchase.time,
        purchase.size,
        purchase.amount,
        key.user,
    )


def pair_purchases(keys: Sequence[PurchaseKey | Event], purchases: Sequence[Purchase], window: int) -> Pairs:
    """Pairs the purchase events of a user with purchase rows.

    Args:
        keys: of the events, or the events; in order of time.
        purchases: the rows, in order of time.
        window: match window, in microseconds.

    Returns:
        Indexes of events and of rows, in no order.
    """
    lefts, rights = list(range(len(keys))), list(range(len(purchases)))
    if any(purchase.time == later.time for purchase, later in pairwise(purchases)):
        rights.sort(key=lambda right: _rank(purchases[right]))

    def paired(lefts: list[int], rights: list[int]) -> Pairs:
        if not lefts or not rights:
            return []
        pairs = pair([keys[left].time for left in lefts], [purchases[right].time for right in rights], window)
        return [(lefts[left], rights[right]) for left, right in pairs]

    of_pages: dict[int | str | None, tuple[list[int], list[int]]] = {}
    for left in lefts:
        of_pages.setdefault(keys[left].page, ([], []))[0].append(left)
    for right in rights:
        of_pages.setdefault(purchases[right].page, ([], []))[1].append(right)
    pairs = [each for of_page in of_pages.values() for each in paired(*of_page)]
    done_lefts, done_rights = {left for left, _ in pairs}, {right for _, right in pairs}
    return pairs + paired(
        [left for left in lefts if left not in done_lefts], [right for right in rights if right not in done_rights]
    )


def _rank(purchase: Purchase) -> tuple[int, Decimal, bytes, bytes, int]:
    """Of rows of one time the greatest are taken. The position decides only between rows that are equal byte for byte."""
    return purchase.time, purchase.size, purchase.amount, purchase.value, purchase.position


def _converters(window: int) -> Mapping[int, Converter]:
    """Of states of version 4, in which a row served all events in its time and remembered that it did.

    Such a row is not paired again, nor are the events in its time: their sessions have its amount.
    """

    def without_matched(state: list[list[Any]]) -> list[list[Any]]:
        keys, rows = state
        matched: dict[bytes, list[int]] = {}
        undecided = []
        for time, user, *rest, is_matched in rows:
            if is_matched:
                matched.setdefault(user, []).append(time)
            else:
                undecided.append([time, user, *rest])
        return [
            [key for key in keys if not any(abs(key[0] - time) <= window for time in matched.get(key[1], ()))],
            undecided,
        ]

    return {4: without_matched}


def own_match(event: Event) -> Match:
    """The match of a purchase event that tells its amount itself."""
    return Match(event.time, True, 0, event.time, amount_size(event.amount), event.amount, event.user)


def amounts(kinds: Kinds = DEFAULT_KINDS, own_amounts: bool = False, mixed: bool = False) -> JoinSpec:
    """The join that finds amounts.

    Args:
        kinds: say which events are purchases.
        own_amounts: whether events may tell their amounts themselves; such an event takes no row.
        mixed: whether a batch may hold events and purchase rows, as of a topic with both.
    """
    purchases = kinds.purchases

    def keys(events: list[Event]) -> list[PurchaseKey]:
        return [
            PurchaseKey(event.time, event.user, event.page)
            for event in events
            if event.event_type in purchases and not event.amount
        ]

    def own(events: list[Event]) -> list[Match]:
        return [own_match(event) for event in events if event.amount]

    return JoinSpec(
        Event, keys, PurchaseKey, Purchase, match, pair_purchases, _converters, own if own_amounts else None, mixed
    )
