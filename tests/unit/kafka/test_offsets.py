"""The one question for offsets: partial answers, no answers, and answers that never come."""

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from dataflow.kafka import offsets as module
from dataflow.kafka.offsets import (
    EndOffset,
    earliest_offsets,
    end_offsets,
    known_end_offsets,
    retry_until_answered,
    source_name,
)
from dataflow.streaming.errors import UserError

ONE, TWO = ("clicks", 0), ("clicks", 1)
NEVER = Future()  # what a frozen broker answers


def answer(offset: int, epoch: int | None = 3) -> Future:
    future: Future = Future()
    future.set_result(SimpleNamespace(offset=offset, leader_epoch=epoch))
    return future


def failure(code: int) -> Future:
    future: Future = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


class Admin:
    """Answers as prepared, and counts the requests for metadata."""

    def __init__(self, answers: dict[tuple[str, int], Future]) -> None:
        self.answers = answers
        self.refreshed: list[str] = []

    def list_offsets(self, asked, isolation_level, request_timeout):
        return {TopicPartition(*partition_id): self.answers[partition_id] for partition_id in self.answers}

    def list_topics(self, topic, timeout):
        self.refreshed.append(topic)


@pytest.fixture(autouse=True)
def no_margin(monkeypatch):
    monkeypatch.setattr(module, "_MARGIN_S", 0.05)
    monkeypatch.setattr(module, "_RETRY_INTERVAL_S", 0.0)


def test_ends_come_with_the_epoch_of_the_leader():
    assert end_offsets(Admin({ONE: answer(7), TWO: answer(0, None)}), [ONE, TWO]) == {
        ONE: EndOffset(7, 3),
        TWO: EndOffset(0, None),
    }


def test_earliest_offsets_are_plain_numbers():
    assert earliest_offsets(Admin({ONE: answer(7)}), [ONE]) == {ONE: 7}


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param(failure(KafkaError.NOT_LEADER_FOR_PARTITION), id="error"),
        pytest.param(answer(-1), id="negative offset"),
        pytest.param(NEVER, id="no answer"),
    ],
)
def test_a_partition_without_an_answer_is_left_out_or_fails_the_whole(missing):
    admin = Admin({ONE: answer(7), TWO: missing})
    assert known_end_offsets(admin, [ONE, TWO], timeout_s=0) == {ONE: EndOffset(7, 3)}
    assert admin.refreshed == []
    with pytest.raises(KafkaException):
        end_offsets(admin, [ONE, TWO], timeout_s=0)
    assert admin.refreshed == ["clicks"]


def test_answers_that_never_come_are_given_up_together_after_one_timeout():
    began = time.monotonic()
    assert known_end_offsets(Admin({("clicks", number): NEVER for number in range(100)}), [ONE], timeout_s=0.1) == {}
    assert time.monotonic() - began < 2


def test_no_partitions_are_no_question():
    assert end_offsets(None, []) == {}


def test_a_question_is_repeated_until_it_is_answered():
    answers = iter([KafkaError._TRANSPORT, KafkaError._TIMED_OUT, None])
    retries = []

    def ask() -> str:
        code = next(answers)
        if code is not None:
            raise KafkaException(KafkaError(code))
        return "answer"

    assert retry_until_answered(ask, lambda: retries.append(1)) == "answer"
    assert len(retries) == 2


@pytest.mark.parametrize("code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_missing_permission_is_not_asked_for_again(code):
    def ask() -> None:
        raise KafkaException(KafkaError(code))

    with pytest.raises(UserError, match=r"^not allowed to look after .*; grant it and start again$"):
        retry_until_answered(ask, lambda: None)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Time passes only while something sleeps."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_RETRY_INTERVAL_S", 0.2)
    return clock


def failing_until(clock: SimpleNamespace, time: float, code: int):
    def ask() -> str:
        if clock.now < time:
            raise KafkaException(KafkaError(code))
        return "answer"

    return ask


def test_a_question_without_an_answer_for_10_s_is_told_once_and_so_is_the_answer(clock, caplog):
    caplog.set_level("INFO")
    ask = failing_until(clock, 3_700, KafkaError._TIMED_OUT)
    assert retry_until_answered(ask, lambda: None) == "answer"
    assert [record.event for record in caplog.records] == ["kafka-silent", "kafka-answers"]


def test_a_question_that_is_answered_sooner_is_not_told(clock, caplog):
    caplog.set_level("INFO")
    retry_until_answered(failing_until(clock, 109, KafkaError._TIMED_OUT), lambda: None)
    assert not caplog.records


def test_a_topic_that_is_gone_is_not_waited_for(clock):
    with pytest.raises(UserError, match=r"^a topic is gone: was it deleted\?"):
        retry_until_answered(failing_until(clock, 3_700, KafkaError.UNKNOWN_TOPIC_OR_PART), lambda: None)
    assert clock.now < 112


def test_a_source_is_named_by_topic_and_partition():
    assert source_name(*ONE) == "clicks/0"
