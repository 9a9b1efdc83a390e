"""Programs of the project, run as users run them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from dataflow.runtime.settings import PREFIX, Settings

from .paths import ROOT

PATIENCE = 180  # seconds until a hanging program fails the test
_WORDS = 8_000  # characters


class Programs:
    """Starts programs; none outlives its test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen] = []

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """A module with its arguments; the settings of the tests' own environment do not reach it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "BYTEWAX_"))}
        log = self._directory / f"log-{len(self._started)}"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={
                    **clean,
                    "VISITS_LOG_FORMAT": "text",
                    "BYTEWAX_DATAFLOW_API_PORT": str(free_port()),
                    **environment,
                },
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._started.append(process)
        process.log = log
        return process

    def run(self, *arguments: str, **environment: str) -> tuple[int, list[str]]:
        """Exit code, and the lines on standard error."""
        return end_of(self.start(*arguments, **environment))

    def last_words(self) -> list[tuple[str, str]]:
        """What each has written, and where the threads are of those that still run, for the report of a failure."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        return [(" ".join(map(str, each.args[2:])), each.log.read_text()[-_WORDS:]) for each in self._started]

    def kill_all(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


def end_of(process: subprocess.Popen) -> tuple[int, list[str]]:
    status = process.wait(PATIENCE)
    return status, process.log.read_text().splitlines()


def said_only_totals(ended: tuple[int, list[str]]) -> bool:
    """Whether a run ended well, and had nothing to say but what it has read and written."""
    status, lines = ended
    return status == 0 and len(lines) == 1 and lines[0].startswith("visits: read ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The settings as a user would set them; `more` are named without the prefix."""
    values = settings.model_dump(exclude_defaults=True) | more
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}
