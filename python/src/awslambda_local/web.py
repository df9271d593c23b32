"""The HTTP that all endpoints here speak: HTTP/1.1 with kept connections, no Nagle delay, no access log.

Built on the standard library's server, one thread per connection. A request's body is always read in full, so that
a connection stays usable whatever the answer was.
"""

from __future__ import annotations

import socketserver
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = Iterable[tuple[str, str]]

_WITHOUT_BODY = {204, 304}


class Handler(BaseHTTPRequestHandler):
    """Quiet, and quick to answer: the whole answer leaves in one write."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line per request would drown what handlers print."""

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """Answer with `body`, whose length is set here; 204 and 304 carry none."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status not in _WITHOUT_BODY:
            self.wfile.write(body)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Serves from a background thread, from `start` until `stop` or the end of the process."""

    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        """Bind without the name look-up that the standard library adds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True, name=type(self).__name__).start()

    def stop(self) -> None:
        """Stop listening; a request under way is not waited for."""
        self.shutdown()
        self.server_close()
