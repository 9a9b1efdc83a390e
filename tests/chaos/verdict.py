"""The end of a run: the output topics against the batch answer, row by row."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Message
from rich.console import Console

from chaos.job import Job
from dataflow.runtime.settings import Settings
from dataflow.tools.reference import Answer
from dataflow.tools.verify import Difference, Topics, compare, expected, out_of_order, report


class Log(Topics):
    """Reads whole topics, each row once: after a change of leaders a client may hand out rows again."""

    def read(self, topic: str) -> Iterator[Message]:
        following: Counter[int] = Counter()  # the next offset of each partition
        for message in super().read(topic):
            partition, offset = message.partition(), message.offset()
            if offset < following[partition]:
                print(f"the client hands out {topic}/{partition} offset {offset} again", flush=True)
                continue
            following[partition] = offset + 1
            yield message


_QUIET = 60.0  # seconds without a new row, after which no more are waited for
_SHOWN = 20  # rows of a topic


class Verdict(NamedTuple):
    answer: Answer
    differences: list[Difference]
    disorder: int  # visits after a later one of their session
    faults: list[str]  # what was wrong beside the rows

    @property
    def right(self) -> bool:
        return not (any(self.differences) or self.disorder or self.faults)

    @property
    def missing(self) -> int:
        return sum(each.missing.total() for each in self.differences)

    @property
    def extra(self) -> int:
        return sum(each.extra.total() for each in self.differences)


def settle(settings: Settings, topics: Topics, faults: list[str]) -> Verdict:
    """Waits until all rows are there, or no more come; the shop has closed."""
    right = expected(settings, topics)
    written, since = -1, time.monotonic()
    while True:
        differences = compare(settings, topics, right)
        now = sum(each.expected - each.missing.total() + each.extra.total() for each in differences)
        if now != written:
            written, since = now, time.monotonic()
        if not any(each.missing for each in differences) or time.monotonic() > since + _QUIET:
            return Verdict(right, differences, out_of_order(topics, settings.topic_visits), faults)
        time.sleep(1)


def explain(verdict: Verdict, topics: Topics, job: Job, directory: Path) -> None:
    """All that helps to find out how it came about; the topics themselves go into files."""
    report(verdict.differences, Console(width=200))
    print(f"{verdict.disorder} visits are out of order")
    for difference in verdict.differences:
        wanted = {value for _, value, _ in list(difference.extra)[:_SHOWN]}
        for message in topics.read(difference.topic) if wanted else ():
            if message.value() in wanted:
                print(f"{difference.topic}: too many: {_describe(message)}")
        for row in list(difference.missing)[:_SHOWN]:
            print(f"{difference.topic}: missing: {row}")
    print(job.logs(), flush=True)
    for topic in topics.partitions:
        with (directory / f"{topic}.log").open("w") as file:
            file.writelines(f"{_describe(message)}\n" for message in topics.read(topic))


def _describe(message: Message) -> str:
    written = message.timestamp()[1] / 1_000
    headers = dict(message.headers() or ())
    return (
        f"{message.partition()} offset {message.offset()} of {written:.3f}: {message.key()} {message.value()} {headers}"
    )
