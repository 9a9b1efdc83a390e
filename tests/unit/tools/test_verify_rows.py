"""The comparison of output topics with a batch computation, row by row, on messages in memory."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Message
from support.explained import SETTINGS
from support.logs import event, session_id

from dataflow.tools.verify import Difference, compare, expected, out_of_order, split_off_earlier

VISITS = [event(0)[:-1] + f',"session_id":"{session_id(1, 0)}","amount":0}}'.encode()]


class Topics:
    """Topics of one partition each; a value may stand with the time at which it was written."""

    partitions = dict.fromkeys(SETTINGS.inputs + SETTINGS.outputs, 1)

    def __init__(self, **values: list[bytes | tuple[int, bytes]]) -> None:
        self._values = values

    def read(self, topic: str) -> Iterator[Message]:
        for offset, value in enumerate(self._values.get(topic.replace("-", "_"), [])):
            key = b"1" if topic == "visits" else None
            at, value = value if isinstance(value, tuple) else (-1, value)
            yield Message(topic=topic, partition=0, offset=offset, key=key, value=value, timestamp=(0, at))


def visits_difference(written: list[bytes]) -> Difference:
    topics = Topics(user_events=[event(0)], visits=written)
    return compare(SETTINGS, topics, expected(SETTINGS, topics))[0]


def test_the_expected_rows_are_no_difference():
    difference = visits_difference(VISITS)
    assert (bool(difference), difference.topic, difference.expected) == (False, "visits", 1)


@pytest.mark.parametrize(("written", "missing", "extra"), [([], 1, 0), (VISITS * 2, 0, 1), ([b"{}"], 1, 1)])
def test_missing_duplicate_and_unexpected_rows_are_differences(written, missing, extra):
    difference = visits_difference(written)
    assert difference
    assert (difference.missing.total(), difference.extra.total()) == (missing, extra)


@pytest.mark.parametrize(
    ("first_row", "missing", "earlier"),
    [
        pytest.param([], ["a", "b", "c"], 0, id="no row yet"),
        pytest.param([(20, b"")], ["b", "c"], 1, id="the second had not closed by then"),
        pytest.param([(10, b"")], ["a", "b", "c"], 0, id="the first had not"),
    ],
)
def test_sessions_that_closed_before_the_first_row_of_an_optional_topic_are_not_missed(first_row, missing, earlier):
    def row(session: str) -> bytes:
        return json.dumps({"session_id": session, "timestamp": 0}).encode()

    topics = Topics(visits=[(10, row("a")), (20, row("b"))], sessions=first_row)  # nothing of c
    rows = Counter({(b"1", row(session), ()): 1 for session in "abc"})
    difference, count = split_off_earlier(Difference("sessions", 3, rows, Counter()), topics, "visits")
    assert [json.loads(value)["session_id"] for _, value, _ in difference.missing] == missing
    assert count == earlier


def test_visits_after_a_later_one_of_their_session_are_out_of_order():
    rows = [{"session_id": session, "timestamp": at} for session, at in (("a", 2), ("b", 1), ("a", 1), ("a", 3))]
    assert out_of_order(Topics(visits=[json.dumps(row).encode() for row in rows]), "visits") == 1
