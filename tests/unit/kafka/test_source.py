"""The source's logic for one partition and for a split, with a consumer and a clock that the test controls."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message

from dataflow.kafka import source as module
from dataflow.kafka.end_offset_poller import ConfirmedEnd
from dataflow.kafka.source import KafkaSource, SourceContext, SourceState
from dataflow.observability import lifecycle
from dataflow.streaming.alignment import MAX_DRIFT, MAX_ROWS_AHEAD, SourceAlignment
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import TopicDecoder
from dataflow.streaming.position import position
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND

TOPIC, SOURCE, STEP = "clicks", "clicks/0", "job.clicks"
FINGERPRINT = JobFingerprint(8)
NOON = 1_700_000_000 * SECOND
LATENESS = 5 * SECOND


def decode(value: bytes | None, at: int, message: object) -> SimpleNamespace:
    """A row's value is its time in seconds after noon."""
    return SimpleNamespace(time=NOON + int(value or b"0") * SECOND, position=at)


def row(offset: int, seconds: int = 0) -> Message:
    timestamp = 1, (NOON + 3_600 * SECOND) // 1_000  # milliseconds
    return Message(topic=TOPIC, partition=0, offset=offset, value=b"%d" % seconds, timestamp=timestamp)


def event(code: int, offset: int = -1) -> Message:
    return Message(topic=TOPIC, partition=0, offset=offset, error=KafkaError(code))


def end_of_partition(offset: int) -> Message:
    return event(KafkaError._PARTITION_EOF, offset)


class Consumer:
    """Delivers what the test has put in; `end` is the present end, None: no broker answers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.end: int | None = 0
        self.started_at: int | None = None
        self.polls = 0
        self.closed = False

    def end_offset(self) -> int:
        if self.end is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return self.end

    def start(self, offset: int) -> None:
        self.started_at = offset

    def consume(self, limit: int) -> Sequence[Message]:
        self.polls += 1
        messages, self.messages = self.messages[:limit], self.messages[limit:]
        return messages

    def close(self) -> None:
        self.closed = True


class EndOffsets:
    """What the poller knows."""

    def __init__(self) -> None:
        self.partitions = 1
        self.sources: tuple[str, ...] = (SOURCE,)
        self.watched: set[tuple[str, int]] = set()
        self.ends: dict[str, ConfirmedEnd] = {}
        self.reported: dict[tuple[str, int], int] = {}

    def watch(self, partition_id: tuple[str, int]) -> None:
        self.watched.add(partition_id)

    def unwatch(self, partition_id: tuple[str, int]) -> None:
        self.watched.remove(partition_id)

    def end(self, source: str) -> ConfirmedEnd | None:
        return self.ends.get(source)

    def count(self, topic: str) -> int:
        return self.partitions

    def report(self, offsets: dict[tuple[str, int], int]) -> None:
        self.reported |= offsets


class Positions:
    """What progress is told: offset, wall time of the end that was reached, and whether that is sure."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int | None, bool]] = {}

    def record_position(self, source: str, offset: int, reached_end: int | None, sure: bool = False) -> None:
        self.last[source] = offset, reached_end, sure

    def forget(self, source: str) -> None:
        del self.last[source]


class World:
    """Everything around the source."""

    def __init__(self) -> None:
        self.now = NOON + 7_200 * SECOND
        self.end_offsets = EndOffsets()
        self.alignment = SourceAlignment()
        self.positions = Positions()
        self.consumers: dict[int, Consumer] = {}
        self.starts: dict[tuple[str, int], int] = {}
        self.stop_at_end = False
        self.rests: list[float] = []
        self.prepare: Callable[[Consumer], None] = lambda consumer: None
        self.on_start: Callable[[], None] = lambda: None

    @property
    def consumer(self) -> Consumer:
        return self.consumers[0]

    def open(self, snapshot: bytes | None = None, split: int = 0):
        def open_consumer(partition_id: tuple[str, int]) -> Consumer:
            consumer = self.consumers[partition_id[1]] = Consumer()
            self.prepare(consumer)
            return consumer

        context = SourceContext(
            open_consumer=open_consumer,
            end_offsets=self.end_offsets,
            alignment=self.alignment,
            progress=self.positions,
            lateness=LATENESS,
            fingerprint=FINGERPRINT,
            starts=self.starts,
            stop_at_end=self.stop_at_end,
            on_start=self.on_start,
            clock=SimpleNamespace(now=lambda: self.now, wall=lambda: self.now),
        )
        source = KafkaSource(TOPIC, TopicDecoder(decode), context)
        return source.build_part(STEP, source.list_parts()[split], snapshot)

    def poll(self, split, *messages: Message):
        """The one batch of the next poll, a second later; None if there is none."""
        self.now += SECOND
        self.consumer.messages += messages
        batches = split.next_batch()
        assert len(batches) <= 1
        return batches[0] if batches else None


