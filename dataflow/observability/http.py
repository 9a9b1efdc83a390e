"""A small HTTP server beside the job's work, in threads of its own."""

import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dataflow.streaming.errors import UserError


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that neither logs its requests, a line every few seconds for ever, nor tells what it is made with."""

    server_version, sys_version = "visits", ""

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(setting: str, address: str, port: int, handler: Callable[..., QuietHandler]) -> ThreadingHTTPServer:
    """Serves from now on, in a thread.

    Args:
        setting: the setting that says the port, for messages.
        address: to listen at; empty: all addresses.
        port: to listen at; 0: any free one.
        handler: answers requests.

    Raises:
        UserError: the port cannot be had.
    """

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # which is a client that has gone
                super().handle_error(request, client_address)

    try:
        server = Server((address, port), handler)
    except OSError as error:
        where = f"port {port} on {address}" if address else f"port {port}"
        raise UserError(f"{setting}: {where} cannot be had: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name=setting, daemon=True).start()
    return server
