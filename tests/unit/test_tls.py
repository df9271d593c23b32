"""TLS of others, above all of botocore: as before, but that nobody is in OpenSSL while it waits."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from awslambda import waits
from awslambda.tls import in_turn

from tests.endpoints import Endpoint, Received, silence
from tests.unit.cancelling import takes

Start = Callable[..., Endpoint]


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = in_turn(ssl.create_default_context)()
    made.load_verify_locations(str(certificate))
    return made


def echo(connection: ssl.SSLSocket, received: Received) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(received.body) + received.body)
    return True


def test_much_goes_both_ways(endpoint: Start, certificate: Path, context: ssl.SSLContext) -> None:
    port = endpoint(echo, certificate=certificate).port
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    for size in (1, 3_000_000):
        connection.request("POST", "/", b"x" * size)
        assert connection.getresponse().read() == b"x" * size
    connection.close()


@pytest.mark.parametrize("handshake", [False, True])
def test_a_timeout_ends_it(endpoint: Start, certificate: Path, context: ssl.SSLContext, handshake: bool) -> None:
    port = endpoint(silence, certificate=certificate, handshake=handshake).port
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=0.3, context=context)
    with takes(0.3), contextlib.closing(connection), pytest.raises(TimeoutError):
        connection.request("POST", "/")
        connection.getresponse()


def test_a_certificate_that_nobody_vouches_for_is_refused(endpoint: Start, certificate: Path) -> None:
    port = endpoint(echo, certificate=certificate).port
    context = in_turn(ssl.create_default_context)()
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("POST", "/")


@pytest.mark.parametrize("handshake", [False, True])
def test_a_helper_that_waits_keeps_no_backend_waiting(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, certificate: Path, context: ssl.SSLContext, handshake: bool
) -> None:
    for name, value in (("_openssl", threading.Lock()), ("_turn", threading.Lock()), ("_main_threads", [])):
        monkeypatch.setattr(waits, name, value)
    waits.keep_openssl()
    target = endpoint(silence, certificate=certificate, handshake=handshake)
    connection = http.client.HTTPSConnection("127.0.0.1", target.port, timeout=1, context=context)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            connection.request("POST", "/")
            connection.getresponse()
        except TimeoutError as error:
            failed.append(error)

    helper = waits.start_helper(ask)
    with waits.waiting_for_helpers():
        time.sleep(0.4)
    assert waits._openssl.locked() and helper.is_alive()
    with waits.waiting_for_helpers():
        helper.join(10)
    connection.close()
    assert failed
