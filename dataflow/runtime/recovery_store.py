"""The engine's recovery store: creates it, locks it, and removes what an unfinished run left in it.

It is a directory of SQLite files, the store's parts. They hold each snapshot of a step's state under the epoch that it
closes. A job resumes from the states before its resume epoch, the last that all workers had finished.
"""

import fcntl
import logging
import os
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from bytewax.recovery import init_db_dir

from dataflow.observability import logs
from dataflow.streaming.errors import UserError

log = logging.getLogger("visits")

_PARTS = 4  # more workers than this share them


def open_store(directory: Path, process_id: int) -> None:
    """Creates the store or prepares an existing one, and locks it for this process for as long as it lives.

    The processes of a cluster share the directory. Raises UserError if it is in use or cannot be used.
    """
    with _with_user_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            directory / f".process-{process_id}", os.O_CREAT | os.O_RDWR
        )  # never closed, so locked to the end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the recovery store {directory} is in use: process {process_id} of a job is running on it; stop it first"
            ) from None
        with _exclusively(directory):
            if not _parts(directory):
                init_db_dir(directory, _PARTS)
                log.info("recovery store %s: new", directory, extra=logs.event("starting"))
            else:
                _log_resume_epoch(directory)
            _delete_unfinished(directory)


def drop_unfinished_epochs(directory: Path) -> None:
    """Removes the snapshots of epochs that a run began and did not finish.

    The engine leaves them in the store, and the next run counts its epochs from the same number on. A state that the next
    run does not write in the very same epoch would be taken from the run before: it is of a later moment than all other
    states, so that rows are lost or written twice.

    Call it while no process of the job runs on the store. Raises UserError if the store cannot be used.
    """
    if _parts(directory):
        with _with_user_errors(directory), _exclusively(directory):
            _delete_unfinished(directory)


def _log_resume_epoch(directory: Path) -> None:
    written = _last_written(directory)  # before the store is opened
    resume = resume_epoch(directory)
    if resume is None:
        line = "recovery store %s: nothing in it yet, starting from the beginning"
        log.info(line, directory, extra=logs.event("starting"))
    else:
        line = "recovery store %s: resuming from epoch %d; last written at %s UTC"
        log.info(line, directory, resume, written, extra=logs.event("resuming"))


def _delete_unfinished(directory: Path) -> None:
    resume = resume_epoch(directory)
    for part in _parts(directory):
        with closing(sqlite3.connect(part)) as database, database:
            database.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (resume or 0,))


def _last_written(directory: Path) -> str:
    """When the files were last changed; the engine's own dates are those of a run's first snapshot."""
    newest = max(file.stat().st_mtime for file in directory.glob("part-*"))
    return f"{datetime.fromtimestamp(newest, timezone.utc):%Y-%m-%d %H:%M:%S}"


def resume_epoch(directory: Path) -> int | None:
    """The epoch from which the engine would resume; None before the first run."""
    runs: dict[int, tuple[int, int]] = {}
    workers: dict[tuple[int, int], int] = {}
    for part in _parts(directory):
        with closing(sqlite3.connect(part)) as database:
            for run, count, epoch in database.execute("SELECT ex_num, worker_count, resume_epoch FROM exs"):
                runs[run] = count, epoch
            for run, worker, epoch in database.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts"):
                workers[run, worker] = epoch
    if not runs:
        return None
    last = max(runs)
    count, began = runs[last]
    return min(workers.get((last, worker), began) for worker in range(count))


def states(directory: Path, step_id: str) -> dict[str, bytes]:
    """The states, by key, from which the engine would resume a step whose states are bytes."""
    resume = resume_epoch(directory)
    newest: dict[str, tuple[int, bytes | None]] = {}
    query = "SELECT state_key, snap_epoch, ser_change FROM snaps WHERE step_id = ? AND snap_epoch < ?"
    for part in _parts(directory):
        with closing(sqlite3.connect(part)) as database:
            for key, epoch, data in database.execute(query, (step_id, resume or 0)):
                if epoch > newest.get(key, (-1, None))[0]:
                    newest[key] = epoch, data
    # the engine pickles states; None: discarded
    return {key: pickle.loads(data) for key, (_, data) in newest.items() if data is not None}


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*.sqlite3"))


@contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _with_user_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        raise UserError(f"the recovery store {directory} cannot be used: {error}") from None
