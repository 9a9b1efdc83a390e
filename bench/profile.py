"""Where the job's time goes, a line a stage, in microseconds of processor time an event.

    .venv/bin/pip install py-spy
    python -m bench.profile [--events 1000000] [--users 10000] [--interval 10]

The job, with recovery, reads a workload to its end from a real Kafka (see `bench.throughput`), twice. The first run
gives the processor time of the engine's thread, and of all others, which are those of Kafka's clients. In the second
py-spy (https://github.com/benfred/py-spy) samples the engine's thread: each sample counts for the stage that its
innermost function belongs to. Two runs, because being sampled costs all threads time. On macOS py-spy wants root.

A line more says what an event costs that has to go to another process of a cluster: to be packed by one and unpacked by
the other. It is no part of the sum, since here there is one.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from bench.answer import Answer
from bench.check import all_rows
from bench.cluster import INPUTS, OUTPUTS, PARTITIONS, real_kafka, topics, variables
from bench.contenders import free_ports
from bench.workload import Workload, load
from dataflow.clickstream.serde import decode_event
from dataflow.runtime.settings import Settings
from dataflow.runtime.settings import load as load_settings
from dataflow.streaming.batches import ShardBatch
from dataflow.streaming.watermark import SourceProgress
from producer.options import whole

POLL, DECODE, SHARD, CLOCK = "poll", "decode", "shard", "clock"
JOIN, SESSION, CLOSE, PRODUCE = "join", "session", "close and encode", "produce"
SNAPSHOT, OTHER_ROWS, ENGINE = "snapshot", "other topics' rows", "engine and rest"
STAGES = (POLL, DECODE, SHARD, CLOCK, JOIN, SESSION, CLOSE, PRODUCE, SNAPSHOT, OTHER_ROWS, ENGINE)

# of a file, what is not named in FUNCTIONS
FILES = {
    "dataflow/kafka/source.py": POLL,
    "dataflow/kafka/end_offset_poller.py": POLL,
    "dataflow/streaming/alignment.py": POLL,
    "dataflow/streaming/sharding.py": SHARD,
    "dataflow/streaming/partition_reader.py": DECODE,
    "dataflow/clickstream/serde.py": DECODE,
    "dataflow/streaming/watermark.py": CLOCK,
    "dataflow/streaming/interval_join.py": JOIN,
    "dataflow/streaming/pairing.py": JOIN,
    "dataflow/clickstream/attribution.py": JOIN,
    "dataflow/streaming/session_windows.py": SESSION,
    "dataflow/clickstream/sessions.py": SESSION,
    "dataflow/kafka/sink.py": PRODUCE,
    "dataflow/kafka/delivery.py": PRODUCE,
    "dataflow/kafka/deduplication.py": PRODUCE,
    "dataflow/kafka/partitioner.py": PRODUCE,
    "dataflow/streaming/state.py": SNAPSHOT,
    "dataflow/clickstream/topology.py": OTHER_ROWS,
    "dataflow/clickstream/outputs.py": OTHER_ROWS,
    "dataflow/clickstream/suspicion.py": CLOSE,
}
FUNCTIONS = {
    ("dataflow/streaming/watermark.py", "is_late"): DECODE,
    ("dataflow/streaming/operators.py", "advance"): CLOCK,
    ("dataflow/streaming/alignment.py", "update"): CLOCK,
    ("dataflow/streaming/operators.py", "match"): JOIN,
    ("dataflow/streaming/operators.py", "on_batch"): SESSION,
    ("dataflow/streaming/session_windows.py", "close"): CLOSE,
    ("dataflow/clickstream/sessions.py", "session_id"): CLOSE,
    ("dataflow/clickstream/suspicion.py", "suspicion_of"): CLOSE,
    ("dataflow/clickstream/sessions.py", "finalize"): CLOSE,
    ("dataflow/clickstream/sessions.py", "amount"): CLOSE,
    ("dataflow/clickstream/outputs.py", "visits"): CLOSE,
    ("dataflow/clickstream/outputs.py", "suspicious_visits"): CLOSE,
    ("dataflow/clickstream/serde.py", "encode_visits"): CLOSE,
    ("dataflow/clickstream/serde.py", "encode_suspicious"): CLOSE,
}
# whatever these call is part of them
SNAPSHOTTING = {"snapshot", "__deepcopy__"}

_ENTRY = "drive (bench/profiled.py)"
_EXCHANGED, _TIMES = 500, 200
_RATE = 250  # samples a second; not a divisor of anything the job does


def stage(stack: str) -> str:
    """Which stage a stack, ``function (file);function (file);...`` with the innermost last, belongs to."""
    frames = []
    for frame in stack.split(";"):
        function, _, file = frame.rpartition(" (")
        frames.append((file.rstrip(")"), named(function)))
    if any(function in SNAPSHOTTING and file.startswith("dataflow/") for file, function in frames):
        return SNAPSHOT
    for file, function in reversed(frames):
        if function and (found := FUNCTIONS.get((file, function)) or FILES.get(file)):
            return found
    return ENGINE


def named(function: str) -> str:
    """A function's own name, of a qualified one, or that of the function around a comprehension; empty if unknown."""
    return next((part for part in reversed(function.split(".")) if not part.startswith("<")), "")


