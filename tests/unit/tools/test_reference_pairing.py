"""The reference's pairing in small cases. Against all pairings that are possible: tests/property/test_pairing.py."""

import pytest

from dataflow.tools.reference_pairing import Event, Row, pair


def row(time: int, amount: int = 1, page: int = 1, position: int = 0) -> Row:
    return Row(time, amount, b"%d" % amount, b"", (position, 0), page)


@pytest.mark.parametrize(
    ("events", "rows", "pairs"),
    [
        pytest.param([], [row(100)], [], id="no event"),
        pytest.param([Event(100, 1)], [], [], id="no row"),
        pytest.param([Event(100, 1)], [row(105)], [(0, 0)], id="exactly the window"),
        pytest.param([Event(100, 1)], [row(106)], [], id="just past it"),
        pytest.param([Event(100, 1), Event(104, 1)], [row(103), row(107)], [(0, 0), (1, 1)], id="two"),
        pytest.param([Event(104, 1), Event(100, 1)], [row(107), row(103)], [(0, 0), (1, 1)], id="in any order"),
        pytest.param([Event(100, 1)], [row(100, page=2), row(105)], [(0, 1)], id="own page first"),
        pytest.param([Event(100, 1)], [row(98), row(102)], [(0, 1)], id="the later of two as near"),
        pytest.param([Event(98, 1), Event(102, 1)], [row(100)], [(1, 0)], id="the later event"),
        pytest.param([Event(100, 1)], [row(100, 9), row(100, 10)], [(0, 1)], id="the larger of one time"),
        pytest.param([Event(100, 1)], [row(100, position=2), row(100, position=1)], [(0, 0)], id="the later place"),
    ],
)
def test_events_and_rows_are_paired(events, rows, pairs):
    assert sorted(pair(events, rows, 5)) == pairs


def test_far_rows_cost_nothing():
    events, rows = [Event(time, 1) for time in range(0, 100_000, 10)], [row(time) for time in range(3, 100_000, 10)]
    assert len(pair(events, rows, 5)) == 10_000
