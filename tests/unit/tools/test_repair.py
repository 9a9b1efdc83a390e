"""Repairs of values before they are sent again."""

import json
import time

import pytest

from dataflow.tools.redrive.repair import CannotRun, LeftOut, NotRepaired, Repair


def test_a_command_gets_the_value_and_prints_the_new_one():
    assert Repair("tr a b", now=False)(b"aab") == b"bbb"


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [
        ("exit 3", NotRepaired, "^exit code 3$"),
        ("echo why >&2; exit 3", NotRepaired, "^exit code 3, why$"),
        ("true", LeftOut, "^$"),
        ("no-such-command-anywhere", CannotRun, "not found"),
    ],
)
def test_a_command_that_fails_or_prints_nothing_raises(command, error, text):
    with pytest.raises(error, match=text):
        Repair(command, now=False)(b"{}")


def test_now_sets_only_the_timestamp():
    value = Repair(None, now=True)(b'{"a":1.50,"timestamp":7,"b":"\xc3\xa9"}')
    assert value.startswith(b'{"a":1.50,"timestamp":')
    assert value.endswith(',"b":"é"}'.encode())
    assert abs(json.loads(value)["timestamp"] - time.time()) < 60


def test_now_needs_a_value_that_can_be_read():
    with pytest.raises(NotRepaired, match=r"^the value cannot be read"):
        Repair(None, now=True)(b"hello")
