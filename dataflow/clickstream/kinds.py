"""Which kinds of events the rules speak of, by the names that a shop gives them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kinds:
    """The names of kinds of events.

    Args:
        page_views: those that count as a page view.
        purchases: those that take an amount.
    """

    page_views: frozenset[str] = frozenset({"page-view"})
    purchases: frozenset[str] = frozenset({"purchase"})


DEFAULT_KINDS = Kinds()
