"""``python -m chaos``: kills, pauses and outages under load, from a seed, and then the comparison row by row."""

import argparse
import signal
import sys
from itertools import islice

from support.real_kafka import RealKafka, unavailable

from chaos import control
from chaos.load import busy
from chaos.plan import FAULTS, rounds
from chaos.run import Options, run
from chaos.site import JOB


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
        "--faults",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAMES",
        help=f"only these: {', '.join(FAULTS)}",
    )
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="so many busy loops on the machine beside it [0]"
    )
    parser.add_argument("--control", action="store_true", help="with Bytewax's own KafkaSink, which has to fail")
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults) - set(FAULTS):
        parser.error(f"there is no fault {', '.join(unknown)}")
    return arguments


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> int:
    arguments = _arguments()
    if arguments.plan:
        for seed in arguments.seed:
            for round in islice(rounds(seed, arguments.faults), arguments.rounds):
                print(seed, *round)
        return 0
    if reason := unavailable():
        sys.exit(f"chaos: {reason}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("chaos: told to stop"))  # and so closes what it has started
    options = Options(
        arguments.rounds,
        arguments.minutes,
        arguments.every,
        arguments.rate,
        arguments.users,
        arguments.faults,
        module=control.MODULE if arguments.control else JOB,
    )
    with busy(arguments.busy), RealKafka() as kafka:
        verdicts = [run(kafka, seed, options) for seed in arguments.seed]
    right = [bool(verdict and verdict.right) for verdict in verdicts]
    print(f"{sum(right)} of {len(right)} seeds are right")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
