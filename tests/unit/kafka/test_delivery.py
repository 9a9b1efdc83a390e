"""Delivery to Kafka with a producer that the test controls: what a checkpoint promises while other workers write."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import stable_end_offsets
from dataflow.kafka.delivery import KafkaDelivery
from dataflow.observability import lifecycle
from dataflow.streaming.batches import OutgoingRecords
from dataflow.streaming.errors import UserError

MINE, OTHER = ("visits", 0), ("visits", 1)
TIMEOUT_S = 10


class Producer:
    """Holds rows until a flush acknowledges them; `before_produce` runs before each row is handed over."""

    def __init__(self) -> None:
        self.log: dict[tuple[str, int], list[bytes | None]] = {}
        self.queued: list[tuple[str, int, bytes | None]] = []
        self.flushes = 0
        self.before_produce: Callable[[bytes | None], None] = lambda value: None
        self.on_flush: Callable[[], None] = lambda: None
        self.on_delivery = None
        self.answers = True

    def __call__(self, properties: dict) -> "Producer":
        self.on_delivery = properties["on_delivery"]
        self.properties = properties
        return self

    def produce(self, topic, value, key, partition, *, headers=None) -> None:
        self.before_produce(value)
        self.queued.append((topic, partition, value))

    def poll(self, timeout_s: float) -> int:
        return 0

    def flush(self, timeout_s: float) -> int:
        self.flushes += 1
        self.on_flush()
        if self.answers:
            queued, self.queued = self.queued, []
            for topic, partition, value in queued:
                self.log.setdefault((topic, partition), []).append(value)
        return len(self.queued)

    def __len__(self) -> int:
        return len(self.queued)


class Output:
    """The output topics, as far as rows are acknowledged."""

    def __init__(self, producer: Producer) -> None:
        self.start_offsets = {MINE: 3, OTHER: 4}
        self.questions: list[set[tuple[str, int]]] = []
        self.resumed_at: list[tuple[tuple[str, int], int]] = []
        self._producer = producer

    def ends(self, partition_ids):
        self.questions.append(set(partition_ids))
        return {each: self.start_offsets[each] + len(self._producer.log.get(each, [])) for each in partition_ids}

    def rows(self, partition_id, begin):
        self.resumed_at.append((partition_id, begin))
        return iter(())


class Lease:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def take(self) -> None:
        self.calls.append("take")

    def join(self) -> None:
        self.calls.append("join")

    def wait_until_held(self) -> None:
        self.calls.append("wait")

    def release(self) -> None:
        self.calls.append("release")


@pytest.fixture(autouse=True)
def lifecycle_of_its_own(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(lifecycle, "exit_hooks", [])
    monkeypatch.setattr(lifecycle, "stop_requested", threading.Event())
    monkeypatch.setattr("atexit.register", lambda function: function)
    return


@pytest.fixture
def producer() -> Producer:
    return Producer()


@pytest.fixture
def output(producer: Producer) -> Output:
    return Output(producer)


@pytest.fixture
def delivery(producer: Producer, output: Output) -> KafkaDelivery:
    return KafkaDelivery(SimpleNamespace(properties={}), output, Lease(), producer)


def rows(*values: bytes) -> list[OutgoingRecords]:
    return [OutgoingRecords(b"key", list(values))]


def test_a_checkpoint_returns_the_end_after_all_rows_handed_over(delivery, producer):
    delivery.write(MINE, rows(b"a", b"b"))
    assert delivery.checkpoint(MINE) == 5
    assert producer.log == {MINE: [b"a", b"b"]}
    assert producer.queued == []


def test_one_question_serves_all_partitions_written_to(delivery, output):
    delivery.write(MINE, rows(b"a"))
    delivery.write(OTHER, rows(b"b"))
    assert (delivery.checkpoint(MINE), delivery.checkpoint(OTHER)) == (4, 5)
    assert output.questions == [{MINE, OTHER}]


def test_a_partition_without_new_rows_costs_neither_a_flush_nor_a_question(delivery, producer, output):
    delivery.write(MINE, rows(b"a"))
    assert delivery.checkpoint(MINE) == 4
    assert delivery.checkpoint(MINE) == 4
    assert (producer.flushes, len(output.questions)) == (1, 1)


def test_rows_handed_over_during_the_checkpoint_of_another_worker_are_flushed_by_ones_own(delivery, producer):
    """One worker is about to hand over its rows when another one's checkpoint flushes and asks for all ends."""
    delivery.write(MINE, rows(b"first"))
    entered, gate = threading.Event(), threading.Event()

    def wait_at_the_gate(value: bytes | None) -> None:
        if value == b"second":
            entered.set()
            assert gate.wait(TIMEOUT_S)

    producer.before_produce = wait_at_the_gate
    writer = threading.Thread(target=delivery.write, args=(MINE, rows(b"second")))
    writer.start()
    assert entered.wait(TIMEOUT_S)
    delivery.checkpoint(OTHER)
    gate.set()
    writer.join(TIMEOUT_S)
    assert len(producer.queued) == 1
    assert delivery.checkpoint(MINE) == 5
    assert producer.queued == []


