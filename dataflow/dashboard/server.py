"""Serves the page: three files, and a stream of server-sent events, a message a second to each who looks.

Nobody but this machine can reach it unless a setting says so, and it is only ever asked, never told: GET and nothing
else. What is in the events is nobody's HTML: the page puts it in as text, and the policy that goes with every answer
lets no script run that is not the page's own.
"""

import ipaddress
import threading
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from dataflow.clickstream.users import parse_user
from dataflow.dashboard.views import DashboardFeed
from dataflow.observability import http

EVERY = 1.0  # seconds between messages
LOOKING = 16  # at once
PATIENCE = 10  # seconds for a client that takes nothing, or asks nothing

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _File(NamedTuple):
    type: str
    body: bytes


def _files() -> dict[str, _File]:
    folder = files("dataflow.dashboard") / "static"
    return {
        path: _File(f"{type}; charset=utf-8", (folder / name).read_bytes())
        for path, name, type in (
            ("/", "page.html", "text/html"),
            ("/page.css", "page.css", "text/css"),
            ("/page.js", "page.js", "text/javascript"),
            ("/lane.js", "lane.js", "text/javascript"),
            ("/icon.svg", "icon.svg", "image/svg+xml"),
        )
    }


class Page:
    """Answers from its construction on. Raises UserError if the port cannot be had."""

    def __init__(self, address: str, port: int, pictures: DashboardFeed) -> None:
        self.address = address
        self.pictures = pictures
        self.files = _files()
        self.places = threading.BoundedSemaphore(LOOKING)
        self.closed = threading.Event()
        self._server = http.serve("VISITS_PAGE_PORT", address, port, partial(_Answer, self))
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._server.server_port}/"

    def close(self) -> None:
        """Ends all streams, and answers no more."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Answer(http.QuietHandler):
    timeout = PATIENCE

    def __init__(self, page: Page, *request: Any) -> None:
        self._page = page
        super().__init__(*request)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if not may_ask(self.headers.get("Host"), self._page.address):
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "ask for it as localhost, or by an address in numbers")
        elif asked.path == "/events":
            self._stream_for(asked.query)
        elif (file := self._page.files.get(asked.path)) is not None:
            self._send(HTTPStatus.OK, file)
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is no such page")

    def _stream_for(self, query: str) -> None:
        [user] = parse_qs(query).get("user", [""])[-1:]
        try:
            followed = parse_user(user) if user else None
        except ValueError:
            self._say(HTTPStatus.BAD_REQUEST, "a user is a whole number")
            return
        if not self._page.places.acquire(blocking=False):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"{LOOKING} are looking already")
        else:
            try:
                self._stream(followed)
            finally:
                self._page.places.release()

    def _stream(self, user: bytes | None) -> None:
        self._begin(HTTPStatus.OK, "text/event-stream")
        with self._page.pictures.stream(user) as news:
            while True:
                self.wfile.write(b"data: " + news() + b"\n\n")
                if self._page.closed.wait(EVERY):
                    return

    def _say(self, status: HTTPStatus, line: str) -> None:
        self._send(status, _File("text/plain; charset=utf-8", line.encode() + b"\n"))

    def _send(self, status: HTTPStatus, file: _File) -> None:
        self._begin(status, file.type, length=len(file.body))
        self.wfile.write(file.body)

    def _begin(self, status: HTTPStatus, type: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():  # with errors too
            self.send_header(name, value)
        super().end_headers()


def may_ask(host: str | None, address: str) -> bool:
    """Whether a request was meant for this page.

    A web site could give its own name this machine's address, and so make a browser read the page for it. It cannot
    do so with `localhost`, with an address in numbers, or with the name that the page was told to be at.
    """
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name in ("localhost", address.lower()):
        return True
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return True
