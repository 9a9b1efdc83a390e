"""The engine's recovery store: creates it, locks it, and removes what an unfinished run left in it.

It is a directory of SQLite files, the store's parts. They hold each snapshot of a step's state under the epoch that it
closes. A job resumes from the states before its resume epoch, the last that all workers had finished.
"""

import fcntl
import logging
import os
import pickle
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from bytewax.recovery import init_db_dir

from dataflow.observability import logs
from dataflow.streaming.errors import UserError, inside_engine

log = logging.getLogger("visits")

_PARTS = 4  # more workers than this share them
_LOOK_INTERVAL_S = 1.0
IF_LOST = (
    "put it back, or start with an empty one: the job reads its inputs again from where it began, and leaves out the rows "
    "that the outputs hold (docs/recovery.md says when that is right)"
)


class StoreWatch:
    """Notices that the files of the store are not those that the engine has opened, or cannot be written any more.

    The engine would go on writing to files that were deleted, which are lost with the process. A file system that has
    become read-only would end the process by a signal, because SQLite maps files into memory.

    Args:
        directory: of the store, which exists.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = {file: _identity(file) for file in _parts(directory)}

    def start(self) -> None:
        """From now on looks every second; if a file is gone, the process ends with one line."""
        threading.Thread(target=self._run, name="recovery store", daemon=True).start()

    def check(self) -> None:
        """Raises UserError if a file is gone, if another one has its name, or if the file system is read-only."""
        for file, identity in self._files.items():
            try:
                found = _identity(file)
            except (FileNotFoundError, NotADirectoryError):
                found = None
            except OSError:
                continue  # a network volume that does not answer: the engine reports what it cannot write
            if found != identity:
                raise UserError(
                    f"the recovery store {self._directory} is gone: {file.name} was deleted, moved or replaced while the job "
                    f"ran, so what was read since is not saved; {IF_LOST}"
                )

        if self._is_read_only():
            raise UserError(
                f"the file system of the recovery store {self._directory} has become read-only; correct that and start again: "
                "the job resumes from the last snapshot"
            )

    def _is_read_only(self) -> bool:
        try:
            return bool(os.statvfs(self._directory).f_flag & os.ST_RDONLY)
        except OSError:
            return False

    @inside_engine
    def _run(self) -> None:
        while True:
            self.check()
            time.sleep(_LOOK_INTERVAL_S)


def check_store(directory: Path, will_be_created: bool) -> None:
    """Raises UserError if the directory cannot be a recovery store, or holds only a part of one.

    Args:
        directory: of the store.
        will_be_created: whether it is about to be created if there is none.
    """
    with _with_user_errors(directory):
        if directory.exists() and not directory.is_dir():
            raise UserError(f"the recovery store {directory} has to be a directory, and is a file (-r)")
        parts = _parts(directory)
        if not parts and not will_be_created:
            what = "holds no recovery store" if directory.exists() else "does not exist"
            raise UserError(
                f"the directory {directory} {what} (-r); `python -m dataflow -r {directory}` creates one and runs the job"
            )
        if not parts:
            return
        with _exclusively(directory):  # another process of the cluster may be creating it
            parts = _parts(directory)
            missing = {f"part-{number}.sqlite3" for number in range(_part_count(parts))} - {part.name for part in parts}
        if missing:
            raise UserError(f"the recovery store {directory} lacks {', '.join(sorted(missing))}; {IF_LOST}")


def open_store(directory: Path, process_id: int) -> StoreWatch:
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
        return StoreWatch(directory)


def store_id(directory: Path) -> str:
    """What tells a store from others of the same name: made when it is first asked for. Creates the directory.

    Raises UserError if the store cannot be used.
    """
    with _with_user_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _exclusively(directory):
            file = directory / ".id"
            if not file.exists():
                file.write_text(uuid4().hex)
            return file.read_text()


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
    if has_snapshot(directory):
        line = "recovery store %s: resuming from epoch %d; last written at %s UTC"
        log.info(line, directory, resume_epoch(directory), written, extra=logs.event("resuming"))
    else:
        line = "recovery store %s: no snapshot in it yet, so there is nothing to resume from"
        log.info(line, directory, extra=logs.event("starting"))


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


def has_snapshot(directory: Path) -> bool:
    """Whether there is a snapshot that the engine would resume from: that of an epoch which all workers have finished."""
    resume = resume_epoch(directory) or 0
    query = "SELECT EXISTS (SELECT * FROM snaps WHERE snap_epoch < ?)"
    for part in _parts(directory):
        with closing(sqlite3.connect(part)) as database:
            if database.execute(query, (resume,)).fetchone() == (1,):
                return True
    return False


def states(directory: Path, step_id: str) -> dict[str, bytes]:
    """The states, by key, from which the engine would resume a step whose states are bytes. Raises UserError."""
    newest: dict[str, tuple[int, bytes | None]] = {}
    query = "SELECT state_key, snap_epoch, ser_change FROM snaps WHERE step_id = ? AND snap_epoch < ?"
    with _with_user_errors(directory):
        resume = resume_epoch(directory)
        for part in _parts(directory):
            with closing(sqlite3.connect(part)) as database:
                for key, epoch, data in database.execute(query, (step_id, resume or 0)):
                    if epoch > newest.get(key, (-1, None))[0]:
                        newest[key] = epoch, data
    # the engine pickles states; None: discarded
    return {key: pickle.loads(data) for key, (_, data) in newest.items() if data is not None}


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*.sqlite3"))


def _part_count(parts: list[Path]) -> int:
    """How many parts the store has, as each of them notes."""
    for part in parts:
        with closing(sqlite3.connect(part)) as database:
            for (count,) in database.execute("SELECT part_count FROM parts"):
                return int(count)
    return 0


def _identity(file: Path) -> tuple[int, int]:
    """Device and number of a file, which stay while it is moved and differ from those of another one of its name."""
    found = file.stat()
    return found.st_dev, found.st_ino


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