def test_rows_handed_over_after_the_flush_of_another_workers_checkpoint_are_flushed(delivery, producer, output):
    """Another one's checkpoint has flushed and is asking for the ends when the rows are handed over."""
    ends = output.ends

    def write_and_answer(partition_ids):
        output.ends = ends
        delivery.write(MINE, rows(b"second"))
        return ends(partition_ids)

    delivery.write(MINE, rows(b"first"))
    output.ends = write_and_answer
    delivery.checkpoint(OTHER)
    assert len(producer.queued) == 1
    assert delivery.checkpoint(MINE) == 5
    assert producer.queued == []


def test_rows_handed_over_before_a_failure_in_the_middle_of_a_batch_are_flushed(delivery, producer):
    def fail_at_the_second(value: bytes | None) -> None:
        if value == b"b":
            raise KafkaException(KafkaError(KafkaError._FATAL))

    delivery.checkpoint(MINE)
    producer.before_produce = fail_at_the_second
    with pytest.raises(UserError, match=r"^visits/0: a row cannot be sent: "):
        delivery.write(MINE, rows(b"a", b"b"))
    assert delivery.checkpoint(MINE) == 4


def test_a_failed_flush_leaves_its_rows_to_the_next_checkpoint(delivery, producer, monkeypatch):
    def fail() -> None:
        raise UserError("Kafka refuses a row")

    delivery.write(MINE, rows(b"a"))
    producer.on_flush = fail
    with pytest.raises(UserError):
        delivery.checkpoint(MINE)
    producer.on_flush = lambda: None
    assert delivery.checkpoint(MINE) == 4
    assert producer.queued == []


def test_a_row_that_kafka_refuses_is_an_error_with_advice_on_the_next_write(delivery, producer):
    delivery.write(MINE, rows(b"a"))
    message = SimpleNamespace(topic=lambda: "visits", partition=lambda: 0)
    producer.on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), message)
    with pytest.raises(UserError, match=r"^visits/0: Kafka refuses a row: .*; raise max.message.bytes of the topic"):
        delivery.write(OTHER, rows(b"b"))
    with pytest.raises(UserError, match="Kafka refuses a row"):
        delivery.checkpoint(OTHER)


def test_a_stop_while_kafka_is_away_gives_up_after_some_seconds_and_keeps_the_lease(producer, output):
    lease = Lease()
    delivery = KafkaDelivery(SimpleNamespace(properties={}), output, lease, producer)
    delivery.acquire()
    delivery.write(MINE, rows(b"a", b"b"))
    producer.answers = False
    for hook in lifecycle.exit_hooks:
        hook()
    assert producer.flushes == 5
    assert delivery.unacknowledged() == 2
    assert "release" not in lease.calls


def test_a_worker_that_flushes_while_the_process_stops_leaves_the_end_to_the_stop(delivery, producer, monkeypatch):
    def blocks() -> None:
        raise InterruptedError

    monkeypatch.setattr(lifecycle, "block_if_stopping", blocks)
    producer.queued = [b"a"]
    producer.answers = False
    with pytest.raises(InterruptedError):
        delivery.flush()


def test_more_than_64_mib_unacknowledged_are_flushed_before_more_are_handed_over(delivery, producer):
    large = b"x" * (40 * 1024 * 1024)
    delivery.write(MINE, rows(large))
    assert producer.flushes == 0
    delivery.write(MINE, rows(large))
    assert producer.flushes == 1
    assert len(producer) == 1


def test_a_resume_without_a_checkpoint_reads_from_where_the_job_began(delivery, output):
    delivery.resume(MINE, None)
    delivery.resume(MINE, 7)
    assert output.resumed_at == [(MINE, 3), (MINE, 7)]


def test_nothing_is_written_before_the_lease_is_held_and_it_is_released_after_the_last_flush(producer, output):
    lease = Lease()
    delivery = KafkaDelivery(SimpleNamespace(properties={}), output, lease, producer)
    delivery.acquire()
    producer.before_produce = lambda value: lease.calls.append("produce")
    producer.on_flush = lambda: lease.calls.append("flush")
    delivery.write(MINE, rows(b"a"))
    for hook in lifecycle.exit_hooks:
        hook()
    assert lease.calls == ["take", "wait", "produce", "flush", "release"]


def test_a_client_that_reconnects_is_back_before_a_successor_takes_the_ends_for_stable(producer, output):
    KafkaDelivery(SimpleNamespace(properties={"reconnect.backoff.max.ms": 2_000}), output, Lease(), producer)
    assert producer.properties["reconnect.backoff.max.ms"] / 1_000 < stable_end_offsets._QUIET_S
