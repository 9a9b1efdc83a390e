"""What the tests write into the input topics, and how they run the job over it without Kafka.

A log reads as prose: `{"user-events/0": log(event(0), event(20)), "purchases/0": log(purchase(3, 9.5))}`. Times are in
seconds after `NOON`, a fixed one.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import AbortExecution
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from dataflow.clickstream.inputs import InputTopics, default_inputs
from dataflow.clickstream.outputs import OUTPUTS, Keyed
from dataflow.clickstream.records import Event
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.topology import Inputs, build
from dataflow.dashboard.probe import DashboardProbe
from dataflow.streaming.batches import PolledBatch
from dataflow.streaming.partition_reader import PartitionReader
from dataflow.streaming.position import topic_number, unpack
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time
from dataflow.streaming.watermark import SourceProgress
from dataflow.tools.balance import Balance
from dataflow.tools.reference import Answer, OutputRow, Record, RuleSettings, Shape, answer, comparable

from .engine import Engine, States

NOON = 1_710_331_200  # 2024-03-13, UTC
LONG_AFTER = 253_402_300_800 * SECOND  # the wall clock of whoever replays a log: the year 10000

EVENTS, PURCHASES = "user-events/0", "purchases/0"

Logs = Mapping[str, list[Record]]  # what each source, "topic/partition", holds

DEFAULT_INPUTS = default_inputs()


def event(at: float, event_type: str = "page-view", user: int = 1, page: int = 1, **extra: Any) -> bytes:
    """A row of `user-events`, `at` so many seconds after noon."""
    fields = {"event_type": event_type, "user_id": user, "page_id": page, "timestamp": NOON + at, **extra}
    return json.dumps(fields, separators=(",", ":")).encode()


def purchase(at: float, amount: Any, user: int = 1, page: int = 1) -> bytes:
    """A row of `purchases`; an amount given as text is spelled so."""
    text = amount if isinstance(amount, str) else json.dumps(amount)
    return b'{"amount":%b,"user_id":%d,"page_id":%d,"timestamp":%b}' % (text.encode(), user, page, _number(NOON + at))


def topic_of(source: str) -> str:
    return source.rpartition("/")[0]


def _number(value: float) -> bytes:
    return json.dumps(value).encode()


def session_id(user: int, start: float) -> str:
    return blake2b(f"{user}/{round((NOON + start) * SECOND)}".encode(), digest_size=16).hexdigest()


def visit(value: bytes, session: str, amount: str = "0") -> bytes:
    """The row of `visits` that an event becomes."""
    return value[:-1] + f',"session_id":"{session}","amount":{amount}}}'.encode()


def suspicious(session: str, user: int, kind: int) -> bytes:
    return f'{{"session_id":"{session}","user_id":{user},"type":{kind}}}'.encode()


def stored(at: float, value: bytes | None) -> tuple[float, bytes | None]:
    """A message that Kafka stored so many seconds after noon."""
    return at, value


def log(*messages: bytes | tuple[float, bytes | None] | None) -> list[Record]:
    """A partition's messages; those that are not `stored` have no timestamp, as from a very old producer."""
    records = []
    for offset, message in enumerate(messages):
        at, value = message if isinstance(message, tuple) else (None, message)
        records.append(Record(None, value, 0 if at is None else round((NOON + at) * 1_000), offset))
    return records


@dataclass(frozen=True)
class Message:
    """A record as confluent_kafka would hand it out."""

    record: Record
    of: str = ""  # topic

    def key(self) -> bytes | None:
        return self.record.key

    def value(self) -> bytes | None:
        return self.record.value

    def offset(self) -> int:
        return self.record.offset

    def headers(self) -> Any:
        return list(self.record.headers) or None

    def topic(self) -> str:
        return self.of

    def timestamp(self) -> tuple[int, int]:
        return (1, self.record.stored) if self.record.stored else (0, -1)


class Partitions:
    """All partitions of the input topics, each read as far as it has been read."""

    def __init__(self, logs: Logs, lateness: int, inputs: InputTopics = DEFAULT_INPUTS) -> None:
        self.logs = logs
        self._lateness = lateness
        self._inputs = inputs
        self._offsets = dict.fromkeys(logs, 0)
        self._readers = {source: self._reader(source, MIN_TIME) for source in logs}

    def _reader(self, source: str, mark: Time) -> PartitionReader:
        decoder = self._inputs.decoder_of(topic_of(source))
        return PartitionReader(source, decoder, self._lateness, mark)

    def poll(
        self, source: str, count: int, now: int = LONG_AFTER, caught_up_at: int | None = None, end: bool = False
    ) -> PolledBatch:
        """The next messages of a source, at most `count`; `end` says that no more will come."""
        offset = self._offsets[source]
        records = self.logs[source][offset : offset + count]
        self._offsets[source] += len(records)
        time = SourceProgress(source, MIN_TIME, now, caught_up_at, tuple(self.logs))
        poll = self._readers[source].read((Message(record, topic_of(source)) for record in records), time)
        if end:
            poll.time = poll.time._replace(max_timestamp=MAX_TIME)
        return poll

    def unread(self, source: str) -> int:
        return len(self.logs[source]) - self._offsets[source]

    def snapshot(self) -> dict[str, tuple[int, Time]]:
        return {source: (self._offsets[source], reader.max_timestamp) for source, reader in self._readers.items()}

    def resume(self, states: Mapping[str, tuple[int, Time]]) -> None:
        for source, (offset, mark) in states.items():
            self._offsets[source] = offset
            self._readers[source] = self._reader(source, mark)


