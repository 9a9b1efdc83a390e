"""How the page is served: paths, hosts, limits and the stream."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseServer

import pytest
from support.feeds import feed_of
from support.logs import EVENTS, event
from support.programs import free_port

from dataflow.dashboard import server
from dataflow.dashboard.server import Page, is_allowed_host
from dataflow.streaming.errors import UserError


@pytest.fixture
def page(probe, monkeypatch) -> Iterator[Page]:
    monkeypatch.setattr(server, "INTERVAL_S", 0.05)
    monkeypatch.setattr(BaseServer.serve_forever, "__defaults__", (0.01,))  # how soon it hears that it is to end
    page = Page("127.0.0.1", free_port(), feed_of(probe))
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


@pytest.mark.parametrize("user", ["9" * 4_301, "a%00b"])
def test_a_user_that_cannot_be_one_is_refused(page, user):
    status, body, _ = ask(page, f"events?user={urllib.request.quote(user, safe='%')}")
    assert (status, body) == (400, "there is no such user\n")


def test_each_client_follows_its_own_user(page):
    with (
        looking(page, "?user=7") as seven,
        looking(page, "?user=u%201%0d%0aX-Evil:1") as eight,
        looking(page) as all_of_it,
    ):
        for _ in range(3):
            assert seven()["followed"]["user"] == "7"
            assert eight()["followed"]["user"] == "u 1\r\nX-Evil:1"
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
    page = Page("127.0.0.1", free_port(), feed_of(probe))
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
        Page("127.0.0.1", port, feed_of(probe))
    with pytest.raises(UserError, match=f"^VISITS_PAGE_PORT: port {port} on 203.0.113.1 is not available: "):
        Page("203.0.113.1", port, feed_of(probe))
