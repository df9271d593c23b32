"""One connection and its ends: what was sent, how often, and how long anything may take."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import string
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore
import hypothesis
import pytest
from awslambda import connection
from awslambda.connection import Answer, BrokenError, ConnectError, Connections, Proxy
from awslambda.waits import Wait
from hypothesis import given
from hypothesis import strategies as st

from tests.endpoints import (
    Behaviour,
    Endpoint,
    Received,
    answer,
    black_hole,
    break_off,
    closed_port,
    hang_up,
    in_turn,
    silence,
    trickle,
    tunnel,
)
from tests.unit.cancelling import cancelled, nothing, takes
from tests.waiting import wait_until

Start = Callable[..., Endpoint]
EVERYBODYS_BUNDLE = Path(botocore.__file__).with_name("cacert.pem")
EIGHT_MEGABYTES = os.urandom(8 * 1024 * 1024)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n"


def place(
    port: int, tls: bool = False, ca_bundle: Path | None = None, host: str = "127.0.0.1", proxy: Proxy | None = None
) -> connection.Endpoint:
    return connection.Endpoint(tls, host, port, str(ca_bundle) if ca_bundle else "", proxy)


def message(body: bytes = b"{}") -> bytes:
    return b"POST /path HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def exchanged(
    connections: Connections,
    where: Endpoint | connection.Endpoint,
    body: bytes = b"{}",
    *,
    connect_timeout: float = 10,
    seconds: float = 20,
    check: Callable[[], None] = nothing,
) -> Answer:
    """One request with this body, and its answer."""
    endpoint = place(where.port) if isinstance(where, Endpoint) else where
    return connections.exchange(endpoint, message(body), connect_timeout, Wait(check, seconds))


def said(data: bytes, close: bool = False) -> Behaviour:
    """Answers with these very bytes."""

    def behave(sock: socket.socket, _: Received) -> bool:
        sock.sendall(data)
        return not close

    return behave


def echo(sock: socket.socket, received: Received) -> bool:
    """Answers with the request's body."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(received.body) + received.body)
    return True


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """The port of something that is no HTTP server; `serve` gets the first connection."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            client, _ = server.accept()
            with client:
                serve(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def kept_is_stale(connections: Connections) -> bool:
    ((kept,),) = connections._kept.values()
    return kept.is_stale()


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """From now on every name has these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


# Answers.


def test_status_headers_and_body_of_an_answer_are_read(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(418, {"a": 1}, X_Amz_Function_Error="Unhandled"))
    got = exchanged(connections, started, b'{"b": 2}')
    assert (got.status, got.body) == (418, b'{"a": 1}')
    assert got.headers.get("x-amz-function-error") == "Unhandled"
    assert [(request.method, request.path, request.body) for request in started.requests] == [
        ("POST", "/path", b'{"b": 2}')
    ]


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (CHUNKED, b"a0123456789abcdef"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 \r\nCONTENT-LENGTH: \t 2 \t \r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
    ids=["204", "empty", "100", "chunks", "trailer", "304", "103", "no reason", "spaces", "1.0 kept", "chunks count"],
)
def test_a_whole_answer_leaves_the_connection_usable(
    endpoint: Start, connections: Connections, data: bytes, body: bytes
) -> None:
    started = endpoint(in_turn(said(data), answer(200, "next")))
    assert exchanged(connections, started).body == body
    assert exchanged(connections, started).body == b'"next"'
    assert started.connections == 1