@dataclass(frozen=True)
class Plan:
    """In which order, and in what pieces, the partitions are read: (source, number of messages).

    What it leaves unread is read in turn, `piece` messages at a time. Each source ends with its last message if the
    ends come `early`, or after all messages of all sources.
    """

    steps: tuple[tuple[str, int], ...] = ()
    piece: int = 1_000
    early: bool = False

    def polls(self, partitions: Partitions) -> Iterator[PolledBatch]:
        running = dict.fromkeys(partitions.logs)  # in order

        def ends() -> Iterator[PolledBatch]:
            for source in [each for each in running if not partitions.unread(each)]:
                del running[source]
                yield partitions.poll(source, 0, end=True)

        for source, count in self.steps:
            if self.early:
                yield from ends()
            if source in running:
                yield partitions.poll(source, count)
        while any(partitions.unread(source) for source in running):
            for source in list(running):
                yield partitions.poll(source, self.piece)
            if self.early:
                yield from ends()
        yield from ends()

    def length(self, logs: Logs) -> int:
        """How many polls it makes."""
        return sum(1 for _ in self.polls(Partitions(logs, 0)))


class _Polls:
    """Polls that are made anew whenever somebody goes through them."""

    def __init__(
        self,
        logs: Logs,
        plan: Plan,
        rules: Rules,
        topics: tuple[str, ...],
        stops: Collection[int],
        crashes: Collection[int],
    ) -> None:
        self._logs, self._plan, self._rules, self._topics = logs, plan, rules, topics
        self._stops = stops
        self._crashes = set(crashes)

    def __iter__(self) -> Iterator[Any]:
        polls = self._plan.polls(Partitions(self._logs, self._rules.lateness))
        for number, poll in enumerate(poll for poll in polls if poll.time.source.startswith(self._topics)):
            if number in self._stops:
                yield TestingSource.EOF()
            if number in self._crashes:
                self._crashes.remove(number)
                raise AbortExecution  # TestingSource's own ABORT reads items twice after a second one
            yield poll


class Written:
    """Takes what the flow writes into its outputs."""

    def __init__(self) -> None:
        self._lists: list[list] = [[] for _ in fields(Answer)]
        self.sinks = {spec.name: TestingSink(written) for spec, written in zip(OUTPUTS, self._lists, strict=True)}

    def answer(self, expected: Answer | None = None) -> Answer:
        """The rows, with no word on why the JSON decoder did not like a dead letter, as the batch answer has it.

        Args:
            expected: tells which other reasons the batch answer has; by default it has none.
        """
        found = Answer(*(Counter(_rows(written)) for written in self._lists))
        reasons = expected.dead_letters if expected is not None else Counter()
        found.dead_letters = Counter(comparable(row, reasons) for row in found.dead_letters.elements())
        return found

    def rows(self, topic: str) -> list[bytes | None]:
        """The values written to one output, in order."""
        return [value for _, output in self.elements(topic) for value in output.values]

    def elements(self, topic: str) -> list[Keyed]:
        """What one sink was given: rows of one key at a time, and the text that chooses their partition."""
        return self._lists[[field.name for field in fields(Answer)].index(topic)]

    def lengths(self) -> list[int]:
        return [len(written) for written in self._lists]

    def forget_after(self, lengths: list[int]) -> None:
        for written, length in zip(self._lists, lengths, strict=True):
            del written[length:]

    def clear(self) -> None:
        self.forget_after([0] * len(self._lists))


def _rows(written: Iterable[tuple[str, Any]]) -> Iterator[OutputRow]:
    for _, output in written:
        for value in output.values:
            yield output.key, value, tuple(output.headers or ())


def run(logs: Logs, plan: Plan = Plan(), rules: Rules = Rules(), workers: int = 1) -> Written:
    """Runs the job in Bytewax's engine, up to the end of the logs.

    With one worker the polls come in the order of the plan, with more each topic's do.
    """
    written = Written()
    flow = bytewax_flow(logs, plan, rules, written, one_by_one=workers == 1)
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    return written


