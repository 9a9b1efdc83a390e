"""Mapping files: a mistake in one is told in one line that says where and what."""

import pytest

from dataflow.clickstream.mapping.spec import load, parse, preset_names
from dataflow.streaming.errors import UserError

RIGHT = """
[events]
topics = ["clicks"]
user = "userId"
type = ["action", "kind"]
time = "ts"
"""


def test_a_right_file_says_where_each_field_is():
    mapping = parse(RIGHT)
    assert mapping.events.topic_names == ("clicks",)
    assert [path.text for path in mapping.events.paths("type")] == ["action", "kind"]
    assert mapping.events.paths("page") == ()
    assert mapping.page_views == {"page-view"}
    assert mapping.purchase_kinds == {"purchase"}
    assert mapping.purchases is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[events", "not TOML: "),
        ("", "events is missing"),
        ("[events]", "[events] topics is missing"),
        (RIGHT + 'usr = "x"', "[events] there is no usr; did you mean user?"),
        (RIGHT + "[purchase]", "there is no purchase; did you mean purchases?"),
        (RIGHT + "page = 5", "[events] page: expected `str | array`, got `int`"),
        (RIGHT.replace('user = "userId"', ""), '[events] has no user; say where it is in a message, or user = "=..."'),
        (RIGHT + 'page = "a..b"', "[events] page: a..b: no name"),
        (RIGHT + 'time_unit = "h"', "[events] time_unit: invalid enum value 'h'"),
        (RIGHT + 'time_zone = "Mars"', "[events] time_zone: there is no zone 'Mars'"),
        (
            RIGHT + 'purchases = ["buy"]\nignore = ["buy"]',
            "[events]: 'buy' is in two of page_views, purchases and ignore",
        ),
        (RIGHT + 'format = "xml"', "[events] format: invalid enum value 'xml'"),
        (RIGHT + 'decode = "json:nothing"', "[events] decode: 'json:nothing' is no function as module:function"),
        (RIGHT.replace('"clicks"', '"a b"'), "[events] topics: 'a b' is no topic's name"),
        (RIGHT.replace('"clicks"', ""), "[events] topics: 1 to 16 names"),
        (RIGHT + '[purchases]\ntopics = "paid"\nuser = "u"\ntime = "t"', "[purchases] has no amount"),
        (RIGHT + 'each = "batches[0].events"', "[events] each: names of fields such as data.events"),
        (
            RIGHT + '[purchases]\ntopics = "paid"\nuser = "u"\ntime = "t"\namount = "a"\nonly = ["c"]',
            "[purchases] only and ignore need type",
        ),
        (
            RIGHT.replace('"clicks"', '"clicks", ' + ", ".join(f'"c{n}"' for n in range(9)))
            + '[purchases]\nuser = "u"\ntime = "t"\namount = "a"\n'
            + f"topics = {[f'p{n}' for n in range(7)] + ['clicks']}",
            "where a topic is in both tables, there are at most 16 topics",
        ),
        (RIGHT + '[output]\nsession_id = "x"\namount = "x"', "[output]: session_id and amount have one name"),
    ],
)
def test_a_wrong_file_is_refused_with_where_and_what(text, problem):
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert str(refused.value).startswith(problem)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told_with_the_presets(tmp_path):
    with pytest.raises(
        UserError, match=r"^the mapping nothing.toml cannot be read: No such file.*; presets are amplitude, "
    ):
        load("nothing.toml")
    file = tmp_path / "wrong.toml"
    file.write_text("[events]")
    with pytest.raises(UserError, match=r"wrong.toml: \[events\] topics is missing$"):
        load(str(file))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_right(name):
    assert load(name).events.page_views


def test_what_decides_how_messages_are_read_is_told_apart_from_lists_of_kinds_and_numbers():
    kinds = RIGHT + 'page_views = ["view"]\nignore = ["ping"]\n[rules]\nsession_gap = 1800'
    assert parse(kinds).reading == parse(RIGHT).reading
    assert parse(RIGHT + 'page = "p"').reading != parse(RIGHT).reading
    assert parse(RIGHT.replace("clicks", "views")).reading != parse(RIGHT).reading
    assert parse(kinds).kinds == {
        "events.page_views": "view",
        "events.purchases": "purchase",
        "events.ignore": "ping",
        "events.only": "",
    }
