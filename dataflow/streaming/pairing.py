"""One-to-one pairing of two series of times, at most a window apart.

Of all ways to pair them, the one that is first by these rules:

1. as many pairs as possible;
2. the least sum of distances;
3. the later right times;
4. the later left times;
5. paired in order: the first left that has a partner with the first right that has one, and so on.

Rules 3 and 4 compare the times of two pairings one by one, in order. One pairing is the latest in each place, and so has
the greatest sum of times. (The rights of the pairings that are best by 1 and 2 are the bases of a matroid, and a matroid
has such a base. So are the lefts of those that are best by 3 too.)

Sorting apart, the work for a time is constant, however many others are within the window.

All times in order, left and right ones, make a row of points. Between a time and its partner each time has a partner too:
a free one would be the nearer partner. And all that wait there for their partners are of one side: a left and a right
that both wait could be each other's partners, and their partners likewise, at no greater distance. So the best pairing is
made of blocks. In a block each time has a partner, all that wait are of one side, and the first that waits gets the first
that comes. A block that begins with a left ends at the first point at which as many rights as lefts have come, as a
closing bracket ends what its opening one began. A block that begins with a right ends likewise. So at each point one
block ends, or none. The best pairing up to a point is that up to the point before; or, if it is better, that up to where
this block begins, and the block.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dataflow.streaming.time import TimedRow

Pairs = list[tuple[int, int]]  # indexes of a left and of a right


def pair(lefts: Sequence[int], rights: Sequence[int], window: int) -> Pairs:
    """Pairs two series of times.

    Args:
        lefts: times in order, in microseconds.
        rights: times in order, in microseconds.
        window: largest distance of a pair, in microseconds.

    Returns:
        Indexes of the pairs, in order. Of equal times those of the highest indexes have the partners.
    """
    if len(lefts) == len(rights) and all(
        -window <= left - right <= window for left, right in zip(lefts, rights, strict=True)
    ):
        return [(number, number) for number in range(len(lefts))]  # the usual case: all have partners
    with_partner = _blocks(lefts, rights, window)
    return list(
        zip(
            _last_of_equal(lefts, [left for begin, end in with_partner for left in range(begin.lefts, end.lefts)]),
            _last_of_equal(rights, [right for begin, end in with_partner for right in range(begin.rights, end.rights)]),
            strict=True,
        )
    )


def pair_rows(lefts: Sequence[TimedRow], rights: Sequence[TimedRow], window: int) -> Pairs:
    """Pairs rows by their times; of rows of equal times those have partners whose encoded content sorts last.

    Args:
        lefts: rows, of a type that msgspec can encode.
        rights: rows, likewise.
        window: largest distance in time of a pair, in microseconds.
    """
    left_order, right_order = _order(lefts), _order(rights)
    pairs = pair([lefts[each].time for each in left_order], [rights[each].time for each in right_order], window)
    return [(left_order[left], right_order[right]) for left, right in pairs]


def _order(rows: Sequence[TimedRow]) -> list[int]:
    return sorted(range(len(rows)), key=lambda each: (rows[each].time, msgspec.msgpack.encode(rows[each])))


class _Point(NamedTuple):
    """A point between two times: what lies before it."""

    lefts: int
    rights: int
    left_sum: int  # of the times of the lefts
    right_sum: int


class _Value(NamedTuple):
    """What a pairing is worth; the greater the better."""

    pairs: int
    nearness: int  # minus the sum of distances
    right_sum: int  # of the times of the rights that have partners
    left_sum: int


class _Open:
    """A left, or a right, that no closing one has been found for yet."""

    __slots__ = ("begin", "shortfall")

    def __init__(self, begin: int, shortfall: int) -> None:
        self.begin = begin  # the point before it
        self.shortfall = shortfall  # the greatest in the block so far, see `_shortfalls`


def _blocks(lefts: Sequence[int], rights: Sequence[int], window: int) -> list[tuple[_Point, _Point]]:
    """The blocks of the best pairing, in order: the points at which they begin and end."""
    left_shortfalls, right_shortfalls = _shortfalls(lefts, rights, window), _shortfalls(rights, lefts, window)
    points = [_Point(0, 0, 0, 0)]
    best = [_Value(0, 0, 0, 0)]  # of the pairings up to each point
    came_from = [0]  # the point before: that at which the last block begins, or the one before
    waiting_lefts: list[_Open] = []
    waiting_rights: list[_Open] = []
    for here in range(1, len(lefts) + len(rights) + 1):
        before = points[-1]
        is_left = before.rights == len(rights) or (
            before.lefts < len(lefts) and lefts[before.lefts] <= rights[before.rights]
        )
        if is_left:
            time = lefts[before.lefts]
            points.append(_Point(before.lefts + 1, before.rights, before.left_sum + time, before.right_sum))
            waiting_lefts.append(_Open(here - 1, left_shortfalls[before.lefts]))
            begin = _close(waiting_rights, points, -1)
        else:
            time = rights[before.rights]
            points.append(_Point(before.lefts, before.rights + 1, before.left_sum, before.right_sum + time))
            waiting_rights.append(_Open(here - 1, right_shortfalls[before.rights]))
            begin = _close(waiting_lefts, points, 1)
        best.append(best[-1])
        came_from.append(here - 1)
        if begin is not None:
            value = _with_block(best[begin], points[begin], points[here])
            if value > best[here]:
                best[here], came_from[here] = value, begin
    blocks = []
    here = len(points) - 1
    while here:
        begin = came_from[here]
        if best[begin] != best[here]:
            blocks.append((points[begin], points[here]))
        here = begin
    return blocks[::-1]


def _shortfalls(waiting: Sequence[int], served: Sequence[int], window: int) -> list[int]:
    """How many of the other side have to be before the block, at least, if one that waits is to be served in its time.

    The nth of those that wait is served by the nth of the other side, both counted in the block. It is in its time if
    so many have come by then.
    """
    return [number + 1 - bisect_right(served, time + window) for number, time in enumerate(waiting)]


def _close(waiting: list[_Open], points: list[_Point], sign: int) -> int | None:
    """Closes the last that waits; returns where its block begins, None if there is none or it takes too long.

    Args:
        waiting: those of the other side that wait.
        points: so far; the last one is where the block ends.
        sign: 1 if lefts wait, -1 if rights do.
    """
    if not waiting:
        return None
    closed = waiting.pop()
    if waiting:
        waiting[-1].shortfall = max(waiting[-1].shortfall, closed.shortfall)
    begin = points[closed.begin]
    return closed.begin if closed.shortfall <= sign * (begin.lefts - begin.rights) else None


def _with_block(value: _Value, begin: _Point, end: _Point) -> _Value:
    left_sum, right_sum = end.left_sum - begin.left_sum, end.right_sum - begin.right_sum
    return _Value(
        value.pairs + end.lefts - begin.lefts,
        value.nearness - abs(right_sum - left_sum),
        value.right_sum + right_sum,
        value.left_sum + left_sum,
    )


def _last_of_equal(times: Sequence[int], chosen: list[int]) -> list[int]:
    """As many indexes of each time as are chosen, but the highest ones; both in order."""
    last: list[int] = []
    free = len(times)  # indexes from here on are given out
    for index in reversed(chosen):
        free = min(free, bisect_right(times, times[index])) - 1
        last.append(free)
    return last[::-1]