@pytest.fixture
def world(monkeypatch) -> World:
    world = World()
    monkeypatch.setattr(module, "_rest", module._Rest())
    monkeypatch.setattr(module.time, "sleep", world.rests.append)
    return world


def rest_of(world: World, split) -> float | None:
    """How many seconds the worker rests before it polls again at once; None: it does not."""
    assert split.next_awake() < datetime(2000, 1, 1, tzinfo=timezone.utc), (
        "the engine must not wait by the host's clock"
    )
    world.rests.clear()
    split.next_batch()
    return world.rests[0] if world.rests else None


def poll_until_closed(consumer: Consumer) -> None:
    deadline = time.monotonic() + 10
    while not consumer.closed:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def snapshot_of(**states: SourceState) -> bytes:
    numbered = {int(name.removeprefix("p")): state for name, state in states.items()}
    return StateCodec(dict[int, SourceState], FINGERPRINT).pack(numbered)


def states_in(snapshot: bytes) -> dict[int, SourceState]:
    return StateCodec(dict[int, SourceState], FINGERPRINT).unpack(snapshot)


# --- offsets ---


def test_a_new_partition_begins_at_its_first_row(world):
    world.open()
    assert world.consumer.started_at == OFFSET_BEGINNING


def test_a_partition_with_a_start_offset_begins_there(world):
    world.starts = {(TOPIC, 0): 70}
    world.open()
    assert world.consumer.started_at == 70


def test_a_resumed_partition_goes_on_at_its_offset_with_its_max_timestamp(world):
    split = world.open(snapshot_of(p0=SourceState(40, NOON + 100 * SECOND)))
    assert world.consumer.started_at == 40
    batch = world.poll(split, row(40, seconds=94), row(41, seconds=95))
    assert [each.time for each in batch.late] == [NOON + 94 * SECOND]
    assert [each.time for each in batch.rows] == [NOON + 95 * SECOND]
    assert batch.time.max_timestamp == NOON + 100 * SECOND


def test_a_partition_added_since_the_snapshot_begins_at_its_first_row_whatever_the_start(world):
    world.end_offsets.partitions = 33
    world.starts = {(TOPIC, 32): 70}
    world.open(snapshot_of(p0=SourceState(40, MIN_TIME)))
    assert world.consumers[32].started_at == OFFSET_BEGINNING


def test_a_snapshot_holds_the_offset_after_the_last_row_and_reports_it(world):
    split = world.open()
    world.poll(split, row(7, seconds=1), row(8, seconds=2))
    assert states_in(split.snapshot()) == {0: SourceState(9, NOON + 2 * SECOND)}
    assert world.end_offsets.reported == {(TOPIC, 0): 9}


def test_rows_that_the_client_delivers_again_are_dropped(world):
    split = world.open()
    assert len(world.poll(split, row(0), row(1), row(2)).rows) == 3
    batch = world.poll(split, row(1), row(2), row(3), row(3))
    assert [each.position for each in batch.rows] == [position(0, 3)]
    assert states_in(split.snapshot())[0].offset == 4


def test_the_end_of_a_partition_moves_the_offset_past_markers_of_transactions(world):
    split = world.open()
    world.poll(split, row(0), end_of_partition(2))
    assert states_in(split.snapshot())[0].offset == 2


def test_an_end_that_is_reported_again_does_not_move_the_offset_back(world):
    split = world.open()
    world.poll(split, row(0), row(1))
    world.poll(split, end_of_partition(1))
    assert states_in(split.snapshot())[0].offset == 2


# --- a consumer that the client library has forgotten ---


def silent_for(world: World, split, seconds: int, end: int) -> None:
    """Polls once a second; brokers go on telling the end."""
    for _ in range(seconds):
        world.end_offsets.ends[SOURCE] = ConfirmedEnd(world.now + SECOND, end, sure=False)
        world.poll(split)


