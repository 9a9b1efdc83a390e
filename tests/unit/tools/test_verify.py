"""`verify` compares each output with the rows of the same name in the reference, and names outputs that it lacks."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from io import StringIO
from types import SimpleNamespace

from rich.console import Console
from support.explained import SETTINGS
from support.logs import EVENTS, PURCHASES, Message, batch_answer, event, log, purchase

from dataflow.tools.balance import Balance
from dataflow.tools.reference import Answer, Record
from dataflow.tools.verify import compare, not_compared, report, report_balance


class Topics:
    """One row in `visits`, nothing in the other topics."""

    partitions = dict.fromkeys(SETTINGS.outputs, 1)

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


def test_an_optional_output_without_a_topic_is_left_out():
    topics = Topics()
    topics.partitions = {topic: 1 for topic in SETTINGS.outputs if topic != SETTINGS.topic_sessions}
    found = compare(SETTINGS, topics, Answer(sessions=Counter({(b"1", b"{}", ()): 1})))
    assert SETTINGS.topic_sessions not in {each.topic for each in found}


def test_the_report_shows_missing_and_extra_rows():
    text = StringIO()
    report(compare(SETTINGS, Topics(), Answer()), Console(file=text, width=200))
    assert "visits: too many x1: b'1' b'{}' {}" in text.getvalue()


def balance_of(logs: dict) -> Balance:
    balance = Balance()
    batch_answer(logs, balance=balance)
    return balance


def test_the_balance_has_each_purchase_row_in_one_place_with_exact_sums():
    buys = [event(0, "purchase"), event(4, "purchase"), event(100)]
    rows = [purchase(3, "0.1"), purchase(5, "0.2"), purchase(5, "1e1"), purchase(20, "7"), b"{}", purchase(0, "2.50")]
    balance = balance_of({EVENTS: log(*buys), PURCHASES: log(*rows)})
    assert (balance.rows, balance.amount, balance.is_even) == (6, Decimal("19.8"), True)
    assert balance.places == {
        "matched": (2, Decimal("10.1")),
        "no event in its time": (1, Decimal(7)),
        "another row was taken": (1, Decimal("0.2")),
        "late": (1, Decimal("2.5")),
        "unreadable": (1, Decimal(0)),
    }


def test_a_sum_of_numbers_of_very_different_sizes_ends():
    rows = [
        purchase(0, "1e308"),
        purchase(0, "1e-999999999"),
        purchase(0, "1e-99999999999999999999"),
        purchase(0, "-1e308"),
    ]
    balance = balance_of({EVENTS: [], PURCHASES: log(*rows)})
    assert (balance.rows, balance.amount, balance.is_even) == (4, 0, True)


def test_the_balance_is_printed():
    text = StringIO()
    rows = [purchase(3, "1000.50"), purchase(7, 20)]
    balance = balance_of({EVENTS: log(event(0, "purchase"), event(4, "purchase")), PURCHASES: log(*rows)})
    report_balance(balance, Console(file=text, width=200))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert ["in", "the", "topic", "2", "1,020.50"] in lines
    assert ["matched", "2", "1,020.50"] in lines
    assert lines[-1] == "Every purchase row is in one place.".split()
    balance.rows += 1
    report_balance(balance, Console(file=text, width=200))
    assert "WRONG: the purchase rows do not balance" in text.getvalue()
