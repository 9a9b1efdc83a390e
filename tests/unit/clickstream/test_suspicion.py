"""Which sessions are suspicious, and by which rule."""

import pytest

from dataflow.clickstream.records import Event
from dataflow.clickstream.suspicion import suspicion_of


def seen(time: int, event_type: str = "page-view") -> Event:
    return Event(time, b"1", b"", time, 1, event_type)


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        pytest.param(["page-view"], None, id="one page view"),
        pytest.param(["click"], 2, id="no page view"),
        pytest.param(
            ["click", "purchase", "search", "Page-View", "page-view "], 2, id="five events, none quite a page view"
        ),
        pytest.param(["click", "click", "click", "click", "page-view"], None, id="five events, the last a page view"),
        pytest.param(["page-view"] * 5, None, id="five page views"),
        pytest.param(["page-view"] * 6, 1, id="six page views"),
        pytest.param(["click"] * 6, 1, id="six events without a page view are one case, the first"),
    ],
)
def test_more_than_5_events_or_no_page_view_makes_a_session_suspicious(types, kind):
    assert suspicion_of([seen(100, event_type) for event_type in types], {"max_events": 5, "min_page_views": 1}) == kind


@pytest.mark.parametrize(
    ("fewest", "kind"), [(0, None), (1, None), (2, None), (3, 2)], ids="none asked for,one,two,three".split(",")
)
def test_min_page_views_can_be_set(fewest, kind):
    assert suspicion_of([seen(100), seen(100, "click"), seen(100)], {"max_events": 5, "min_page_views": fewest}) == kind


def test_max_events_can_be_set():
    assert suspicion_of([seen(100)], {"max_events": 1, "min_page_views": 1}) is None
    assert suspicion_of([seen(100), seen(100)], {"max_events": 1, "min_page_views": 1}) == 1
