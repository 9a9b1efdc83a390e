"""Serves the page: static files, and a stream of server-sent events with one message per second for each viewer.

It listens on this machine only, unless a setting says otherwise, and accepts only GET. The page inserts data from the
stream as text, never as HTML. The security policy of every response allows only the page's own scripts.
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

INTERVAL_S = 1.0  # between two messages of a stream
MAX_VIEWERS = 16  # streams at the same time
_CLIENT_TIMEOUT_S = 10  # for a client that reads nothing, or sends no request

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
    """The page's server, which starts with its construction.

    Args:
        address: address to listen on; empty: all addresses.
        port: port to listen on; 0: any free port.
        feed: makes the messages.

    Raises:
        UserError: the port is not available.
    """

    def __init__(self, address: str, port: int, feed: DashboardFeed) -> None:
        self.address = address
        self.feed = feed
        self.files = _files()
        self.viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self.closed = threading.Event()
        self._server = http.serve("VISITS_PAGE_PORT", address, port, partial(_Handler, self))
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._server.server_port}/"

    def close(self) -> None:
        """Ends all streams and stops the server."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.QuietHandler):
    timeout = _CLIENT_TIMEOUT_S

    def __init__(self, page: Page, *request: Any) -> None:
        self._page = page
        super().__init__(*request)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not is_allowed_host(self.headers.get("Host"), self._page.address):
            self._send_line(HTTPStatus.MISDIRECTED_REQUEST, "open the page as localhost or by its IP address")
        elif url.path == "/events":
            self._stream_for(url.query)
        elif (file := self._page.files.get(url.path)) is not None:
            self._send(HTTPStatus.OK, file)
        else:
            self._send_line(HTTPStatus.NOT_FOUND, "there is no such page")

    def _stream_for(self, query: str) -> None:
        [user] = parse_qs(query).get("user", [""])[-1:]
        try:
            followed = parse_user(user) if user else None
        except ValueError:
            self._send_line(HTTPStatus.BAD_REQUEST, "there is no such user")
            return
        if not self._page.viewers.acquire(blocking=False):
            self._send_line(HTTPStatus.SERVICE_UNAVAILABLE, f"the page already has {MAX_VIEWERS} viewers")
        else:
            try:
                self._stream(followed)
            finally:
                self._page.viewers.release()

    def _stream(self, user: bytes | None) -> None:
        self._begin(HTTPStatus.OK, "text/event-stream")
        with self._page.feed.stream(user) as next_update:
            while True:
                self.wfile.write(b"data: " + next_update() + b"\n\n")
                if self._page.closed.wait(INTERVAL_S):
                    return

    def _send_line(self, status: HTTPStatus, line: str) -> None:
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
        for name, value in _HEADERS.items():  # on error responses too
            self.send_header(name, value)
        super().end_headers()


def is_allowed_host(host: str | None, address: str) -> bool:
    """Whether a request's `Host` header is allowed: `localhost`, an IP address, or the configured address.

    Protects from DNS rebinding: a web site could point its own name at this machine, and so make a browser read the
    page for it.
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
