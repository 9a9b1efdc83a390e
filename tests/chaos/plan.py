"""What breaks, and when: a function of the seed alone, so that a run that failed can be had again."""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

BROKERS = (1, 2, 3)

Seconds = float


class Scale(NamedTuple):
    """How the job runs."""

    processes: int
    workers: int  # of each process
    interval: Seconds  # between snapshots

    def __str__(self) -> str:
        return f"{self.processes} x {self.workers} workers, a snapshot every {self.interval:g} s"


class Step(NamedTuple):
    after: Seconds  # since the step before
    act: str  # a method of the site
    arguments: tuple = ()


class Round(NamedTuple):
    """One fault, which may take several steps.

    Args:
        fault: its name, one of `FAULTS`.
        settled: whether the job has to write again before it begins; if not, it may meet one that is just resuming.
        steps: what is done, one after the other.
    """

    fault: str
    settled: bool
    steps: list[Step]


SCALES = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2)]
FIRST_SCALE = Scale(2, 1, 1)


def rounds(seed: int, faults: list[str] | None = None) -> Iterator[Round]:
    """Rounds without end: all the faults in one random order, then in another."""
    random = Random(seed)
    names = sorted(faults or FAULTS)
    scale = FIRST_SCALE
    while True:
        random.shuffle(names)
        for name in names:
            steps = FAULTS[name](random, scale)
            settled = name in _ONLY_WHEN_SETTLED or random.random() < 0.7
            for step in steps:
                if step.act in ("rescale", "start_job"):
                    (scale,) = step.arguments
            yield Round(name, settled, steps)


def _other_scale(random: Random, scale: Scale) -> Scale:
    processes, workers = random.choice([other for other in SCALES if other != scale[:2]])
    return Scale(processes, workers, random.choice([0.5, 1, 2]))


def _some(random: Random, scale: Scale) -> tuple[int, ...]:
    """One process, or all of them."""
    everyone = tuple(range(scale.processes))
    return random.choice([everyone, (random.choice(everyone),)])


def _kill_one(random: Random, scale: Scale) -> list[Step]:
    return [Step(0, "kill_workers", (random.randrange(scale.processes),))]


def _kill_all(random: Random, scale: Scale) -> list[Step]:
    return [Step(0, "kill_workers", tuple(range(scale.processes)))]


def _kill_again(random: Random, scale: Scale) -> list[Step]:
    """The second and third time while it is recovering, which takes it a second or two."""
    again = [
        step
        for _ in range(random.choice([1, 2]))
        for step in (
            Step(0, "await_restart"),
            Step(round(random.uniform(0.5, 4), 1), "kill_workers", _some(random, scale)),
        )
    ]
    return [Step(0, "kill_workers", _some(random, scale)), *again]


def _stop(random: Random, scale: Scale) -> list[Step]:
    return [Step(0, "stop_job"), Step(round(random.uniform(0, 3), 1), "start_job", (scale,))]


def _rescale(random: Random, scale: Scale) -> list[Step]:
    return [Step(0, "stop_job"), Step(0, "start_job", (_other_scale(random, scale),))]


def _rescale_after_a_kill(random: Random, scale: Scale) -> list[Step]:
    return [Step(0, "rescale", (_other_scale(random, scale),))]


def _pause_workers(random: Random, scale: Scale) -> list[Step]:
    length = round(random.uniform(0.5, 8), 1)
    return [Step(0, "pause_workers", _some(random, scale)), Step(length, "resume_workers")]


def _kill_a_broker(random: Random, scale: Scale) -> list[Step]:
    return [
        Step(0, "kill_brokers", (random.choice(BROKERS),)),
        Step(round(random.uniform(0, 8), 1), "start_brokers"),
    ]


def _pause_a_broker(random: Random, scale: Scale) -> list[Step]:
    """For longer than the 9 s after which the others do without it, sometimes; it comes back as if nothing had been."""
    length = round(random.choice([random.uniform(0.5, 7), random.uniform(10, 14)]), 1)
    return [
        Step(0, "pause_brokers", (random.choice(BROKERS),)),
        Step(length, "resume_brokers"),
        Step(0, "start_brokers"),
    ]


