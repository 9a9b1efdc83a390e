"""The pairing of purchases, of the job and of the reference, against all pairings that are possible."""

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from dataflow.clickstream.attribution import PurchaseKey, pair_purchases
from dataflow.clickstream.records import Purchase
from dataflow.streaming.pairing import pair
from dataflow.tools import reference_pairing

Pairs = list[tuple[int, int]]

WINDOWS = st.sampled_from([0, 1, 2, 5, 7])
TIMES = st.integers(0, 6) | st.integers(0, 12) | st.integers(0, 30)


class Bought(NamedTuple):
    time: int
    page: int


class Paid(NamedTuple):
    """Greater ones are taken first, of the same time."""

    time: int
    amount: Decimal
    text: str
    number: int
    page: int


PAGES = st.sampled_from([1, 1, 2, 3])
AMOUNTS = st.sampled_from(["1", "1.0", "2", "0", "-0", "-3", "9007199254740993", "9007199254740992"])
EVENTS = st.lists(st.builds(Bought, TIMES, PAGES), max_size=5)
ROWS = st.lists(st.tuples(TIMES, AMOUNTS, PAGES), max_size=5).map(
    lambda rows: [Paid(time, Decimal(text), text, number, page) for number, (time, text, page) in enumerate(rows)]
)


def all_pairings(lefts: list[int], rights: list[int], window: int) -> Iterator[Pairs]:
    """Each event with each row in its time, or with none; no row twice."""

    def more(left: int, free: list[int]) -> Iterator[Pairs]:
        if left == len(lefts):
            yield []
            return
        yield from more(left + 1, free)
        for right in free:
            if abs(lefts[left] - rights[right]) <= window:
                for rest in more(left + 1, [each for each in free if each != right]):
                    yield [(left, right), *rest]

    return more(0, list(range(len(rights))))


def best_of_all(events: list[Bought], rows: list[Paid], window: int) -> list[tuple[Bought, Paid]]:
    """The rule, word for word: most pairs, least distance, later rows, larger amounts, later events, in order."""

    def worth(pairs: Pairs) -> tuple:
        taken = sorted(rows[row] for _, row in pairs)
        return (
            len(pairs),
            -sum(abs(events[event].time - rows[row].time) for event, row in pairs),
            [row.time for row in taken],
            [row.amount for row in taken],
            taken,
            sorted(events[event] for event, _ in pairs),
        )

    times = [event.time for event in events], [row.time for row in rows]
    best = max(all_pairings(*times, window), key=worth)
    return list(zip(sorted(events[event] for event, _ in best), sorted(rows[row] for _, row in best), strict=True))


def in_two_steps(events: list[Bought], rows: list[Paid], window: int) -> list[tuple[Bought, Paid]]:
    found = []
    for page in (1, 2, 3):
        found += best_of_all(
            [each for each in events if each.page == page], [each for each in rows if each.page == page], window
        )
    left_events, left_rows = list(events), list(rows)
    for event, row in found:
        left_events.remove(event)
        left_rows.remove(row)
    return found + best_of_all(left_events, left_rows, window)


def seen(pairs: list[tuple[Bought, Paid]]) -> list[tuple[int, bool, int]]:
    """What a shop can see of it: events of one time are in one session, and of pages only the own one counts."""
    return sorted((event.time, event.page == row.page, row.number) for event, row in pairs)


@given(st.lists(TIMES, max_size=6).map(sorted), st.lists(TIMES, max_size=6).map(sorted), WINDOWS)
def test_times_are_paired_in_the_best_of_all_ways(lefts, rights, window):
    def worth(pairs: Pairs) -> tuple:
        distance = sum(abs(lefts[left] - rights[right]) for left, right in pairs)
        return len(pairs), -distance, sorted(right for _, right in pairs), sorted(left for left, _ in pairs)

    pairs = pair(lefts, rights, window)
    assert all(abs(lefts[left] - rights[right]) <= window for left, right in pairs)
    assert pairs == sorted(pairs) and [right for _, right in pairs] == sorted({right for _, right in pairs})
    assert worth(pairs) == max(map(worth, all_pairings(lefts, rights, window)))


@given(EVENTS, ROWS, WINDOWS)
def test_purchases_are_paired_in_the_best_of_all_ways(events, rows, window):
    right = seen(in_two_steps(events, rows, window))
    assert seen(by_job(events, rows, window)) == right
    assert seen(by_reference(events, rows, window)) == right


MANY = st.tuples(
    st.lists(st.builds(Bought, st.integers(0, 60), PAGES), max_size=40),
    st.lists(st.tuples(st.integers(0, 60), AMOUNTS, PAGES), max_size=40),
)


@given(MANY, WINDOWS)
def test_job_and_reference_pair_many_purchases_alike(many, window):
    events, rows = many
    rows = [Paid(time, Decimal(text), text, number, page) for number, (time, text, page) in enumerate(rows)]
    assert seen(by_job(events, rows, window)) == seen(by_reference(events, rows, window))


def by_job(events: list[Bought], rows: list[Paid], window: int) -> list[tuple[Bought, Paid]]:
    events, rows = sorted(events, key=lambda each: each.time), sorted(rows, key=lambda each: each.time)
    pairs = pair_purchases(
        [PurchaseKey(event.time, b"1", event.page) for event in events],
        [Purchase(row.time, b"1", b"", row.number, row.page, row.text.encode()) for row in rows],
        window,
    )
    return [(events[event], rows[row]) for event, row in pairs]


def by_reference(events: list[Bought], rows: list[Paid], window: int) -> list[tuple[Bought, Paid]]:
    pairs = reference_pairing.pair(
        [reference_pairing.Event(event.time, event.page) for event in events],
        [
            reference_pairing.Row(row.time, row.amount, row.text.encode(), b"", (row.number, 0), row.page)
            for row in rows
        ],
        window,
    )
    return [(events[event], rows[row]) for event, row in pairs]
