"""Whether brokers can be reached, and what is logged when that changes."""

import logging

import pytest
from confluent_kafka import KafkaError

from dataflow.kafka.client import Connection, connect
from dataflow.streaming.errors import UserError


@pytest.fixture
def connection(caplog) -> Connection:
    caplog.set_level(logging.INFO, "visits")
    return Connection({"bootstrap.servers": "127.0.0.1:1"})


def report(connection: Connection, code: int, text: str = "") -> None:
    connection.properties["error_cb"](KafkaError(code, text or None))


def test_a_connection_is_up_after_the_first_answer(connection, caplog):
    assert not connection.is_up()
    connection.record_answer()
    assert connection.is_up()
    assert caplog.messages == []


def test_a_lost_cluster_is_logged_once_and_so_is_its_return(connection, caplog):
    connection.record_answer()
    report(connection, KafkaError._ALL_BROKERS_DOWN)
    for _ in range(3):
        connection.record_no_answer()
    assert not connection.is_up()
    for _ in range(3):
        connection.record_answer()
    assert connection.is_up()
    assert caplog.messages == ["no Kafka broker can be reached; waiting for one to come back", "Kafka is back"]


def test_brokers_that_one_client_cannot_reach_are_up_while_another_one_has_answers(connection):
    connection.record_answer()
    report(connection, KafkaError._ALL_BROKERS_DOWN)
    connection.record_answer()
    connection.record_no_answer()
    assert connection.is_up()


def test_a_refusal_is_known_at_the_start_and_logged_once_later(connection, caplog):
    report(connection, KafkaError._AUTHENTICATION, "wrong password")
    assert connection.refusal() == "wrong password"
    assert caplog.messages == []
    connection.record_answer()
    for _ in range(3):
        report(connection, KafkaError._SSL, "certificate expired")
    assert caplog.messages == ["a Kafka broker refuses us: certificate expired"]


def test_properties_of_the_user_win_over_the_defaults():
    connection = Connection({"bootstrap.servers": "b:1", "reconnect.backoff.max.ms": 5})
    assert connection.properties["reconnect.backoff.max.ms"] == 5
    assert connection.properties["bootstrap.servers"] == "b:1"


def test_a_property_that_librdkafka_does_not_know_is_an_error_of_the_user():
    with pytest.raises(UserError, match=r'^wrong Kafka setting: No such configuration property: "sasl.sword"'):
        connect(Connection({"bootstrap.servers": "b:1", "sasl.sword": "x"}))
