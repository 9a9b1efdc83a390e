"""The programs that are measured against each other on the same input, and how they are run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from uuid import uuid4

from bench.answer import Answer
from bench.check import Verdict, all_rows, all_sessions
from bench.cluster import variables
from dataflow.runtime.settings import Settings


@dataclass(frozen=True)
class Contender:
    """A program as one or more processes, each the arguments of a Python.

    In them ``{recovery}`` stands for an empty directory, ``{addresses}`` for the engine's list of two free ports.
    """

    name: str
    what: str
    processes: tuple[str, ...]
    check: Callable[[Settings, Answer], Verdict] | None = all_rows
    is_slow: bool = False  # gets a workload of its own, smaller


@dataclass(frozen=True)
class Usage:
    """What a run took of all its processes together; seconds and bytes."""

    wall: float
    cpu: float
    peak: int  # of the largest process


_JOB = "-m dataflow -r {recovery}"

CONTENDERS = (
    Contender("copy", "a loop that copies the events", ("-m bench.loop copy",), check=None),
    Contender("decode", "the same, decoding and adding fields", ("-m bench.loop decode",), check=None),
    Contender("job", "snapshots every 10 s", (_JOB + " -s 10",)),
    Contender("job-1s", "snapshots every second", (_JOB + " -s 1",)),
    Contender("job-plain", "without recovery", ("-m bytewax.run dataflow:flow",)),
    Contender(
        "job-2p",
        "two processes, snapshots every 10 s",
        (_JOB + " -s 10 -a {addresses} -i 0", _JOB + " -s 10 -a {addresses} -i 1"),
    ),
    Contender(
        "textbook", "Bytewax's own parts", ("-m bytewax.run bench.textbook:flow",), check=all_sessions, is_slow=True
    ),
)


def run(contender: Contender, settings: Settings) -> Usage:
    """Runs a contender from the beginning of its input to the end.

    Raises:
        RuntimeError: one of its processes failed; the text has the end of what it said.
    """
    settings = settings.model_copy(update={"stop_at_end": True, "group": f"bench-{uuid4().hex[:8]}"})
    with TemporaryDirectory(prefix="visits-bench-") as name:
        directory = Path(name)
        running = _start(contender, settings, directory)
        try:
            while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
                time.sleep(0.05)
            failed = any(process.poll() != 0 for process in running)
        finally:
            for process in running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if failed:
            said = "\n".join(log.read_text()[-2000:] for log in directory.glob("log-*"))
            raise RuntimeError(f"{contender.name} failed:\n{said}")
        used = [json.loads(file.read_text()) for file in directory.glob("used-*")]
    return Usage(
        wall=max(each["wall"] for each in used),
        cpu=sum(each["cpu"] for each in used),
        peak=max(each["peak"] for each in used),
    )


def _start(contender: Contender, settings: Settings, directory: Path) -> list[subprocess.Popen[bytes]]:
    count = len(contender.processes)
    ports = free_ports(2 * count)
    addresses = ";".join(f"127.0.0.1:{port}" for port in ports[:count])
    running = []
    for number, process in enumerate(contender.processes):
        arguments = process.format(recovery=directory / "recovery", addresses=addresses).split()
        measured = [
            sys.executable,
            "-m",
            "bench.measured",
            str(directory / f"used-{number}"),
            sys.executable,
            *arguments,
        ]
        environment = variables(settings) | {"BYTEWAX_DATAFLOW_API_PORT": str(ports[count + number])}
        with (directory / f"log-{number}").open("wb") as log:
            running.append(subprocess.Popen(measured, env=environment, stdout=log, stderr=log, start_new_session=True))
    return running


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    probes = [socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
