"""The rows that a replay must skip, few or millions of them, in memory or in a file."""

import sqlite3

import pytest

from dataflow.kafka import replayed_rows as module
from dataflow.kafka.replayed_rows import PendingRows, ReplayedRows
from dataflow.streaming.errors import UserError


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture(params=[10_000, 4], ids=["in memory", "in a file"], autouse=True)
def rows_in_memory(request, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MAX_IN_MEMORY", request.param)


def test_each_row_can_be_taken_once():
    rows = ReplayedRows((offset, digest(offset)) for offset in range(100, 120))
    assert len(rows) == 20
    assert all(rows.take(digest(offset)) for offset in range(119, 99, -1))
    assert not any(rows.take(digest(offset)) for offset in range(90, 130))
    assert len(rows) == 0


def test_a_row_can_be_taken_as_often_as_there_are_copies():
    rows = ReplayedRows((offset, digest(offset % 2)) for offset in range(12))
    assert [rows.take(digest(1)) for _ in range(7)] == [True] * 6 + [False]
    assert len(rows) == 6


def test_what_is_pending_is_known_by_offset():
    rows = ReplayedRows((offset, digest(offset)) for offset in range(1_000, 1_030))
    taken = {*range(1_000, 1_011), 1_013, 1_029}
    for offset in taken:
        assert rows.take(digest(offset))
    pending = rows.pending()
    assert {offset for offset in range(900, 1_100) if offset in pending} == {*range(1_000, 1_030)} - taken
    assert len(pending.bits) <= 3, "one bit a row, from the first pending one on"


def test_rows_whose_offsets_are_not_known_are_taken_and_pending_too():
    rows = ReplayedRows([(7, digest(1))], [digest(1), digest(2)])
    assert len(rows) == 3
    assert rows.take(digest(1))
    assert rows.pending() == PendingRows(7, b"\1", [digest(2)])
    assert rows.take(digest(1)) and rows.take(digest(2)) and not rows.take(digest(1))
    assert rows.pending() == PendingRows(7)


def test_cleared_rows_are_gone():
    rows = ReplayedRows((offset, digest(offset)) for offset in range(20))
    rows.clear()
    assert len(rows) == 0 and not rows.take(digest(3))
    assert rows.pending().bits == b""


def test_a_full_disk_is_an_error_of_the_user(monkeypatch):
    monkeypatch.setattr(module, "_MAX_IN_MEMORY", 4)

    def connect(*arguments, **options):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(module.sqlite3, "connect", connect)
    with pytest.raises(UserError, match=r"^no room for the rows .* SQLITE_TMPDIR"):
        ReplayedRows((offset, digest(offset)) for offset in range(20))