def test_a_consumer_that_delivers_nothing_of_a_partition_that_holds_more_is_replaced(world, caplog):
    caplog.set_level("INFO")
    split = world.open()
    stalled = world.consumer
    world.poll(split, row(0))
    silent_for(world, split, 12, end=5)
    assert world.consumer is not stalled
    assert world.consumer.started_at == 1
    assert [each.position for each in world.poll(split, row(1), row(2)).rows] == [position(0, 1), position(0, 2)]
    assert caplog.messages == ["clicks/0 is read again, with a new connection"]
    poll_until_closed(stalled)


def test_a_consumer_is_kept_while_its_partition_waits_for_others(world, monkeypatch):
    split = world.open()
    consumer = world.consumer
    world.poll(split, row(0))
    monkeypatch.setattr(module.AlignedSource, "is_paused", lambda self: True)
    silent_for(world, split, 60, end=5)
    assert world.consumer is consumer


# --- progress in event time ---


def test_a_poll_without_messages_gives_no_batch(world):
    assert world.poll(world.open()) is None


def test_a_sure_end_that_is_reached_is_a_batch_without_rows_that_says_since_when(world):
    split = world.open()
    world.poll(split, row(0))
    world.end_offsets.ends[SOURCE] = ConfirmedEnd(asked=world.now, offset=1, sure=True)
    batch = world.poll(split)
    assert batch.rows == []
    assert batch.time.caught_up_at == world.now - SECOND
    assert batch.time.now == world.now
    assert world.positions.last[SOURCE] == (1, world.now - SECOND, True)


def test_an_end_is_reported_once(world):
    split = world.open()
    world.poll(split, row(0))
    world.end_offsets.ends[SOURCE] = ConfirmedEnd(asked=world.now, offset=1, sure=True)
    assert world.poll(split) is not None
    assert world.poll(split) is None


def test_an_end_that_is_not_sure_moves_no_event_time_but_counts_as_caught_up(world):
    split = world.open()
    world.poll(split, row(0))
    asked = world.now
    world.end_offsets.ends[SOURCE] = ConfirmedEnd(asked, offset=1, sure=False)
    assert world.poll(split) is None
    assert world.positions.last[SOURCE] == (1, asked, False)


def test_an_end_that_is_not_reached_is_not_claimed(world):
    split = world.open()
    world.end_offsets.ends[SOURCE] = ConfirmedEnd(asked=world.now, offset=2, sure=True)
    batch = world.poll(split, row(0))
    assert batch.time.caught_up_at is None
    assert world.positions.last[SOURCE] == (1, None, False)


# --- stop at the end ---


def stopping_at(world: World, end: int) -> World:
    world.stop_at_end = True
    world.prepare = lambda consumer: setattr(consumer, "end", end)
    return world


def test_rows_after_the_end_at_the_start_are_left_out_and_event_time_ends(world):
    split = stopping_at(world, end=2).open()
    batch = world.poll(split, row(0), row(1), row(2))
    assert len(batch.rows) == 2
    assert batch.time.max_timestamp == MAX_TIME
    assert states_in(split.snapshot())[0].offset == 2
    with pytest.raises(StopIteration):
        split.next_batch()


def test_an_empty_partition_ends_with_a_batch_that_ends_event_time(world):
    split = stopping_at(world, end=0).open(snapshot_of(p0=SourceState(0, MIN_TIME)))
    batch = world.poll(split)
    assert batch.rows == []
    assert batch.time.max_timestamp == MAX_TIME


def test_a_split_without_partitions_ends_at_once(world):
    split = stopping_at(world, end=0).open(split=5)
    with pytest.raises(StopIteration):
        split.next_batch()


def test_an_end_that_no_broker_tells_is_an_error_of_the_user(world):
    world.stop_at_end = True
    world.prepare = lambda consumer: setattr(consumer, "end", None)
    with pytest.raises(UserError, match=r"^clicks/0: cannot ask for its end: "):
        world.open()


# --- when to poll ---


def test_a_partition_that_has_nothing_more_is_polled_20_ms_later(world):
    split = world.open()
    world.poll(split, row(0))
    polled = world.now
    assert rest_of(world, split) == 0.01, "other work of the worker waits no longer"
    for wait, polls in (19_999, 1), (20_000, 2):
        world.now = polled + wait
        split.next_batch()
        assert world.consumer.polls == polls


