"""A followed user's swim lane."""

from collections.abc import Callable

from support.logs import EVENTS, NOON, PURCHASES, Job, event, purchase, session_id
from support.mapped import rules_of

from dataflow.clickstream.inputs import mapped_inputs
from dataflow.clickstream.mapping.spec import parse
from dataflow.dashboard.probe import SHOWN, DashboardProbe
from dataflow.dashboard.swim_lane import SwimLane

OTHER = "user-events/1"


def lane(follow: Callable[[], SwimLane]) -> tuple:
    """What is drawn, in short: times after noon."""
    drawn = follow()
    return (
        [(each.time - NOON, each.type, each.late) for each in drawn.hits],
        [(each.time - NOON, each.amount, each.fate) for each in drawn.purchases],
        [(each.event - NOON, each.paid - NOON, each.taken) for each in drawn.matches],
        [
            (each.start - NOON, each.end - NOON, each.events, each.amount, each.closes is None)
            for each in drawn.sessions
        ],
    )


def test_a_lane_shows_sessions_opened_before_anyone_followed(probe, job):
    job.read(EVENTS, event(0), event(3, "purchase", page=2), event(4, user=2), now=4)
    job.read(PURCHASES, purchase(2, "7.50", page=9), purchase(5, "9.90", page=2), now=5)
    with probe.follow(b"1") as follow:
        assert lane(follow) == (
            [(0, "page-view", False), (3, "purchase", False)],
            [(2, "7.50", "waiting"), (5, "9.90", "waiting")],
            [],
            [(0, 3, 2, "0", False)],
        )
        for source in (EVENTS, PURCHASES):
            job.is_at_its_end(source, asof=16)  # the watermark passes 10
        assert lane(follow) == (
            [(0, "page-view", False), (3, "purchase", False)],
            [(2, "7.50", "unmatched"), (5, "9.90", "matched")],
            [(3, 5, True)],  # that of the same page is taken
            [(0, 3, 2, "9.90", False)],
        )
        [session] = follow().sessions
        assert (session.id, session.closes) == (session_id(1, 0), NOON + 23)


def test_a_lane_grows_and_closes(probe, job):
    with probe.follow(b"1") as follow:
        assert lane(follow) == ([], [], [], [])
        job.read(EVENTS, event(0), now=0)
        assert lane(follow)[3] == [(0, 0, 1, "0", False)]
        job.read(EVENTS, event(15, "purchase"), now=15)
        job.read(PURCHASES, purchase(14, 2), now=15)
        assert lane(follow)[3] == [(0, 15, 2, "0", False)]
        assert lane(follow)[1] == [(14, "2", "waiting")]
        job.read(PURCHASES, purchase(41, 3), now=41)
        job.read(EVENTS, event(26, user=2), now=26)  # the watermark is at 21, and has passed the stretch by the window
        assert lane(follow)[3] == [(0, 15, 2, "2", False)]
        assert lane(follow)[1] == [(14, "2", "matched"), (41, "3", "waiting")]
        job.read(EVENTS, event(50), now=50)  # the watermark is at 36
        assert lane(follow)[3] == [(0, 15, 2, "2", True), (50, 50, 1, "0", False)]
        job.end()
        assert lane(follow) == (
            [(0, "page-view", False), (15, "purchase", False), (50, "page-view", False)],
            [(14, "2", "matched"), (41, "3", "unmatched")],
            [(15, 14, True)],
            [(0, 15, 2, "2", True), (50, 50, 1, "0", True)],
        )


def test_a_lane_shows_which_of_two_purchases_gives_the_amount(probe, job):
    with probe.follow(b"1") as follow:
        job.read(EVENTS, event(0, "purchase"), event(4, "purchase"), now=4)
        job.read(PURCHASES, purchase(3, 10), purchase(7, 20), now=7)
        assert lane(follow)[1:3] == ([(3, "10", "waiting"), (7, "20", "waiting")], [])
        for source in (EVENTS, PURCHASES):
            job.is_at_its_end(source, asof=18)
        assert lane(follow)[1:3] == ([(3, "10", "matched"), (7, "20", "matched")], [(0, 3, False), (4, 7, True)])


def test_a_lane_shows_sessions_that_become_one(probe):
    job = Job({EVENTS: [], OTHER: [], PURCHASES: []}, probe=probe)
    with probe.follow(b"1") as follow:
        job.read(EVENTS, event(0), event(30), now=30)
        assert [(start, end) for start, end, *_ in lane(follow)[3]] == [(0, 0), (30, 30)]
        job.read(OTHER, event(15), now=30)
        assert [(start, end) for start, end, *_ in lane(follow)[3]] == [(0, 30)]


def test_a_lane_shows_the_late_rows_of_its_user_and_of_no_other(probe, job):
    with probe.follow(b"1") as follow:
        job.read(EVENTS, event(60), event(0), event(1, user=2), now=60)
        job.read(PURCHASES, purchase(60, 1, user=2), purchase(0, 5), now=60)
        hits, purchases, *_ = lane(follow)
        assert hits == [(0, "page-view", True), (60, "page-view", False)]
        assert purchases == [(0, "5", "late")]


def test_a_lane_is_dropped_with_its_last_follower(probe, job):
    with probe.follow(b"1") as one, probe.follow(b"1") as other:
        job.read(EVENTS, event(60), event(0), now=60)
        assert lane(one) == lane(other)
    assert probe._histories == {}
    with probe.follow(b"1") as again:
        assert lane(again)[0] == [(60, "page-view", False)]  # it is open


MAPPING = """
[events]
topics     = ["app", "web"]
each       = "events"
user       = "u"
type       = "k"
page       = "p"
time       = "t"
page_views = ["view"]
purchases  = ["buy"]
[purchases]
topics = "paid"
user   = "u"
time   = "t"
amount = "a"
"""


def test_rows_of_several_topics_and_parts_have_their_addresses_and_kinds():
    mapping = parse(MAPPING)
    inputs = mapped_inputs(mapping)
    probe = DashboardProbe(8, inputs, rules_of(mapping).kinds)
    job = Job({"app/0": [], "web/1": [], "paid/0": []}, rules_of(mapping), probe, inputs)
    at = f'"u":"é","t":{NOON}'
    with probe.follow("é".encode()) as follow:
        job.read("app/0", f'{{"events":[{{{at},"k":"view","p":"/a"}},{{{at},"k":"buy"}},{{}}]}}'.encode(), now=0)
        job.read("web/1", b"junk", f'{{"events":[{{{at},"k":"click"}}]}}'.encode(), now=0)
        job.read("paid/0", f'{{{at},"a":7}}'.encode(), now=0)
        drawn = follow()
    assert sorted((each.at, each.kind, each.page) for each in drawn.hits) == [
        ("app/0/0/0", "view", "/a"),
        ("app/0/0/1", "purchase", ""),
        ("web/1/1/0", "click", ""),
    ]
    assert [(each.at, each.page) for each in drawn.purchases] == [("paid/0/0", None)]
    assert [each.where for each in probe.lists().dead_letters] == ["web/1/0", "app/0/0/2"]


def test_users_of_new_sessions_are_offered(probe, job):
    job.read(EVENTS, *(event(0, user=user) for user in range(1, 40)), now=0)
    assert len(probe.newest_users()) == SHOWN
    assert set(probe.newest_users()) <= {str(user) for user in range(1, 40)}
    assert probe.here == set(range(8))
