"""`python -m producer` as users start it, against the embedded brokers."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from producer import topics
from producer.__main__ import main

TOPICS = Settings(_env_file=None).inputs + Settings(_env_file=None).outputs
EVENTS, PURCHASES = TOPICS[:2]
PATIENCE = 60  # seconds until a hanging program fails the test
NOON = 1_710_331_200


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as cluster:
        for topic in TOPICS:
            cluster.create_topic(topic)
        yield cluster


def start(brokers: str, *arguments: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VISITS_")}
    return subprocess.Popen(
        [sys.executable, "-m", "producer", *arguments],
        env=environment | {"VISITS_BROKERS": brokers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(brokers: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    process = start(brokers, *arguments)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def read(kafka: EmbeddedKafka, topic: str) -> list[Message]:
    """All that is in a topic now, in the order of its partitions."""
    consumer = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "reader"})
    try:
        numbers = consumer.list_topics(topic).topics[topic].partitions
        partitions = [TopicPartition(topic, number, 0) for number in numbers]
        left = sum(consumer.get_watermark_offsets(partition)[1] for partition in partitions)
        consumer.assign(partitions)
        found: list[Message] = []
        deadline = time.monotonic() + PATIENCE
        while len(found) < left and time.monotonic() < deadline:
            found += consumer.consume(left - len(found), timeout=1)
        assert not any(message.error() for message in found)
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def values(messages: list[Message]) -> list[dict]:
    return [json.loads(message.value()) for message in messages]


def test_events_are_sent_at_once_with_the_user_as_key_and_their_purchases(kafka):
    before = time.time()
    status, out, _ = run(kafka.brokers, "--speed", "max", "--events", "3000", "--rate", "50", "--users", "40")
    events, purchases = read(kafka, EVENTS), read(kafka, PURCHASES)
    assert status == 0
    assert len(events) == 3000
    assert len(purchases) == sum(event["event_type"] == "purchase" for event in values(events)) > 0
    assert out.startswith(f"sent 3,000 user-events and {len(purchases)} purchases in ")
    assert out.count("\n") == 1
    assert all(message.key().decode() == str(json.loads(message.value())["user_id"]) for message in events + purchases)
    assert len({message.partition() for message in events}) > 4
    for message in events + purchases:
        sent = message.timestamp()[1] / 1000
        assert before - 1 < sent < time.time() + 1
        assert json.loads(message.value())["timestamp"] <= sent


def test_partitions_are_in_event_time_order_unless_disorder_is_set(kafka):
    status, _, _ = run(kafka.brokers, "--speed", "max", "--events", "2000", "--start", str(NOON))
    assert status == 0

    def is_sorted(messages: list[Message]) -> bool:
        order = [(message.partition(), json.loads(message.value())["timestamp"]) for message in messages]
        return order == sorted(order)

    assert is_sorted(read(kafka, EVENTS)) and is_sorted(read(kafka, PURCHASES))
    run(kafka.brokers, "--speed", "max", "--events", "2000", "--start", str(NOON + 10**6), "--disorder", "9")
    assert not is_sorted(read(kafka, EVENTS))


def test_without_keys_rows_are_spread_over_all_partitions(kafka):
    status, _, _ = run(kafka.brokers, "--speed", "max", "--events", "2000", "--users", "1", "--unkeyed")
    events = read(kafka, EVENTS)
    assert status == 0
    assert all(message.key() is None for message in events)
    shares = [sum(message.partition() == number for message in events) for number in range(8)]
    assert min(shares) > 150


def test_history_is_sent_at_once_and_the_stream_goes_on_live(kafka):
    process = start(kafka.brokers, "--history", "100", "--rate", "50", "--users", "400")
    started = time.time()
    while len(read(kafka, EVENTS)) < 5200:
        assert time.time() < started + PATIENCE
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    events = read(kafka, EVENTS)
    assert process.returncode == 0, err
    assert out.startswith(f"sent {len(events):,} user-events and {len(read(kafka, PURCHASES)):,} purchases")
    assert all(json.loads(message.value())["timestamp"] <= message.timestamp()[1] / 1000 for message in events)
    live = [message.timestamp()[1] / 1000 - json.loads(message.value())["timestamp"] for message in events]
    assert sum(delay < 5 for delay in live) > 150


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(kafka, number):
    process = start(kafka.brokers, "--rate", "100", "--users", "1000")
    while not read(kafka, EVENTS):
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert out.startswith(f"sent {len(read(kafka, EVENTS)):,} user-events")
    assert err == ""


def test_brokers_that_go_away_are_waited_for(kafka):
    process = start(kafka.brokers, "--rate", "200", "--users", "2000")
    while not read(kafka, EVENTS):
        assert process.poll() is None
    kafka.stop_brokers()
    assert process.stderr.readline() == "no Kafka broker answers; waiting for one\n"
    kafka.start_brokers()
    assert process.stderr.readline() == "Kafka is back\n"
    before = len(read(kafka, EVENTS))
    while len(read(kafka, EVENTS)) < before + 200:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    events = values(read(kafka, EVENTS))
    assert out.startswith(f"sent {len(events):,} user-events")
    assert len(events) == len({json.dumps(event) for event in events})


def test_a_recorded_file_is_sent_in_order_of_time_with_its_columns_mapped(kafka, tmp_path: Path):
    path = tmp_path / "clicks.csv.gz"
    lines = ["visitor,visit,event,timestamp"]
    for second in reversed(range(300)):
        lines.append(f"user_{second % 7},v{second // 7},view,2024-03-13 12:{second // 60:02}:{second % 60:02}")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    mapping = "--map user_id=visitor --map event_type=event --map recorded_session=visit --set page_id=0".split()
    status, out, err = run(kafka.brokers, str(path), "--speed", "max", *mapping)
    events = values(read(kafka, EVENTS))
    assert (status, err) == (0, "")
    assert out.startswith("sent 300 user-events and 0 purchases")
    assert sorted(event["timestamp"] for event in events) == [NOON + second for second in range(300)]
    assert {event["original_user_id"] for event in events} == {f"user_{number}" for number in range(7)}
    for user in {event["user_id"] for event in events}:
        times = [event["timestamp"] for event in events if event["user_id"] == user]
        assert times == sorted(times)


def test_a_recorded_file_shifted_to_now_ends_now(kafka, tmp_path: Path):
    path = tmp_path / "clicks.jsonl"
    event = {"event_type": "click", "user_id": 1, "page_id": 1}
    path.write_text("\n".join(json.dumps(event | {"timestamp": NOON + second}) for second in (0, 20, 1000)))
    assert run(kafka.brokers, str(path), "--speed", "max", "--shift-to-now")[0] == 0
    first, second, third = (row["timestamp"] for row in values(read(kafka, EVENTS)))
    assert (second - first, third - first) == (20, 1000)
    assert time.time() - PATIENCE < third <= time.time()


def test_bad_lines_are_reported_and_the_exit_status_is_1(kafka, tmp_path: Path):
    path = tmp_path / "clicks.csv"
    path.write_text(f"event_type,user_id,page_id,timestamp\nclick,1,1,{NOON}\nclick,,1,{NOON}\nclick,1,1,soon\n")
    status, out, err = run(kafka.brokers, str(path), "--speed", "max")
    assert status == 1
    assert out.startswith("sent 1 user-events and 0 purchases")
    assert out.endswith(f"; 2 lines of {path} were left out\n")
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        [f"{path}:3", "no user_id"],
        [f"{path}:4", "'soon' is not a time"],
    ]


def test_a_missing_column_is_an_error_before_anything_is_sent(kafka, tmp_path: Path):
    path = tmp_path / "clicks.csv"
    path.write_text("event,user_id,page_id,timestamp\n")
    status, out, err = run(kafka.brokers, str(path), "--map", "event_type=kind")
    assert (status, out) == (1, "")
    assert err == f"producer: {path} has no column 'kind' for event_type; it has event, user_id, page_id, timestamp\n"


def test_refused_rows_are_counted_and_the_exit_status_is_1(kafka, tmp_path: Path):
    path = tmp_path / "clicks.jsonl"
    event = {"event_type": "click", "user_id": 1, "page_id": 1, "timestamp": NOON}
    path.write_text(json.dumps(event) + "\n" + json.dumps(event | {"note": "x" * 2_000_000}))
    status, out, _ = run(kafka.brokers, str(path), "--speed", "max")
    assert status == 1
    assert out.startswith("sent 1 user-events and 0 purchases")
    assert "; 1 rows were not delivered: " in out


def test_existing_topics_are_not_changed(kafka):
    assert run(kafka.brokers, "--create-topics")[:2] == (0, "all topics are there\n")


def test_no_broker_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(topics, "_PATIENCE", 0.1)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["producer"])
    monkeypatch.setenv("VISITS_BROKERS", "localhost:1")
    assert main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("producer: no Kafka broker answers at localhost:1: ")
    assert err.count("\n") == 1


def test_a_wrong_client_property_is_one_clear_line():
    process = subprocess.run(
        [sys.executable, "-m", "producer"],
        env=os.environ | {"VISITS_KAFKA_NO_SUCH_THING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr == 'producer: wrong Kafka client property: No such configuration property: "no.such.thing"\n'
