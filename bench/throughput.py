"""How many events a second the job takes, beside the least that any program has to do.

    python -m bench.throughput [--events 1000000] [--users 20 10000] [--rounds 3] [--only copy job ...]

Starts a real Kafka of one node on Java (`make kafka` fetches it), or uses `--brokers`. For each number of users it
loads a workload of so many events and their purchases (see `bench.workload`), then runs the contenders in turn, round
after round, each from the beginning of its input to the end and into topics of its own. What the job writes is held
against the right answer, all rows of each run.

The figures are thousands of events a second, medians over the rounds, with the least and the greatest. *Wall* is by
the clock, *CPU* by the processor time, user and system, of all of a contender's processes, Kafka's clients included,
the broker not; *without start* leaves out what a run on a hundred events takes. *To copy* is the contender's events a
CPU second to those of the copying loop in the same round. *Peak* is the memory of the largest process.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.answer import Answer
from bench.check import Verdict
from bench.cluster import INPUTS, OUTPUTS, PARTITIONS, real_kafka, topics
from bench.contenders import CONTENDERS, Contender, Usage, run
from bench.workload import Workload, load
from dataflow.runtime.settings import Settings
from dataflow.runtime.settings import load as load_settings
from producer.options import whole

_FEW = 100  # events; a run on them is all start and stop

_COPY = "copy"
_WIDTH = 140  # of the table, also where the terminal is narrower or none


@dataclass(frozen=True)
class Loaded:
    """A workload that is in its topics, and its right answer."""

    workload: Workload
    settings: Settings
    answer: Answer


@dataclass(frozen=True)
class Run:
    """One contender, once."""

    contender: str
    round: int
    users: int
    events: int
    usage: Usage
    start: Usage  # of a run on a few events only
    verdict: Verdict | None  # None: nobody expects an answer

    @property
    def by_wall(self) -> float:
        """Events a second."""
        return self.events / self.usage.wall

    @property
    def by_cpu(self) -> float:
        return self.events / self.usage.cpu

    @property
    def by_cpu_without_start(self) -> float:
        return self.events / (self.usage.cpu - self.start.cpu)


def measure(contender: Contender, loaded: Loaded) -> tuple[Usage, Verdict | None]:
    """Runs a contender into fresh topics and looks at what it wrote."""
    with topics(loaded.settings, OUTPUTS, loaded.workload.partitions) as settings:
        usage = run(contender, settings)
        return usage, contender.check(settings, loaded.answer) if contender.check else None


def rounds(
    settings: Settings, arguments: argparse.Namespace, users: int, status: Callable[[str], None]
) -> Iterator[Run]:
    """All runs for one number of users."""
    chosen = [contender for contender in CONTENDERS if contender.name in arguments.only]
    sizes = {each.name: arguments.textbook_events if each.is_slow else arguments.events for each in chosen}
    workload = Workload(arguments.events, users, arguments.partitions, arguments.skew, arguments.seed)
    with ExitStack() as stack:

        def loaded(events: int) -> Loaded:
            status(f"{users:,} users: loading {events:,} events")
            fresh = stack.enter_context(topics(settings, INPUTS, workload.partitions))
            slow = any(each.is_slow for each in chosen if sizes[each.name] == events)  # so that they are few
            made = Loaded(replace(workload, events=events), fresh, Answer(sessions=Counter() if slow else None))
            load(made.workload, fresh, made.answer)
            return made

        inputs = {events: loaded(events) for events in {*sizes.values(), _FEW}}
        starts = {}
        for contender in chosen:
            status(f"{users:,} users: {contender.name} starts and stops")
            starts[contender.name], _ = measure(replace(contender, check=None), inputs[_FEW])
        for number in range(1, arguments.rounds + 1):
            for contender in chosen:
                status(f"{users:,} users, round {number} of {arguments.rounds}: {contender.name}")
                events = sizes[contender.name]
                usage, verdict = measure(contender, inputs[events])
                yield Run(contender.name, number, users, events, usage, starts[contender.name], verdict)


def table(runs: list[Run]) -> Table:
    """A line a contender."""
    shown = Table("", "wall", "CPU", "without start", "to copy", "peak MiB", "answers", box=None)
    for column in shown.columns[1:-1]:
        column.justify = "right"
    copies = {each.round: each.by_cpu for each in runs if each.contender == _COPY}
    for contender in CONTENDERS:
        own = [each for each in runs if each.contender == contender.name]
        if not own:
            continue
        verdicts = [each.verdict for each in own if each.verdict]
        shown.add_row(
            contender.name,
            spread([each.by_wall / 1000 for each in own], ".3g"),
            spread([each.by_cpu / 1000 for each in own], ".3g"),
            spread([each.by_cpu_without_start / 1000 for each in own], ".3g"),
            spread([each.by_cpu / copies[each.round] for each in own], ".2f") if copies else "",
            spread([each.usage.peak / 2**20 for each in own], ".0f"),
            answers(contender, verdicts, own[0].events),
        )
    return shown


def answers(contender: Contender, verdicts: list[Verdict], events: int) -> str:
    """How many runs were right; or, of a program that never is, how far from it they were."""
    if not verdicts:
        return ""
    if contender.is_slow:
        lost, wrong = (spread([getattr(each, kind) for each in verdicts], ",.0f") for kind in ("lost", "wrong"))
        return f"of {events:,} events lost {lost}, wrong {wrong}"
    right = sum(not each.wrong for each in verdicts)
    return "all right" if right == len(verdicts) else f"{right} of {len(verdicts)} right"


def spread(values: list[float], form: str) -> str:
    """The median, and from least to greatest."""
    middle, least, greatest = (format(value, form) for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}-{greatest})" if len(values) > 1 else middle


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.throughput",
        description=__doc__.splitlines()[0],
        epilog="contenders: " + "; ".join(f"{each.name}: {each.what}" for each in CONTENDERS),
    )
    names = [each.name for each in CONTENDERS]
    parser.add_argument("--events", type=whole, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--users", type=whole, nargs="+", default=[20, 10_000], help="default: 20 10000")
    parser.add_argument("--partitions", type=whole, default=PARTITIONS, help=f"of every topic (default: {PARTITIONS})")
    parser.add_argument("--skew", action="store_true", help="partitions with very different numbers of users")
    parser.add_argument("--seed", type=int, default=0, help="of the workload")
    parser.add_argument("--rounds", type=whole, default=3, help="default: 3")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CONTENDER", help=" ".join(names))
    parser.add_argument(
        "--textbook-events", type=whole, default=100_000, help="as many for the slow (default: 100,000)"
    )
    parser.add_argument("--brokers", help="a Kafka to use instead of one of our own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each run")
    return parser.parse_args()


def main() -> int:
    """Measures and prints; returns the exit code, 1 if an answer of the job was wrong."""
    arguments, console = _arguments(), Console()
    console.width = max(console.width, _WIDTH)
    runs: list[Run] = []
    with real_kafka(arguments.brokers) as brokers, console.status("") as status:
        settings = load_settings().model_copy(update={"brokers": brokers})
        for users in arguments.users:
            for each in rounds(settings, arguments, users, status.update):
                runs.append(each)
                if arguments.json:
                    arguments.json.write_text(json.dumps([asdict(each) for each in runs], indent=1))
            console.print(
                f"{users:,} users, {arguments.events:,} events, {arguments.rounds} rounds, {os.cpu_count()} cores:"
            )
            console.print(table([each for each in runs if each.users == users]))
    right = {contender.name for contender in CONTENDERS if not contender.is_slow}
    return any(each.contender in right and each.verdict and each.verdict.wrong for each in runs)


if __name__ == "__main__":
    sys.exit(main())
