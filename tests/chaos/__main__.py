"""``python -m chaos``: kills, pauses and outages under load, from a seed, and then the comparison row by row."""

import argparse
import shutil
import sys
import time
from itertools import islice
from statistics import quantiles

from real_kafka import RealKafka, unavailable

from chaos import control
from chaos.plan import FAULTS, rounds
from chaos.site import JOB, Site, Stuck
from chaos.verdict import Verdict, explain

FIRST_KILLS = 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seed", default=[1], type=_seeds, metavar="N", help="chooses the faults; 1-20 runs one seed after the other"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="so many faults a seed [20]")
    parser.add_argument("--minutes", type=float, metavar="N", help="faults for so long, instead of a number of them")
    parser.add_argument("--every", type=float, default=4, metavar="SECONDS", help="between faults [4]")
    parser.add_argument("--rate", type=float, default=150, metavar="N", help="events a second [150]")
    parser.add_argument("--users", type=int, default=60, metavar="N", help="how many click [60]")
    parser.add_argument(
        "--faults", type=lambda text: text.split(","), metavar="NAMES", help=f"only these: {', '.join(FAULTS)}"
    )
    parser.add_argument("--control", action="store_true", help="with Bytewax's own KafkaSink, which has to fail")
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults or ()) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(unknown)}")
    return arguments


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def run(kafka: RealKafka, seed: int, arguments: argparse.Namespace) -> bool:
    """One seed; whether all was right."""
    site = Site(kafka, seed, arguments.rate, arguments.users, control.MODULE if arguments.control else JOB)
    site.tell(f"seed {seed}")
    deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    plan = rounds(seed, arguments.faults)
    right = False
    try:
        site.begin(FIRST_KILLS)
        for number, round in enumerate(plan if deadline else islice(plan, arguments.rounds)):
            if deadline and time.monotonic() > deadline:
                break
            site.tell(f"{number + 1}: {round.fault}")
            site.run(round, arguments.every)
        verdict = site.end()
        right = verdict.right and not site.wrong
        if not verdict.right:
            explain(verdict, site.topics, site.job)
        _summarize(site, seed, verdict)
    except Stuck as stuck:
        print(f"seed {seed}: STUCK: {stuck}\n{site.job.logs()}", flush=True)
    finally:
        site.close()
        if right:
            shutil.rmtree(site.directory)
        else:
            print(f"the logs are in {site.directory}")
    return right


def _summarize(site: Site, seed: int, verdict: Verdict) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(site.counts.items()))
    print(f"seed {seed}: {counts}, {site.job.starts} starts")
    for line in site.job.own_ends:
        print(f"seed {seed}: of itself: {line}")
    if site.job.deaf:
        print(f"seed {seed}: {site.job.deaf} processes did not notice that another was lost")
    for line in site.wrong:
        print(f"seed {seed}: WRONG: {line}")
    resumes = sorted(site.watch.resumes)
    if len(resumes) > 1:
        tenths = quantiles(resumes, n=10, method="inclusive")
        print(
            f"seed {seed}: {len(resumes)} resumes to the first new row: median {tenths[4]:.1f} s, "
            f"nine in ten below {tenths[8]:.1f} s, longest {resumes[-1]:.1f} s; {site.watch.fruitless} starts were over before"
        )
    rows = sum(each.expected for each in verdict.differences)
    outcome = "RIGHT" if verdict.right and not site.wrong else "WRONG"
    print(
        f"seed {seed}: {outcome}: {rows:,} rows ({verdict.answer.visits.total():,} visits), {verdict.missing} missing, "
        f"{verdict.extra} too many, {verdict.disorder} out of order",
        flush=True,
    )


def main() -> int:
    arguments = _arguments()
    if arguments.plan:
        for seed in arguments.seed:
            for round in islice(rounds(seed, arguments.faults), arguments.rounds):
                print(seed, *round)
        return 0
    if reason := unavailable():
        sys.exit(f"chaos: {reason}")
    with RealKafka() as kafka:
        results = {seed: run(kafka, seed, arguments) for seed in arguments.seed}
    print(f"{sum(results.values())} of {len(results)} seeds are right")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
