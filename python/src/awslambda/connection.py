"""HTTP/1.1 connections that are kept between calls, and whose every wait can be interrupted.

A request is written once. Whether it can have reached the other side is told by which error comes: ConnectError means
that nothing was sent; BrokenError, and TimeoutError out of `Connection.exchange`, that it may have been received.
"""

from __future__ import annotations

import http
import http.client
import io
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from awslambda.waits import Wait

# Seconds without a word: then a connection is probed, so that NAT gateways and load balancers, which forget a flow
# after 350 s, let a long call's answer through. One that was idle for longer is not used for another call.
KEEPALIVE = LONGEST_IDLE = 60
LARGEST = 64 * 1024 * 1024  # bytes of an answer; AWS's are smaller
TOO_LARGE = f"the answer has more than {LARGEST} bytes"


class ConnectError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection ended, or talked nonsense, before the whole answer was there."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that tunnels TLS."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)  # the value of Proxy-Authorization, if it wants one


@dataclass(frozen=True)
class Endpoint:
    """Where to connect; connections are kept by it. The identity is in each request's signature, not here."""

    tls: bool
    host: str
    port: int
    ca_bundle: str
    proxy: Proxy | None = None


@dataclass(frozen=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Connections:
    """One kept connection for each endpoint."""

    def __init__(self) -> None:
        self._kept: dict[Endpoint, Connection] = {}

    def exchange(self, endpoint: Endpoint, request: bytes, connect_timeout: float, wait: Wait) -> Answer:
        """Sends one request and returns the whole answer. After any failure the connection is thrown away."""
        connection = self._kept.pop(endpoint, None)
        if connection is not None and connection.is_stale():
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(connect(endpoint, wait.within(connect_timeout)))
        keep = False
        try:
            answer, keep = connection.exchange(request, wait)
        finally:
            if keep:
                self._kept[endpoint] = connection
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Closes what is kept; whoever holds this for the life of the process need not."""
        while self._kept:
            self._kept.popitem()[1].close()


class Connection:
    """One connection, open."""

    def __init__(self, sock: _PlainSocket | _TlsSocket) -> None:
        self._sock = sock
        self._used = 0.0

    def is_stale(self) -> bool:
        """Whether it was idle for too long, or the other side has closed it, or sent what nobody asked for."""
        if time.monotonic() - self._used > LONGEST_IDLE:
            return True
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def exchange(self, request: bytes, wait: Wait) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again."""
        self._sock.wait = wait
        try:
            self._sock.sendall(request)
            response = http.client.HTTPResponse(self._sock, method="POST")
            with response:
                response.fp = _WholeLines(response.fp.detach())
                response.begin()
                if response.length is None and not response.chunked:
                    raise BrokenError("the answer does not say how long it is, so it may be cut off")
                if (response.length or 0) > LARGEST:
                    raise BrokenError(TOO_LARGE)
                body = response.read(LARGEST + 1) if response.chunked else response.read()
                if len(body) > LARGEST:
                    raise BrokenError(TOO_LARGE)
                self._used = time.monotonic()
                return Answer(response.status, response.msg, body), not response.will_close
        except TimeoutError:
            raise
        except http.client.IncompleteRead as error:
            raise BrokenError(f"it ended after {len(error.partial)} bytes of the answer") from None
        except http.client.HTTPException as error:
            raise BrokenError(f"the answer is not HTTP ({type(error).__name__})") from None
        except OSError as error:
            raise BrokenError(error.strerror or type(error).__name__) from None

    def close(self) -> None:
        self._sock.close()


class _WholeLines(io.BufferedReader):
    """http.client takes the end of the connection for the end of the header; here it is an error."""

    _begun = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            begun = self._begun or line
            raise BrokenError("it ended in the middle of the answer" if begun else "it was closed without an answer")
        self._begun = True
        return line


def connect(endpoint: Endpoint, wait: Wait) -> _PlainSocket | _TlsSocket:
    """Name look-up, connection and TLS; each address of the name has its share of the time."""
    try:
        return _connect(endpoint, wait)
    except ConnectError as error:
        if endpoint.proxy is None:
            raise
        raise ConnectError(f"through the proxy {endpoint.proxy.host}: {error}") from None


def _connect(endpoint: Endpoint, wait: Wait) -> _PlainSocket | _TlsSocket:
    first = endpoint.proxy or endpoint
    try:
        found = wait.in_thread(lambda: socket.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise ConnectError("the name look-up did not end in time") from None
    except (OSError, UnicodeError) as error:
        raise ConnectError(f"the name look-up failed: {getattr(error, 'strerror', None) or error}") from None
    problem = ConnectError("the name has no address")
    for left, (family, _, _, _, address) in zip(range(len(found), 0, -1), found, strict=True):
        try:
            return _connect_to(endpoint, family, address, wait.within((wait.deadline - time.monotonic()) / left))
        except TimeoutError:
            problem = ConnectError("it did not answer in time")
        except ssl.SSLError as error:
            problem = ConnectError(f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}")
        except OSError as error:
            problem = ConnectError(error.strerror or str(error))
    raise problem


def _connect_to(endpoint: Endpoint, family: int, address: Any, wait: Wait) -> _PlainSocket | _TlsSocket:
    plain = _PlainSocket(family, socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE // 4)
        try:
            plain.connect(address)
        except BlockingIOError:
            wait.for_socket(plain.fileno(), select.POLLOUT)
            if problem := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem)) from None
        if endpoint.proxy:
            _open_tunnel(plain, endpoint, endpoint.proxy, wait)
        return _with_tls(plain, endpoint, wait) if endpoint.tls else plain
    except BaseException:
        plain.close()
        raise


def _open_tunnel(plain: _PlainSocket, endpoint: Endpoint, proxy: Proxy, wait: Wait) -> None:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    plain.wait = wait
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    with http.client.HTTPResponse(plain, method="CONNECT") as response:
        try:
            response.begin()
        except http.client.HTTPException:
            raise ConnectError("it does not answer as a proxy does") from None
        if response.status != http.HTTPStatus.OK:
            raise ConnectError(f"it refused: {response.status} {response.reason}")


def _with_tls(plain: _PlainSocket, endpoint: Endpoint, wait: Wait) -> _TlsSocket:
    context = _tls_context(endpoint.ca_bundle)
    sock = cast(_TlsSocket, context.wrap_socket(plain, server_hostname=endpoint.host, do_handshake_on_connect=False))
    try:
        sock.wait = wait
        sock.in_slices(sock.do_handshake)
        return sock
    except BaseException:
        sock.close()
        raise


class _InSlices:
    """A non-blocking socket's waits become slices of `wait`."""

    wait: Wait

    def in_slices(self, operation: Callable[..., int | None], *args: Any, events: int = select.POLLIN) -> int:
        """Does it as soon as the socket is ready for it."""
        while True:
            self.wait.tick()
            try:
                return operation(*args) or 0
            except ssl.SSLWantReadError:
                awaited = select.POLLIN
            except ssl.SSLWantWriteError:
                awaited = select.POLLOUT
            except BlockingIOError:
                awaited = events
            self.wait.for_socket(cast(socket.socket, self).fileno(), awaited)

    def send_all(self, send: Callable[..., int], data: bytes) -> None:
        """Sends all of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.in_slices(send, rest, events=select.POLLOUT) :]


class _PlainSocket(_InSlices, socket.socket):
    def recv_into(self, *args: Any) -> int:
        return self.in_slices(super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.send_all(super().send, data)


class _TlsSocket(_InSlices, ssl.SSLSocket):
    def recv_into(self, *args: Any) -> int:
        return self.in_slices(super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.send_all(super().send, data)


_tls_contexts: dict[tuple[str, int], ssl.SSLContext] = {}  # by file and its time of change


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    try:
        key = (ca_bundle, Path(ca_bundle).stat().st_mtime_ns)
        if key not in _tls_contexts:
            context = ssl.create_default_context(cafile=ca_bundle)
            context.sslsocket_class = _TlsSocket
            _tls_contexts[key] = context
        return _tls_contexts[key]
    except OSError as error:
        raise ConnectError(f"the CA bundle {ca_bundle} cannot be used: {error.strerror or error}") from None
