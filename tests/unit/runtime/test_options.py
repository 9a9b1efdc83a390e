"""Values of options: what is refused, in one line that names the option."""

import argparse
from pathlib import Path

import pytest

from dataflow.runtime.cluster import ProcessInfo
from dataflow.runtime.options import directory, seconds, whole_number
from dataflow.streaming.errors import UserError


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("0.5", 0.5), ("10", 10), ("1e9", 1e9)])
def test_seconds_are_0_or_more(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-5", "-0.1", "1e300", "", "10s"])
def test_other_numbers_of_seconds_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^not a number of seconds from 0 to 1,000,000,000: "):
        seconds(text)


def test_a_number_with_a_fraction_is_not_whole():
    assert whole_number("-1") == -1
    with pytest.raises(argparse.ArgumentTypeError, match=r"^not a whole number: '1.5'$"):
        whole_number("1.5")


def test_an_empty_name_is_not_the_working_directory():
    assert directory("store") == Path("store")
    with pytest.raises(argparse.ArgumentTypeError, match="empty"):
        directory("")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-s", "-5"], "argument -s/--snapshot-interval: not a number of seconds from 0 to 1,000,000,000: '-5'"),
        (["-b", "-5"], "argument -b/--backup-interval: not a number of seconds from 0 to 1,000,000,000: '-5'"),
        (["-r", ""], "argument -r/--recovery-directory: the name of the directory is empty"),
    ],
)
def test_the_engines_options_that_it_would_misunderstand_are_refused(monkeypatch, arguments, line):
    monkeypatch.setattr("sys.argv", ["bytewax.run", "dataflow:flow", *arguments])
    with pytest.raises(UserError) as refused:
        ProcessInfo.from_environment()
    assert str(refused.value) == line


def test_the_engines_own_options_are_left_to_it(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bytewax.run", "dataflow:flow", "-r", "store", "-s", "10", "-b", "0", "--other"])
    monkeypatch.setenv("BYTEWAX_WORKERS_PER_PROCESS", "3")
    assert ProcessInfo.from_environment() == ProcessInfo(0, Path("store"), (), 3)
