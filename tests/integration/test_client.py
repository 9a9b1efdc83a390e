"""Questions about the cluster that fail: the user gets one line that says what to do."""

import pytest

from dataflow.kafka import client
from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError

CLOSED = "127.0.0.1:1"  # nobody listens there


def test_no_broker_is_an_error_that_names_the_address(monkeypatch):
    monkeypatch.setattr(client, "_TIMEOUT_S", 0.1)
    connection = Connection(Settings(_env_file=None, brokers=CLOSED).client)
    with pytest.raises(UserError, match=f"^no Kafka broker answers at {CLOSED}.*VISITS_BROKERS says where$"):
        count_partitions(connect(connection), connection, ["visits"])