def test_headers_are_found_by_their_names_in_lower_case_and_the_first_of_a_name_counts(
    endpoint: Start, connections: Connections
) -> None:
    headers = b"X-Amzn-RequestID: 1:2\r\nx-amzn-requestid: 3\r\nEmpty:\r\nL: \xe9\r\nContent-Length: 0\r\n"
    got = exchanged(connections, endpoint(said(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n")))
    assert got.headers == {"x-amzn-requestid": "1:2", "empty": "", "l": "é", "content-length": "0"}


def test_an_answer_in_pieces_is_the_same_answer(endpoint: Start, connections: Connections) -> None:
    def behave(sock: socket.socket, _: Received) -> bool:
        for byte in b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED:
            sock.sendall(bytes([byte]))
        return True

    started = endpoint(behave)
    assert [exchanged(connections, started).body for _ in range(2)] == [b"a0123456789abcdef"] * 2
    assert started.connections == 1


def test_8_mb_go_out_and_come_back_intact(endpoint: Start, connections: Connections) -> None:
    started = endpoint(echo)
    assert exchanged(connections, started, EIGHT_MEGABYTES).body == EIGHT_MEGABYTES
    assert exchanged(connections, started, b"small").body == b"small"
    assert started.connections == 1


# Which connection is used.


def test_one_connection_serves_many_requests(endpoint: Start, connections: Connections) -> None:
    started = endpoint(echo)
    for number in range(5):
        assert exchanged(connections, started, b"%d" % number).body == b"%d" % number
    assert started.connections == 1
    assert len(started.requests) == 5


def test_each_endpoint_has_a_connection_of_its_own(endpoint: Start, connections: Connections) -> None:
    one, other = endpoint(answer(200, 1)), endpoint(answer(200, 2))
    assert [exchanged(connections, started).body for started in (one, other, one, other)] == [b"1", b"2", b"1", b"2"]
    assert one.connections == other.connections == 1


def test_a_connection_that_the_server_closed_while_idle_is_not_written_to(
    endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    exchanged(connections, started, b"first")
    started.close_connections()
    wait_until(lambda: kept_is_stale(connections), "the end of the connection has arrived")
    assert exchanged(connections, started, b"second").body == b"second"
    assert [request.body for request in started.requests] == [b"first", b"second"]
    assert started.connections == 2


def test_what_nobody_asked_for_is_not_taken_for_the_next_answer(endpoint: Start, connections: Connections) -> None:
    sockets: list[socket.socket] = []

    def behave(sock: socket.socket, received: Received) -> bool:
        sockets.append(sock)
        return echo(sock, received)

    started = endpoint(behave)
    exchanged(connections, started, b"first")
    sockets[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    wait_until(lambda: kept_is_stale(connections), "the unasked answer has arrived")
    assert exchanged(connections, started, b"second").body == b"second"


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(200, "ok", close=True, Connection="close"),
        said(b'HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n"ok"', close=True),
        said(b'HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: y, Close\r\nContent-Length: 4\r\n\r\n"ok"'),
        said(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"and more'),
    ],
    ids=["Connection: close", "HTTP/1.0", "the second Connection", "more than was asked for"],
)
def test_an_answer_that_ends_the_connection_ends_it(
    endpoint: Start, connections: Connections, behaviour: Behaviour
) -> None:
    started = endpoint(behaviour)
    assert [exchanged(connections, started).body for _ in range(2)] == [b'"ok"', b'"ok"']
    assert started.connections == 2
    assert not any(connections._kept.values())


def test_a_server_that_says_it_will_close_but_does_not_is_not_written_to_again(
    endpoint: Start, connections: Connections
) -> None:
    started = endpoint(answer(200, "ok", Connection="close"))
    exchanged(connections, started)
    exchanged(connections, started)
    assert started.connections == 2


@pytest.mark.parametrize(
    "option",
    [(socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)],
    ids=["nodelay", "keepalive"],
)
def test_nothing_waits_for_more_to_send_and_a_peer_that_is_gone_is_noticed(
    endpoint: Start, option: tuple[int, int]
) -> None:
    with contextlib.closing(connection.connect(place(endpoint(echo).port), Wait(nothing, 20))) as sock:
        assert sock.getsockopt(*option)


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    exchanged(connections, started)
    monkeypatch.setattr(connection, "LONGEST_IDLE", 0.0)
    exchanged(connections, started)
    assert started.connections == len(started.requests) == 2


def test_calls_at_once_each_have_a_connection_and_those_after_them_use_these(
    endpoint: Start, connections: Connections
) -> None:
    together = threading.Barrier(8)

    def behave(connection: socket.socket, received: Received) -> bool:
        together.wait(10)
        return answer(body="ok")(connection, received)

    started = endpoint(behave)
    for _ in range(3):
        threads = [threading.Thread(target=exchanged, args=(connections, started)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert (started.connections, len(started.requests)) == (8, 24)


def test_no_more_connections_are_kept_than_are_wanted_and_none_for_too_long(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    where = place(started.port)
    monkeypatch.setattr(connection, "MOST_KEPT", 3)
    for _ in range(4):
        one = connection.Connection(connection.connect(where, Wait(nothing, 20)))
        one.exchange(message(), Wait(nothing, 20))
        connections._keep(where, one)
    assert len(connections._kept[where]) == 3
    for one in connections._kept[where][:2]:
        one._used -= 2 * connection.LONGEST_IDLE
    exchanged(connections, started)
    exchanged(connections, started)
    assert len(connections._kept[where]) == 1 and started.connections == 4


# How an exchange fails. The request has been sent then, and once only.


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (hang_up, "closed without an answer"),
        (break_off, "ended after 8 bytes"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", close=True), "ended"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", close=True), "ended"),
        (said(b"220 mail.example ESMTP\r\n"), "not HTTP"),
        (said(b"\x16\x03\x01\x02\x00\x01\n"), "not HTTP"),
        (said(b"HTTP/1.1 abc\r\n\r\n"), "not HTTP"),
        (said(b"HTTP/1.1 20\r\n\r\n"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=True), ""),
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % 10**15, close=True), ""),
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}"), "more than"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{}"), "more than"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}}}"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * 90_000), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}"), "how long"),
        (said(b"HTTP/1.1 200 OK\r\n\r\n{}", close=True), "how long"),
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n{}"), "how long"),
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}"), "how long"),
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), "how long"),
        (said(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\n{}"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\n{}"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}"), "not HTTP"),
        (said(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), "not HTTP"),
        (said(b"HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}"), "not HTTP"),
        (said(b"x" * 90_000), "not HTTP"),
        (said(b"HTTP/1.1 100 Continue\r\n\r\n", close=True), "middle of the answer"),
    ],
    ids=[
        "hang up",
        "break off",
        "half a chunk",
        "no last chunk",
        "SMTP",
        "TLS",
        "no status",
        "bad status",
        "long line",
        "many headers",
        "bad chunk",
        "a petabyte",
        "a length of 5000 digits",
        "a chunk of 4 GB",
        "a chunk without an end",
        "a negative chunk",
        "a long trailer",
        "a long chunk line",
        "compressed",
        "no length",
        "a length of 2 superior",
        "a negative length",
        "two lengths",
        "a folded line",
        "no colon",
        "a space before the colon",
        "a zero byte",
        "bare line feeds",
        "HTTP/2",
        "no line",
        "100 and no more",
    ],
)
def test_half_an_answer_is_a_broken_connection(
    endpoint: Start, connections: Connections, behaviour: Behaviour, words: str
) -> None:
    started = endpoint(in_turn(behaviour, answer(200, "next")))
    with pytest.raises(BrokenError, match=words or None):
        exchanged(connections, started)
    assert len(started.requests) == 1
    assert exchanged(connections, started).body == b'"next"'
    assert started.connections == 2


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Amz-Function-Error: Unhandled\r\n\r\nnull",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nx-amzn-RequestId: 0123456789\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnull\r\n0",  # the 0 says that it is whole
    ],
    ids=["200", "202", "chunked"],
)
def test_an_answer_that_is_cut_off_anywhere_is_no_answer(
    endpoint: Start, connections: Connections, whole: bytes
) -> None:
    started = endpoint(hang_up)
    taken_for_whole = []
    for end in range(len(whole)):
        started.behaviour = said(whole[:end], close=True)
        with contextlib.suppress(BrokenError):
            exchanged(connections, started)
            taken_for_whole.append(whole[:end])
    assert taken_for_whole == []


