"""The header of a row that was put back."""

import pytest
from confluent_kafka import Message

from dataflow.tools.redriven_header import REDRIVEN, redriven_from


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        (None, None),
        ([("reason", b"late")], None),
        ([(REDRIVEN, b"dead-letters/0/1")], "dead-letters/0/1"),
        ([("a", b"b"), (REDRIVEN, b"late-events/3/9")], "late-events/3/9"),
    ],
)
def test_a_redriven_row_names_the_dead_letter_that_it_was(headers, origin):
    assert redriven_from(Message(topic="user-events", partition=0, offset=0, headers=headers)) == origin