def count(raw: str) -> Counter[str]:
    """Samples a stage in what py-spy has recorded, of the engine's thread."""
    samples: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, times = line.rpartition(" ")
        if _ENTRY in stack:
            samples[stage(stack)] += int(times)
    return samples


def record(settings: Settings, interval: float) -> Counter[str]:
    """Samples a stage in a run of the job."""
    py_spy = shutil.which("py-spy", path=Path(sys.executable).parent) or shutil.which("py-spy")
    if py_spy is None:
        sys.exit("there is no py-spy: .venv/bin/pip install py-spy")
    with TemporaryDirectory(prefix="visits-bench-") as name:
        raw = Path(name) / "raw"
        run_job(settings, interval, py_spy, "record", "-f", "raw", "--nolineno", "-r", str(_RATE), "-o", str(raw), "--")
        return count(raw.read_text())


def run_job(settings: Settings, interval: float, *under: str) -> dict[str, float]:
    """Runs the job to the end, perhaps under a profiler; returns processor seconds of the engine and of the others."""
    settings = settings.model_copy(update={"stop_at_end": True, "group": f"bench-{uuid4().hex[:8]}"})
    with TemporaryDirectory(prefix="visits-bench-") as name:
        directory = Path(name)
        used = directory / "used"
        job = [sys.executable, "-m", "bench.profiled", str(directory / "recovery"), str(interval), str(used)]
        environment = variables(settings) | {"BYTEWAX_DATAFLOW_API_PORT": str(*free_ports(1))}
        run = subprocess.run([*under, *job], env=environment, capture_output=True, text=True, check=False)
        if not used.exists():
            raise RuntimeError(f"the job, or py-spy, failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        figures: dict[str, float] = json.loads(used.read_text())
        return figures


def exchange(users: int) -> float:
    """Seconds of processor time to take one event to another process, among as many as a poll brings a shard."""
    rows = (row for row in Workload(_EXCHANGED, users).rows() if row.amount is None)
    events = [decode_event(row.value, number) for number, row in enumerate(rows)]
    batch = ShardBatch(events, SourceProgress("user-events/0", 0, 0, None, ("user-events/0",)))
    began = time.thread_time()
    for _ in range(_TIMES):
        pickle.loads(pickle.dumps(batch))
    return (time.thread_time() - began) / _TIMES / len(events)


def table(samples: Counter[str], used: dict[str, float], events: int, exchanged: float) -> Table:
    """A line a stage, and their sum; `exchanged` in seconds an event."""
    shown = Table("", "us an event", "share", box=None)
    total = sum(used.values())
    lines = {name: used["engine"] * samples[name] / samples.total() for name in STAGES}
    lines["Kafka clients' threads"] = used["others"]
    for name, seconds in lines.items():
        shown.add_row(name, f"{seconds / events * 1e6:.2f}", f"{seconds / total:.0%}")
    shown.add_row("all", f"{total / events * 1e6:.2f}", "")
    shown.add_row("to another process", f"{exchanged * 1e6:.2f}", "")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=whole, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--users", type=whole, default=10_000, help="default: 10,000")
    parser.add_argument("--interval", type=float, default=10, help="seconds between snapshots (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the workload")
    parser.add_argument("--brokers", help="a Kafka to use instead of one of our own")
    arguments, console = parser.parse_args(), Console()
    with real_kafka(arguments.brokers) as brokers, console.status(""):
        settings, answer = load_settings().model_copy(update={"brokers": brokers}), Answer()
        with topics(settings, INPUTS, PARTITIONS) as loaded:
            load(Workload(arguments.events, arguments.users, seed=arguments.seed), loaded, answer)
            with topics(loaded, OUTPUTS, PARTITIONS) as fresh:
                used = run_job(fresh, arguments.interval)
                verdict = all_rows(fresh, answer)
            with topics(loaded, OUTPUTS, PARTITIONS) as fresh:
                samples = record(fresh, arguments.interval)
    console.print(table(samples, used, arguments.events, exchange(arguments.users)))
    answers = "wrong" if verdict.wrong else "right"
    console.print(
        f"{samples.total():,} samples; {arguments.users:,} users, {arguments.events:,} events; answers {answers}"
    )


if __name__ == "__main__":
    main()
