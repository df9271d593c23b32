"""HTTP/1.1 connections that are kept between calls, and whose every wait can be interrupted.

A request is written once. Whether it can have reached the other side is told by which error comes: ConnectError means
that nothing was sent; BrokenError, and TimeoutError out of `Connection.exchange`, that it may have been received.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from awslambda.waits import Wait

if TYPE_CHECKING:
    from awslambda import tls

# Seconds without a word: then a connection is probed, so that NAT gateways and load balancers, which forget a flow
# after 350 s, let a long call's answer through. One that was idle for longer is not used for another call.
KEEPALIVE = LONGEST_IDLE = 60
MOST_KEPT = 32  # connections to one endpoint, for the calls at once that come next
LARGEST = 64 * 1024 * 1024  # bytes of an answer; AWS's are smaller
TOO_LARGE = f"the answer has more than {LARGEST} bytes"
NO_LENGTH = "the answer does not say how long it is, so it may be cut off"
LONGEST_HEAD, MOST_LINES = 64 * 1024, 100  # bytes and lines of an answer's head, of a chunk's, and of the trailer
SCRATCH = 16 * 1024  # bytes that are read at once, unless it is known that there are more: a TLS record

# RFC 9112. What it lets a client forgive (bare line feeds, folded lines) AWS does not send.
_STATUS = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: ([^\r\n]*))?\r\n")
_HEAD = re.compile(_STATUS.pattern + rb"((?:[!-9;-~]+:[^\r\n\0]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_FRAMING = frozenset(["connection", "content-length", "transfer-encoding"])


class ConnectError(Exception):
    """There is no connection; nothing was sent."""


class BrokenError(Exception):
    """The connection ended, or talked nonsense, before the whole answer was there."""


class Proxy(NamedTuple):
    """An HTTP proxy that tunnels TLS."""

    host: str
    port: int
    authorization: str = ""  # the value of Proxy-Authorization, if it wants one

    def __repr__(self) -> str:
        """Without the password."""
        return f"Proxy({self.host!r}, {self.port!r})"


class Endpoint(NamedTuple):
    """Where to connect; connections are kept by it. The identity is in each request's signature, not here."""

    tls: bool
    host: str
    port: int
    ca_bundle: str
    proxy: Proxy | None = None


class Answer(NamedTuple):
    """A whole HTTP response."""

    status: int
    headers: Mapping[str, str]  # by their names in lower case; the first, if there are more of a name
    body: bytes


class Connections:
    """Connections that are kept for each endpoint; one for each thread that was using one at once."""

    def __init__(self) -> None:
        self._kept: dict[Endpoint, list[Connection]] = {}  # the last one used comes last
        self._lock = threading.Lock()

    def exchange(self, endpoint: Endpoint, request: bytes, connect_timeout: float, wait: Wait) -> Answer:
        """Sends one request and returns the whole answer. After any failure the connection is thrown away."""
        while (connection := self._taken(endpoint)) and connection.is_stale():
            connection.close()
        if connection is None:
            connection = Connection(connect(endpoint, wait.within(connect_timeout)))
        keep = False
        try:
            answer, keep = connection.exchange(request, wait)
        finally:
            if keep:
                self._keep(endpoint, connection)
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Closes what is kept; whoever holds this for the life of the process need not."""
        for kept in self._kept.values():
            while kept:
                kept.pop().close()

    def _taken(self, endpoint: Endpoint) -> Connection | None:
        with self._lock:
            kept = self._kept.get(endpoint)
            return kept.pop() if kept else None

    def _keep(self, endpoint: Endpoint, connection: Connection) -> None:
        """Keeps it, and the others for as long as they may be used: one that is not taken for long goes."""
        with self._lock:
            kept = self._kept.setdefault(endpoint, [])
            kept.append(connection)
            oldest = kept.pop(0) if len(kept) > MOST_KEPT or kept[0].is_old() else None
        if oldest is not None:
            oldest.close()


class Connection:
    """One connection, open."""

    def __init__(self, sock: PlainSocket | tls.TlsSocket) -> None:
        self._sock = sock
        self._used = 0.0
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def is_stale(self) -> bool:
        """Whether it was idle for too long, or the other side has closed it, or sent what nobody asked for."""
        return self.is_old() or bool(self._poller.poll(0))

    def is_old(self) -> bool:
        """Whether it was idle for too long."""
        return time.monotonic() - self._used > LONGEST_IDLE

    def exchange(self, request: bytes, wait: Wait) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again."""
        self._sock.wait = wait
        try:
            self._sock.sendall(request)
            wait.for_socket(self._sock.fileno(), select.POLLIN)  # to try to read at once would be in vain
            answer, keep = _Incoming(self._sock).answer()
        except TimeoutError:
            raise
        except OSError as error:
            raise BrokenError(error.strerror or type(error).__name__) from None
        self._used = time.monotonic()
        return answer, keep

    def close(self) -> None:
        self._sock.close()


