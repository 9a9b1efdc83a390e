"""The JSON Schemas that ship with the package are those of the rows that the job writes."""

import pytest
from support.jobs import JOB, a_log, write
from support.logs import NOON
from support.programs import environment, said_only_totals
from support.schemas import SCHEMAS, parsed, problems, schema_of

from dataflow.clickstream.outputs import OUTPUTS, SESSIONS, rejected
from dataflow.tools.verify import Topics


def test_every_output_has_a_schema():
    assert {file.stem for file in SCHEMAS.iterdir()} == {spec.name for spec in OUTPUTS}
    for spec in OUTPUTS:
        schema = schema_of(spec.name)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert set(schema["required"]) <= schema["properties"].keys()


def test_the_rows_of_a_job_are_as_the_schemas_say(embedded_settings, programs):
    write(embedded_settings.brokers, a_log(embedded_settings, NOON, keyed=True, events=400))
    assert said_only_totals(programs.run(*JOB, **environment(embedded_settings, stop_at_end="1")))
    topics = Topics(embedded_settings)
    for spec in OUTPUTS:
        schema = schema_of(spec.name)
        rows = list(topics.read(embedded_settings.topic(spec)))
        assert rows, spec.name
        for message in rows:
            if spec.encode is rejected:
                row = {name: value.decode() for name, value in message.headers()}
            else:
                row = parsed(message.value())
            assert problems(row, schema) == [], (spec.name, row)
            if spec is SESSIONS:
                assert list(row) == list(schema["properties"])
            elif spec.name == "suspicious-visits" or spec.encode is rejected:
                assert row.keys() <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", "5990E35E960EB8E25B3B0916DD0D0C6A"),
        ("started_at", "2024-03-13T12:00:00Z"),
        ("events", 0),
        ("events", "3"),
        ("suspicious", False),
        ("kinds", {"click": "1"}),
        ("kinds", {"click": 0}),
        ("first_page", []),
    ],
)
def test_a_row_of_another_form_is_told_from_a_right_one(field, value):
    row = {
        "session_id": "5990e35e960eb8e25b3b0916dd0d0c6a",
        "user_id": 7,
        "started_at": "2024-03-13T12:00:00.000000Z",
        "ended_at": "2024-03-13T12:00:00.000000Z",
        "duration": 0,
        "events": 1,
        "page_views": 0,
        "purchases": 0,
        "amount": 0,
        "revenue": 0,
        "first_page": 1,
        "last_page": 1,
        "suspicious": 2,
        "kinds": {"click": 1},
    }
    schema = schema_of("sessions")
    assert problems(row, schema) == []
    assert problems({**row, field: value}, schema)
    del row[field]
    assert problems(row, schema)
