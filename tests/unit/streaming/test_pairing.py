"""One-to-one pairing of two series of times. Times are small integers; the window is 5."""

import random
import time
from dataclasses import dataclass

import msgspec
import pytest

from dataflow.streaming.pairing import pair, pair_rows

WINDOW = 5


def times_of(lefts: list[int], rights: list[int], window: int = WINDOW) -> list[tuple[int, int]]:
    return [(lefts[left], rights[right]) for left, right in pair(lefts, rights, window)]


@pytest.mark.parametrize(
    ("lefts", "rights", "pairs"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([100], [], [], id="no right"),
        pytest.param([], [100], [], id="no left"),
        pytest.param([100], [105], [(100, 105)], id="exactly the window after"),
        pytest.param([100], [106], [], id="just past the window after"),
        pytest.param([100], [95], [(100, 95)], id="exactly the window before"),
        pytest.param([100], [94], [], id="just past the window before"),
        pytest.param([100, 104], [103, 107], [(100, 103), (104, 107)], id="two, though the nearest of both is one"),
        pytest.param([100, 106], [105, 111], [(100, 105), (106, 111)], id="more pairs before less distance"),
        pytest.param([100], [98, 103], [(100, 98)], id="the nearest"),
        pytest.param([98, 103], [100], [(98, 100)], id="the nearest left"),
        pytest.param([100], [97, 103], [(100, 103)], id="as near: the later right"),
        pytest.param([97, 103], [100], [(103, 100)], id="as near: the later left"),
        pytest.param([100, 110], [105], [(110, 105)], id="between two, exactly the window from both"),
        pytest.param([100, 103], [101, 102], [(100, 101), (103, 102)], id="in order, never crossing"),
        pytest.param(
            [100, 102, 104], [101, 103], [(102, 101), (104, 103)], id="one too many lefts: the first has none"
        ),
        pytest.param(
            [101, 103], [100, 102, 104], [(101, 102), (103, 104)], id="one too many rights: the first is free"
        ),
        pytest.param([100, 100], [100, 100], [(100, 100), (100, 100)], id="twins"),
        pytest.param([100, 101, 102], [105, 106, 107], [(100, 105), (101, 106), (102, 107)], id="all wait"),
        pytest.param([100, 101, 102], [106, 107, 108], [(101, 106), (102, 107)], id="all wait but for one too early"),
        pytest.param(
            [100, 106, 112], [103, 109], [(106, 103), (112, 109)], id="a long chain: its end decides its begin"
        ),
        pytest.param([100, 106], [103, 109], [(100, 103), (106, 109)], id="and one that ends a row earlier"),
    ],
)
def test_times_are_paired_one_to_one(lefts, rights, pairs):
    assert times_of(lefts, rights) == pairs


def test_of_equal_times_the_last_have_partners():
    assert pair([100, 100, 100], [100], WINDOW) == [(2, 0)]
    assert pair([100], [100, 100, 100], WINDOW) == [(0, 2)]
    assert pair([99, 101], [100, 100, 100], WINDOW) == [(0, 1), (1, 2)]


def test_in_a_window_of_nothing_equal_times_are_paired():
    assert times_of([100, 101, 103], [100, 102, 103], window=0) == [(100, 100), (103, 103)]


@pytest.mark.parametrize("shape", ["all at once", "one after the other", "at random"])
def test_the_work_grows_with_the_rows_not_with_the_pairs_that_are_possible(shape):
    count, random_time = 20_000, random.Random(1).randrange
    lefts, rights = {
        "all at once": ([0] * count, [1] * count),
        "one after the other": (list(range(count)), list(range(count, 2 * count))),
        "at random": (
            sorted(random_time(count) for _ in range(count)),
            sorted(random_time(count) for _ in range(count)),
        ),
    }[shape]
    began = time.process_time()
    assert len(pair(lefts, rights, count)) == count
    assert time.process_time() - began < 5  # seconds; 400,000,000 pairs are possible


@dataclass
class At:
    time: int
    user: bytes
    text: str


@pytest.mark.parametrize("turned", [False, True], ids=["as they are", "the other way round"])
def test_rows_of_equal_times_are_told_apart_by_their_content(turned):
    lefts = [At(100, b"1", "a"), At(100, b"1", "b")]
    rights = [At(101, b"1", "y"), At(101, b"1", "x"), At(90, b"1", "z")]
    if turned:
        lefts, rights = lefts[::-1], rights[::-1]
    assert [(lefts[left].text, rights[right].text) for left, right in pair_rows(lefts, rights, 5)] == [
        ("a", "x"),
        ("b", "y"),
    ]
    (only,) = pair_rows(lefts, [each for each in rights if each.text == "x"], 5)
    assert lefts[only[0]].text == "b"


def test_rows_can_be_anything_that_msgspec_encodes():
    class Row(msgspec.Struct):
        time: int
        user: bytes

    assert pair_rows([Row(2, b"")], [Row(1, b"")], 1) == [(0, 0)]
