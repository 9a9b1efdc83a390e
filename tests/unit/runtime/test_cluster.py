"""A process and its cluster: what the engine would not start with is refused in one line."""

import pytest

from dataflow.observability import liveness
from dataflow.runtime import cluster as module
from dataflow.runtime.cluster import ProcessInfo, parse_addresses
from dataflow.streaming.errors import UserError

TWO = ("job-0:2101", "job-1:2101")


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (None, ()),
        ("", ()),
        ("job-0:2101;job-1:2101", TWO),
        ("127.0.0.1:2101;[::1]:2101", ("127.0.0.1:2101", "[::1]:2101")),
    ],
)
def test_addresses_are_separated_by_semicolons(text, addresses):
    assert parse_addresses(text) == addresses


@pytest.mark.parametrize(
    "text", ["job-0:2101,job-1:2101", "job-0;job-1", "job-0:", ":2101", "job-0:2101;", "job-0:99999", "job-0: 2101"]
)
def test_an_address_without_host_or_port_is_refused(text):
    with pytest.raises(UserError, match=r"is not host:port; a cluster's addresses are separated by ';'"):
        parse_addresses(text)


def test_one_address_for_two_processes_is_refused():
    with pytest.raises(UserError, match=r"^two processes of the cluster have one address: "):
        parse_addresses("job:2101;job:2101")


@pytest.mark.parametrize(
    ("info", "line"),
    [
        (ProcessInfo(2, None, TWO), "there is no process 2 in a cluster of 2"),
        (ProcessInfo(-1, None, TWO), "there is no process -1 in a cluster of 2"),
        (ProcessInfo(1, None), "there is no process 1 in a cluster of 1"),
        (ProcessInfo(0, None, workers=0), "a process has at least one worker, not 0"),
        (ProcessInfo(0, None, workers=-1), "a process has at least one worker, not -1"),
    ],
)
def test_a_process_or_workers_that_cannot_be_are_refused(info, line):
    with pytest.raises(UserError) as refused:
        info.check()
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("info", [ProcessInfo(0, None), ProcessInfo(1, None, TWO, 3)])
def test_others_are_accepted(info):
    info.check()


@pytest.mark.parametrize(("polled", "says"), [(None, True), (0.1, False)], ids=["waits", "runs"])
def test_a_process_that_waits_for_its_cluster_says_for_whom(monkeypatch, caplog, polled, says):
    monkeypatch.setattr(module, "_PATIENCE_S", 0)
    monkeypatch.setattr(liveness, "since_poll", lambda: polled)
    caplog.set_level("INFO")
    ProcessInfo(1, None, TWO)._say_if_waiting()
    assert ("waiting for the other processes of the cluster: job-0:2101" in caplog.text) == says
