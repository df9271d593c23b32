"""A fake Lambda that keeps a history: every invocation, who called, which records, when, and what it was answered.

A process of its own, one thread. It reads commands from standard input, one JSON object a line, and answers each with a
line; they are the methods of Stub. It ends with its input. No signature is checked.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import itertools
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.history.checker import CUT, FAILED, FUNCTION_ERROR, GONE, OK, THROTTLE, Invocation, Sight

PATH = b"/2015-03-31/functions/"
FAILURES = {
    FUNCTION_ERROR: (200, {"errorType": "Unlucky", "errorMessage": "not today"}, {"X-Amz-Function-Error": "Unhandled"}),
    THROTTLE: (429, {"message": "Rate Exceeded.", "Type": "User"}, {"x-amzn-ErrorType": "TooManyRequestsException"}),
    FAILED: (500, {"message": "no", "Type": "Service"}, {"x-amzn-ErrorType": "ServiceException"}),
}


@dataclass(frozen=True)
class Behaviour:
    """What a function does: probabilities of going wrong, per invocation, and how long it takes, in seconds.

    A record whose token contains `poison` always fails: alone where the function reports items, else with its batch.
    """

    error: float = 0.0
    items: float = 0.0  # that some items fail; only where it `reports`
    throttle: float = 0.0
    failed: float = 0.0  # a 5xx
    hang: float = 0.0  # no answer until the client goes
    cut: float = 0.0  # runs, and the connection breaks
    slow: float = 0.0
    takes: tuple[float, float] = (0.0, 0.0)
    slow_takes: tuple[float, float] = (0.2, 0.6)
    reports: bool = False  # answers with batchItemFailures


@dataclass
class _Client:
    name: str
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    open: _Open | None = None


@dataclass
class _Open:
    """An invocation that has come in; `line` is what goes into the log."""

    client: _Client
    line: dict[str, Any]
    outcome: str = OK
    body: bytes = b"null"


class Stub:
    """The running process, for tests: commands as methods."""

    def __init__(self, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.history.stub", str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            start_new_session=True,
        )  # fmt: skip

    def listen(self, client: str) -> int:
        """A port whose calls are logged as this client's."""
        return int(self._ask(command="listen", client=client))

    def behave(self, functions: Mapping[str, Behaviour]) -> None:
        """Replaces what all functions do; those not named just succeed."""
        self._ask(command="behave", functions={name: asdict(one) for name, one in functions.items()})

    def throttle(self, function: str, seconds: float) -> None:
        """Has a function refuse everything for a while."""
        self._ask(command="throttle", function=function, seconds=seconds)

    def hold(self, function: str) -> None:
        """Leaves the calls of a function unanswered from now on."""
        self._ask(command="hold", function=function)

    def release(self, function: str) -> None:
        """Answers what was held with success, and what comes."""
        self._ask(command="release", function=function)

    def forget(self, function: str) -> None:
        """From now on only counts the different records of a function, by the number in their token."""
        self._ask(command="forget", function=function)

    def forgotten(self, function: str) -> int:
        """How many different records of such a function were acknowledged."""
        return int(self._ask(command="forgotten", function=function))

    def count(self) -> dict[str, int]:
        """Invocations so far, per function."""
        return dict(self._ask(command="count"))

    def log(self) -> list[Invocation]:
        """All invocations so far, in order of arrival."""
        lines = self._ask(command="log")
        return [
            Invocation(
                one["client"], one["function"], one["start"],
                float("inf") if one["end"] is None else one["end"],
                one["outcome"], [Sight(*sight) for sight in one["sights"]],
            )
            for one in lines
        ]  # fmt: skip

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, **command: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class _Server:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ready = selectors.DefaultSelector()
        self.functions: dict[str, Behaviour] = {}
        self.throttled: dict[str, float] = {}
        self.held: dict[str, list[_Open]] = {}
        self.timers: list[tuple[float, int, _Open]] = []
        self.number = itertools.count()
        self.lines: list[dict[str, Any]] = []
        self.acknowledged: dict[str, set[int]] = {}

    def serve(self) -> None:
        os.set_blocking(0, False)
        self.ready.register(0, selectors.EVENT_READ)
        commands = bytearray()
        while True:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            arrived = []
            for key, _ in self.ready.select(wait):
                if key.fileobj == 0:
                    data = os.read(0, 1 << 20)
                    if not data:
                        return
                    commands += data
                elif isinstance(key.data, str):
                    self.accept(key.fileobj, key.data)  # type: ignore[arg-type]
                elif self.read(key.data):
                    arrived.append(key.data)
            while self.timers and self.timers[0][0] <= time.monotonic():
                self.answer(heapq.heappop(self.timers)[2])
            for client in arrived:  # after all ends of connections of this round: who was killed is gone first
                self.take(client)
            while b"\n" in commands:
                line, _, commands = commands.partition(b"\n")
                print(json.dumps(self.command(**json.loads(line))), flush=True)

    def command(self, command: str, **arguments: Any) -> object:
        return getattr(self, f"_{command}")(**arguments)

    def _listen(self, client: str) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.ready.register(listener, selectors.EVENT_READ, client)
        return int(listener.getsockname()[1])

    def _behave(self, functions: dict[str, dict[str, Any]]) -> None:
        self.functions = {name: Behaviour(**one) for name, one in functions.items()}

    def _throttle(self, function: str, seconds: float) -> None:
        self.throttled[function] = time.monotonic() + seconds

    def _hold(self, function: str) -> None:
        self.held.setdefault(function, [])

    def _release(self, function: str) -> None:
        for one in self.held.pop(function, []):
            self.answer(one)

    def _forget(self, function: str) -> None:
        self.acknowledged[function] = set()

    def _forgotten(self, function: str) -> int:
        return len(self.acknowledged[function])

    def _count(self) -> dict[str, int]:
        return Counter(line["function"] for line in self.lines)

    def _log(self) -> list[dict[str, Any]]:
        return self.lines

    def accept(self, listener: socket.socket, name: str) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ready.register(connection, selectors.EVENT_READ, _Client(name, connection))

    def read(self, client: _Client) -> bool:
        """Whether there is something to look at; notes the end of a connection at once."""
        try:
            data = client.socket.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.drop(client, GONE)
        client.received += data
        return bool(data)

    def drop(self, client: _Client, outcome: str) -> None:
        if client.open is not None:
            client.open.line.update(end=time.monotonic(), outcome=outcome)
            client.open = None
        with contextlib.suppress(KeyError):
            self.ready.unregister(client.socket)
        client.socket.close()

    def take(self, client: _Client) -> None:
        end = client.received.find(b"\r\n\r\n")
        if end < 0 or client.open is not None:
            return
        head = bytes(client.received[:end])
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        whole = end + 4 + (int(lengths[0][15:]) if lengths else 0)
        if len(client.received) < whole:
            return
        body = bytes(client.received[end + 4 : whole])
        del client.received[:whole]
        path = head.split(b" ", 2)[1]
        function = unquote(path[len(PATH) : path.index(b"/invocations")].decode())
        client.open = self.invocation(client, function, body, head)
        self.decide(client.open, self.functions.get(function, Behaviour()))

    def invocation(self, client: _Client, function: str, body: bytes, head: bytes) -> _Open:
        items = [_sight(one) for one in _records(json.loads(body))]
        if len(items) == 1 and items[0][0][1] is None:
            items[0][0][1] = _context_id(head)
        line = {
            "client": client.name, "function": function, "start": time.monotonic(), "end": None, "outcome": GONE,
            "sights": [sight for sight, _ in items], "names": [name for _, name in items],
        }  # fmt: skip
        self.lines.append(line)
        return _Open(client, line)

    def decide(self, one: _Open, behaviour: Behaviour) -> None:
        """What becomes of an invocation, and when."""
        function, luck = one.line["function"], self.random.random()
        names = one.line.pop("names")
        if one.line["start"] < self.throttled.get(function, 0.0):
            one.outcome = THROTTLE
            self.answer(one)
            return
        for outcome, chance in (
            (THROTTLE, behaviour.throttle), (FAILED, behaviour.failed), (CUT, behaviour.cut),
            (GONE, behaviour.hang), (FUNCTION_ERROR, behaviour.error),
        ):  # fmt: skip
            luck -= chance
            if luck < 0:
                one.outcome = outcome
                break
        if one.outcome == OK:
            self.items(one, behaviour, names)
        if function in self.held:
            self.held[function].append(one)
        elif one.outcome in {THROTTLE, FAILED}:
            self.answer(one)
        elif one.outcome != GONE:
            takes = self.random.uniform(*behaviour.takes)
            if behaviour.slow and self.random.random() < behaviour.slow:
                takes = self.random.uniform(*behaviour.slow_takes)
            if takes:
                heapq.heappush(self.timers, (time.monotonic() + takes, next(self.number), one))
            else:
                self.answer(one)

    def items(self, one: _Open, behaviour: Behaviour, names: Sequence[str | None]) -> None:
        """Which records of a batch fail."""
        sights = one.line["sights"]
        failed = [index for index, sight in enumerate(sights) if "poison" in (sight[0] or "")]
        if failed and not behaviour.reports:
            one.outcome = FUNCTION_ERROR
            return
        if behaviour.reports:
            if self.random.random() < behaviour.items:
                failed = sorted({*failed, *self.random.sample(range(len(sights)), self.random.randint(1, len(sights)))})
            one.body = json.dumps({"batchItemFailures": [{"itemIdentifier": names[i]} for i in failed]}).encode()
            if failed and (names[0] or "").isdigit():  # a stream's sequence number: all from the first on
                failed = list(range(failed[0], len(sights)))
            for index in failed:
                sights[index][-1] = True

    def answer(self, one: _Open) -> None:
        client = one.client
        if client.open is not one:
            return  # it went away
        if one.outcome == CUT:
            self.drop(client, CUT)
            return
        status, more = 200, {"X-Amz-Executed-Version": "$LATEST"}
        if one.outcome in FAILURES:
            status, problem, more = FAILURES[one.outcome]
            one.body = json.dumps(problem).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(one.body)}", "x-amzn-RequestId: r"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        one.line.update(end=time.monotonic(), outcome=one.outcome)  # before: what follows from it comes later
        if one.outcome == OK and one.line["function"] in self.acknowledged:
            self.acknowledged[one.line["function"]].update(int(sight[0].split()[-1]) for sight in one.line["sights"])
            one.line["sights"] = []
        client.open = None
        try:
            client.socket.sendall("\r\n".join([*lines, "", ""]).encode() + one.body)
        except OSError:
            one.line.update(outcome=GONE)
            self.drop(client, GONE)
            return
        if client.received:
            self.take(client)