class _Head(NamedTuple):
    """Status line and headers."""

    minor: int  # the n of HTTP/1.n
    status: int
    reason: str
    headers: Mapping[str, str]  # as an Answer's; those that say where it ends joined by commas

    @property
    def keeps(self) -> bool:
        """Whether the other side leaves the connection open."""
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection if self.minor else "keep-alive" in connection


class _Incoming:
    """What comes in answer to one request; BrokenError if it is not HTTP, or ends too soon."""

    def __init__(self, sock: PlainSocket | tls.TlsSocket) -> None:
        self._sock = sock
        self._received = bytearray()  # and not taken yet
        self._scratch = memoryview(bytearray(SCRATCH))
        self._begun = False

    def answer(self) -> tuple[Answer, bool]:
        """The whole of it, and whether the connection can be used again: not with more in it than was asked for."""
        head = self.head()
        while head.status < 200:
            head = self.head()
        body = self._body(head)
        return Answer(head.status, head.headers, body), head.keeps and not self._received and not self._sock.pending()

    def head(self) -> _Head:
        """The next status line and headers."""
        received, seen = self._received, 0
        while (end := received.find(b"\r\n\r\n", seen) + 4) < 4 and len(received) <= LONGEST_HEAD:
            if b"\n" in received and not _STATUS.match(received):
                raise _not_http("BadStatusLine")
            seen = max(0, len(received) - 3)
            self._receive()
        if not 4 <= end <= LONGEST_HEAD:
            raise _not_http("LineTooLong" if _STATUS.match(received) else "BadStatusLine")
        data = self._take(end)
        match = _HEAD.fullmatch(data)
        if not match:
            raise _not_http("BadHeader" if _STATUS.match(data) else "BadStatusLine")
        lines = match[4].decode("latin-1").split("\r\n")[:-1]
        if len(lines) > MOST_LINES:
            raise _not_http("TooManyHeaders")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if name not in headers:
                headers[name] = value
            elif name in _FRAMING:
                headers[name] += f", {value}"
        return _Head(int(match[1]), int(match[2]), (match[3] or b"").decode("latin-1"), headers)

    def _body(self, head: _Head) -> bytes:
        if head.status in (204, 304):
            return b""
        if coding := head.headers.get("transfer-encoding"):
            if coding.lower() != "chunked":
                raise BrokenError(NO_LENGTH)
            return self._chunks()
        length = head.headers.get("content-length", "")
        if not length.isdecimal():
            raise BrokenError(NO_LENGTH)
        if len(length) > 15 or int(length) > LARGEST:
            raise BrokenError(TOO_LARGE)
        return self._exactly(int(length), 0)

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            match = _CHUNK.fullmatch(self._line())
            if not match:
                raise _not_http("BadChunk")
            size = int(match[1], 16)
            if size == 0:
                break
            if len(body) + size > LARGEST:
                raise BrokenError(TOO_LARGE)
            body += self._exactly(size, len(body))
            if self._exactly(2, len(body)) != b"\r\n":
                raise _not_http("BadChunk")
        for _ in range(MOST_LINES):
            if not self._line():
                return bytes(body)
        raise _not_http("TooManyHeaders")

    def _line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > LONGEST_HEAD:
                raise _not_http("LineTooLong")
            self._receive()
        return self._take(end + 2)[:-2]

    def _exactly(self, size: int, before: int) -> bytes:
        """So many bytes of the body, of which `before` have been read."""
        first = self._take(size)
        if len(first) == size:
            return first
        whole, got = bytearray(size), len(first)
        whole[:got] = first
        with memoryview(whole) as view:
            while got < size:
                count = self._sock.recv_into(view[got:])
                if not count:
                    raise BrokenError(f"it ended after {before + got} bytes of the answer")
                got += count
        return bytes(whole)

    def _receive(self) -> None:
        count = self._sock.recv_into(self._scratch)
        if not count:
            raise BrokenError(
                "it ended in the middle of the answer" if self._begun else "it was closed without an answer"
            )
        self._begun = True
        self._received += self._scratch[:count]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _not_http(problem: str) -> BrokenError:
    return BrokenError(f"the answer is not HTTP ({problem})")


