"""A client that answers nothing for long, though others reach the brokers, is replaced."""

from concurrent.futures import Future
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import replaceable as module
from dataflow.kafka.replaceable import Admin, Replaceable

STUCK = KafkaException(KafkaError(KafkaError._TRANSPORT))
REFUSED = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))


class World:
    """The clock, and how many clients were made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made = 0

    def open(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def world() -> World:
    return World()


def fail_for(world: World, client: Replaceable[int], seconds: int, problem: KafkaException = STUCK) -> None:
    for _ in range(seconds):
        world.now += 1
        with pytest.raises(KafkaException), client.asked():
            raise problem


def test_a_client_that_fails_for_10_s_is_replaced_and_the_next_one_has_twice_the_time(world):
    client = Replaceable(world.open, lambda: world.now)
    fail_for(world, client, 10)
    assert client.client == 1
    fail_for(world, client, 1)
    assert client.client == 2
    fail_for(world, client, 19)
    assert client.client == 2
    fail_for(world, client, 1)
    assert client.client == 3


def test_it_is_replaced_every_320_s_at_last(world):
    client = Replaceable(world.open, lambda: world.now)
    fail_for(world, client, 10 + 20 + 40 + 80 + 160 + 320 + 1)
    assert client.client == 7
    fail_for(world, client, 640)
    assert client.client == 9


def test_an_answer_begins_the_time_anew(world):
    client = Replaceable(world.open, lambda: world.now)
    fail_for(world, client, 10)
    with client.asked() as asked:
        assert asked == 1
    fail_for(world, client, 10)
    assert client.client == 1


def test_a_client_that_was_replaced_is_kept_for_a_while_since_it_must_not_end_in_a_thread_of_its_own(monkeypatch):
    monkeypatch.setattr(module, "_DROP_AFTER_S", 0.2)
    world, ended = World(), Event()

    class Client:
        def __del__(self) -> None:
            ended.set()

    clients = Replaceable(Client, lambda: world.now)
    clients.record(STUCK)
    world.now += 10
    assert clients.client is not None
    assert not ended.wait(0.05)
    assert ended.wait(10)


def test_an_error_that_a_broker_reports_is_an_answer(world):
    client = Replaceable(world.open, lambda: world.now)
    fail_for(world, client, 60, REFUSED)
    assert client.client == 1


class Stuck:
    """An admin client that is stuck, or not."""

    def __init__(self, problem: KafkaException | None) -> None:
        self._problem = problem

    def list_topics(self, topic: str | None, timeout: float) -> str:
        if self._problem is not None:
            raise self._problem
        return "topics"

    def list_offsets(self, asked: list[str], **options: Any) -> dict[str, Future[int]]:
        answers: dict[str, Future[int]] = {name: Future() for name in asked}
        for answer in answers.values():
            if self._problem is None:
                answer.set_result(7)
            else:
                answer.set_exception(self._problem)
        return answers


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda admin: admin.list_topics("clicks", 1), id="topics"),
        pytest.param(lambda admin: admin.list_offsets(["clicks"])["clicks"].result(), id="offsets"),
    ],
)
def test_an_admin_client_that_is_stuck_is_replaced_by_one_that_answers(world, monkeypatch, ask):
    monkeypatch.setattr(module.Replaceable.__init__, "__defaults__", (lambda: world.now,))
    admin = Admin(lambda: Stuck(STUCK if world.open() == 1 else None))
    for _ in range(10):
        world.now += 1
        with pytest.raises(KafkaException):
            ask(admin)
    world.now += 1
    assert ask(admin) in ("topics", 7)
    assert world.made == 2
