"""What would write rows beside those that are there already, or leave some out, is refused in one line.

Each case was found by an outsider: a store that is not that of the last stop, none at all, or processes that differ.
"""

import shutil
from pathlib import Path

import pytest
from support.jobs import LIVE, NOON, a_log, count_visits, wait_until, wait_until_right, write
from support.programs import end_of, environment, free_port

from dataflow.streaming.errors import START_OVER


@pytest.fixture
def shop(embedded_settings):
    """A shop whose rows are all there before the job starts; its job is stopped with some sessions open."""
    settings = embedded_settings.model_copy(update={**LIVE, "allowed_lateness": 0.5})
    write(settings.brokers, a_log(settings, NOON, keyed=True, events=100))
    return settings


def run_and_stop(settings, programs, store: Path | None) -> list[str]:
    """Runs the job until it has caught up and written; returns what it said."""
    where = ("-r", str(store)) if store is not None else ()
    job = programs.start("dataflow", *where, "-s", "1", **environment(settings))
    wait_until(lambda: "caught up" in job.log.read_text() and count_visits(settings) > 0, "the job has caught up", job)
    job.terminate()
    status, lines = end_of(job)
    assert status == 0, lines
    return lines


def assert_refused(settings, programs, store: Path | None, line: str, command: str = "dataflow", **more: str) -> None:
    before = count_visits(settings)
    where = ("-r", str(store)) if store is not None else ()
    module = (command,) if command == "dataflow" else ("bytewax.run", "dataflow:flow")
    status, lines = programs.run(*module, *where, **environment(settings, **more))
    assert status == 1, lines
    assert line in lines[-1]
    assert lines[-1].endswith(START_OVER)
    assert count_visits(settings) == before


def test_a_backup_of_the_store_from_before_a_change_of_settings(shop, programs, tmp_path):
    store, backup = tmp_path / "recovery", tmp_path / "backup"
    empty = shop.model_copy(update={"session_gap": 60.0})  # closes next to nothing
    job = programs.start("dataflow", "-r", str(store), "-s", "1", **environment(empty))
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
    job.terminate()
    assert end_of(job)[0] == 0
    shutil.copytree(store, backup)
    write(shop.brokers, a_log(shop, NOON + 3_600, keyed=True, events=100))
    run_and_stop(empty, programs, store)
    changed = empty.model_copy(update={"session_gap": 2.5})
    run_and_stop(changed, programs, store)
    shutil.rmtree(store)
    shutil.copytree(backup, store)
    assert_refused(changed, programs, store, "were written before the settings were changed last")


def test_a_live_job_after_a_run_to_the_end_that_closed_its_open_sessions(shop, programs, tmp_path):
    run_and_stop(shop, programs, tmp_path / "recovery")
    status, lines = programs.run("bytewax.run", "dataflow:flow", **environment(shop, stop_at_end="1"))
    assert status == 0, lines
    line = "were written with VISITS_STOP_AT_END=1 and would be written again with 0"
    assert_refused(shop, programs, tmp_path / "recovery", line)


@pytest.mark.parametrize("begun", ["earliest", "latest"])
def test_another_beginning_of_a_job_whose_store_is_lost(shop, programs, tmp_path, begun):
    other = "latest" if begun == "earliest" else "earliest"
    first = shop.model_copy(update={"start": begun})
    job = programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **environment(first))
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has caught up", job)
    write(shop.brokers, a_log(shop, NOON + 3_600, keyed=True, events=100))
    wait_until(lambda: count_visits(shop) > 0, "the job writes", job)
    job.kill()
    job.wait()
    shutil.rmtree(tmp_path / "recovery")
    line = f"were written with VISITS_START={begun} and would be written again with {other}"
    assert_refused(shop.model_copy(update={"start": other}), programs, tmp_path / "recovery", line)


@pytest.mark.parametrize(
    ("what", "more", "store"),
    [
        ("VISITS_SESSION_GAP", {"session_gap": "5"}, "recovery"),
        ("VISITS_SHARDS", {"shards": "4"}, "recovery"),
        ("the recovery store (-r)", {}, "another"),
    ],
)
def test_a_process_that_differs_from_the_first_one_of_its_cluster(shop, programs, tmp_path, what, more, store):
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    cluster = [
        programs.start(
            "dataflow",
            "-r",
            str(tmp_path / (store if number else "recovery")),
            *("-i", str(number), "-a", addresses),
            **environment(shop, **(more if number else {})),
        )
        for number in range(2)
    ]
    ended = [end_of(process) for process in cluster]
    assert [status for status, _ in ended] == [1, 1]
    assert f"this process differs from the job's first one in {what}: " in "\n".join(ended[1][1])
    assert count_visits(shop) == 0


def test_the_store_of_the_last_stop_goes_on_after_a_change_and_a_kill_before_the_next_snapshot(
    shop, programs, tmp_path
):
    store = tmp_path / "recovery"
    run_and_stop(shop, programs, store)
    changed = shop.model_copy(update={"session_gap": 3.5})
    write(shop.brokers, a_log(shop, NOON + 3_600, keyed=True, events=100))
    before = count_visits(shop)
    job = programs.start("dataflow", "-r", str(store), "-s", "3600", **environment(changed))
    wait_until(lambda: count_visits(shop) > before, "the job writes", job)
    job.kill()
    job.wait()
    run_and_stop(changed, programs, store)


def test_rows_are_right_after_a_stop_whatever_was_refused_before(shop, programs, tmp_path):
    store = tmp_path / "recovery"
    run_and_stop(shop, programs, store)
    assert programs.run("dataflow", "-r", str(store), **environment(shop, shards="4"))[0] == 1
    job = programs.start("dataflow", "-r", str(store), **environment(shop))
    wait_until_right(shop, job)
