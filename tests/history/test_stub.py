"""The fake Lambda: what it answers, and that its log is true."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from email.message import Message

import pytest

from tests.history.checker import CUT, FAILED, FUNCTION_ERROR, GONE, OK, THROTTLE
from tests.history.stub import Behaviour, Stub
from tests.waiting import wait_until


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(seed=1) as running:
        yield running


def invoke(port: int, function: str, payload: object, timeout: float = 5) -> tuple[int, Message, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("POST", f"/2015-03-31/functions/{function}/invocations", json.dumps(payload))
        with connection.getresponse() as response:
            return response.status, response.headers, response.read()


def batch(*tokens: str) -> dict[str, object]:
    return {
        "Records": [
            {"eventID": f"m-{token}", "eventSource": "postgresql", "eventName": "INSERT", "key": {"id": 7},
             "new": {"id": 7, "token": token}, "old": None, "sequence": number, "attempt": 1}
            for number, token in enumerate(tokens)
        ]
    }  # fmt: skip


def test_it_answers_as_lambda_does_and_logs_what_it_answered(stub: Stub) -> None:
    port = stub.listen("d1")
    stub.behave(
        {
            "error": Behaviour(error=1),
            "throttle": Behaviour(throttle=1),
            "failed": Behaviour(failed=1),
            "cut": Behaviour(cut=1),
            "hang": Behaviour(hang=1),
        }
    )
    assert invoke(port, "ok", batch("a"))[0] == 200
    status, headers, _ = invoke(port, "error", {"token": "b"})
    assert (status, headers["X-Amz-Function-Error"]) == (200, "Unhandled")
    assert invoke(port, "throttle", batch("c"))[0] == 429
    assert invoke(port, "failed", batch("d"))[0] == 500
    with pytest.raises(http.client.RemoteDisconnected):
        invoke(port, "cut", batch("e"))
    with pytest.raises(TimeoutError):
        invoke(port, "hang", batch("f"), timeout=0.1)
    wait_until(lambda: stub.log()[-1].end < time.monotonic(), "the end of the connection is noted")
    log = stub.log()
    assert [(one.function, one.outcome) for one in log] == [
        ("ok", OK), ("error", FUNCTION_ERROR), ("throttle", THROTTLE), ("failed", FAILED), ("cut", CUT), ("hang", GONE),
    ]  # fmt: skip
    assert all(one.client == "d1" and one.start <= one.end for one in log)
    assert (log[0].sights[0].token, log[0].sights[0].message_id, log[0].sights[0].key) == ("a", "m-a", '{"id":7}')


def test_poison_fails_alone_where_the_function_reports_items_and_else_with_its_batch(stub: Stub) -> None:
    port = stub.listen("d1")
    stub.behave({"reports": Behaviour(reports=True)})
    answered = json.loads(invoke(port, "reports", batch("a", "b poison", "c"))[2])
    assert answered == {"batchItemFailures": [{"itemIdentifier": "m-b poison"}]}
    assert invoke(port, "f", batch("a", "b poison", "c"))[1]["X-Amz-Function-Error"]
    reported, whole = stub.log()
    assert [sight.failed for sight in reported.sights] == [False, True, False]
    assert whole.outcome == FUNCTION_ERROR


def test_what_is_held_is_answered_when_released(stub: Stub) -> None:
    port = stub.listen("d1")
    stub.hold("f")
    with pytest.raises(TimeoutError):
        invoke(port, "f", batch("a"), timeout=0.1)
    stub.release("f")
    assert invoke(port, "f", batch("a"))[0] == 200
    stub.throttle("f", 60)
    assert invoke(port, "f", batch("a"))[0] == 429
    assert [one.outcome for one in stub.log()] == [GONE, OK, THROTTLE]
