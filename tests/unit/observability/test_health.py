"""Probes: a job that waits is alive; it is ready once it has read every partition to its end."""

import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from support.programs import free_port

from dataflow.observability import health, lifecycle, liveness
from dataflow.observability.progress import Progress
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.errors import UserError
from dataflow.streaming.time import MIN_TIME, SECOND


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    monkeypatch.setattr(liveness, "_inside", {})
    monkeypatch.setattr(liveness, "_polled", None)
    monkeypatch.setattr(lifecycle, "stop_requested", threading.Event())


def ask(port: int, probe: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{probe}", timeout=60) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


class Ends:
    """Two partitions, which end at offset 10."""

    sources = ("clicks/0", "clicks/1")

    def end(self, source: str) -> SimpleNamespace:
        return SimpleNamespace(offset=10)

    def back_at(self, source: str) -> int:
        return 0


@pytest.fixture
def progress() -> Progress:
    return Progress(Ends(), SourceAlignment(), lateness=5 * SECOND)


def now(seconds: float = 0) -> int:
    return round((time.time() + seconds) * SECOND)


def passing(seconds: float, monkeypatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda later=time.monotonic() + seconds: later)


def up() -> bool:
    return True


# --- alive ---


def test_a_process_that_has_not_polled_yet_is_alive():
    assert health.live(up) == (True, "starting or stopping")


def test_a_worker_stuck_in_one_call_is_not_alive_while_others_poll(monkeypatch):
    @liveness.monitored
    def hang() -> None:
        passing(40, monkeypatch)
        liveness.record_poll()
        assert health.live(up) == (False, "a worker has been busy with one batch, or one snapshot, for 40 s")

    hang()
    assert health.live(up)[0]


def test_a_worker_that_waits_for_kafka_is_alive(monkeypatch):
    @liveness.monitored
    def wait() -> None:
        passing(40, monkeypatch)
        liveness.heartbeat()
        assert health.live(up)[0]

    wait()


def test_a_worker_that_waits_for_a_lock_is_alive():
    lock = threading.Lock()

    @liveness.monitored
    def ask() -> None:
        came = liveness._inside[threading.get_ident()]
        threading.Timer(1.5, lock.release).start()
        with liveness.acquire_with_heartbeat(lock):
            assert liveness._inside[threading.get_ident()] > came

    lock.acquire()
    ask()


@pytest.mark.parametrize(("seconds", "kafka", "alive"), [(60, True, True), (700, True, False), (700, False, True)])
def test_sources_may_go_unpolled_for_a_while_and_always_without_kafka(monkeypatch, seconds, kafka, alive):
    liveness.record_poll()
    passing(seconds, monkeypatch)
    assert health.live(lambda: kafka)[0] is alive


def test_workers_with_nothing_more_to_read_need_not_poll(monkeypatch):
    liveness.record_poll()
    liveness.clear_poll()
    passing(700, monkeypatch)
    assert health.live(up)[0]


# --- ready ---


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        pytest.param({}, "no partition has been read yet", id="none opened"),
        pytest.param({"clicks/0": 0, "clicks/1": None}, "clicks/1 has not been read to its end yet", id="one never"),
        pytest.param({"clicks/0": -30, "clicks/1": 0}, "clicks/0 was last read to its end 30 s ago", id="one long ago"),
        pytest.param({"clicks/0": -1, "clicks/1": 0}, None, id="both lately"),
    ],
)
def test_a_process_is_ready_once_each_partition_was_lately_read_to_its_end(progress, claims, why):
    for source, seconds in claims.items():
        progress.record_position(source, 10, now(seconds) if seconds is not None else None)
    assert health.ready(up, progress) == (why is None, why or "every partition was read to its end in the last 10 s")


def test_a_stopping_process_is_not_ready(progress):
    progress.record_position("clicks/0", 10, now())
    lifecycle.stop_requested.set()
    assert health.ready(up, progress) == (False, "stopping")


# --- and where it stands, for metrics ---


def test_rows_to_read_are_known_of_partitions_with_an_offset(progress):
    progress.record_position("clicks/0", 4, None)
    progress.record_position("clicks/1", -2, None)  # "from the beginning", wherever that is
    assert progress.rows_to_read() == {"clicks/0": 6}


def test_unread_partitions_block_the_watermark_or_else_the_slowest():
    pace = SourceAlignment()
    progress = Progress(Ends(), pace, lateness=5 * SECOND)
    assert progress.blocking_sources() == set()
    pace.update("clicks/0", 100 * SECOND, 2)
    assert (progress.blocking_sources(), progress.watermark()) == ({"clicks/1"}, None)
    pace.update("clicks/1", MIN_TIME, 2)
    assert (progress.blocking_sources(), progress.watermark()) == ({"clicks/1"}, None)
    pace.update("clicks/1", 200 * SECOND, 2)
    assert (progress.blocking_sources(), progress.watermark()) == ({"clicks/0"}, 95.0)
    assert progress.times() == {"clicks/0": 100.0, "clicks/1": 200.0}


# --- the endpoint ---


def test_a_taken_port_is_an_error_of_one_line(progress):
    port = free_port()
    health.serve(port, up, progress)
    with pytest.raises(UserError, match=f"VISITS_HEALTH_PORT: port {port} is not available: "):
        health.serve(port, up, progress)
    assert ask(port, "nothing") == (404, "ask /live or /ready")
    assert ask(port, "ready") == (503, "no partition has been read yet")
