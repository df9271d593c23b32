"""TLS over a connection. Only who needs it imports it: OpenSSL's part of Python takes a megabyte."""

from __future__ import annotations

import os
import select
import socket
import ssl
from typing import Any, cast

from awslambda.connection import ConnectError, InSlices
from awslambda.waits import Wait, in_openssl


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
