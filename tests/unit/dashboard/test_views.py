"""Views of the job at one moment, for the page."""

import json

import pytest
from support.feeds import feed_of
from support.logs import EVENTS, NOON

from dataflow.dashboard.views import PARTITIONS, Rates


def test_rates_are_of_the_last_seconds_with_a_client():
    rates = Rates()
    assert [each.a_second for each in rates.take(100, {"clicks": 50})] == [None]
    assert [(each.total, each.a_second) for each in rates.take(102, {"clicks": 70})] == [(70, 10)]
    assert [each.a_second for each in rates.take(103, {"clicks": 70, "more": 3})] == [pytest.approx(20 / 3), 1]
    assert [each.a_second for each in rates.take(200, {"clicks": 900})] == [None]  # of an hour ago says nothing of now


def test_a_view_has_each_partition_and_which_blocks_the_watermark(probe):
    view = feed_of(probe).view()
    first, second = view.partitions
    assert (first.source, first.offset, first.end, first.to_read, first.reached) == ("clicks/0", 4, 10, 6, NOON)
    assert (first.holds, first.why) == (
        True,
        "is being read: 6 rows to its end, it is at 2024-03-13 12:00:00",
    )
    assert (second.offset, second.to_read, second.reached, second.holds) == (None, None, NOON + 1, False)
    assert view.holding == ["clicks/0"]
    assert (view.state, view.state_why) == ("catching up", "clicks/0 has not been read to its end yet")


def test_a_view_of_many_partitions_shows_those_that_matter(probe):
    view = feed_of(probe, partitions=PARTITIONS + 7).view()
    assert len(view.partitions) == PARTITIONS
    assert view.more_partitions == 7
    assert view.partitions[0].source == "clicks/0"


def test_a_view_names_its_process_and_shards(probe):
    probe.here = {1, 4}
    view = feed_of(probe, place=(1, 3)).view()
    assert (view.process, view.processes, view.shards, view.all_shards) == (1, 3, [1, 4], 8)


def test_a_view_is_made_once_for_all_clients(probe):
    taken = feed_of(probe)
    assert taken.view() is taken.view()


def test_a_user_of_another_process_differs_from_an_unknown_user(probe):
    shard = probe.shard_of(b"7")
    with feed_of(probe).stream(b"7") as news:
        assert json.loads(news())["followed"]["here"] is False
        probe.here = {shard}
        assert {"user": "7", "shard": shard, "here": True}.items() <= json.loads(news())["followed"].items()


def test_lists_are_sent_only_when_they_have_changed(probe, job):
    with feed_of(probe).stream(None) as news:
        assert json.loads(news())["lists"]["late"] == []
        assert "lists" not in json.loads(news())
        job.read(EVENTS, b"junk", now=0)
        assert len(json.loads(news())["lists"]["dead_letters"]) == 1
        assert "lists" not in json.loads(news())