def _outage(random: Random, scale: Scale) -> list[Step]:
    how = random.choice(["kill_brokers", "stop_brokers", "pause_brokers"])
    return [Step(0, how, BROKERS), Step(round(random.uniform(1, 8), 1), "start_brokers")]


def _stop_in_an_outage(random: Random, scale: Scale) -> list[Step]:
    return [
        Step(0, "kill_brokers", BROKERS),
        Step(round(random.uniform(0.2, 3), 1), "stop_job"),
        Step(0, "start_brokers"),
        Step(0, "start_job", (scale,)),
    ]


def _kill_behind_a_paused_broker(random: Random, scale: Scale) -> list[Step]:
    """Rows that have reached a leader, but not those who follow it, cannot be read yet."""
    paused = random.sample(BROKERS, random.choice([1, 2]))
    return [
        Step(0, "pause_brokers", tuple(paused)),
        Step(round(random.uniform(0.3, 3), 1), "kill_workers", _some(random, scale)),
        Step(round(random.uniform(1, 5), 1), "resume_brokers"),
        Step(0, "start_brokers"),
    ]


def _kill_behind_a_dead_broker(random: Random, scale: Scale) -> list[Step]:
    return [
        Step(0, "kill_brokers", (random.choice(BROKERS),)),
        Step(round(random.uniform(0, 3), 1), "kill_workers", _some(random, scale)),
        Step(round(random.uniform(0, 5), 1), "start_brokers"),
    ]


def _tear(random: Random, scale: Scale) -> list[Step]:
    """Rows that only their leader has are lost with it, or found again when it comes back: nobody knows before."""
    leader, *followers = random.sample(BROKERS, 3)
    return [
        Step(0, "pause_brokers", tuple(followers)),
        Step(round(random.uniform(0.3, 2), 1), "kill_workers", _some(random, scale)),
        Step(round(random.uniform(0, 3), 1), "kill_brokers", (leader,)),
        Step(0, "resume_brokers"),
        Step(round(random.uniform(0, 6), 1), "start_brokers"),
    ]


def _kill_in_an_outage(random: Random, scale: Scale) -> list[Step]:
    return [
        Step(0, random.choice(["kill_brokers", "pause_brokers"]), BROKERS),
        Step(round(random.uniform(0, 3), 1), "kill_workers", _some(random, scale)),
        Step(round(random.uniform(0, 3), 1), "start_brokers"),
    ]


def _kill_beside_a_paused_worker(random: Random, scale: Scale) -> list[Step]:
    paused, *rest = random.sample(range(scale.processes), scale.processes)
    return [
        Step(0, "pause_workers", (paused,)),
        Step(round(random.uniform(0.5, 3), 1), "kill_workers", tuple(rest) or (paused,)),
        Step(round(random.uniform(0.5, 3), 1), "resume_workers"),
    ]


FAULTS: dict[str, Callable[[Random, Scale], list[Step]]] = {
    "kill-one": _kill_one,
    "kill-all": _kill_all,
    "kill-again": _kill_again,
    "stop": _stop,
    "rescale": _rescale,
    "rescale-after-kill": _rescale_after_a_kill,
    "pause-workers": _pause_workers,
    "kill-broker": _kill_a_broker,
    "pause-broker": _pause_a_broker,
    "outage": _outage,
    "stop-in-outage": _stop_in_an_outage,
    "kill-behind-paused-broker": _kill_behind_a_paused_broker,
    "kill-behind-dead-broker": _kill_behind_a_dead_broker,
    "tear": _tear,
    "kill-in-outage": _kill_in_an_outage,
    "kill-beside-paused-worker": _kill_beside_a_paused_worker,
}
# what is asked of a stop, exit code 0, can be asked only of a job that runs
_ONLY_WHEN_SETTLED = {"stop", "rescale"}
