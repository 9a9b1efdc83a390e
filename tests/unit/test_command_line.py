"""The command line of ``python -m dataflow``, as a user types it: which command runs, what help says, what is a mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow.__main__ import main
from dataflow.tools.command_line import COMMANDS, MessageAddress, message_address, no_such_command, row_address

ROOT = Path(__file__).parents[2]
HELP_TIMEOUT_S = 60


def output_of(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``python -m`` and its arguments."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HELP_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_every_command_with_a_line_and_every_option_of_the_job() -> None:
    status, out, err = output_of("dataflow", "--help")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    for name, command in COMMANDS.items():
        assert [name, *command.help.split()] in lines
    for option in (
        "--workers-per-process", "--process-id", "--addresses", "--recovery-directory", "--snapshot-interval",
        "--backup-interval",
    ):  # fmt: skip
        assert option in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_own_help(name: str) -> None:
    status, out, err = output_of("dataflow", name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: python -m dataflow {name}")


@pytest.mark.parametrize("name", ["demo", "verify"])
def test_the_earlier_module_names_go_on_working(name: str) -> None:
    assert output_of(f"dataflow.{name}", "--help") == output_of("dataflow", name, "--help")


@pytest.mark.parametrize(
    ("typed", "meant"), [("explane", "explain"), ("verfy", "verify"), ("redrives", "redrive"), ("dmeo", "demo")]
)
def test_a_mistyped_command_is_one_line_with_the_closest_name(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"visits: there is no command '{typed}'; did you mean {meant}?")
    assert told.err.count("\n") == 1


def test_a_command_like_no_other_is_answered_with_all_of_them() -> None:
    text = no_such_command("x")
    assert "did you mean" not in text
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", ["demo", "verify", "explain", "redrive"])
def test_a_wrong_option_of_a_command_is_one_line_and_status_2(name: str) -> None:
    status, out, err = output_of("dataflow", name, "--wrong")
    assert (status, out) == (2, "")
    assert err.startswith("visits: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "where"), [("a/0/1", MessageAddress("a", 0, 1)), ("x.y-z_1/12/345", MessageAddress("x.y-z_1", 12, 345))]
)
def test_a_message_is_named_by_topic_partition_and_offset(text: str, where: MessageAddress) -> None:
    assert message_address(text) == where
    assert str(message_address(text)) == text


def test_an_event_of_several_is_named_with_its_part() -> None:
    assert row_address("a/0/1/2") == MessageAddress("a", 0, 1, 2)
    assert row_address("a/0/1") == MessageAddress("a", 0, 1)
    with pytest.raises(Exception, match="not a message, topic/partition/offset"):
        row_address("a/0/1/-2")


@pytest.mark.parametrize("text", ["a/0", "a/0/-1", "a/b/1", "/0/1", "a/0/1/2", ""])
def test_anything_else_is_not_a_message(text: str) -> None:
    with pytest.raises(Exception, match="not a message, topic/partition/offset"):
        message_address(text)


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["-s", "nan"], {}, "argument -s/--snapshot-interval: not a number of seconds from 0 to 1,000,000,000: 'nan'"),
        (["-b", "-5"], {}, "argument -b/--backup-interval: not a number of seconds from 0 to 1,000,000,000: '-5'"),
        ([], {"BYTEWAX_SNAPSHOT_INTERVAL": "inf"}, "'inf' (or BYTEWAX_SNAPSHOT_INTERVAL)"),
        (["-r", ""], {}, "argument -r/--recovery-directory: the name of the directory is empty"),
        (["-w", "two"], {}, "argument -w/--workers-per-process: not a whole number: 'two'"),
        (["-i", "0"], {}, "a cluster needs both --process-id and --addresses"),
        (["--addresses", "a:1;b:2"], {}, "a cluster needs both --process-id and --addresses"),
        (["--workres", "2"], {}, "unrecognized arguments: --workres 2"),
    ],
)
def test_a_wrong_option_of_the_job_is_one_line(arguments, environment, line) -> None:
    status, _, err = output_of("dataflow", *arguments, VISITS_LOG_FORMAT="text", **environment)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert line in err


@pytest.mark.parametrize(
    "arguments",
    [["verify", "--wait", "nan"], ["verify", "--wait", "-1"], ["redrive", "dead-letters", "--since", "nan"]],
)
def test_a_command_takes_no_time_that_is_not_a_number(arguments) -> None:
    status, _, err = output_of("dataflow", *arguments)
    assert status == 2
    assert len(err.splitlines()) == 1
