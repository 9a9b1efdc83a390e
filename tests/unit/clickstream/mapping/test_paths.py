"""Paths: what they are written like, and what they lead to."""

import pytest

from dataflow.clickstream.mapping.paths import Document, parse, text_of

MESSAGE = b"""{
    "user": {"id": "u 1", "seen": null, "empty": ""},
    "a.b": {"c": 1.50},
    "items": [{"sku": "x"}, {"sku": "y"}],
    "params": [{"key": "page", "value": {"text": "/shoes"}}, {"key": "n", "value": {"number": 7}}],
    "inner": "{\\"deep\\": [10, 20]}",
    "[Odd] name": true
}"""


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("user.id", "u 1"),
        ('"a.b".c', "1.50"),
        ("items[0].sku", "x"),
        ("items[-1].sku", "y"),
        ("params[key=page].value.text", "/shoes"),
        ('params[key="n"].value.number', "7"),
        ("inner.deep[1]", "20"),
        ('"[Odd] name"', "true"),
        ("user.empty", ""),
    ],
)
def test_a_path_leads_to_a_value_whose_text_is_as_it_was_written(path, text):
    found = Document(MESSAGE).find(parse(path).steps)
    assert text_of(found) == text


@pytest.mark.parametrize("path", ["user.seen", "user", "items"])
def test_null_objects_and_arrays_have_no_text(path):
    assert text_of(Document(MESSAGE).find(parse(path).steps)) is None


@pytest.mark.parametrize(
    "path",
    ["nobody", "user.id.x", "user[0]", "items[2]", "items[-3]", "items.sku", "params[key=x].value", "user.seen.x"],
)
def test_a_path_that_leads_nowhere_finds_nothing(path):
    assert Document(MESSAGE).find(parse(path).steps) is None


@pytest.mark.parametrize(
    ("path", "root", "steps"),
    [
        ("=page-view", "=", ("page-view",)),
        ("@key", "@key", ()),
        ("@key.id", "@key", ("id",)),
        ("@timestamp", "@timestamp", ()),
        ("@header.source", "@header", ("source",)),
        ("@message.client_id", "@message", ("client_id",)),
    ],
)
def test_other_paths_begin_at_the_record_or_are_a_constant(path, root, steps):
    assert parse(path)[:2] == (root, steps)


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a[", "a[x]", "a[0]b", "@foo", "@header", "@timestamp.x"])
def test_what_is_no_path_is_refused_with_a_reason(path):
    with pytest.raises(ValueError, match=r".+"):
        parse(path)
