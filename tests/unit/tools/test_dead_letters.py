"""Dead letters for `redrive`: read, selected, grouped, and their outcomes counted."""

import pytest

from dataflow.tools.command_line import MessageAddress
from dataflow.tools.redrive.dead_letters import (
    DeadLetter,
    Group,
    OutcomeCounter,
    Selection,
    grouped,
    select_dead_letters,
)

HEADERS = [("reason", b"late"), ("topic", b"clicks"), ("partition", b"3"), ("offset", b"41")]


class Stored:
    """A message of `late-events`, stored at some second."""

    def __init__(self, offset: int = 0, headers: list | None = HEADERS, stored: int = 100) -> None:
        self._offset, self._headers, self._stored = offset, headers, stored

    def topic(self) -> str:
        return "late-events"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"7"

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> list | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._stored * 1_000


def test_a_dead_letter_has_its_reason_and_the_address_of_its_origin():
    letter = DeadLetter.of(Stored(offset=5))
    assert (letter.at, letter.reason) == (MessageAddress("late-events", 0, 5), "late")
    assert letter.origin == MessageAddress("clicks", 3, 41)


def test_an_event_of_several_has_its_part_in_the_address_of_its_origin():
    letter = DeadLetter.of(Stored(headers=[*HEADERS, ("part", b"2")]))
    assert letter.origin == MessageAddress("clicks", 3, 41, 2)
    assert str(letter.origin) == "clicks/3/41/2"


@pytest.mark.parametrize("headers", [None, [], HEADERS[:2], [*HEADERS[:3], ("offset", b"-1")]])
def test_a_message_without_complete_headers_has_no_origin(headers):
    assert DeadLetter.of(Stored(headers=headers)).origin is None


@pytest.mark.parametrize(
    ("selection", "selected"),
    [
        (Selection(), True),
        (Selection(reason="at"), True),
        (Selection(reason="amount"), False),
        (Selection(topic="clicks"), True),
        (Selection(topic="paid"), False),
        (Selection(since=100), True),
        (Selection(since=100.5), False),
        (Selection(until=100), False),
        (Selection(until=100.5), True),
        (Selection(at=[MessageAddress("late-events", 0, 0)]), True),
        (Selection(at=[MessageAddress("late-events", 0, 1)]), False),
    ],
)
def test_a_selection_is_by_reason_origin_time_and_address(selection, selected):
    assert len(list(select_dead_letters([Stored()], selection))) == selected


def test_groups_have_count_and_first_and_last_time():
    letters = [DeadLetter.of(Stored(stored=at)) for at in (100, 90, 110)]
    assert grouped(letters, lambda letter: None) == {
        ("late-events", "clicks", "late"): Group(count=3, first=90_000_000, last=110_000_000)
    }


def test_outcomes_are_counted_and_the_first_five_details_printed():
    lines: list[str] = []
    outcomes = OutcomeCounter(lines.append)
    for offset in range(8):
        outcomes.add("not repaired", DeadLetter.of(Stored(offset)), "exit code 1")
    assert outcomes.counts == {"not repaired": 8}
    assert lines == [
        *(f"late-events/0/{offset}: not repaired: exit code 1" for offset in range(5)),
        "further rows are only counted: not repaired",
    ]