def bytewax_flow(
    logs: Logs,
    plan: Plan,
    rules: Rules,
    written: Written,
    one_by_one: bool = True,
    stops: Collection[int] = (),
    crashes: Collection[int] = (),
    probe: DashboardProbe | None = None,
) -> Dataflow:
    """The flow over `TestingSource`s; it stops before the polls of some numbers, and crashes, once, before others."""
    first = ("user-events/", "purchases/") if one_by_one else ("user-events/",)
    second = () if one_by_one else ("purchases/",)
    inputs = Inputs(
        lambda topic: TestingSource(
            _Polls(logs, plan, rules, first, stops, crashes)
            if topic.has_events
            else _Polls(logs, plan, rules, second, (), ())
        ),
        MemoryFetcher(logs, DEFAULT_INPUTS),
    )
    return build(inputs, written.sinks, rules, observer=probe)


class MemoryFetcher:
    """Fetches events again from the logs, as a resume does: only prefetched ones, each once."""

    def __init__(self, logs: Logs, inputs: InputTopics) -> None:
        self.logs = logs
        self._topics = {topic.decoder.number: topic for topic in inputs if topic.has_events}
        self._prefetched: Counter[int] = Counter()

    def prefetch(self, positions: Iterable[int]) -> None:
        self._prefetched.update(positions)

    def event(self, position: int) -> Event:
        assert self._prefetched[position] > 0
        self._prefetched[position] -= 1
        topic = self._topics[topic_number(position)]
        decoder = topic.decoder
        place = unpack(position, decoder.parts is not None)
        message: Any = Message(self.logs[f"{topic.name}/{place.partition}"][place.offset], topic.name)
        if decoder.parts is not None:
            message = decoder.parts(message)[place.part]
        return decoder.decode(message.value(), position, message)


class Job:
    """The job in the engine of the tests, fed poll by poll; the wall clock is in the test's hand.

    Args:
        logs: what the sources hold; `write` adds to it.
        rules: the numbers in the rules.
        probe: sees what passes.
        inputs: how messages become rows.
    """

    def __init__(
        self,
        logs: Logs | None = None,
        rules: Rules = Rules(),
        probe: DashboardProbe | None = None,
        inputs: InputTopics = DEFAULT_INPUTS,
    ) -> None:
        self.partitions = Partitions(logs if logs is not None else {EVENTS: [], PURCHASES: []}, rules.lateness, inputs)
        self._engine, self.written, fetcher = _engine(rules, probe, inputs)
        fetcher.logs = self.partitions.logs
        self._engine.resume({})
        self.written.clear()

    def feed(self, poll: PolledBatch) -> None:
        self._engine.feed("visits.read_events", poll)

    def read(self, source: str, *messages: Any, now: float, caught_up_at: float | None = None) -> None:
        """Messages come into a partition and are read at once, the wall clock being at `now` seconds after noon."""
        held = self.partitions.logs[source]
        held += [record._replace(offset=len(held) + record.offset) for record in log(*messages)]
        claim = None if caught_up_at is None else wall(caught_up_at)
        self.feed(self.partitions.poll(source, len(messages), wall(now), claim))

    def is_at_its_end(self, source: str, asof: float) -> None:
        """A partition has nothing new, and says so."""
        self.read(source, now=asof, caught_up_at=asof)

    def end(self) -> None:
        for source in self.partitions.logs:
            self.feed(self.partitions.poll(source, 0, end=True))

    def snapshot(self) -> "Snapshot":
        return Snapshot(self._engine.snapshot(), self.partitions.snapshot(), self.written.lengths())

    def resume(self, snapshot: "Snapshot") -> None:
        """Goes on as a new process would; what was written since is taken back, because it will be written again."""
        self._engine.resume(snapshot.states)
        self.partitions.resume(snapshot.partitions)
        self.written.forget_after(snapshot.written)


@dataclass(frozen=True)
class Snapshot:
    """What outlives a crash."""

    states: States
    partitions: dict[str, tuple[int, Time]]
    written: list[int]


def wall(at: float) -> int:
    """A wall clock's reading, `at` so many seconds after noon, in microseconds."""
    return round((NOON + at) * SECOND)


@lru_cache(1_000)
def _engine(rules: Rules, probe: DashboardProbe | None, topics: InputTopics) -> tuple[Engine, Written, MemoryFetcher]:
    """Building a flow takes longer than running it, so every set of rules has one for all tests."""
    written = Written()
    nothing = TestingSource([])
    fetcher = MemoryFetcher({}, topics)
    inputs = Inputs(lambda topic: nothing, fetcher, topics)
    return Engine(build(inputs, written.sinks, rules, observer=probe)), written, fetcher


def batch_answer(
    logs: Logs, rules: Rules = Rules(), balance: Balance | None = None, shape: Shape | None = None
) -> Answer:
    """The expected output, by `dataflow.tools.reference`."""
    by_topic: dict[str, dict[int, list[Record]]] = {}
    for source, records in logs.items():
        topic, _, partition = source.rpartition("/")
        by_topic.setdefault(topic, {})[int(partition)] = records
    seconds = (Fraction(microseconds, SECOND) for microseconds in (rules.gap, rules.window, rules.lateness))
    return answer(by_topic, RuleSettings(*seconds, **rules.thresholds), shape, balance)
