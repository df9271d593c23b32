"""One local AWS for all tests here, with the functions in `functions/`."""

from __future__ import annotations

import http.client
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from awslambda_local import LocalAWS

FUNCTIONS = Path(__file__).parent / "functions"

Fetched = TypeVar("Fetched")


def _wait_until(fetch: Callable[[], Fetched], description: str, timeout: float = 15) -> Fetched:
    """What `fetch` returns, as soon as that is true; fails with `description` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        fetched = fetch()
        if fetched:
            return fetched
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s in vain until {description}; last seen: {fetched!r}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return _wait_until


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(deploy=[FUNCTIONS], retry_delays=(0.1, 0.2)) as local:
        yield local


@pytest.fixture(scope="session")
def functions(aws: LocalAWS) -> Any:
    """The boto3 client of Lambda."""
    return aws.client("lambda")


@pytest.fixture(scope="session")
def invoke(functions: Any) -> Callable[..., Any]:
    """Invoke by boto3: the response, with its payload decoded."""

    def call(name: str, event: Any = None, **options: Any) -> Any:
        payload = {} if event is None else {"Payload": json.dumps(event)}
        response = functions.invoke(FunctionName=name, **payload, **options)
        body = response["Payload"].read()
        return {**response, "Payload": json.loads(body) if body else None}

    return call


@pytest.fixture(scope="session")
def log_of(aws: LocalAWS) -> Callable[[str], list[str]]:
    """The lines of a function's log, in CloudWatch Logs."""
    logs = aws.client("logs")

    def lines(name: str) -> list[str]:
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", limit=10_000)["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in events]

    return lines


@pytest.fixture
def send(aws: LocalAWS) -> Iterator[Callable[..., Any]]:
    """A raw request on one kept connection: (status, headers, body)."""
    connection = http.client.HTTPConnection(aws.endpoint_url.removeprefix("http://"), timeout=30)

    def request(
        path: str, body: bytes = b"", *, key: str | None = "test", method: str = "POST", **headers: str
    ) -> tuple[int, Any, bytes]:
        if key is not None:
            scope = f"{key}/20260101/{aws.region}/lambda/aws4_request"
            headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    yield request
    connection.close()


@pytest.fixture(scope="session")
def zipped() -> Callable[[str], bytes]:
    """A deployment package of one module, `m`."""

    def package(code: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("m.py", code)
        return buffer.getvalue()

    return package
