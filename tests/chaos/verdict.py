"""The end of a run: the five output topics against the batch answer, row by row."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console

from chaos.job import Job
from dataflow.reference import Answer
from dataflow.settings import Settings
from dataflow.verify import Difference, Topics, compare, expected, out_of_order, report

_QUIET = 60.0  # seconds without a new row, after which no more are waited for
_SHOWN = 20  # rows of a topic


class Verdict(NamedTuple):
    answer: Answer
    differences: list[Difference]
    disorder: int  # visits after a later one of their session

    @property
    def right(self) -> bool:
        return not any(self.differences) and not self.disorder

    @property
    def missing(self) -> int:
        return sum(each.missing.total() for each in self.differences)

    @property
    def extra(self) -> int:
        return sum(each.extra.total() for each in self.differences)


def settle(settings: Settings, topics: Topics) -> Verdict:
    """Waits until all rows are there, or no more come; the shop has closed."""
    right = expected(settings, topics)
    written, since = -1, time.monotonic()
    while True:
        differences = compare(settings, topics, right)
        now = sum(each.expected - each.missing.total() + each.extra.total() for each in differences)
        if now != written:
            written, since = now, time.monotonic()
        if not any(each.missing for each in differences) or time.monotonic() > since + _QUIET:
            return Verdict(right, differences, out_of_order(topics, settings.topic_visits))
        time.sleep(1)


def explain(verdict: Verdict, topics: Topics, job: Job) -> None:
    """All that helps to find out how it came about."""
    report(verdict.differences, Console(width=200))
    print(f"{verdict.disorder} visits are out of order")
    for difference in verdict.differences:
        for line in _places(difference, topics):
            print(line)
    print(job.logs(), flush=True)


def _places(difference: Difference, topics: Topics) -> Iterator[str]:
    """Where rows that are too many stand, every one of them; and which are missing."""
    wanted = dict(list(difference.extra.items())[:_SHOWN])
    for message in topics.read(difference.topic) if wanted else ():
        row = message.key(), message.value(), tuple(message.headers() or ())
        if row in wanted:
            written = message.timestamp()[1] / 1_000
            yield f"{difference.topic}/{message.partition()} offset {message.offset()}, {written:.3f}, too many: {row}"
    for row in list(difference.missing)[:_SHOWN]:
        yield f"{difference.topic}: missing: {row}"
