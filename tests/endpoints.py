"""An HTTP endpoint that does what a test tells it to: answer, be silent, trickle, break off. It counts what it got."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


Behaviour = Callable[[socket.socket, Received], bool]  # returns whether to keep the connection


def answer(status: int = 200, body: object = None, close: bool = False, **headers: str) -> Behaviour:
    """A whole answer; header names have _ for -."""

    def behave(connection: socket.socket, _: Received) -> bool:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "x-amzn-RequestId: r-1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        return not close

    return behave


def refusal(status: int, code: str, message: str = "no", **more: str) -> Behaviour:
    """An error as AWS gives it."""
    return answer(status, {"message": message, "Type": "User", **more}, x_amzn_ErrorType=code)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour after the other; the last one stays."""
    left = list(behaviours)

    def behave(connection: socket.socket, received: Received) -> bool:
        return (left.pop(0) if len(left) > 1 else left[0])(connection, received)

    return behave


def silence(connection: socket.socket, _: Received) -> bool:
    """Reads the request and never answers, until the client goes."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    return False


def break_off(connection: socket.socket, _: Received) -> bool:
    """Half an answer, then the end."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"half":')
    return False


def hang_up(connection: socket.socket, _: Received) -> bool:
    """Takes the request and closes."""
    return False


def trickle(connection: socket.socket, _: Received) -> bool:
    """An answer without an end, a byte every 5 ms."""
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.005)
    return False


def tunnel(connection: socket.socket, received: Received) -> bool:
    """What a proxy does with CONNECT."""
    host, _, port = received.path.rpartition(":")
    with socket.create_connection((host, int(port))) as target:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_copy, args=(target, connection), daemon=True)
        back.start()
        _copy(connection, target)
        back.join()
    return False


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Endpoint:
    """Listens on a free port of 127.0.0.1; `behaviour` may be changed at any time."""

    def __init__(self, behaviour: Behaviour, certificate: Path | None = None, handshake: bool = True) -> None:
        self.behaviour = behaviour
        self.requests: list[Received] = []
        self.connections = 0
        self._tls = None
        self._handshake = handshake
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close_connections(self) -> None:
        """As a server does with idle ones."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.close_connections()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None and self._handshake:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            elif self._tls is not None:
                connection.recv(100_000)
                silence(connection, Received("", "", {}, b""))
                return
            with connection.makefile("rb") as stream:
                for received in _requests(stream):
                    self.requests.append(received)
                    if not self.behaviour(connection, received):
                        break
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _requests(stream: object) -> Iterator[Received]:
    while line := stream.readline():  # type: ignore[attr-defined]
        method, path, _ = line.decode("ascii").split(" ")
        headers = {}
        while line := stream.readline().strip():  # type: ignore[attr-defined]
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        body = stream.read(int(headers.get("content-length", 0)))  # type: ignore[attr-defined]
        yield Received(method, path, headers, body)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port of 127.0.0.1 that takes no more connections: connecting to it hangs."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # fill the queue of connections that nobody accepts
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
