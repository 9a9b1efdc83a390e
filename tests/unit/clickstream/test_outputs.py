"""What each output writes: key, values, headers, and the text that chooses the partition."""

from decimal import Decimal

import msgspec
import pytest

from dataflow.clickstream.inputs import default_inputs
from dataflow.clickstream.outputs import (
    NO_EVENT,
    OTHER_ROW,
    OUTPUTS,
    rejected,
    rejecter,
    sessions,
    suspicious_visits,
    visits,
)
from dataflow.clickstream.records import Event, Purchase
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.sessions import ClosedSession
from dataflow.streaming.batches import OutgoingRecords, RejectedRecord
from dataflow.streaming.position import position

RULES = Rules()
EVENT = Event(5, b"7", b'{"user_id":7}', position(3, 41), 1, "click")
SESSION = ClosedSession(b"7", b"abc", [EVENT], b"9.5", Decimal("9.5"), suspicion=2)


def test_names_settings_and_steps_of_outputs_are_unique():
    for names in ([spec.name for spec in OUTPUTS], [spec.setting for spec in OUTPUTS], [s.step_name for s in OUTPUTS]):
        assert len(set(names)) == len(OUTPUTS)


def test_visits_are_the_events_of_a_session_under_its_user():
    rows = [b'{"user_id":7,"session_id":"abc","amount":9.5}']
    assert list(visits(("0", [SESSION]), RULES)) == [("7", OutgoingRecords(b"7", rows))]


@pytest.mark.parametrize(("suspicion", "rows"), [(2, [b'{"session_id":"abc","user_id":7,"type":2}']), (None, None)])
def test_only_a_suspicious_session_has_a_row_in_suspicious_visits(suspicion, rows):
    session = msgspec.structs.replace(SESSION, suspicion=suspicion)
    assert list(suspicious_visits(("0", [session]), RULES)) == ([("7", OutgoingRecords(b"7", rows))] if rows else [])


def test_each_session_has_one_row_in_sessions_under_its_user():
    ((route, records),) = sessions(("0", [SESSION]), RULES)
    assert (route, records.key, records.headers) == ("7", b"7", None)
    (row,) = records.values
    assert row.startswith(b'{"session_id":"abc","user_id":7,')


@pytest.mark.parametrize(("key", "route"), [(b"7", "7"), (b"\xff", "\ufffd"), (None, "clicks/3")])
def test_a_rejected_record_is_routed_by_its_key_or_else_by_its_origin(key, route):
    record = RejectedRecord(key, b"value", "late", "clicks/3", 41)
    headers = [("reason", b"late"), ("topic", b"clicks"), ("partition", b"3"), ("offset", b"41")]
    assert list(rejected(record, RULES)) == [(route, OutgoingRecords(key, [b"value"], headers))]


def test_a_rejected_row_has_the_topic_of_its_kind_and_its_position():
    reject = rejecter(default_inputs("clicks", "paid"))
    paid = Purchase(5, b"7", b"{}", position(2, 9), 1, b"9.5")
    assert reject(EVENT, NO_EVENT) == RejectedRecord(b"7", EVENT.value, NO_EVENT, "clicks/3", 41)
    assert reject(paid, OTHER_ROW) == RejectedRecord(b"7", b"{}", OTHER_ROW, "paid/2", 9)
