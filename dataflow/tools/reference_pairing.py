"""The pairing of purchase events and purchase rows for the reference, by dynamic programming over both in order.

It shares no code with the job, and goes another way: it knows no stretches and no blocks, and weighs every pair that the
window allows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Event(NamedTuple):
    """A purchase event of a user. Times may be any numbers."""

    time: Any
    page: int


class Row(NamedTuple):
    """A purchase row of the user. Of rows of the same time the greater are taken."""

    time: Any
    amount: Any  # a number
    text: bytes  # of the amount
    value: bytes  # of the message
    position: tuple[int, ...]  # to tell equal messages apart
    page: int


Pairs = list[tuple[int, int]]  # numbers of an event and of a row

_Value = tuple[
    int, Any, int, int
]  # of a pairing: pairs, nearness, ranks of its rows, ranks of its events; the most wins


def pair(events: Sequence[Event], rows: Sequence[Row], window: Any) -> Pairs:
    """Pairs each event with at most one row, and each row with at most one event.

    Those of the same page are paired first, then what is left. Each of the two steps makes as many pairs as possible;
    of all ways to do that, the one with the least sum of distances; then the one with the later rows, and of rows of
    the same time those with the larger amounts; then the one with the later events. The pairs are in order of time.

    Args:
        events: the purchase events of one user; of equal ones the last counts as the later.
        rows: the purchase rows of the same user.
        window: largest distance in time.

    Returns:
        Numbers of events and rows, as they stand in the arguments.
    """
    free_events, free_rows = set(range(len(events))), set(range(len(rows)))
    pairs: Pairs = []

    def step(page: int | None) -> None:
        some_events = [number for number in sorted(free_events) if page in (None, events[number].page)]
        some_rows = [number for number in sorted(free_rows) if page in (None, rows[number].page)]
        some_events.sort(key=events.__getitem__)
        some_rows.sort(key=rows.__getitem__)
        times = [events[number].time for number in some_events], [rows[number].time for number in some_rows]
        for event, row in _best(*times, window):
            pairs.append((some_events[event], some_rows[row]))
            free_events.remove(some_events[event])
            free_rows.remove(some_rows[row])

    for page in {event.page for event in events} & {row.page for row in rows}:
        step(page)
    step(None)
    return pairs


def _best(events: Sequence[Any], rows: Sequence[Any], window: Any) -> Pairs:
    """Pairs two series of times, both in order: the place of a time is its rank.

    `tables[n][m]` is what the best pairing of the first n events and of the first m rows is worth. For each event only
    those m are computed at which a row in its time ends, and the one before: with more rows nothing changes, and with
    fewer the event has none.
    """
    firsts, tables = [0], [[(0, 0, 0, 0)]]  # m of each table's first entry; tables
    first = end = 0

    def value(event: int, row: int) -> _Value:
        return tables[event][min(row - firsts[event], len(tables[event]) - 1)]

    for number, time in enumerate(events):
        while first < len(rows) and rows[first] < time - window:
            first += 1
        end = max(end, first)
        while end < len(rows) and rows[end] <= time + window:
            end += 1
        table = [value(number, first)]
        for row in range(first, end):
            pairs, nearness, row_ranks, event_ranks = value(number, row)
            with_both = pairs + 1, nearness - abs(time - rows[row]), row_ranks + row, event_ranks + number
            table.append(max(value(number, row + 1), table[-1], with_both))
        firsts.append(first)
        tables.append(table)
    found: Pairs = []
    event, row = len(events), len(rows)
    while event and row:
        here = value(event, row)
        if here == value(event - 1, row):
            event -= 1
        elif row > firsts[event] and here == value(event, row - 1):
            row -= 1
        else:
            event, row = event - 1, row - 1
            found.append((event, row))
    return found