def answered(data: bytes) -> Answer | BrokenError:
    """What becomes of an answer of these bytes, after which the other side says nothing more."""
    ours, theirs = socket.socketpair()
    with theirs, connection.PlainSocket(fileno=ours.detach()) as sock:
        sock.setblocking(False)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            return connection.Connection(sock).exchange(message(), Wait(nothing, 20))[0]
        except BrokenError as error:
            return error


tokens = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1).filter(
    lambda name: name.lower() not in {"connection", "content-length", "transfer-encoding"}
)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f\x85")).map(str.strip)
lines = st.lists(st.tuples(tokens, values), max_size=20)


@hypothesis.settings(deadline=None)
@given(st.integers(200, 999), lines, st.lists(st.binary(min_size=1), max_size=5), st.booleans())
def test_an_answer_is_read_as_http_client_reads_it(
    status: int, lines: list[tuple[str, str]], parts: list[bytes], chunked: bool
) -> None:
    hypothesis.assume(status not in (204, 304))
    body = b"".join(parts)
    head = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in lines)]
    if chunked:
        head.append("Transfer-Encoding: chunked")
        sent = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    else:
        head.append(f"Content-Length: {len(body)}")
        sent = body
    data = "\r\n".join([*head, "", ""]).encode("latin-1") + sent
    got = answered(data)
    ours, theirs = socket.socketpair()
    with ours, theirs, http.client.HTTPResponse(ours, method="POST") as reference:
        theirs.sendall(data)
        reference.begin()
        assert isinstance(got, Answer)
        assert (got.status, got.body) == (reference.status, reference.read())
        assert got.headers == {name.lower(): reference.headers.get(name) for name in reference.headers}


