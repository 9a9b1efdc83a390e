"""`try`: what a mapping makes of messages, and the mapping proposed for them."""

import csv
import gzip
import json

import pytest
from support.paths import ROOT

from dataflow.clickstream.inputs import mapped_inputs
from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.mapping.spec import load, parse
from dataflow.streaming.errors import UserError
from dataflow.tools.try_mapping.command import advice, attempt, main
from dataflow.tools.try_mapping.sample import from_file
from dataflow.tools.try_mapping.suggest import suggestion

SHAPES = ROOT / "tests" / "data" / "shapes"
SEGMENT = SHAPES / "segment" / "events.jsonl"


def documents(name: str) -> list:
    file = SHAPES / name
    if file.suffix == ".csv":
        return list(csv.DictReader(file.open(newline="")))
    return [json.loads(line) for line in file.read_text().splitlines() if line != "null"]


@pytest.mark.parametrize(
    ("name", "user", "time", "kind", "page", "amount"),
    [
        (
            "segment/events.jsonl",
            ["anonymousId"],
            ["timestamp"],
            ["event", "type"],
            "properties.path",
            "properties.revenue",
        ),
        (
            "ga4-bigquery/events.jsonl",
            ["user_pseudo_id"],
            ["event_timestamp"],
            ["event_name"],
            "event_params[key=page_location].value.string_value",
            "ecommerce.purchase_revenue",
        ),
        (
            "amplitude/export.jsonl",
            ["device_id"],
            ["event_time"],
            ["event_type"],
            'event_properties."[Amplitude] Page URL"',
            "event_properties.$revenue",
        ),
        (
            "snowplow-json/events.jsonl",
            ["domain_userid"],
            ["derived_tstamp"],
            ["event_name"],
            "page_urlpath",
            "tr_total",
        ),
        (
            "cloudevents-structured/events.jsonl",
            ["data.customerId"],
            ["time"],
            ["type"],
            "data.pageId",
            "data.totalCents",
        ),
        ("rees46/2019-Oct.csv", ["user_id"], ["event_time"], ["event_type"], "product_id", "price"),
    ],
)
def test_a_mapping_is_proposed_by_the_names_and_values_of_fields(name, user, time, kind, page, amount):
    events = parse(suggestion("topic", documents(name))).events
    written = {
        field: [path.text for path in events.paths(field)] for field in ("user", "time", "type", "page", "amount")
    }
    assert (written["user"], written["time"], written["type"]) == (user, time, kind)
    assert (written["page"][0], written["amount"][0]) == (page, amount)


def test_kinds_are_proposed_by_their_names_or_by_having_an_amount():
    segment = parse(suggestion("t", documents("segment/events.jsonl"))).events
    assert (segment.page_views, segment.purchases) == (["page"], ["Order Completed"])
    amplitude = parse(suggestion("t", documents("amplitude/export.jsonl"))).events
    assert (amplitude.page_views, amplitude.purchases) == (["[Amplitude] Page Viewed"], ["revenue_amount"])


def test_a_price_in_cents_is_proposed_as_such():
    assert parse(suggestion("t", documents("cloudevents-structured/events.jsonl"))).events.amount_decimals == 2


def test_messages_with_an_amount_and_no_kind_are_proposed_as_purchase_rows():
    text = suggestion("paid", [{"customer": "c1", "paid_at": "2023-11-14T22:13:20Z", "total": "9.50"}])
    assert text.startswith('[purchases]\ntopics     = ["paid"]\n')


def test_messages_that_hold_several_events_are_taken_apart():
    session = {"session": 7, "events": [{"aid": 1, "ts": 1_700_000_000_000, "type": "clicks"}] * 3}
    assert '\neach       = "events"\n' in suggestion("otto", [session])
    assert '\neach       = "[]"\n' in suggestion("otto", [session["events"]])


def test_what_cannot_be_proposed_is_left_as_a_comment():
    assert "# user     = ?  not found" in suggestion("t", [{"x": 1}])


def test_a_trial_has_the_rows_the_kinds_and_what_is_wrong():
    inputs = mapped_inputs(load("segment"))
    messages = from_file(SEGMENT, "segment", 100)
    trial = attempt(messages, inputs)
    assert (len(trial.rows), trial.ignored, dict(trial.problems)) == (4, 1, {})
    assert trial.kinds == {"page": 2, "Product Viewed": 1, "Order Completed": 1}
    assert advice(trial, Kinds(frozenset({"page"}), frozenset({"Order Completed"}))) == []
    assert [line.partition(",")[0] for line in advice(trial, Kinds(frozenset(), frozenset()))] == [
        "no kind is a page view",
        "no kind is a purchase",
    ]


def test_a_file_may_be_lines_or_csv_and_gzipped(tmp_path):
    packed = tmp_path / "clicks.csv.gz"
    packed.write_bytes(gzip.compress((SHAPES / "rees46" / "2019-Oct.csv").read_bytes()))
    assert [json.loads(message.value())["event_type"] for message in from_file(packed, "t", 2)] == ["view", "cart"]
    assert from_file(SHAPES / "debezium-orders" / "orders-noschema-string.jsonl", "t", 5)[1].value() is None
    with pytest.raises(UserError, match=r"nothing.jsonl cannot be read: No such file or directory$"):
        from_file(tmp_path / "nothing.jsonl", "t", 1)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("VISITS_MAPPING", "VISITS_BROKERS"):
        monkeypatch.delenv(name, raising=False)


def test_the_command_shows_a_table_and_exits_with_0_if_all_is_read(alone, capsys):
    assert main([str(SEGMENT), "--mapping", "segment"]) == 0
    shown = capsys.readouterr().out
    assert "Order Completed  (purchase)" in shown
    assert "1  left out, as the mapping says" in shown


def test_the_command_says_what_cannot_be_read_and_exits_with_1(alone, capsys):
    assert main([str(SEGMENT)]) == 1
    shown = capsys.readouterr().out
    assert "5  unreadable: Expected `float`, got `str` - at `$.timestamp`" in shown
    assert "--suggest proposes a mapping" in shown


def test_what_the_command_proposes_reads_every_message(alone, capsys, tmp_path):
    assert main([str(SEGMENT), "--suggest"]) == 0
    (tmp_path / "mapping.toml").write_text(capsys.readouterr().out)
    assert main([str(SEGMENT), "--mapping", "mapping.toml"]) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--mapping", "nothing.toml"], "visits: the mapping nothing.toml cannot be read: "),
        (
            ["--mapping", "segment", "--topic", "other"],
            "visits: other is not a topic of the mapping; these are segment",
        ),
    ],
)
def test_a_mistake_is_one_line(alone, arguments, line):
    with pytest.raises(SystemExit) as ended:
        main([str(SEGMENT), *arguments])
    assert str(ended.value).startswith(line)
