"""Everything that can be broken, under one roof: brokers, job, shop. A plan's steps are methods of it."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from support.programs import Programs, environment
from support.real_kafka import RealKafka

from chaos.job import Job
from chaos.oddities import Oddities
from chaos.plan import BROKERS, FIRST_SCALE, Round, Scale
from chaos.verdict import Log, Verdict, settle
from chaos.watch import Watch
from dataflow.runtime.settings import Settings
from dataflow.runtime.shutdown import EXIT_NOT_SAVED

# short gaps, so that there is much to write; a lateness that a machine short of time does not exceed
RULES = {"session_gap": 3.0, "match_window": 1.0, "allowed_lateness": 10.0}
JOB = "dataflow"

_HISTORY = 30  # seconds of the shop that are there at the start, so that the first epoch has much to do
_FIRST_EPOCH = 60.0  # seconds that it is made to last
_BACK = 30.0  # seconds after which nobody can say that Kafka is away, once it is whole again
_LIMIT = 180.0  # seconds until a wait is given up


class Stuck(Exception):
    """The job does not write though nothing is broken."""


class Site:
    """A shop and a job on topics of their own, from construction until `close`."""

    def __init__(self, kafka: RealKafka, seed: int, rate: float, users: int, module: str = JOB) -> None:
        self._kafka = kafka
        self._began = time.monotonic()
        self.directory = Path(tempfile.mkdtemp(prefix="visits-chaos-"))
        mark = f"{seed}-{uuid4().hex[:8]}"
        fields = Settings.model_fields.items()
        names = {name: f"{field.default}-{mark}" for name, field in fields if name.startswith("topic_")}
        kafka.create_topics(names.values())
        self.settings = Settings(_env_file=None, brokers=kafka.brokers, group=f"visits-{mark}", **names, **RULES)
        self.topics = Log(self.settings)
        self.watch = Watch(self.settings, self.topics.partitions[self.settings.topic_visits], self.tell)
        self._programs = Programs(self.directory)
        self.job = Job(
            self.settings, module, self.directory / "recovery", self._programs, self.tell, self.watch.started
        )
        self._shop = self._programs.start(
            "producer",
            *("--rate", f"{rate:g}", "--users", str(users), "--disorder", "0.3", "--seed", str(seed)),
            *("--history", str(_HISTORY)),
            **environment(self.settings),
        )
        self._oddities = Oddities(self.settings)
        self.counts: Counter[str] = Counter()
        self._faults: list[str] = []
        self._whole_since: float | None = -_BACK  # when all brokers were there again; None while they are not

    def tell(self, line: str) -> None:
        print(f"+{time.monotonic() - self._began:.1f} s  {line}\n", end="", flush=True)  # whole, also from threads

    def begin(self, first_kills: int) -> None:
        """Starts the job; it is killed some times in its very first epoch, once it has written something in it."""
        first = FIRST_SCALE._replace(interval=_FIRST_EPOCH)
        self.start_job(first if first_kills else FIRST_SCALE)
        for left in reversed(range(first_kills)):
            self.wait_until(self._settled, "visits of the first epoch")
            self.tell("in the very first epoch:")
            if left:
                starts = self.job.starts
                self.kill_workers(*range(first.processes))
                self.wait_until(lambda starts=starts: self.job.starts > starts, "the next start")
            else:
                self.rescale(FIRST_SCALE)

    def run(self, round: Round, every: float) -> None:
        """Lets one fault happen, and leaves the site whole."""
        if round.settled:
            self.wait_until(self._settled, "new visits")
        time.sleep(every)
        self.counts[round.fault] += 1
        for step in round.steps:
            time.sleep(step.after)
            getattr(self, step.act)(*step.arguments)

    def end(self) -> Verdict:
        """After the last fault: closes the shop and waits for all that is still to come."""
        self.resume_workers()
        self._kafka.start_brokers()
        self.wait_until(self._settled, "new visits")
        self.tell("the shop closes")
        self._oddities.close()
        self._shop.terminate()
        if code := self._shop.wait(_LIMIT):
            self._faults.append(f"the shop ended with {code}: {self._shop.log.read_text()[-500:]}")
        verdict = settle(self.settings, self.topics, self._faults)
        self.tell("all is out" if verdict.right else "WRONG")
        self.stop_job()
        return verdict

    def _settled(self) -> bool:
        return self.job.running() and self.watch.writes()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LIMIT
        while not condition():
            if time.monotonic() > deadline:
                raise Stuck(f"still waiting for {what} after {_LIMIT:.0f} s")
            time.sleep(0.05)

    def close(self) -> None:
        self.job.close()
        self._programs.kill_all()
        self.watch.close()

    # --- what a plan's steps do ---

    def kill_workers(self, *numbers: int) -> None:
        self.tell(f"kill -9 of workers {_list(numbers)}")
        self.counts["kills of workers"] += len(numbers)
        self.job.kill(*numbers)

    def await_restart(self) -> None:
        self.wait_until(self.job.running, "a start of the job")

    def pause_workers(self, *numbers: int) -> None:
        self.tell(f"SIGSTOP of workers {_list(numbers)}")
        self.counts["pauses of workers"] += len(numbers)
        self.job.pause(*numbers)

    def resume_workers(self) -> None:
        self.tell("SIGCONT of workers")
        self.job.resume()

    def stop_job(self) -> None:
        """SIGTERM. A job that cannot hand its rows to Kafka has to say so."""
        self.tell("SIGTERM of all workers")
        self.counts["stops"] += 1
        codes = self.job.stop()
        if any(codes):
            self.tell(f"they end with {codes}")
            is_replayed = {*codes} <= {0, EXIT_NOT_SAVED}  # a drain may take too long on a busy machine
            if not is_replayed and self._whole_since is not None and time.monotonic() > self._whole_since + _BACK:
                self._faults.append(f"with Kafka there, SIGTERM ended the job with {codes}: {self.job.logs()}")

    def start_job(self, scale: Scale) -> None:
        self.tell(f"start {scale}")
        self.job.start(scale)

    def rescale(self, scale: Scale) -> None:
        self.tell(f"kill -9 of all workers; start {scale}")
        self.counts["kills of workers"] += scale.processes
        self.job.restart(scale)

    def kill_brokers(self, *ids: int) -> None:
        self.tell(f"kill -9 of brokers {_list(ids)}")
        self.counts["kills of brokers"] += len(ids)
        self._breaks(ids)
        self._kafka.kill_brokers(*ids)

    def stop_brokers(self, *ids: int) -> None:
        self.tell(f"SIGTERM of brokers {_list(ids)}")
        self._breaks(ids)
        self._kafka.stop_brokers(*ids)

    def pause_brokers(self, *ids: int) -> None:
        self.tell(f"SIGSTOP of brokers {_list(ids)}")
        self.counts["pauses of brokers"] += len(ids)
        self._breaks(ids)
        self._kafka.pause_brokers(*ids)

    def resume_brokers(self) -> None:
        self.tell("SIGCONT of brokers")
        self._kafka.resume_brokers()

    def start_brokers(self) -> None:
        self.tell("start of brokers")
        self._kafka.start_brokers()
        self._whole_since = time.monotonic()
        self.tell("the brokers are whole")

    def _breaks(self, ids: tuple[int, ...]) -> None:
        self._whole_since = None
        self.counts["outages"] += len(ids) == len(BROKERS)


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
