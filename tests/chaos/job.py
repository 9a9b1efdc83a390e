"""The job as a cluster of processes, and its supervisor: when one is lost, all are started again together."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from support.programs import ROOT, Programs, environment, free_port

from chaos.plan import Scale
from dataflow.runtime.settings import Settings

_LOOKS = 0.05  # seconds between two looks at the processes
_NOTICE = 20.0  # seconds in which the others of a cluster notice that one is lost, and end
_STOP = 60.0  # seconds for a stop
_BREATH = 0.5  # seconds before a job that could not even start is started again
_TAIL = 10_000  # characters of a log


class Job:
    """Killed, paused and stopped from outside; started again by a thread of its own.

    Args:
        settings: of the job.
        module: what is run, with the arguments of `python -m dataflow`.
        store: recovery directory.
        programs: starts the processes.
        tell: hears what happens.
        started: hears the wall time of each start.
    """

    def __init__(
        self,
        settings: Settings,
        module: str,
        store: Path,
        programs: Programs,
        tell: Callable[[str], None],
        started: Callable[[float], None],
    ) -> None:
        self._environment = {**environment(settings), "PYTHONPATH": str(ROOT / "tests")}  # where `module` may be
        self._module = module
        self._store = store
        self._programs = programs
        self._tell = tell
        self._started = started
        self._scale: Scale | None = None
        self._processes: list[subprocess.Popen] = []
        self._killed: set[subprocess.Popen] = set()
        self._paused: set[subprocess.Popen] = set()
        self._noticed: set[subprocess.Popen] = set()  # those whose end has been told
        self._lost_at: float | None = None
        self._wanted = False
        self._closed = False
        self._lock = threading.RLock()
        self.starts = 0
        self.own_ends: list[str] = []  # what processes said that ended first, and not by our hand
        self.deaf = 0  # those that did not notice that another was lost
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def start(self, scale: Scale) -> None:
        """From now on it is to run."""
        with self._lock:
            self._scale = scale
            self._wanted = True
            self._start()

    def kill(self, *numbers: int) -> None:
        with self._lock:
            for number in numbers:
                process = self._processes[number]
                self._killed.add(process)
                process.kill()
            for number in numbers:
                self._processes[number].wait()

    def pause(self, *numbers: int) -> None:
        with self._lock:
            for number in numbers:
                if self._processes[number].poll() is None:
                    self._processes[number].send_signal(signal.SIGSTOP)
                    self._paused.add(self._processes[number])

    def resume(self) -> None:
        with self._lock:
            for process in self._paused:
                process.send_signal(signal.SIGCONT)
            self._paused.clear()

    def stop(self) -> list[int]:
        """SIGTERM; the exit codes."""
        with self._lock:
            self._wanted = False
            for process in self._processes:
                process.send_signal(signal.SIGTERM)
            codes = []
            for process in self._processes:
                try:
                    codes.append(process.wait(_STOP))
                except subprocess.TimeoutExpired:
                    self._tell(f"a process does not stop within {_STOP:g} s of SIGTERM; it is killed")
                    process.kill()
                    codes.append(process.wait())
            return codes

    def restart(self, scale: Scale) -> None:
        """Kills all, and goes on with other numbers."""
        with self._lock:
            self.kill(*range(len(self._processes)))
            self.start(scale)

    def running(self) -> bool:
        with self._lock:
            return all(process.poll() is None for process in self._processes)

    def say_where(self) -> None:
        """Lets the processes write into their logs where each of their threads is."""
        with self._lock:
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGUSR1)
        time.sleep(1)

    def logs(self) -> str:
        """The ends of what the processes of the last starts have said."""
        with self._lock:
            texts = [(process.log.name, process.log.read_text(errors="replace")) for process in self._processes]
        return "\n".join(f"--- {name}\n{text[-_TAIL:]}" for name, text in texts)

    def close(self) -> None:
        with self._lock:
            self._wanted = False
            self._closed = True
        self._supervisor.join()
        self.resume()
        self.kill(*range(len(self._processes)))

    def _start(self) -> None:
        processes, workers, interval = self._scale
        arguments = ["-r", str(self._store), "-s", f"{interval:g}", "-w", str(workers)]
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(processes))
        self._lost_at = None
        self._paused.clear()
        self._started(time.time())
        self.starts += 1
        if self._store.exists():  # what it resumes from, for diagnosis
            shutil.copytree(self._store, self._store.with_name(f"recovery-{self.starts}"))
        self._processes = [
            self._programs.start(
                self._module,
                *arguments,
                *(["-i", str(number), "-a", addresses] if processes > 1 else []),
                **self._environment,
            )
            for number in range(processes)
        ]

    def _supervise(self) -> None:
        while not self._closed:
            with self._lock:
                if self._wanted:
                    self._look()
            time.sleep(_LOOKS)

    def _look(self) -> None:
        ended = [process for process in self._processes if process.poll() is not None]
        if not ended:
            return
        for process in ended:
            if process not in self._noticed:
                self._noticed.add(process)
                self._say_end(process)
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        if len(ended) == len(self._processes):
            if not self._killed & set(self._processes):
                time.sleep(_BREATH)
            self._tell(f"start {self._scale}")
            self._start()
        elif time.monotonic() > self._lost_at + _NOTICE and not self._paused:
            deaf = [number for number, process in enumerate(self._processes) if process.poll() is None]
            self.deaf += len(deaf)
            self._tell(f"{_NOTICE:g} s after another was lost, workers {deaf} have not noticed; they are killed")
            self.kill(*deaf)

    def _say_end(self, process: subprocess.Popen) -> None:
        if process in self._killed:
            return
        said = process.log.read_text(errors="replace").strip().splitlines() or [""]
        line = f"worker {self._processes.index(process)} ended with {process.returncode}: {said[-1]}"
        self._tell(line)
        if self._lost_at is None:
            self.own_ends.append(line)