def test_a_partition_that_may_have_more_is_polled_at_once(world):
    split = world.open()
    world.poll(split, *map(row, range(4_000)))
    assert rest_of(world, split) is None


def test_a_split_without_partitions_looks_for_new_ones_a_second_later(world):
    split = world.open(split=5)
    assert split.next_batch() == []
    assert timedelta(0) < split.next_awake() - datetime.now(timezone.utc) <= timedelta(seconds=1)
    assert not world.rests


def test_a_source_too_far_ahead_of_the_others_pauses_until_they_have_caught_up(world):
    split = world.open()
    world.alignment.update("other/0", NOON, 1)
    ahead = (MAX_DRIFT // SECOND) + 1
    world.poll(split, *(row(offset, seconds=ahead) for offset in range(MAX_ROWS_AHEAD)))
    world.now += SECOND
    split.next_batch()
    polls = world.consumer.polls
    world.now += SECOND
    split.next_batch()
    assert world.consumer.polls == polls
    assert rest_of(world, split) == pytest.approx(0.002)
    world.alignment.update("other/0", NOON + SECOND, 1)
    world.now += SECOND
    split.next_batch()
    assert world.consumer.polls == polls + 1


def test_a_worker_rests_once_a_round_and_not_if_any_of_its_splits_has_more(world):
    world.end_offsets.partitions = 2
    one, two = world.open(split=0), world.open(split=1)
    for _ in range(2):
        world.now += SECOND
        for split in one, two:
            split.next_batch()
    world.rests.clear()
    for split in one, two, one, two:
        split.next_batch()
    assert world.rests == [0.01, 0.01], "the first split of each round rests"
    two.close()
    one.close()
    three = world.open(split=0)
    world.poll(three, *map(row, range(4_000)))
    assert rest_of(world, three) is None


# --- partitions come and go ---


def test_a_new_partition_of_a_running_job_is_read_from_its_first_row(world):
    split = world.open()
    world.end_offsets.partitions = 40
    split.next_batch()
    assert sorted(world.consumers) == [0, 32]
    assert world.consumers[32].started_at == OFFSET_BEGINNING


def test_a_topic_with_fewer_partitions_than_in_the_snapshot_is_refused(world):
    with pytest.raises(UserError, match=r"^clicks has lost partition 32; .* start over: an empty recovery store, "):
        world.open(snapshot_of(p0=SourceState(1, MIN_TIME), p32=SourceState(1, MIN_TIME)))


def test_closing_a_split_closes_its_consumers_and_forgets_its_positions(world):
    split = world.open()
    assert world.end_offsets.watched == {(TOPIC, 0)}
    split.close()
    assert world.consumer.closed
    assert world.end_offsets.watched == set()
    assert world.positions.last == {}


# --- errors ---


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "^clicks/0: offset 1 is not in Kafka .*Raise its retention"),
        (KafkaError.OFFSET_OUT_OF_RANGE, "^clicks/0: offset 1 is not in Kafka .*Raise its retention"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "^clicks/0 is gone: was the topic deleted"),
        (KafkaError._UNKNOWN_PARTITION, "^clicks/0 is gone: was the topic deleted"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "^clicks/0: not allowed to read it .*grant it and start again"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "^clicks/0: not allowed to read it .*grant it and start again"),
    ],
)
def test_an_error_that_does_not_pass_is_one_of_the_user(world, code, text):
    split = world.open()
    world.poll(split, row(0))
    with pytest.raises(UserError, match=text):
        world.poll(split, event(code))


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.NOT_LEADER_FOR_PARTITION]
)
def test_an_error_that_the_client_recovers_from_is_waited_out(world, code):
    split = world.open()
    assert len(world.poll(split, event(code), row(0)).rows) == 1


def test_a_drain_ends_the_source_and_not_event_time(world, monkeypatch):
    monkeypatch.setattr(lifecycle, "drain_requested", threading.Event())
    split = world.open()
    assert world.poll(split, row(0, seconds=10)).time.max_timestamp < MAX_TIME
    lifecycle.drain_requested.set()
    with pytest.raises(StopIteration):
        split.next_batch()
    assert states_in(split.snapshot())[0].offset == 1


def test_what_must_be_done_before_the_first_partition_is_opened_is_done(world):
    opened_at_start = []
    world.on_start = lambda: opened_at_start.append(list(world.consumers))
    world.open()
    assert opened_at_start == [[]]
