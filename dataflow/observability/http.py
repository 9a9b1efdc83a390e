"""A small HTTP server that runs beside the job, in its own threads."""

import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dataflow.streaming.errors import UserError


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that does not log requests (probes come every few seconds) and does not report its Python version."""

    server_version, sys_version = "visits", ""

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(setting: str, address: str, port: int, handler: Callable[..., QuietHandler]) -> ThreadingHTTPServer:
    """Starts a server in a thread.

    Args:
        setting: name of the setting that gives the port, for error messages.
        address: address to listen on; empty: all addresses.
        port: port to listen on; 0: any free port.
        handler: handles the requests.

    Raises:
        UserError: the port is not available.
    """

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # an OSError means that the client has disconnected
                super().handle_error(request, client_address)

    try:
        server = Server((address, port), handler)
    except OSError as error:
        where = f"port {port} on {address}" if address else f"port {port}"
        raise UserError(f"{setting}: {where} is not available: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name=setting, daemon=True).start()
    return server
