"""Programs of the project, run as users run them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from dataflow.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
PATIENCE = 180  # seconds until a hanging program fails the test


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

    def kill_all(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()


def end_of(process: subprocess.Popen) -> tuple[int, list[str]]:
    status = process.wait(PATIENCE)
    return status, process.log.read_text().splitlines()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The settings as a user would set them; `more` are named without the prefix."""
    values = settings.model_dump(exclude_defaults=True) | more
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}
