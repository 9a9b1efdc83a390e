"""Rows in order of event time, however many they are and whatever order they come in."""

import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from operator import attrgetter
from typing import BinaryIO

from producer.rows import Row

_IN_MEMORY = 500_000  # rows
_time = attrgetter("time")


def sorted_by_time(rows: Iterable[Row], in_memory: int = _IN_MEMORY) -> Iterator[Row]:
    """`rows` sorted; equal times stay in the order they came. What is too much for memory goes to temporary files."""
    rows = iter(rows)
    with ExitStack() as files:
        runs: list[Iterator[Row]] = []
        while True:
            run = sorted(islice(rows, in_memory), key=_time)
            if len(run) < in_memory:
                yield from heapq.merge(*runs, run, key=_time)
                return
            file = files.enter_context(tempfile.TemporaryFile())
            runs.append(_written(run, file))


def _written(run: list[Row], file: BinaryIO) -> Iterator[Row]:
    for row in run:
        pickle.dump(tuple(row), file)
    file.seek(0)
    return (Row(*pickle.load(file)) for _ in range(len(run)))
