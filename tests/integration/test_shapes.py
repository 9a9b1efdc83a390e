"""Click streams in other people's shapes: a job with a mapping gives the sessions that a person reading them would say."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from support.jobs import JOB, differences, with_mapping, write
from support.paths import ROOT
from support.programs import environment
from support.schemas import parsed, problems, schema_of

from dataflow.tools.verify import Topics, out_of_order, shape_of

SHAPES = ROOT / "tests" / "data" / "shapes"


class Shape(NamedTuple):
    """A folder of messages, how they are mapped, and the sessions in them: user, visits and amount, each as JSON."""

    mapping: str  # a preset, or the text of a file
    files: dict[str, str]  # by topic
    sessions: list[tuple[str, int, str]]
    key: bytes | None = None  # of all messages
    clicks: tuple[str, ...] = ()  # messages of `user-events` beside them


OWN = """
[events]
topics = "clicks"
user   = ["user_id", "@key"]
type   = "event_type"
page   = "page_id"
time   = "timestamp"
amount = "amount"
"""
PAID = """
[purchases]
topics = "paid"
user   = "user_id"
page   = "page_id"
time   = "timestamp"
amount = "amount"
"""
CLICK = '{"event_type":"purchase","user_id":42,"page_id":7,"timestamp":1700000015}'
DEBEZIUM = (ROOT / "dataflow/clickstream/mapping/presets/debezium.toml").read_text()

FOLDERS = {
    "amount-inside": Shape(OWN, {"clicks": "events.jsonl"}, [("5", 2, "25.0")]),
    "amount-string": Shape(OWN + PAID, {"clicks": "events.jsonl", "paid": "purchases.jsonl"}, [("5", 1, "25.00")]),
    "amplitude": Shape(
        "amplitude", {"amplitude": "export.jsonl"}, [('"b9c1a7a3-9d5b-4d0e-8a7e-0f5d1c7d1e11R"', 2, "25.0")]
    ),
    "cloudevents-structured": Shape("cloudevents", {"cloudevents": "events.jsonl"}, [('"cust_9d23"', 2, "25.00")]),
    "debezium-orders": Shape(
        DEBEZIUM + 'amount_encoding = "base64"\namount_decimals = 2\n',
        {"shop.public.orders": "orders.jsonl"},
        [("42", 1, "25.00")],
        clicks=(CLICK,),
    ),
    "debezium-orders: text": Shape(
        "debezium", {"shop.public.orders": "orders-noschema-string.jsonl"}, [("42", 1, "25.00")], clicks=(CLICK,)
    ),
    "debezium-orders: unwrapped": Shape(
        "debezium", {"shop.public.orders": "orders-unwrapped.jsonl"}, [("42", 1, "25.00")], clicks=(CLICK,)
    ),
    "float-id": Shape(OWN, {"clicks": "events.jsonl"}, [("5.0", 1, "0")]),
    "ga4-bigquery": Shape("ga4", {"ga4": "events.jsonl"}, [('"1826484395.1699999000"', 2, "25.0")]),
    "iso-timestamp": Shape(OWN, {"clicks": "events.jsonl"}, [("5", 1, "0")]),
    "key-only-user": Shape(OWN, {"clicks": "events.jsonl"}, [('"5"', 2, "0")], key=b"5"),
    "ms-timestamp": Shape(OWN, {"clicks": "events.jsonl"}, [("5", 1, "0")]),
    "null-page": Shape(OWN, {"clicks": "events.jsonl"}, [("5", 1, "0")]),
    "one-topic-both": Shape(OWN + PAID.replace('"paid"', '"clicks"'), {"clicks": "events.jsonl"}, [("5", 1, "25.0")]),
    "other-names": Shape(
        OWN + 'page_views = ["page_view"]\npurchases = ["Order Completed"]\n' + PAID,
        {"clicks": "events.jsonl", "paid": "purchases.jsonl"},
        [("5", 2, "25.0")],
    ),
    "rees46": Shape("rees46", {"rees46": "2019-Oct.csv"}, [('"541312140"', 3, "35.79")]),
    "rees46: no UTC": Shape("rees46", {"rees46": "2019-Oct.no-UTC.csv"}, [('"541312140"', 3, "35.79")]),
    "retailrocket": Shape("retailrocket", {"retailrocket": "events.csv"}, [('"257597"', 3, "0")]),
    "segment": Shape(
        "segment",
        {"segment": "events.jsonl"},
        [('"507f191e-810c-4972-9de8-60ea11112222"', 3, "25.0"), ('"97980cfe-a0a8-4c7d-8f0a-bbbbccccdddd"', 1, "0")],
    ),
    "snowplow-json": Shape(
        "snowplow", {"snowplow": "events.jsonl"}, [('"bc2e92ec-6c20-4a14-b46a-111122223333"', 3, "25.0")]
    ),
    "string-id": Shape(OWN, {"clicks": "events.jsonl"}, [('"u_97980cfe"', 1, "0")]),
}


def messages_in(file: Path) -> list[bytes | None]:
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            return [json.dumps(row).encode() for row in csv.DictReader(lines)]
    return [None if line == b"null" else line for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_job_gives_the_sessions_that_a_person_would_say(name, embedded_kafka, embedded_settings, programs, tmp_path):
    shape, suffix = FOLDERS[name], embedded_settings.group.removeprefix("visits-")
    mapping = shape.mapping
    if "\n" not in mapping:
        mapping = (ROOT / f"dataflow/clickstream/mapping/presets/{mapping}.toml").read_text()
    for topic in {*shape.files, "user-events"}:  # every test has topics of its own
        mapping = mapping.replace(f'"{topic}"', f'"{topic}-{suffix}"')
        if topic != "user-events":
            embedded_kafka.create_topic(f"{topic}-{suffix}", 3)
    (tmp_path / "mapping.toml").write_text(mapping)
    for topic, file in shape.files.items():
        messages = messages_in(SHAPES / name.partition(":")[0] / file)
        write(embedded_settings.brokers, [(f"{topic}-{suffix}", 0, shape.key, message) for message in messages])
    write(embedded_settings.brokers, [(f"user-events-{suffix}", 0, None, click.encode()) for click in shape.clicks])

    settings = with_mapping(embedded_settings, tmp_path / "mapping.toml")
    status, lines = programs.run(*JOB, **environment(settings, stop_at_end="1"))

    assert status == 0, lines
    topics = Topics(settings)
    assert differences(settings, topics) == []
    assert out_of_order(topics, settings.topic_visits, shape_of(settings)) == 0
    visits = list(topics.read(settings.topic_visits))
    found = Counter(
        (
            message.key().decode(),
            json.loads(message.value())["session_id"],
            message.value().rpartition(b'"amount":')[2][:-1],
        )
        for message in visits
    )
    assert sorted((user, count, amount.decode()) for (user, _, amount), count in found.items()) == sorted(
        (json.loads(user) if user.startswith('"') else user, count, amount) for user, count, amount in shape.sessions
    )
    rows = [parsed(message.value()) for message in topics.read(settings.topic_sessions)]
    assert all(problems(row, schema_of("sessions")) == [] for row in rows)
    assert sorted(
        (json.dumps(row["user_id"], default=str), row["events"], str(row["amount"])) for row in rows
    ) == sorted(
        (user, count, amount) if user != "5.0" else ('"5.0"', count, amount) for user, count, amount in shape.sessions
    )
    assert all(row["revenue"] == row["amount"] for row in rows)  # none has more than one amount
    assert all(sum(row["kinds"].values()) == row["events"] for row in rows)
    for topic in settings.topic_dead_letters, settings.topic_unmatched_purchases:
        assert [message.value() for message in topics.read(topic)] == []
