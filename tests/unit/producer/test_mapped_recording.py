"""Recorded files in the shape of a mapping are sent line by line, as they are."""

import json

import pytest
from support.paths import ROOT

from dataflow.clickstream.inputs import mapped_inputs
from dataflow.clickstream.mapping.spec import load, parse
from dataflow.streaming.errors import UserError
from producer.mapped_recording import MappedRecording
from producer.rows import Row

SHAPES = ROOT / "tests" / "data" / "shapes"


def read(file, mapping) -> tuple[list[Row], list[tuple[int, str]]]:
    complaints: list[tuple[int, str]] = []
    rows = MappedRecording(file, mapped_inputs(mapping)).rows(lambda *complaint: complaints.append(complaint))
    return list(rows), complaints


def test_json_lines_keep_their_bytes_and_kinds_to_ignore_are_left_out():
    file = SHAPES / "segment" / "events.jsonl"
    rows, complaints = read(file, load("segment"))
    lines = file.read_bytes().splitlines()
    assert [row.value for row in rows] == [line for line in lines if b'"identify"' not in line]
    assert rows[0][:3] == (1_700_000_000.295, False, "507f191e-810c-4972-9de8-60ea11112222")
    assert complaints == []


def test_a_line_of_csv_is_an_object_of_texts():
    rows, _ = read(SHAPES / "rees46" / "2019-Oct.csv", load("rees46"))
    assert [json.loads(row.value)["price"] for row in rows] == ["35.79"] * 3


BOTH = """
[events]
topics = "clicks"
user = "user"
type = "kind"
time = "at"
[purchases]
topics = "paid"
user = "user"
time = "at"
amount = "amount"
"""


def test_a_line_that_is_no_event_is_tried_as_a_purchase_row(tmp_path):
    file = tmp_path / "both.jsonl"
    file.write_text('{"user":"u","kind":"buy","at":1}\n{"user":"u","amount":5,"at":2}\n{"user":"u","at":3}\n')
    rows, complaints = read(file, parse(BOTH))
    assert [(row.time, row.purchase) for row in rows] == [(1.0, False), (2.0, True)]
    assert complaints == [(3, "no type: none of kind")]


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"^cannot read .*nothing.csv: No such file or directory$"):
        read(tmp_path / "nothing.csv", load("rees46"))
