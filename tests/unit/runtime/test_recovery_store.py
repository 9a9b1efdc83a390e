"""The engine's recovery store as a killed job leaves it."""

import logging
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main

from dataflow.runtime.recovery_store import StoreWatch, check_store, drop_unfinished_epochs, has_snapshot, open_store
from dataflow.streaming.errors import UserError


class Steps(FixedPartitionedSource):
    """Emits what the plan says, an item of it an epoch; None kills the run. A resumed run goes on where it was."""

    def __init__(self, plan: list[list[str] | None]) -> None:
        self.plan = plan

    def list_parts(self):
        return ["all"]

    def build_part(self, step_id, for_part, resume_state):
        return _Step(self.plan, resume_state or 0)


class _Step(StatefulSourcePartition):
    def __init__(self, plan, next_step):
        self.plan, self.next = plan, next_step

    def next_batch(self):
        if self.next == len(self.plan):
            raise StopIteration
        words = self.plan[self.next]
        if words is None:
            raise AbortExecution
        self.next += 1
        return words

    def snapshot(self):
        return self.next


def run(plan: list, directory: Path) -> list:
    """Counts words by key, an epoch an item; returns what came out."""
    out: list = []
    flow = Dataflow("count")
    words = op.key_on("key", op.input("in", flow, Steps(plan)), lambda word: word)
    counts = op.stateful_map("count", words, lambda state, word: ((state or 0) + 1, (state or 0) + 1))
    op.output("out", counts, TestingSink(out))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(directory))
    return out


def epochs(directory: Path) -> list[int]:
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as store:
        return sorted(epoch for (epoch,) in store.execute("SELECT DISTINCT snap_epoch FROM snaps"))


def test_unfinished_epochs_are_dropped_from_the_store(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    run([["a"], ["b"], ["a"]], tmp_path)
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as store, store:
        ((resume,),) = store.execute("SELECT max(worker_frontier) FROM fronts")
        store.execute("INSERT INTO snaps VALUES ('now', 'count.count.stateful_batch', 'a', ?, NULL)", (resume + 2,))
    assert epochs(tmp_path)[-1] == resume + 2
    drop_unfinished_epochs(tmp_path)
    assert epochs(tmp_path)[-1] < resume
    assert run([["a"], ["b"], ["a"], ["a"]], tmp_path) == [("a", 3)]


def test_state_of_a_killed_run_is_not_resumed_two_runs_later(tmp_path: Path) -> None:
    """The engine alone does so: what a dead run had written for an epoch stays until a run writes that state in it."""
    counted = {}
    for mended in (False, True):
        directory = tmp_path / str(mended)
        directory.mkdir()
        init_db_dir(directory, 1)
        run([["a"]], directory)
        with closing(sqlite3.connect(directory / "part-0.sqlite3")) as store, store:
            ((resume,),) = store.execute("SELECT max(worker_frontier) FROM fronts")
            ((step, state),) = store.execute("SELECT step_id, ser_change FROM snaps WHERE state_key = 'a'").fetchall()[
                -1:
            ]
            seven = state.replace(b"K\x01.", b"K\x07.")
            assert seven != state
            store.execute("INSERT INTO snaps VALUES ('now', ?, 'a', ?, ?)", (step, resume + 1, seven))  # and was killed
        if mended:
            drop_unfinished_epochs(directory)
        run([["a"], ["b"], ["b"], ["b"], None], directory)  # the next run writes nothing of a, and is killed too
        counted[mended] = run([["a"], ["b"], ["b"], ["b"], ["a"]], directory)
    assert counted == {False: [("a", 8)], True: [("a", 2)]}


def test_a_store_in_use_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "store", 0)
    open_store(tmp_path / "store", 1)  # another process of the same cluster
    with pytest.raises(UserError, match="is in use: process 0 of a job is running on it; stop it first"):
        open_store(tmp_path / "store", 0)


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_a_part(directory: Path) -> None:
    (directory / "part-2.sqlite3").unlink()


def move(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def replace_with_a_copy(directory: Path) -> None:
    shutil.copytree(directory, directory.with_name("copy"))
    shutil.rmtree(directory)
    directory.with_name("copy").rename(directory)


def replace_with_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.touch()


@pytest.mark.parametrize("change", [remove, remove_a_part, move, replace_with_a_copy, replace_with_a_file])
def test_a_store_whose_files_are_gone_while_the_job_runs_is_noticed(tmp_path: Path, change) -> None:
    directory = tmp_path / "store"
    watch = open_store(directory, 0)
    watch.check()
    change(directory)
    with pytest.raises(
        UserError, match=r"^the recovery store .* is gone: part-\d.sqlite3 was deleted, moved or replaced"
    ):
        watch.check()


def test_a_volume_that_does_not_answer_is_left_to_the_engine(tmp_path: Path, monkeypatch) -> None:
    init_db_dir(tmp_path, 1)
    watch = StoreWatch(tmp_path)

    def stale(path: Path) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(Path, "stat", stale)
    watch.check()


def test_a_file_system_that_has_become_read_only_is_noticed(tmp_path: Path, monkeypatch) -> None:
    init_db_dir(tmp_path, 1)
    watch = StoreWatch(tmp_path)
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(UserError, match="has become read-only; correct that and start again"):
        watch.check()


def test_a_directory_without_a_store_is_refused_where_nobody_creates_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for directory, line in (
        (tmp_path / "none", r"does not exist \(-r\); `python -m dataflow -r .*/none` creates one and runs the job$"),
        (tmp_path, r"holds no recovery store \(-r\); `python -m dataflow -r "),
        (file, r"has to be a directory, and is a file \(-r\)$"),
    ):
        with pytest.raises(UserError, match=line):
            check_store(directory, will_be_created=False)
    assert list(tmp_path.iterdir()) == [file]
    check_store(tmp_path / "none", will_be_created=True)
    with pytest.raises(UserError, match="has to be a directory"):
        check_store(file, will_be_created=True)


def test_a_store_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 3)
    check_store(tmp_path, will_be_created=False)
    (tmp_path / "part-1.sqlite3").unlink()
    with pytest.raises(UserError, match=r"lacks part-1.sqlite3; put it back, or start with an empty one"):
        check_store(tmp_path, will_be_created=True)


def test_a_part_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-0.sqlite3").write_text("no database, whatever its name says")
    with pytest.raises(UserError, match=r"cannot be used: file is not a database$"):
        check_store(tmp_path, will_be_created=True)


def test_a_store_whose_first_epoch_was_never_finished_has_nothing_to_resume(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "visits")
    init_db_dir(tmp_path, 1)
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as store, store:  # as the engine does at its start
        store.execute("INSERT INTO exs VALUES ('now', 0, 1, 1)")
        store.execute("INSERT INTO snaps VALUES ('now', 'count', 'a', 1, NULL)")
    assert not has_snapshot(tmp_path)
    open_store(tmp_path, 0)
    assert caplog.messages == [f"recovery store {tmp_path}: no snapshot in it yet, so there is nothing to resume from"]
    run([["a"]], tmp_path)
    open_store(tmp_path, 1)
    assert has_snapshot(tmp_path)
    assert "resuming from epoch" in caplog.messages[-1]