def connect(endpoint: Endpoint, wait: Wait) -> PlainSocket | tls.TlsSocket:
    """Name look-up, connection and TLS; each address of the name has its share of the time."""
    try:
        return _connect(endpoint, wait)
    except ConnectError as error:
        if endpoint.proxy is None:
            raise
        raise ConnectError(f"through the proxy {endpoint.proxy.host}: {error}") from None


def _connect(endpoint: Endpoint, wait: Wait) -> PlainSocket | tls.TlsSocket:
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
        except OSError as error:
            problem = ConnectError(error.strerror or str(error))
    raise problem


def _connect_to(endpoint: Endpoint, family: int, address: Any, wait: Wait) -> PlainSocket | tls.TlsSocket:
    plain = PlainSocket(family, socket.SOCK_STREAM)
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
        if not endpoint.tls:
            return plain
        from awslambda import tls

        return tls.wrapped(plain, endpoint.host, endpoint.ca_bundle, wait)
    except BaseException:
        plain.close()
        raise


def _open_tunnel(plain: PlainSocket, endpoint: Endpoint, proxy: Proxy, wait: Wait) -> None:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"CONNECT {host}:{endpoint.port} HTTP/1.1", f"Host: {host}:{endpoint.port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    plain.wait = wait
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    try:
        head = _Incoming(plain).head()
    except BrokenError:
        raise ConnectError("it does not answer as a proxy does") from None
    if head.status != 200:
        raise ConnectError(f"it refused: {head.status} {head.reason}")


class InSlices:
    """A non-blocking socket's waits become slices of `wait`."""

    wait: Wait

    def in_slices(self, operation: Callable[..., int | None], *args: Any, events: int = select.POLLIN) -> int:
        """Does it as soon as the socket is ready for it."""
        while True:
            self.wait.tick()
            try:
                return operation(*args) or 0
            except OSError as error:
                awaited = self.awaited(error, events)
                if not awaited:
                    raise
            self.wait.for_socket(cast(socket.socket, self).fileno(), awaited)

    def awaited(self, error: OSError, events: int) -> int:
        """What to wait for, of select.poll's events, if the operation is to be tried again after this error."""
        return events if isinstance(error, BlockingIOError) else 0

    def send_all(self, send: Callable[..., int], data: bytes) -> None:
        """Sends all of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.in_slices(send, rest, events=select.POLLOUT) :]


class PlainSocket(InSlices, socket.socket):
    """A non-blocking socket, used as a blocking one is."""

    def pending(self) -> int:
        """The bytes that have been read from the system and not by us: only TLS has such."""
        return 0

    def recv_into(self, *args: Any) -> int:
        return self.in_slices(super().recv_into, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.send_all(super().send, data)
