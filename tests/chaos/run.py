"""One run: a site, a plan from a seed, and the verdict."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from statistics import quantiles

from support.real_kafka import RealKafka

from chaos.plan import Round, rounds
from chaos.site import JOB, Site, Stuck
from chaos.verdict import Verdict, explain


@dataclass(frozen=True)
class Options:
    """How a run goes.

    Args:
        rounds: so many faults.
        minutes: faults for so long, instead of a number of them.
        every: seconds between faults.
        rate: events a second.
        users: how many click.
        faults: only these, if any are named.
        first_kills: how often the job is killed in its very first epoch.
        module: what is run as the job.
    """

    rounds: int = 20
    minutes: float | None = None
    every: float = 4
    rate: float = 150
    users: int = 60
    faults: list[str] = field(default_factory=list)
    first_kills: int = 2
    module: str = JOB


def run(kafka: RealKafka, seed: int, options: Options) -> Verdict | None:
    """Says all that happens while it does, and what came of it; None if the job stood still for good."""
    site = Site(kafka, seed, options.rate, options.users, options.module)
    verdict = None
    try:
        site.tell(f"seed {seed}")
        site.begin(options.first_kills)
        for number, round in _rounds(seed, options):
            site.tell(f"{number}: {round.fault}")
            site.run(round, options.every)
        verdict = site.end()
        if not verdict.right:
            explain(verdict, site.topics, site.job, site.directory)
        _summarize(site, seed, verdict)
    except Stuck as stuck:
        site.job.say_where()
        print(f"seed {seed}: STUCK: {stuck}\n{site.job.logs()}", flush=True)
    finally:
        site.close()
        if verdict and verdict.right:
            shutil.rmtree(site.directory)
        else:
            print(f"the logs are in {site.directory}")
    return verdict


def _rounds(seed: int, options: Options) -> Iterator[tuple[int, Round]]:
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    plan = rounds(seed, options.faults)
    for numbered in enumerate(plan if deadline else islice(plan, options.rounds), 1):
        if deadline and time.monotonic() > deadline:
            return
        yield numbered


def _summarize(site: Site, seed: int, verdict: Verdict) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(site.counts.items()))
    print(f"seed {seed}: {counts}, {site.job.starts} starts")
    for line in site.job.own_ends:
        print(f"seed {seed}: of itself: {line}")
    if site.job.deaf:
        print(f"seed {seed}: {site.job.deaf} processes did not notice that another was lost")
    resumes = sorted(site.watch.resumes)
    if len(resumes) > 1:
        tenths = quantiles(resumes, n=10, method="inclusive")
        print(
            f"seed {seed}: {len(resumes)} resumes to the first new row: median {tenths[4]:.1f} s, nine in ten below "
            f"{tenths[8]:.1f} s, longest {resumes[-1]:.1f} s; {site.watch.fruitless} starts were over before"
        )
    for line in verdict.faults:
        print(f"seed {seed}: WRONG: {line}")
    rows = sum(each.expected for each in verdict.differences)
    outcome = "RIGHT" if verdict.right else "WRONG"
    print(
        f"seed {seed}: {outcome}: {rows:,} rows ({verdict.answer.visits.total():,} visits), "
        f"{verdict.missing} missing, {verdict.extra} too many, {verdict.disorder} out of order",
        flush=True,
    )
