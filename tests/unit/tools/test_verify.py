"""`verify` compares each output with the rows of the same name in the reference, and names outputs that it lacks."""

from collections import Counter
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace

from rich.console import Console
from support.explained import SETTINGS
from support.logs import Message

from dataflow.tools.reference import Answer, Record
from dataflow.tools.verify import compare, not_compared, report


class Topics:
    """One row in `visits`, nothing in the other topics."""

    def read(self, topic: str) -> Iterator[Message]:
        if topic == SETTINGS.topic_visits:
            yield Message(Record(b"1", b"{}", 0, 0))


def test_each_output_is_compared_with_the_expected_rows_of_its_name():
    expected = Answer(visits=Counter({(b"1", b"{}", ()): 1}), late_events=Counter({(b"2", b"{}", ()): 1}))
    differences = {each.topic: each for each in compare(SETTINGS, Topics(), expected)}
    assert set(differences) == set(SETTINGS.outputs)
    assert [topic for topic, difference in differences.items() if difference] == [SETTINGS.topic_late_events]
    assert differences[SETTINGS.topic_late_events].missing.total() == 1


def test_an_output_that_the_reference_does_not_compute_is_named_not_compared():
    reference = SimpleNamespace(visits=Counter())
    assert [each.topic for each in compare(SETTINGS, Topics(), reference)] == [SETTINGS.topic_visits]
    assert not_compared(SETTINGS, reference) == [topic for topic in SETTINGS.outputs if topic != SETTINGS.topic_visits]
    assert not_compared(SETTINGS, Answer()) == []


def test_the_report_shows_missing_and_extra_rows():
    text = StringIO()
    report(compare(SETTINGS, Topics(), Answer()), Console(file=text, width=200))
    assert "visits: too many x1: b'1' b'{}' {}" in text.getvalue()