whole = st.sampled_from([
    CHUNKED,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnull",
])  # fmt: skip
noise = st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\n", b":", b" ", b"\0", b"9" * 30, b"\r\n\r\n"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer with other bytes in some places."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 20))
        data = data[:start] + draw(noise) + data[start + length :]
    start = draw(st.integers(0, len(data)))
    return data[:start] + draw(st.sampled_from([b"", b"x" * 70_000])) + data[start:]  # what a socket takes at once


@hypothesis.settings(deadline=None, max_examples=500)
@given(st.binary() | st.binary().map(b"HTTP/1.1 200 OK\r\n".__add__) | damaged())
def test_whatever_comes_is_an_answer_or_a_broken_connection(data: bytes) -> None:
    with takes(0):
        got = answered(data)
    assert isinstance(got, (Answer, BrokenError))


def test_a_reset_is_a_broken_connection(connections: Connections) -> None:
    def reset(client: socket.socket) -> None:
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with listener(reset) as port, pytest.raises(BrokenError, match=r"(?i)reset|broken pipe"):
        exchanged(connections, place(port), EIGHT_MEGABYTES)


@pytest.mark.parametrize("behaviour", [silence, trickle, said(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf")])
def test_an_answer_that_does_not_come_in_time_is_a_timeout(
    endpoint: Start, connections: Connections, behaviour: Behaviour
) -> None:
    started = endpoint(in_turn(behaviour, answer(200, "next")))
    with takes(0.3), pytest.raises(TimeoutError):
        exchanged(connections, started, seconds=0.3)
    assert len(started.requests) == 1
    assert exchanged(connections, started).body == b'"next"'
    assert started.connections == 2


@pytest.mark.parametrize("behaviour", [silence, trickle, said(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf")])
def test_an_interrupt_ends_the_wait_for_an_answer_and_the_connection(
    endpoint: Start, connections: Connections, behaviour: Behaviour
) -> None:
    started = endpoint(in_turn(behaviour, answer(200, "next")))
    with cancelled() as check:
        exchanged(connections, started, check=check)
    assert len(started.requests) == 1
    assert exchanged(connections, started).body == b'"next"'
    assert started.connections == 2


def test_an_interrupt_ends_the_wait_on_a_kept_connection_too(endpoint: Start, connections: Connections) -> None:
    started = endpoint(in_turn(answer(200, "first"), silence, answer(200, "last")))
    exchanged(connections, started)
    with cancelled() as check:
        exchanged(connections, started, check=check)
    assert exchanged(connections, started).body == b'"last"'


def test_the_time_to_connect_does_not_limit_the_answer(endpoint: Start, connections: Connections) -> None:
    def late(sock: socket.socket, received: Received) -> bool:
        threading.Timer(0.4, echo, [sock, received]).start()
        return True

    assert exchanged(connections, endpoint(late), b"late", connect_timeout=0.2).body == b"late"


def flood(sock: socket.socket, _: Received) -> bool:
    """An answer without an end, as fast as it goes."""
    with contextlib.suppress(OSError):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n")
        while True:
            sock.sendall(b"x" * 100)
    return False


def test_an_interrupt_is_noticed_while_there_is_always_something_to_read(
    endpoint: Start, connections: Connections
) -> None:
    with cancelled() as check:
        exchanged(connections, endpoint(flood), check=check)


def test_a_server_that_does_not_read_is_waited_for_until_the_deadline(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = place(server.getsockname()[1])
        with takes(0.3), pytest.raises(TimeoutError):
            exchanged(connections, where, EIGHT_MEGABYTES, seconds=0.3)
        with cancelled() as check:
            exchanged(connections, where, EIGHT_MEGABYTES, check=check)


# How connecting fails. Nothing has been sent then.


def test_a_refused_connection_is_told_from_a_broken_one(connections: Connections) -> None:
    with takes(0), pytest.raises(ConnectError, match="refused"):
        exchanged(connections, place(closed_port()))


def test_connecting_to_a_black_hole_takes_as_long_as_is_allowed(connections: Connections) -> None:
    with black_hole() as port, takes(0.3), pytest.raises(ConnectError, match="did not answer in time"):
        exchanged(connections, place(port), connect_timeout=0.3)


def test_the_deadline_of_the_whole_limits_connecting_too(connections: Connections) -> None:
    with black_hole() as port, takes(0.3), pytest.raises(ConnectError):
        exchanged(connections, place(port), seconds=0.3)


def test_an_interrupt_ends_connecting(connections: Connections) -> None:
    with black_hole() as port, cancelled() as check:
        exchanged(connections, place(port), check=check)


# Names.


@pytest.fixture
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver that never answers."""
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait() and [])
    yield
    end.set()


@pytest.mark.usefixtures("no_resolver")
def test_a_silent_resolver_is_waited_for_as_long_as_is_allowed(connections: Connections) -> None:
    with takes(0.3), pytest.raises(ConnectError, match="name look-up"):
        exchanged(connections, place(1, host="name.example"), connect_timeout=0.3)


@pytest.mark.usefixtures("no_resolver")
def test_an_interrupt_ends_the_name_look_up(connections: Connections) -> None:
    with cancelled() as check:
        exchanged(connections, place(1, host="name.example"), check=check)


def test_a_name_that_does_not_exist_says_so(monkeypatch: pytest.MonkeyPatch, connections: Connections) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectError, match="name look-up failed: Name or service not known"):
        exchanged(connections, place(1, host="name.example"))


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", ".example"])
def test_a_name_that_cannot_be_one_cannot_be_connected_to(connections: Connections, host: str) -> None:
    with pytest.raises(ConnectError, match="name look-up failed"):
        exchanged(connections, place(1, host=host))


def test_a_name_without_addresses_cannot_be_connected_to(
    monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    resolving(monkeypatch)
    with pytest.raises(ConnectError, match="no address"):
        exchanged(connections, place(1, host="name.example"))


def test_the_second_address_is_tried_where_the_first_refuses(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    resolving(monkeypatch, ("127.0.0.1", closed_port()), ("127.0.0.1", started.port))
    assert exchanged(connections, place(started.port, host="name.example"), b"x").body == b"x"
    assert len(started.requests) == 1


def test_the_second_address_has_time_left_where_the_first_is_silent(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    with black_hole() as port, takes(0.3):
        resolving(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", started.port))
        assert exchanged(connections, place(1, host="name.example"), b"x", connect_timeout=0.6).body == b"x"


def test_silent_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch, connections: Connections) -> None:
    with black_hole() as port, takes(0.3), pytest.raises(ConnectError):
        resolving(monkeypatch, *[("127.0.0.1", port)] * 3)
        exchanged(connections, place(1, host="name.example"), connect_timeout=0.3)


def test_an_interrupt_at_one_address_is_not_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(echo)
    with black_hole() as port, cancelled() as check:
        resolving(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", started.port))
        exchanged(connections, place(1, host="name.example"), check=check)
    assert started.connections == 0


# TLS.


def test_tls_with_the_right_bundle_reaches_the_endpoint_over_one_connection(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate)
    for number in range(4):
        got = exchanged(connections, place(started.port, True, certificate), b"%d" % number)
        assert got.body == b"%d" % number
    assert started.connections == 1


def test_8_mb_go_through_tls_intact(endpoint: Start, connections: Connections, certificate: Path) -> None:
    where = place(endpoint(echo, certificate=certificate).port, True, certificate)
    assert exchanged(connections, where, EIGHT_MEGABYTES).body == EIGHT_MEGABYTES


def test_a_tls_connection_that_the_server_closed_while_idle_is_not_written_to(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate)
    where = place(started.port, True, certificate)
    exchanged(connections, where, b"first")
    started.close_connections()
    wait_until(lambda: kept_is_stale(connections), "the end of the connection has arrived")
    assert exchanged(connections, where, b"second").body == b"second"
    assert [request.body for request in started.requests] == [b"first", b"second"]


def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_sent(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate)
    with pytest.raises(ConnectError, match=r"TLS failed: .*self-signed certificate"):
        exchanged(connections, place(started.port, True, EVERYBODYS_BUNDLE))
    assert started.requests == []


def test_a_certificate_for_another_name_is_refused_and_nothing_sent(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate)
    resolving(monkeypatch, ("127.0.0.1", started.port))
    with pytest.raises(ConnectError, match=r"TLS failed: .*(?i:hostname mismatch)"):
        exchanged(connections, place(started.port, True, certificate, host="lambda.eu-west-1.amazonaws.com"))
    assert started.requests == []


def test_a_handshake_that_the_server_ends_is_no_connection(connections: Connections, certificate: Path) -> None:
    with listener(lambda client: client.recv(1)) as port, pytest.raises(ConnectError):
        exchanged(connections, place(port, True, certificate))


def test_a_server_without_tls_is_no_connection(connections: Connections, certificate: Path) -> None:
    def serve(client: socket.socket) -> None:
        client.recv(10_000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listener(serve) as port, pytest.raises(ConnectError, match="TLS failed"):
        exchanged(connections, place(port, True, certificate))


def test_a_silent_handshake_takes_as_long_as_is_allowed(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate, handshake=False)
    with takes(0.3), pytest.raises(ConnectError, match="did not answer in time"):
        exchanged(connections, place(started.port, True, certificate), connect_timeout=0.3)


def test_an_interrupt_ends_a_handshake(endpoint: Start, connections: Connections, certificate: Path) -> None:
    started = endpoint(echo, certificate=certificate, handshake=False)
    with cancelled() as check:
        exchanged(connections, place(started.port, True, certificate), check=check)


@pytest.mark.parametrize("behaviour", [silence, trickle])
def test_an_interrupt_ends_the_wait_for_an_answer_through_tls(
    endpoint: Start, connections: Connections, certificate: Path, behaviour: Behaviour
) -> None:
    started = endpoint(behaviour, certificate=certificate)
    with cancelled(after=0.2) as check:
        exchanged(connections, place(started.port, True, certificate), check=check)
    assert len(started.requests) == 1


@pytest.mark.parametrize("behaviour", [hang_up, break_off])
def test_half_an_answer_through_tls_is_a_broken_connection(
    endpoint: Start, connections: Connections, certificate: Path, behaviour: Behaviour
) -> None:
    started = endpoint(behaviour, certificate=certificate)
    with pytest.raises(BrokenError):
        exchanged(connections, place(started.port, True, certificate))
    assert len(started.requests) == 1


def test_the_bundle_of_one_server_vouches_for_no_other(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(echo, certificate=certificate)
    exchanged(connections, place(started.port, True, certificate))
    with pytest.raises(ConnectError, match="TLS failed"):
        exchanged(connections, place(started.port, True, EVERYBODYS_BUNDLE))
    assert len(started.requests) == 1


@pytest.mark.parametrize("content", [None, "", "no certificate at all"], ids=["missing", "empty", "text"])
def test_a_bundle_that_cannot_be_used_is_named(connections: Connections, tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ConnectError, match=str(bundle)):
        exchanged(connections, place(server.getsockname()[1], True, bundle))


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    endpoint: Start, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = endpoint(answer(body="ok"))
    exchanged(connections, target)
    exchanged(connections, target)
    assert target.connections == 1
    monkeypatch.setattr(connection, "LONGEST_IDLE", -1)
    exchanged(connections, target)
    assert target.connections == 2


# A proxy.


@pytest.mark.parametrize("authorization", ["", "Basic dXNlcjpwQHNz"], ids=["nobody", "user"])
def test_a_proxy_tunnels_to_the_endpoint_and_sees_neither_request_nor_answer(
    endpoint: Start, connections: Connections, certificate: Path, authorization: str
) -> None:
    secure, proxy = endpoint(echo, certificate=certificate), endpoint(tunnel)
    where = place(secure.port, True, certificate, host="localhost", proxy=Proxy("127.0.0.1", proxy.port, authorization))
    assert [exchanged(connections, where, b"%d" % number).body for number in range(2)] == [b"0", b"1"]
    assert secure.connections == 1
    (received,) = proxy.requests
    assert (received.method, received.path) == ("CONNECT", f"localhost:{secure.port}")
    assert received.headers.get("proxy-authorization") == (authorization or None)


def test_behind_a_proxy_the_certificate_is_still_the_endpoints(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    secure, proxy = endpoint(echo, certificate=certificate), endpoint(tunnel)
    where = place(secure.port, True, EVERYBODYS_BUNDLE, proxy=Proxy("127.0.0.1", proxy.port))
    with pytest.raises(ConnectError, match="TLS failed"):
        exchanged(connections, where)
    assert secure.requests == []


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (answer(407, {}), "407"),
        (answer(403, {}), "403"),
        (hang_up, ""),
        (said(b"HTTP/1.1 200 Conn", close=True), ""),
        (said(b"SSH-2.0-OpenSSH_9.2\r\n", close=True), "does not answer as a proxy"),
    ],
    ids=["407", "403", "hang up", "break off", "SSH"],
)
def test_a_proxy_that_does_not_tunnel_is_no_connection(
    endpoint: Start, connections: Connections, certificate: Path, behaviour: Behaviour, words: str
) -> None:
    secure, proxy = endpoint(echo, certificate=certificate), endpoint(behaviour)
    where = place(secure.port, True, certificate, proxy=Proxy("127.0.0.1", proxy.port, "Basic hunter2"))
    with pytest.raises(ConnectError, match=words or None) as caught:
        exchanged(connections, where)
    assert "hunter2" not in str(caught.value)
    assert secure.connections == 0


def test_a_proxy_that_cannot_be_reached_is_the_one_that_is_named(connections: Connections, certificate: Path) -> None:
    where = place(1, True, certificate, proxy=Proxy("127.0.0.1", closed_port(), "Basic hunter2"))
    with pytest.raises(ConnectError, match=r"proxy 127\.0\.0\.1.*refused") as caught:
        exchanged(connections, where)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("behaviour", [silence, said(b"HTTP/1.1 200 OK\r\nX: ")], ids=["silence", "half a header"])
def test_a_silent_proxy_takes_as_long_as_is_allowed(
    endpoint: Start, connections: Connections, certificate: Path, behaviour: Behaviour
) -> None:
    where = place(1, True, certificate, proxy=Proxy("127.0.0.1", endpoint(behaviour).port))
    with takes(0.3), pytest.raises(ConnectError, match="in time"):
        exchanged(connections, where, connect_timeout=0.3)


def test_an_interrupt_ends_the_wait_for_a_proxy(endpoint: Start, connections: Connections, certificate: Path) -> None:
    where = place(1, True, certificate, proxy=Proxy("127.0.0.1", endpoint(silence).port))
    with cancelled() as check:
        exchanged(connections, where, check=check)
