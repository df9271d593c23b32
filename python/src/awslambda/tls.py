"""TLS over a connection. Only who needs it imports it: OpenSSL's part of Python takes a megabyte."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from awslambda.connection import ConnectError, InSlices
from awslambda.waits import Wait, in_openssl

T = TypeVar("T")


class TlsSocket(InSlices, ssl.SSLSocket):
    """A non-blocking socket, as connection's PlainSocket, that speaks TLS."""

    def recv_into(self, *args: Any) -> int:
        return self.in_slices(self._received, *args)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.send_all(self._sent, data)

    def step_of_handshake(self) -> None:
        """As far as it goes without waiting."""
        with in_openssl():
            self.do_handshake()

    def _received(self, *args: Any) -> int:
        with in_openssl():
            return super().recv_into(*args)

    def _sent(self, data: Any) -> int:
        with in_openssl():
            return super().send(data)

    def awaited(self, error: OSError, events: int) -> int:
        """As InSlices says: TLS may have to read in order to write, and the other way round."""
        if isinstance(error, ssl.SSLWantReadError):
            return select.POLLIN
        if isinstance(error, ssl.SSLWantWriteError):
            return select.POLLOUT
        return super().awaited(error, events)


def wrapped(plain: socket.socket, host: str, ca_bundle: str, wait: Wait) -> TlsSocket:
    """TLS with `host`, whose certificate the bundle vouches for; OSError that says why if there is none."""
    context = _context(ca_bundle)
    with in_openssl():
        sock = cast(TlsSocket, context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False))
    try:
        sock.wait = wait
        sock.in_slices(sock.step_of_handshake)
        return sock
    except ssl.SSLError as error:
        sock.close()
        reason = getattr(error, "verify_message", "") or error.reason or error
        raise OSError(0, f"TLS failed: {reason}") from None
    except BaseException:
        sock.close()
        raise


_contexts: dict[tuple[str, int], ssl.SSLContext] = {}  # by file and its time of change


def _context(ca_bundle: str) -> ssl.SSLContext:
    try:
        key = (ca_bundle, os.stat(ca_bundle).st_mtime_ns)  # noqa: PTH116
        if key not in _contexts:
            with in_openssl():
                context = ssl.create_default_context(cafile=ca_bundle)
            context.sslsocket_class = TlsSocket
            _contexts[key] = context
        return _contexts[key]
    except OSError as error:
        raise ConnectError(f"the CA bundle {ca_bundle} cannot be used: {error.strerror or error}") from None


class SocketInTurn(ssl.SSLSocket):
    """A blocking socket, which is in OpenSSL only as long as it does not wait."""

    def do_handshake(self, block: bool = False) -> None:
        self._in_turn(super().do_handshake)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        return self._in_turn(lambda: super(SocketInTurn, self).read(len, buffer))

    def send(self, data: Any, flags: int = 0) -> int:
        return self._in_turn(lambda: super(SocketInTurn, self).send(data, flags))

    def _in_turn(self, operation: Callable[[], T]) -> T:
        timeout = self.gettimeout()
        end = None if timeout is None else time.monotonic() + timeout
        self.settimeout(0)
        try:
            while True:
                try:
                    with in_openssl():
                        return operation()
                except ssl.SSLWantReadError:
                    events = select.POLLIN
                except ssl.SSLWantWriteError:
                    events = select.POLLOUT
                poller = select.poll()
                poller.register(self.fileno(), events)
                if not poller.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000):
                    raise TimeoutError("timed out")
        finally:
            self.settimeout(timeout)


class ContextInTurn(ssl.SSLContext):
    """What others make TLS connections with, in helper threads too: a context becomes one by its __class__."""

    sslsocket_class = SocketInTurn

    def load_verify_locations(self, *args: Any, **kwargs: Any) -> None:
        with in_openssl():
            super().load_verify_locations(*args, **kwargs)

    def wrap_socket(  # noqa: PLR0917 - as it is there
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        with in_openssl():
            wrapped = super().wrap_socket(sock, server_side, False, suppress_ragged_eofs, server_hostname, session)
        try:
            if do_handshake_on_connect:
                wrapped.do_handshake()
            return wrapped
        except BaseException:
            wrapped.close()
            raise


def in_turn(make: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """The same, for contexts that may be used in a helper thread."""

    def made(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        with in_openssl():
            context = make(*args, **kwargs)
        if type(context) is ssl.SSLContext:  # and not what some other code of this session has put in its place
            context.__class__ = ContextInTurn
        return context

    return made
