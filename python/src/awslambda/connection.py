"""HTTP/1.1 connections that are kept between calls, and whose every wait can be interrupted.

A request is written once. Whether it can have reached the other side is told by which error comes: ConnectError means
that nothing was sent; BrokenError, and TimeoutError out of `Connection.exchange`, that it may have been received.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from awslambda.waits import Waits


class ConnectError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection ended, or talked nonsense, before the whole answer was there."""


@dataclass(frozen=True)
class Endpoint:
    """Where to connect; connections are kept by it. The identity is in each request's signature, not here."""

    tls: bool
    host: str
    port: int
    ca_bundle: str


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """One kept connection for each endpoint."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._kept: dict[Endpoint, Connection] = {}

    def exchange(self, endpoint: Endpoint, request: bytes, connect_deadline: float, deadline: float) -> Answer:
        """Sends one request and returns the whole answer. After any failure the connection is thrown away."""
        connection = self._kept.pop(endpoint, None)
        if connection is not None and connection.is_stale():
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(connect(endpoint, self._waits, min(connect_deadline, deadline)))
        keep = False
        try:
            answer, keep = connection.exchange(request, deadline)
        finally:
            if keep:
                self._kept[endpoint] = connection
            else:
                connection.close()
        return answer


class Connection:
    def __init__(self, sock: _PlainSocket | _TlsSocket) -> None:
        self._sock = sock

    def is_stale(self) -> bool:
        """Whether the other side has closed it, or sent what nobody asked for, while it was idle."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def exchange(self, request: bytes, deadline: float) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again."""
        self._sock.deadline = deadline
        try:
            self._sock.sendall(request)
            response = http.client.HTTPResponse(self._sock, method="POST")
            with response:
                response.begin()
                body = response.read()
                return Answer(response.status, response.headers, body), not response.will_close
        except TimeoutError:
            raise
        except http.client.RemoteDisconnected:
            raise BrokenError("it was closed without an answer") from None
        except http.client.IncompleteRead as error:
            raise BrokenError(f"it ended after {len(error.partial)} bytes of the answer") from None
        except http.client.HTTPException as error:
            raise BrokenError(f"the answer is not HTTP ({type(error).__name__})") from None
        except OSError as error:
            raise BrokenError(error.strerror or type(error).__name__) from None

    def close(self) -> None:
        self._sock.close()


def connect(endpoint: Endpoint, waits: Waits, deadline: float) -> _PlainSocket | _TlsSocket:
    """Name look-up, connection and TLS; each address of the name has its share of the time."""
    try:
        found = waits.in_thread(
            lambda: socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM), deadline
        )
    except TimeoutError:
        raise ConnectError("the name look-up did not end in time") from None
    except OSError as error:
        raise ConnectError(f"the name look-up failed: {error.strerror or error}") from None
    problem: Exception | None = None
    for left, (family, _, _, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        now = time.monotonic()
        try:
            return _connect(endpoint, waits, family, address, now + (deadline - now) / left)
        except TimeoutError:
            problem = ConnectError("it did not answer in time")
        except ssl.SSLError as error:
            problem = ConnectError(f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}")
        except OSError as error:
            problem = ConnectError(error.strerror or str(error))
    raise problem or ConnectError("the name has no address")


def _connect(endpoint: Endpoint, waits: Waits, family: int, address: Any, deadline: float) -> _PlainSocket | _TlsSocket:
    sock: _PlainSocket | _TlsSocket = _PlainSocket(family, socket.SOCK_STREAM)
    try:
        sock.waits, sock.deadline = waits, deadline
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            sock.connect(address)
        except BlockingIOError:
            waits.for_socket(sock.fileno(), select.POLLOUT, deadline)
            if problem := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem)) from None
        if endpoint.tls:
            wrapped = _tls_context(endpoint.ca_bundle).wrap_socket(
                sock, server_hostname=endpoint.host, do_handshake_on_connect=False
            )
            assert isinstance(wrapped, _TlsSocket)
            sock = wrapped
            sock.waits, sock.deadline = waits, deadline
            sock.in_slices(sock.do_handshake)
        return sock
    except BaseException:
        sock.close()
        raise


class _InSlices:
    """A non-blocking socket's waits become Waits' slices."""

    waits: Waits
    deadline: float

    def in_slices(self, operation: Callable[..., int | None], *args: Any, events: int = select.POLLIN) -> int:
        while True:
            self.waits.tick(self.deadline)
            try:
                return operation(*args) or 0
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
                if isinstance(want, ssl.SSLWantReadError):
                    events = select.POLLIN
                elif isinstance(want, ssl.SSLWantWriteError):
                    events = select.POLLOUT
                self.waits.for_socket(self.fileno(), events, self.deadline)  # type: ignore[attr-defined]


class _PlainSocket(_InSlices, socket.socket):
    def recv_into(self, *args: Any) -> int:
        return self.in_slices(super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        _send_all(self, super().send, data)


class _TlsSocket(_InSlices, ssl.SSLSocket):
    def recv_into(self, *args: Any) -> int:
        return self.in_slices(super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        _send_all(self, super().send, data)


def _send_all(sock: _InSlices, send: Callable[..., int], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[sock.in_slices(send, rest, events=select.POLLOUT) :]


_tls_contexts: dict[str, ssl.SSLContext] = {}


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    if ca_bundle not in _tls_contexts:
        context = ssl.create_default_context(cafile=ca_bundle)
        context.sslsocket_class = _TlsSocket
        _tls_contexts[ca_bundle] = context
    return _tls_contexts[ca_bundle]