def _records(event: Any) -> list[Any]:
    return event["Records"] if isinstance(event, dict) and "Records" in event else [event]


def _sight(record: Any) -> tuple[list[Any], str | None]:
    """A Sight's fields, and the record's name in batchItemFailures."""
    if not isinstance(record, dict):
        return [str(record), *[None] * 7, False], None
    name, attempt = record.get("eventID"), record.get("attempt")
    if record.get("eventSource") == "aws:sqs":
        name, attempt = record["messageId"], int(record["attributes"]["ApproximateReceiveCount"])
        record = json.loads(record["body"])
    elif record.get("eventSource") == "aws:kinesis":
        name = record["kinesis"]["sequenceNumber"]
        record = json.loads(base64.b64decode(record["kinesis"]["data"]))
        attempt = record.get("attempt")
    operation = record.get("eventName")
    if operation is None:
        return [record.get("token", "?"), None, None, None, record.get("key"), None, None, None, False], None
    old, new = (record.get("old") or {}).get("token"), (record.get("new") or {}).get("token")
    key = None if record.get("key") is None else json.dumps(record["key"], separators=(",", ":"))
    token = f"deleted {old}" if operation == "DELETE" else str(new)
    return [token, record["eventID"], record["sequence"], attempt, key, operation, old, new, False], name


def _context_id(head: bytes) -> str | None:
    """The message id of a single synchronous call, from its client context."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"x-amz-client-context:"):
            context = json.loads(base64.b64decode(line.split(b":", 1)[1]))
            return next(iter(context.get("custom", {}).values()), None)
    return None


if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve()
