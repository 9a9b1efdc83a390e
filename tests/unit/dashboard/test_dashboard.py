"""The live page: what it shows of a job, and how it serves that."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from types import SimpleNamespace

import pytest
from support.logs import EVENTS, NOON, PURCHASES, Job, Plan, Written, bytewax_flow, event, log, purchase, session_id
from support.programs import free_port

from dataflow.clickstream.rules import Rules
from dataflow.dashboard import server
from dataflow.dashboard.probe import SHOWN, DashboardProbe, ListedRow
from dataflow.dashboard.server import Page, is_allowed_host
from dataflow.dashboard.swim_lane import SwimLane
from dataflow.dashboard.views import PARTITIONS, DashboardFeed, Rates
from dataflow.dashboard.watermark_status import FRESH, blocking_partitions, partition_state, reason, summary
from dataflow.observability.progress import PartitionStatus, Progress
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.errors import UserError
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND

OTHER = "user-events/1"


@pytest.fixture
def probe() -> DashboardProbe:
    return DashboardProbe(8, "user-events", "purchases")


@pytest.fixture
def job(probe: DashboardProbe) -> Job:
    return Job(probe=probe, logs={EVENTS: [], PURCHASES: []})


# --- the last of what has passed ---


def test_late_rows_are_listed_with_how_late_they_were(probe, job):
    late = event(0, user=7)
    job.read(EVENTS, event(60), event(12.5), late, now=60)
    newest, older = probe.lists().late
    assert newest == ListedRow(
        "about 60 s below the highest time of its partition", late.decode(), f"{EVENTS}/2", NOON, "7"
    )
    assert older.reason == "about 47.5 s below the highest time of its partition"


def test_a_row_late_after_an_idle_partition_says_so(probe, job):
    job.read(PURCHASES, purchase(0, 1), now=0)
    job.read(EVENTS, event(0), now=0, caught_up_at=0)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=100)
    job.read(EVENTS, event(1), now=101)
    assert [each.reason for each in probe.lists().late] == ["its partition was idle, and the watermark passed it"]


def test_a_late_row_in_the_last_batch_of_a_run_is_listed(probe, job):
    job.partitions.logs[EVENTS].extend(log(event(60), event(0)))
    job.feed(job.partitions.poll(EVENTS, 2, end=True))
    assert [each.reason for each in probe.lists().late] == ["below the highest time of its partition"]


def test_dead_letters_are_listed_with_the_reason_and_their_beginning(probe, job):
    job.read(EVENTS, b"\xff{", None, b"x" * 5_000, now=0)
    newest, middle, oldest = probe.lists().dead_letters
    assert newest.text == "x" * 200 + "… (5,000 bytes)"
    assert (middle.reason, middle.text, middle.where) == ("the message has no value", "(no value)", f"{EVENTS}/1")
    assert (oldest.reason, oldest.text) == ("not UTF-8: invalid start byte at byte 0", "\\xff{")


def test_suspicious_visits_and_unmatched_purchases_are_listed(probe, job):
    job.read(EVENTS, *(event(at, user=7) for at in range(6)), event(0, "click", user=8), now=6)
    job.read(PURCHASES, purchase(0, 5, user=9), now=6)
    job.end()
    assert {(each.user, each.reason, each.text) for each in probe.lists().suspicious} == {
        ("7", "too many events", session_id(7, 0)),
        ("8", "too few page views", session_id(8, 0)),
    }
    assert [(each.user, each.reason) for each in probe.lists().unmatched] == [("9", "no purchase event in its time")]


def test_only_the_last_few_rows_are_listed_and_changes_counted(probe, job):
    assert probe.changes == 0
    job.read(EVENTS, *[b"junk %d" % number for number in range(100)], now=0)
    assert [each.where for each in probe.lists().dead_letters] == [f"{EVENTS}/{99 - each}" for each in range(SHOWN)]
    assert probe.changes == 1
    job.read(EVENTS, event(0), now=0)
    assert probe.changes == 1


def test_without_a_probe_the_dataflow_has_no_step_for_it(probe):
    flows = [bytewax_flow({}, Plan(), Rules(), Written(), probe=each) for each in (None, probe)]
    without, watched = ({step.step_name for step in flow.substeps} for flow in flows)
    assert watched - without == {"observe_polled", "observe_on_time", "observe_unmatched", "observe_closed"}


# --- a user's swim lane ---


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
            [(2, "7.50", "matched"), (5, "9.90", "matched")],
            [(3, 2, False), (3, 5, True)],  # that of the same page is taken
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
        assert lane(follow)[3] == [(0, 15, 2, "2", False)]
        job.read(PURCHASES, purchase(41, 3), now=41)
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


def test_users_of_new_sessions_are_offered(probe, job):
    job.read(EVENTS, *(event(0, user=user) for user in range(1, 40)), now=0)
    assert len(probe.newest_users()) == SHOWN
    assert set(probe.newest_users()) <= {str(user) for user in range(1, 40)}
    assert probe.here == set(range(8))


# --- what the watermark waits for ---

NOW = 1_000 * SECOND


def standing(source: str = "clicks/0", **said: object) -> PartitionStatus:
    """A partition that is at its end, if nothing else is said."""
    usual = {
        "offset": 10,
        "end": 10,
        "read_to_end": NOW - SECOND,
        "back_at": 0,
        "source_watermark": 500 * SECOND,
        "blocks_watermark": True,
    }
    return PartitionStatus(source, **{**usual, **said})


@pytest.mark.parametrize(
    ("said", "kafka", "in_a_word", "sentence"),
    [
        pytest.param(
            {"read_to_end": None, "end": 1_300}, True, "reading",
            "is being read: 1,290 rows to its end, it is at 1970-01-01 00:08:20", id="a backlog",
        ),
        pytest.param(
            {"read_to_end": None, "end": 11, "source_watermark": MIN_TIME}, True, "reading",
            "is being read: 1 row to its end, none has been read", id="a backlog of which nothing was read",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND}, False, "no answer",
            "may have more rows by now, but no Kafka broker can be reached (last seen at its end 12 s ago)",
            id="brokers are away",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND}, True, "no answer",
            "may have more rows by now, but its leader does not answer, or they are not replicated yet (last seen at its end 12 s ago)",
            id="its leader is away",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND, "back_at": NOW + 14 * SECOND}, True, "waits for writers",
            "gives its producers 14 s more to return, as after every start and outage", id="back from an outage",
        ),
        pytest.param(
            {"read_to_end": None, "end": None, "source_watermark": MIN_TIME}, True, "unheard of",
            "may have more rows by now, but its leader does not answer, or they are not replicated yet", id="its end has never been told",
        ),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None, "source_watermark": MIN_TIME}, True, "unheard of",
            "is unknown so far: the process that reads it has reported neither a row nor its end",
            id="of another process",
        ),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None}, True, "read elsewhere",
            "is read by another process, and is at 1970-01-01 00:08:20", id="of another process, behind",
        ),
    ],
)  # fmt: skip
def test_a_partition_that_blocks_the_watermark_says_why(said, kafka, in_a_word, sentence):
    held, other = standing(**said), standing("clicks/1", source_watermark=600 * SECOND, blocks_watermark=False)
    assert partition_state(held, held.source_watermark, NOW) == in_a_word
    assert blocking_partitions([held, other], NOW) == [held]
    assert reason(held, NOW, kafka) == sentence
    assert summary([held, other], [held], NOW, kafka) == f"The watermark waits for clicks/0, which {sentence}."


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="at its end"),
        pytest.param({"end": 12}, id="at its end a moment ago, and rows have come since"),
        pytest.param({"source_watermark": MAX_TIME}, id="read to the end of all"),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None, "source_watermark": 599 * SECOND},
            id="elsewhere, in step",
        ),
    ],
)
def test_an_idle_partition_does_not_block_the_watermark(said):
    slowest, other = standing(**said), standing("clicks/1", source_watermark=600 * SECOND, blocks_watermark=False)
    assert blocking_partitions([slowest, other], NOW) == []
    assert summary([slowest, other], [], NOW, True).startswith("Nothing holds the watermark back")


def test_event_time_starts_with_the_first_row():
    partitions = [standing(f"clicks/{number}", source_watermark=MIN_TIME) for number in range(2)]
    assert blocking_partitions(partitions, NOW) == []
    assert summary(partitions, [], NOW, True) == "No partition has a row yet: event time has not begun."


def test_of_several_blocking_partitions_the_longest_backlog_is_named():
    few, most = (standing(f"clicks/{end}", read_to_end=None, end=end) for end in (20, 30))
    held = blocking_partitions([few, most], NOW)
    assert held == [most, few]
    assert summary([few, most], held, NOW, True).endswith("; and for 1 more partition.")
    assert summary([few, most], [*held, few], NOW, True).endswith("; and for 2 more partitions.")


def test_a_paused_partition_differs_from_one_being_read():
    assert (
        partition_state(standing(read_to_end=None, end=20, source_watermark=100 * SECOND), 30 * SECOND, NOW)
        == "far ahead"
    )
    assert (
        partition_state(standing(read_to_end=None, end=20, source_watermark=100 * SECOND), 50 * SECOND, NOW)
        == "reading"
    )
    assert FRESH < 10 * SECOND


# --- everything at one moment ---


def test_rates_are_of_the_last_seconds_with_a_client():
    rates = Rates()
    assert [each.a_second for each in rates.take(100, {"clicks": 50})] == [None]
    assert [(each.total, each.a_second) for each in rates.take(102, {"clicks": 70})] == [(70, 10)]
    assert [each.a_second for each in rates.take(103, {"clicks": 70, "more": 3})] == [pytest.approx(20 / 3), 1]
    assert [each.a_second for each in rates.take(200, {"clicks": 900})] == [None]  # of an hour ago says nothing of now


class Ends:
    """So many partitions; the first one ends at offset 10."""

    def __init__(self, partitions: int) -> None:
        self.sources = tuple(f"clicks/{number}" for number in range(partitions))

    def end(self, source: str) -> SimpleNamespace | None:
        return SimpleNamespace(offset=10) if source == "clicks/0" else None

    def back_at(self, source: str) -> int:
        return 0


def pictures(probe: DashboardProbe, partitions: int = 2, place: tuple[int, int] | None = None) -> DashboardFeed:
    pace = SourceAlignment()
    progress = Progress(Ends(partitions), pace, lateness=5 * SECOND)
    progress.record_position("clicks/0", 4, None)
    for number in range(partitions):
        pace.update(f"clicks/{number}", (NOON + number) * SECOND, partitions)
    return DashboardFeed(*(place or (0, 1)), probe, progress, lambda: True)


def test_a_view_has_each_partition_and_which_blocks_the_watermark(probe):
    picture = pictures(probe).view()
    first, second = picture.partitions
    assert (first.source, first.offset, first.end, first.to_read, first.reached) == ("clicks/0", 4, 10, 6, NOON)
    assert (first.holds, first.why) == (
        True,
        "is being read: 6 rows to its end, it is at 2024-03-13 12:00:00",
    )
    assert (second.offset, second.to_read, second.reached, second.holds) == (None, None, NOON + 1, False)
    assert picture.holding == ["clicks/0"]
    assert (picture.state, picture.state_why) == ("catching up", "clicks/0 has not been read to its end yet")


def test_a_view_of_many_partitions_shows_those_that_matter(probe):
    picture = pictures(probe, partitions=PARTITIONS + 7).view()
    assert len(picture.partitions) == PARTITIONS
    assert picture.more_partitions == 7
    assert picture.partitions[0].source == "clicks/0"


def test_a_view_names_its_process_and_shards(probe):
    probe.here = {1, 4}
    picture = pictures(probe, place=(1, 3)).view()
    assert (picture.process, picture.processes, picture.shards, picture.all_shards) == (1, 3, [1, 4], 8)


def test_a_view_is_made_once_for_all_clients(probe):
    taken = pictures(probe)
    assert taken.view() is taken.view()


def test_a_user_of_another_process_differs_from_an_unknown_user(probe):
    shard = probe.shard_of(b"7")
    with pictures(probe).stream(b"7") as news:
        assert json.loads(news())["followed"]["here"] is False
        probe.here = {shard}
        assert {"user": "7", "shard": shard, "here": True}.items() <= json.loads(news())["followed"].items()


def test_lists_are_sent_only_when_they_have_changed(probe, job):
    with pictures(probe).stream(None) as news:
        assert json.loads(news())["lists"]["late"] == []
        assert "lists" not in json.loads(news())
        job.read(EVENTS, b"junk", now=0)
        assert len(json.loads(news())["lists"]["dead_letters"]) == 1
        assert "lists" not in json.loads(news())


# --- how it is served ---


@pytest.fixture
def page(probe, monkeypatch) -> Iterator[Page]:
    monkeypatch.setattr(server, "INTERVAL_S", 0.05)
    monkeypatch.setattr(BaseServer.serve_forever, "__defaults__", (0.01,))  # how soon it hears that it is to end
    page = Page("127.0.0.1", free_port(), pictures(probe))
    yield page
    page.close()


def port_of(page: Page) -> int:
    return int(page.url.rpartition(":")[2].strip("/"))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask(page: Page, path: str = "", method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(page.url + path, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


@contextmanager
def looking(page: Page, query: str = "") -> Iterator[Callable[[], dict]]:
    """A client of the stream; gives what reads the next message."""
    with urllib.request.urlopen(f"{page.url}events{query}", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"

        def read() -> dict:
            line, end = answer.readline(), answer.readline()
            assert line.startswith(b"data: ")
            assert end == b"\n"
            return json.loads(line.removeprefix(b"data: "))

        yield read


@pytest.mark.parametrize(
    ("path", "type"),
    [("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
def test_the_page_is_self_contained_and_allows_no_other_script(page, path, type):
    status, body, headers = ask(page, path)
    assert status == 200
    assert body
    assert headers["Content-Type"] == f"{type}; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "http" not in body.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in body


@pytest.mark.parametrize(
    "path", ["nothing", "static/page.js", "../server.py", "%2e%2e/server.py", "events/7", "page.js/"]
)
def test_another_path_is_not_found(page, path):
    status, body, headers = ask(page, path)
    assert (status, body) == (404, "there is no such page\n")
    assert "Content-Security-Policy" in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get_is_allowed(page, method):
    status, _, headers = ask(page, method=method)
    assert status == 501
    assert "Content-Security-Policy" in headers


@pytest.mark.parametrize(
    ("host", "address", "meant"),
    [
        ("localhost:8082", "127.0.0.1", True),
        ("LocalHost", "127.0.0.1", True),
        ("127.0.0.1:8082", "127.0.0.1", True),
        ("[::1]:8082", "::1", True),
        ("10.0.0.7:8082", "0.0.0.0", True),
        ("shop-7:8082", "shop-7", True),
        ("evil.example:8082", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("evil.example", "0.0.0.0", False),
        ("[::1", "::1", False),
        ("", "127.0.0.1", False),
        (None, "127.0.0.1", False),
    ],
)
def test_a_host_name_that_is_not_local_is_refused(host, address, meant):
    assert is_allowed_host(host, address) is meant


def test_a_request_for_another_host_gets_nothing(page):
    for path in ("", "page.js", "events"):
        status, body, _ = ask(page, path, Host="evil.example")
        assert (status, body) == (421, "open the page as localhost or by its IP address\n")


@pytest.mark.parametrize("user", ["a", "1.5", "<script>", "1%0d%0aX-Evil:1", "%D9%A3", "9" * 4_301, "--1"])
def test_a_user_that_is_no_number_is_refused(page, user):
    status, body, headers = ask(page, f"events?user={urllib.request.quote(user, safe='%')}")
    assert (status, body) == (400, "a user is a whole number\n")
    assert "X-Evil" not in headers


def test_each_client_follows_its_own_user(page):
    with looking(page, "?user=7") as seven, looking(page, "?user=-0008") as eight, looking(page) as all_of_it:
        for _ in range(3):
            assert seven()["followed"]["user"] == "7"
            assert eight()["followed"]["user"] == "-8"
            assert "followed" not in all_of_it()


def test_any_event_content_stays_one_line_of_json(page, job):
    evil = event(0, "</script>\n\ndata: {}\r\n<img src=x onerror=alert(1)>")
    with looking(page, "?user=1") as read:
        read()
        job.read(EVENTS, evil, b'{"\r\n\r\ndata: 1":</script>', now=0)
        while not (news := read())["followed"]["lane"]["hits"]:
            pass
        assert news["followed"]["lane"]["hits"][0]["type"] == "</script>\n\ndata: {}\r\n<img src=x onerror="


def test_the_number_of_clients_is_limited_and_a_leaver_makes_room(page):
    page.viewers = threading.BoundedSemaphore(2)
    with looking(page), looking(page):
        assert ask(page, "events")[:2] == (503, "the page already has 16 viewers\n")
        assert ask(page)[0] == 200
    until(lambda: page.viewers.acquire(blocking=False))


def test_a_stuck_client_is_dropped_and_others_are_not_affected(page, monkeypatch, probe):
    monkeypatch.setattr(server._Handler, "timeout", 0.5)
    monkeypatch.setattr(server, "INTERVAL_S", 0)
    with socket.create_connection(("127.0.0.1", port_of(page))) as hanging, looking(page) as read:
        hanging.sendall(b"GET /events?user=7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: read() and probe._histories)
        until(lambda: read() and not probe._histories)


def test_closing_the_server_ends_its_streams(probe):
    page = Page("127.0.0.1", free_port(), pictures(probe))
    with looking(page) as read:
        read()
        page.close()
        with pytest.raises(AssertionError):
            for _ in range(3):
                read()
    with pytest.raises(OSError):
        ask(page)


def test_a_taken_port_or_foreign_address_is_an_error_of_one_line(page, probe):
    port = port_of(page)
    with pytest.raises(UserError, match=f"^VISITS_PAGE_PORT: port {port} on 127.0.0.1 is not available: .*in use"):
        Page("127.0.0.1", port, pictures(probe))
    with pytest.raises(UserError, match=f"^VISITS_PAGE_PORT: port {port} on 203.0.113.1 is not available: "):
        Page("203.0.113.1", port, pictures(probe))
