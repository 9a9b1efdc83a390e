"""A cluster with topics, and the shop and the programs that a test runs on them."""

from itertools import count
from pathlib import Path

from support.real_kafka import RealKafka

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from realtime.running import Ends, Job, Loss, Outcome, Textbook, loss, settle, wait_for
from realtime.traffic import Shop

Kafka = EmbeddedKafka | RealKafka

_GAP = 8  # seconds; sessions end soon enough for a test and still have many events
_CONTROL = "textbook-visits"

_numbers = count()


class World:
    """What a test is made of."""

    def __init__(self, kafka: Kafka, settings: Settings, directory: Path) -> None:
        self.kafka = kafka
        self.settings = settings.model_copy(update={"session_gap": _GAP, "outage_grace": 20})
        self._directory = directory
        self._ends: Ends | None = None
        self.shop = Shop(self.settings)
        self.job = Job(self.settings, directory / "job")
        self.control: Textbook | None = None

    def with_topics(self, **partitions: int) -> None:
        """The job is to work on new topics that have so many partitions."""
        names = {f"topic_{name}": f"{name}-{next(_numbers)}-{self.settings.topic_visits}" for name in partitions}
        for name, number in zip(names.values(), partitions.values(), strict=True):
            self.kafka.create_topic(name, number)
        self._use(self.settings.model_copy(update=names))

    def with_unkeyed_input(self) -> None:
        """The shop is to send rows without keys, to partitions at random."""
        self.shop = Shop(self.settings, keyed=False)

    def with_control(self) -> None:
        """The textbook program is to read the same topics, and to write its visits into one of its own."""
        name = f"{_CONTROL}-{self.settings.topic_visits}"
        self.kafka.create_topic(name)
        self.control = Textbook(self.settings.model_copy(update={"topic_visits": name}), self._directory / "control")

    def start(self) -> None:
        """Starts the job, and the control if there is one."""
        for program in filter(None, (self.job, self.control)):
            program.start()

    def written(self, topic: str) -> int:
        """How many rows a topic holds."""
        if self._ends is None:
            self._ends = Ends(self.settings)
        return self._ends.rows(topic)

    def wait_for_visits(self, more: int) -> None:
        """Until the job has written so many visits more than it has now."""
        visits = self.settings.topic_visits
        enough = self.written(visits) + more

        def written() -> bool:
            self.job.must_run()
            return self.written(visits) >= enough

        wait_for(written, f"{more} visits more")

    def settle(self) -> Outcome:
        """After the last row: all that came out, shown to be right."""
        self.shop.close()
        return settle(self.settings, self.job)

    def lost_by_control(self, outcome: Outcome) -> Loss:
        return loss(self.control, outcome.answer)

    def close(self) -> None:
        self.shop.abandon()
        for program in filter(None, (self.job, self.control)):
            program.kill()

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self.shop = Shop(settings)
        self.job = Job(settings, self._directory / f"job-{next(_numbers)}")
