"""Texts that many rows share."""

from dataflow.clickstream.interning import Interned


def test_a_text_is_made_once_and_forgotten_when_there_are_too_many():
    made = []

    def make(number: int) -> str:
        made.append(number)
        return str(number)

    texts = Interned(make, 2)
    assert texts[1] is texts[1]
    assert (texts[2], texts[3], texts[1]) == ("2", "3", "1")
    assert made == [1, 2, 3, 1]
