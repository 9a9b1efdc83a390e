"""How the process ends: what signals do, the last lines, and the exit codes."""

import logging
import threading

import pytest

from dataflow.observability import lifecycle, liveness, metrics, summary
from dataflow.runtime import shutdown as module
from dataflow.runtime.shutdown import Shutdown
from dataflow.streaming.errors import UserError


class Exited(Exception):
    """The process would have ended with this code."""


class Counts:
    """What the process has counted; by default it has read one message, and written it as a dead letter."""

    def __init__(self) -> None:
        self.of = {"rows_read": 1, "dead_letters": 1}

    def by_topic(self, metric):
        names = {
            id(getattr(metrics, name)): name for name in ("rows_read", "dead_letters", "rows_pending", "unacknowledged")
        }
        return {"a topic": self.of.get(names.get(id(metric), ""), 0)}


@pytest.fixture(autouse=True)
def counts(monkeypatch, caplog) -> Counts:
    counts = Counts()
    caplog.set_level(logging.INFO, "visits")
    monkeypatch.setattr(lifecycle, "drain_requested", threading.Event())
    monkeypatch.setattr(lifecycle, "stop_requested", threading.Event())
    monkeypatch.setattr(lifecycle, "exit_hooks", [])
    monkeypatch.setattr(liveness, "_has_polled", True)
    monkeypatch.setattr(module, "_EXIT_DELAY_S", 0)
    monkeypatch.setattr(summary.metrics, "by_topic", counts.by_topic)

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr("os._exit", leave)
    return counts


def code_of(act) -> int:
    with pytest.raises(Exited) as exited:
        act()
    return exited.value.args[0]


def test_the_first_signal_drains_and_the_second_one_says_what_is_not_saved(caplog):
    shutdown = Shutdown(has_store=True)
    shutdown._on_signal()
    assert lifecycle.drain_requested.is_set()
    assert not lifecycle.stop_requested.is_set()
    assert code_of(shutdown._on_signal) == 4
    assert caplog.messages[-1].startswith(
        "stopped without a last snapshot: a second signal came. What was read since the "
    )
    assert "the next start replays it, and no row is lost or written twice" in caplog.messages[-1]


def test_a_signal_to_a_process_that_another_one_has_told_to_drain_is_not_its_second():
    shutdown = Shutdown(has_store=True)
    lifecycle.drain_requested.set()
    shutdown._on_signal()
    assert not lifecycle.stop_requested.is_set()
    assert code_of(shutdown._on_signal) == 4


def test_a_signal_drains_also_when_the_sources_have_ended(monkeypatch):
    liveness.clear_poll()
    Shutdown(has_store=True)._on_signal()
    assert lifecycle.drain_requested.is_set()


def test_a_drain_that_takes_too_long_says_so_and_counts_the_rows_that_kafka_has_not_acknowledged(caplog, counts):
    lifecycle.drain_requested.set()
    counts.of["unacknowledged"] = 2
    assert code_of(Shutdown(has_store=True, drain_timeout_s=0.001)._limit_drain) == 4
    assert (
        "stopped without a last snapshot: it took longer than 0.001 s (VISITS_DRAIN_TIMEOUT), and Kafka has not "
        "acknowledged 2 rows. "
    ) in caplog.messages[-1]


def test_a_process_stops_once():
    shutdown = Shutdown(has_store=True)
    assert code_of(lambda: shutdown._stop("a second signal came")) == 4
    shutdown._stop("the drain timeout")


def test_a_job_that_has_read_nothing_has_nothing_to_save(caplog, monkeypatch):
    monkeypatch.setattr(liveness, "_has_polled", False)
    assert code_of(Shutdown(has_store=True)._on_signal) == 0
    assert caplog.messages[-1] == "stopped before anything was read"


def test_a_job_without_a_store_says_that_the_next_start_reads_all_again(caplog):
    assert code_of(Shutdown(has_store=False)._on_signal) == 0
    assert caplog.messages[-1].startswith("stopped; without a recovery store, the next start reads again what ")


def test_a_row_that_kafka_refuses_at_the_stop_is_an_error(caplog):
    def refused() -> None:
        raise UserError("Kafka refuses a row")

    lifecycle.exit_hooks.append(refused)
    assert code_of(Shutdown(has_store=False)._on_signal) == 1
    assert caplog.messages[-1] == "Kafka refuses a row"


def test_a_run_to_the_end_that_could_read_nothing_ends_with_3_and_a_job_that_was_told_to_stop_with_0(counts):
    assert Shutdown(has_store=True).finish() == 3
    lifecycle.drain_requested.set()
    assert Shutdown(has_store=True).finish() == 0


def test_the_engines_command_ends_with_the_same_code_after_the_exit_hooks():
    done = []
    lifecycle.exit_hooks.append(lambda: done.append("lease released"))
    assert code_of(Shutdown(has_store=False).finish_and_exit) == 3
    assert done == ["lease released"]
    lifecycle.drain_requested.set()
    Shutdown(has_store=False).finish_and_exit()


class Gone:
    """A store whose files were deleted."""

    def start(self) -> None:
        pass

    def check(self) -> None:
        raise UserError("the recovery store is gone")


def test_a_store_that_is_gone_at_the_end_is_an_error_and_not_a_stop(caplog):
    lifecycle.drain_requested.set()
    shutdown = Shutdown(has_store=True)
    shutdown.watch(Gone())
    assert code_of(shutdown.finish) == 1
    assert caplog.messages == ["the recovery store is gone"]


def test_a_stop_with_rows_that_a_replay_has_still_to_make_says_how_many_and_what_to_do(caplog, counts):
    counts.of["rows_pending"] = 1_234
    lifecycle.drain_requested.set()
    assert Shutdown(has_store=True).finish() == 0
    assert caplog.messages[-1].startswith("1,234 rows in the outputs from before this run are still to be made again")
    assert "Change neither settings nor version yet" in caplog.messages[-1]
