"""Invoke: what goes over the wire, what comes back, and every way a call can fail."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from awslambda import aws, connection, errors, invoke, resources, signing
from awslambda.connection import Answer, ConnectError, Connections
from awslambda.errors import LambdaError
from awslambda.invoke import Request, Response
from awslambda.settings import Settings
from awslambda.waits import Wait

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
    refusal,
    silence,
    trickle,
)
from tests.unit.cancelling import cancelled, nothing, takes
from tests.unit.conftest import ACCESS_KEY, SECRET_KEY, TOKEN

Start = Callable[..., Endpoint]

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f"
PAYLOAD = b'{"in": "the-payload"}'
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)

pytestmark = pytest.mark.usefixtures("keys")


def settings(endpoint: Endpoint | str, **options: Any) -> Settings:
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    return Settings(server="aws", **{"region": "eu-west-1", "endpoint_urls": {"lambda": url}, **options})


def asked(function: str = "f", payload: bytes = PAYLOAD, qualifier: str | None = None, **more: Any) -> Request:
    return Request(resources.function(function, qualifier), payload, **more)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pauses between attempts; the upper bounds that they would have had."""
    bounds: list[float] = []

    def uniform(lowest: float, highest: float) -> float:
        assert lowest == 0
        bounds.append(highest)
        return 0

    monkeypatch.setattr(random, "uniform", uniform)
    return bounds


@contextlib.contextmanager
def raises(kind: type[LambdaError], *words: str) -> Iterator[list[LambdaError]]:
    """The block ends in this error. It names the function, and holds neither payload nor keys."""
    caught: list[LambdaError] = []
    with pytest.raises(LambdaError) as raised:
        yield caught
    error = raised.value
    said = "\n".join([str(error), error.detail, error.hint])
    assert type(error) is kind, said
    for word in words:
        assert word in said
    for secret in ("the-payload", SECRET_KEY, TOKEN):
        assert secret not in said
    caught.append(error)


# On the wire.


@pytest.mark.parametrize(
    ("function", "qualifier", "path"),
    [
        ("f", None, "f/invocations"),
        ("a-b_C9", None, "a-b_C9/invocations"),
        ("f:live", None, "f%3Alive/invocations"),
        ("f:$LATEST", None, "f%3A%24LATEST/invocations"),
        ("f", "live", "f/invocations?Qualifier=live"),
        ("f", "$LATEST", "f/invocations?Qualifier=%24LATEST"),
        ("f:live", "live", "f%3Alive/invocations"),
        ("123456789012:function:f", None, "123456789012%3Afunction%3Af/invocations"),
        (ARN, None, ARN.replace(":", "%3A") + "/invocations"),
        (ARN, "7", ARN.replace(":", "%3A") + "/invocations?Qualifier=7"),
        (ARN + ":live", None, ARN.replace(":", "%3A") + "%3Alive/invocations"),
    ],
)
def test_the_function_is_sent_as_it_was_named(
    endpoint: Start, connections: Connections, function: str, qualifier: str | None, path: str
) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(function, qualifier=qualifier), settings(started), connections, nothing)
    (received,) = started.requests
    assert (received.method, received.path) == ("POST", "/2015-03-31/functions/" + path)


@pytest.mark.parametrize(
    "payload", [b"{}", b"null", '{"ü": "😀"}'.encode(), b"[" + b" " * (6 * 1024 * 1024 - 2) + b"]"]
)
def test_the_payload_is_sent_as_it_is(endpoint: Start, connections: Connections, payload: bytes) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(payload=payload), settings(started), connections, nothing)
    (received,) = started.requests
    assert received.body == payload
    assert received.headers["content-length"] == str(len(payload))


@pytest.mark.parametrize("invocation_type", ["RequestResponse", "Event", "DryRun"])
@pytest.mark.parametrize("log_type", ["None", "Tail"])
def test_invocation_and_log_type_are_sent(
    endpoint: Start, connections: Connections, invocation_type: str, log_type: str
) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(invocation_type=invocation_type, log_type=log_type), settings(started), connections, nothing)
    (received,) = started.requests
    assert received.headers["x-amz-invocation-type"] == invocation_type
    assert received.headers["x-amz-log-type"] == log_type
    assert "x-amz-client-context" not in received.headers


def test_the_client_context_is_sent_in_base64(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(200, {}))
    context = json.dumps({"custom": {"ü": "x" * 200}}, ensure_ascii=False)
    invoke.invoke(asked(client_context=context), settings(started), connections, nothing)
    (received,) = started.requests
    assert base64.b64decode(received.headers["x-amz-client-context"], validate=True).decode() == context


def test_the_program_is_named(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(), settings(started), connections, nothing)
    assert started.requests[0].headers["user-agent"].startswith("awslambda-postgresql")


def test_a_path_of_the_endpoint_comes_first(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(), settings(started.url + "/gateway/"), connections, nothing)
    assert started.requests[0].path == "/gateway/2015-03-31/functions/f/invocations"


def test_calls_share_a_connection(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(200, {}))
    for function in ("f", "g", ARN):
        invoke.invoke(asked(function), settings(started), connections, nothing)
    assert started.connections == 1


@pytest.mark.parametrize(
    ("function", "argument", "option", "region"),
    [
        ("f", None, "eu-west-1", "eu-west-1"),
        ("f", "eu-west-2", "eu-west-1", "eu-west-2"),
        (ARN.replace("eu-west-1", "eu-west-3"), None, "eu-west-1", "eu-west-3"),
        (ARN.replace("eu-west-1", "eu-west-3"), "eu-west-3", "eu-west-1", "eu-west-3"),
        ("123456789012:function:f", None, "eu-west-1", "eu-west-1"),
        ("123456789012:function:f", "eu-west-2", "eu-west-1", "eu-west-2"),
    ],
)
def test_the_region_of_an_arn_wins_then_the_argument_then_the_option(
    endpoint: Start, connections: Connections, function: str, argument: str | None, option: str, region: str
) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(function, region=argument), settings(started, region=option), connections, nothing)
    assert f"/{region}/lambda/aws4_request" in started.requests[0].headers["authorization"]


def test_a_full_arn_in_a_region_that_botocore_does_not_know_yet_is_called(
    endpoint: Start, connections: Connections
) -> None:
    started = endpoint(answer(200, {}))
    allowed = ("arn:aws:lambda:zz-new-1:*",)
    function = ARN.replace("eu-west-1", "zz-new-1")
    invoke.invoke(asked(function), settings(started, allowed_resources=allowed), connections, nothing)
    assert "/zz-new-1/lambda/" in started.requests[0].headers["authorization"]


# As botocore's own client does it.

CASES: list[dict[str, Any]] = [
    {"FunctionName": "f", "InvocationType": "RequestResponse", "LogType": "None", "Payload": PAYLOAD},
    {"FunctionName": "f:live", "InvocationType": "Event", "LogType": "None", "Payload": b"null"},
    {"FunctionName": "f:$LATEST", "InvocationType": "DryRun", "LogType": "None", "Payload": b"{}"},
    {"FunctionName": "f", "InvocationType": "RequestResponse", "LogType": "Tail", "Payload": '"ü"'.encode()},
    {"FunctionName": "f", "InvocationType": "Event", "LogType": "None", "Payload": b"1", "Qualifier": "live"},
    {"FunctionName": "f", "InvocationType": "Event", "LogType": "None", "Payload": b"1", "Qualifier": "$LATEST"},
    {"FunctionName": ARN, "InvocationType": "Event", "LogType": "None", "Payload": b"[]"},
    {"FunctionName": ARN, "InvocationType": "Event", "LogType": "None", "Payload": b"[]", "Qualifier": "7"},
    {"FunctionName": "123456789012:function:f", "InvocationType": "Event", "LogType": "None", "Payload": b"{}"},
    {
        "FunctionName": "f",
        "InvocationType": "RequestResponse",
        "LogType": "None",
        "Payload": b"{}",
        "ClientContext": base64.b64encode(b'{"custom": {"a": 1}}').decode(),
    },
    {"FunctionName": "f", "InvocationType": "RequestResponse", "LogType": "None", "Payload": b" " * 1_000_000 + b"1"},
]
BOTOCORES_OWN = {"accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request", "user-agent"}


@pytest.fixture(scope="module")
def reference() -> Any:
    """botocore's session, which has read its data once for all cases."""
    return botocore.session.Session()


@pytest.mark.parametrize(
    ("case", "token", "path"),
    [
        *((case, TOKEN, "") for case in CASES),
        (CASES[5], None, ""),
        (CASES[7], TOKEN, "/gateway"),
        (CASES[0], None, "/a/b"),
    ],
    ids=range(len(CASES) + 3),
)
def test_the_request_is_the_one_that_botocores_client_sends(
    monkeypatch: pytest.MonkeyPatch,
    endpoint: Start,
    connections: Connections,
    reference: Any,
    case: dict[str, Any],
    token: str | None,
    path: str,
) -> None:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: NOW)
    monkeypatch.setattr(time, "time", NOW.replace(tzinfo=datetime.timezone.utc).timestamp)
    if not token:
        monkeypatch.delenv("AWS_SESSION_TOKEN")
    started = endpoint(answer(200, {}))
    url = started.url + path
    client = reference.create_client(
        "lambda",
        region_name="eu-west-1",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        aws_session_token=token,
    )
    with contextlib.closing(client):
        client.invoke(**case)
    context = base64.b64decode(case["ClientContext"]).decode() if "ClientContext" in case else None
    request = asked(
        case["FunctionName"],
        case["Payload"],
        case.get("Qualifier"),
        invocation_type=case["InvocationType"],
        log_type=case["LogType"],
        client_context=context,
    )
    invoke.invoke(request, settings(url), connections, nothing)
    theirs, ours = started.requests
    assert (ours.method, ours.path, ours.body) == (theirs.method, theirs.path, theirs.body)
    assert without(ours.headers, "user-agent") == without(theirs.headers, *BOTOCORES_OWN)


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


@dataclass
class Recorder(Connections):
    """Takes the place of the network: keeps what would be sent, and answers."""

    sent: list[tuple[connection.Endpoint, bytes]] = field(default_factory=list)
    refused: int = 0  # how many connections are refused first

    def exchange(self, endpoint: connection.Endpoint, request: bytes, connect_timeout: float, wait: Wait) -> Answer:
        self.sent.append((endpoint, request))
        if len(self.sent) <= self.refused:
            raise ConnectError("Connection refused")
        return Answer(200, {}, b"{}")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://lambda.example", "lambda.example"),
        ("https://lambda.example:443", "lambda.example"),
        ("https://lambda.example:8443/", "lambda.example:8443"),
        ("https://LAMBDA.Example", "lambda.example"),
        ("http://localhost:80", "localhost"),
        ("http://localhost:443", "localhost:443"),
        ("http://[::1]:4566", "[::1]:4566"),
        ("http://[::1]", "[::1]"),
    ],
)
def test_the_host_is_sent_as_it_was_signed(monkeypatch: pytest.MonkeyPatch, url: str, host: str) -> None:
    signed: list[str] = []
    sign = signing.sign

    def recorded(request: signing.Request, *args: Any) -> dict[str, str]:
        signed.append(request.host)
        return sign(request, *args)

    monkeypatch.setattr(signing, "sign", recorded)
    recorder = Recorder()
    invoke.invoke(asked(), settings(url), recorder, nothing)
    ((_, request),) = recorder.sent
    assert f"\r\nHost: {host}\r\n".encode() in request
    assert signed == [host]


def test_without_an_endpoint_url_it_is_aws_that_is_called() -> None:
    recorder = Recorder()
    invoke.invoke(asked(), settings("", endpoint_urls={}), recorder, nothing)
    ((where, request),) = recorder.sent
    assert (where.tls, where.host, where.port) == (True, "lambda.eu-west-1.amazonaws.com", 443)
    assert b"\r\nHost: lambda.eu-west-1.amazonaws.com\r\n" in request


# What is refused before anything is sent.


@pytest.mark.parametrize(
    ("invocation_type", "limit"),
    [("RequestResponse", 6 * 1024 * 1024), ("DryRun", 6 * 1024 * 1024), ("Event", 1024 * 1024)],
)
def test_a_payload_beyond_the_limit_is_refused_and_one_at_the_limit_is_not(invocation_type: str, limit: int) -> None:
    asked(payload=b" " * limit, invocation_type=invocation_type)
    with raises(errors.PayloadTooLarge, f"{limit + 1} bytes", str(limit), invocation_type) as caught:
        asked(payload=b" " * (limit + 1), invocation_type=invocation_type)
    assert caught[0].sqlstate == "54000"


@pytest.mark.parametrize("value", ["event", "EVENT", "Event ", "", "requestresponse", "Sync", "Event\r\nX: y"])
def test_an_invocation_type_in_another_spelling_is_refused(value: str) -> None:
    with raises(errors.InvalidArgument, repr(value), "RequestResponse, Event, DryRun", "Nothing was sent"):
        asked(invocation_type=value)


@pytest.mark.parametrize("value", ["tail", "", "none", "All"])
def test_a_log_type_in_another_spelling_is_refused(value: str) -> None:
    with raises(errors.InvalidArgument, repr(value), "None, Tail", "Nothing was sent"):
        asked(log_type=value)


def test_a_client_context_beyond_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    asked(client_context='{"a":"' + "x" * (invoke.CLIENT_CONTEXT_LIMIT // 4 * 3 - 8) + '"}')
    with raises(errors.InvalidArgument, "client context", "3583", "Nothing was sent"):
        asked(client_context='{"a":"' + "x" * (invoke.CLIENT_CONTEXT_LIMIT // 4 * 3 - 7) + '"}')


@pytest.mark.parametrize("context", ["[1]", "1", "null", '"custom"'])
def test_a_client_context_that_is_no_object_is_refused(context: str) -> None:
    with raises(errors.InvalidArgument, "client context is not a JSON object", "Nothing was sent"):
        asked(client_context=context)


@pytest.mark.parametrize(
    "region",
    ["", "mars", "EU-WEST-1", "eu-west-1 ", "eu-west-1\n", "evil.example/#", "eu-west-1.evil.example", "eu-west-1@x-1"],
)
def test_a_region_that_is_none_does_not_become_a_host_name(region: str) -> None:
    with raises(errors.InvalidArgument, repr(region), "Nothing was sent"):
        asked(region=region)


def test_a_region_that_contradicts_the_arn_is_refused() -> None:
    with raises(errors.InvalidArgument, "'eu-west-2'", ARN, "Nothing was sent"):
        asked(ARN, region="eu-west-2")


@pytest.mark.parametrize(
    ("function", "patterns", "resource"),
    [
        ("f", ("function:g",), "function:f"),
        ("f:live", ("function:f:live", "stream/f"), "function:f"),
        ("f", (ARN,), "function:f"),
        (ARN, ("function:f", "*"), ARN),
        (ARN + ":live", ("function:f",), ARN),
        ("123456789012:function:f", ("function:f",), ARN),
        ("123456789012:function:f", (ARN.replace("eu-west-1", "eu-west-2"),), ARN),
    ],
)
def test_what_the_server_does_not_allow_is_not_sent(function: str, patterns: tuple[str, ...], resource: str) -> None:
    recorder = Recorder()
    with raises(errors.ResourceNotAllowed, "'aws'", repr(resource)) as caught:
        invoke.invoke(asked(function), settings("https://h", allowed_resources=patterns), recorder, nothing)
    assert caught[0].sqlstate == "42501"
    assert recorder.sent == []


@pytest.mark.parametrize("function", ["f", "f:live", ARN, ARN + ":live", "123456789012:function:f"])
def test_what_the_server_allows_is_sent(function: str) -> None:
    recorder = Recorder()
    allowed = ("function:f", "arn:aws:lambda:eu-west-1:*:function:f")
    invoke.invoke(asked(function), settings("https://h", allowed_resources=allowed), recorder, nothing)
    assert len(recorder.sent) == 1


def test_permission_is_asked_for_before_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with raises(errors.ResourceNotAllowed):
        invoke.invoke(asked(), settings("https://h", allowed_resources=("function:g",)), Recorder(), nothing)


# What comes back.


def test_everything_that_lambda_says_is_in_the_response(endpoint: Start, connections: Connections) -> None:
    headers: dict[str, Any] = {
        "X_Amz_Executed_Version": "7",
        "X_Amz_Log_Result": "bG9n",
        "X_Amz_Function_Error": "Unhandled",
    }
    started = endpoint(answer(200, {"ok": [1]}, **headers))
    response = invoke.invoke(asked(), settings(started), connections, nothing)
    assert response == Response(200, b'{"ok": [1]}', "7", "bG9n", "Unhandled", "r-1", response.duration)
    assert 0 < response.duration < 5


@pytest.mark.parametrize(("status", "invocation_type"), [(202, "Event"), (204, "DryRun")])
def test_an_event_and_a_dry_run_have_no_payload(
    endpoint: Start, connections: Connections, status: int, invocation_type: str
) -> None:
    started = endpoint(answer(status, b""))
    response = invoke.invoke(asked(invocation_type=invocation_type), settings(started), connections, nothing)
    assert (response.status_code, response.payload, response.request_id) == (status, b"", "r-1")
    assert response.executed_version is response.log_result is response.function_error is None


def test_a_function_that_fails_is_a_response_not_an_exception(endpoint: Start, connections: Connections) -> None:
    started = endpoint(answer(200, {"errorType": "ValueError"}, X_Amz_Function_Error="Unhandled"))
    assert invoke.invoke(asked(), settings(started), connections, nothing).function_error == "Unhandled"


# Refusals. Most codes are those of Invoke: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html

REFUSALS: list[tuple[int, str, type[LambdaError], str]] = [
    (429, "TooManyRequestsException", errors.Throttled, "LA003"),
    (502, "EC2ThrottledException", errors.Throttled, "LA003"),
    (400, "ThrottlingException", errors.Throttled, "LA003"),
    (404, "ResourceNotFoundException", errors.FunctionNotFound, "42704"),
    (403, "AccessDeniedException", errors.AccessDenied, "42501"),
    (403, "ExpiredTokenException", errors.CredentialsRefused, "28000"),
    (403, "UnrecognizedClientException", errors.CredentialsRefused, "28000"),
    (403, "InvalidSignatureException", errors.CredentialsRefused, "28000"),
    (403, "MissingAuthenticationTokenException", errors.CredentialsRefused, "28000"),
    (403, "IncompleteSignatureException", errors.CredentialsRefused, "28000"),
    (400, "InvalidRequestContentException", errors.InvalidJson, "22P02"),
    (413, "RequestTooLargeException", errors.PayloadTooLarge, "54000"),
    (413, "SerializedRequestEntityTooLargeException", errors.PayloadTooLarge, "54000"),
    (400, "InvalidParameterValueException", errors.InvalidArgument, "22023"),
    (415, "UnsupportedMediaTypeException", errors.InvalidArgument, "22023"),
    (400, "NoPublishedVersionException", errors.InvalidArgument, "22023"),
    (400, "ModeNotSupportedException", errors.InvalidArgument, "22023"),
    (400, "RecursiveInvocationException", errors.ServiceFailed, "LA004"),
    (400, "SnapStartException", errors.ServiceFailed, "LA004"),
    (402, "ServiceQuotaExceededException", errors.ServiceFailed, "LA004"),
    (403, "EFSMountFailureException", errors.ServiceFailed, "LA004"),
    (403, "S3FilesMountFailureException", errors.ServiceFailed, "LA004"),
    (408, "EFSMountConnectivityException", errors.ServiceFailed, "LA004"),
    (408, "EFSMountTimeoutException", errors.ServiceFailed, "LA004"),
    (408, "S3FilesMountConnectivityException", errors.ServiceFailed, "LA004"),
    (408, "S3FilesMountTimeoutException", errors.ServiceFailed, "LA004"),
    (408, "SnapStartTimeoutException", errors.ServiceFailed, "LA004"),
    (409, "CodeArtifactUserDeletedException", errors.ServiceFailed, "LA004"),
    (409, "CodeArtifactUserFailedException", errors.ServiceFailed, "LA004"),
    (409, "CodeArtifactUserPendingException", errors.ServiceFailed, "LA004"),
    (409, "DurableExecutionAlreadyStartedException", errors.ServiceFailed, "LA004"),
    (409, "ResourceConflictException", errors.ServiceFailed, "LA004"),
    (409, "RuntimeAliasDeletedException", errors.ServiceFailed, "LA004"),
    (409, "RuntimeVersionDeletedException", errors.ServiceFailed, "LA004"),
    (409, "SnapStartNotReadyException", errors.ServiceFailed, "LA004"),
    (409, "SnapStartRegenerationFailureException", errors.ServiceFailed, "LA004"),
    (410, "EFSIOException", errors.ServiceFailed, "LA004"),
    (500, "ServiceException", errors.ServiceFailed, "LA004"),
    (502, "EC2AccessDeniedException", errors.ServiceFailed, "LA004"),
    (502, "EC2UnexpectedException", errors.ServiceFailed, "LA004"),
    (502, "ENILimitReachedException", errors.ServiceFailed, "LA004"),
    (502, "ENINotReadyException", errors.ServiceFailed, "LA004"),
    (502, "InvalidRuntimeException", errors.ServiceFailed, "LA004"),
    (502, "InvalidSecurityGroupIDException", errors.ServiceFailed, "LA004"),
    (502, "InvalidSubnetIDException", errors.ServiceFailed, "LA004"),
    (502, "InvalidZipFileException", errors.ServiceFailed, "LA004"),
    (502, "KMSAccessDeniedException", errors.ServiceFailed, "LA004"),
    (502, "KMSDisabledException", errors.ServiceFailed, "LA004"),
    (502, "KMSInvalidStateException", errors.ServiceFailed, "LA004"),
    (502, "KMSNotFoundException", errors.ServiceFailed, "LA004"),
    (502, "ResourceNotReadyException", errors.ServiceFailed, "LA004"),
    (502, "SubnetIPAddressLimitReachedException", errors.ServiceFailed, "LA004"),
    (503, "ServiceUnavailableException", errors.ServiceFailed, "LA004"),
    (418, "SomethingNewException", errors.ServiceFailed, "LA004"),
]


@pytest.mark.parametrize(("status", "code", "kind", "sqlstate"), REFUSALS, ids=[code for _, code, _, _ in REFUSALS])
@pytest.mark.usefixtures("quick")
def test_a_refusal_is_its_error_and_throttling_alone_is_tried_again(
    endpoint: Start, connections: Connections, status: int, code: str, kind: type[LambdaError], sqlstate: str
) -> None:
    started = endpoint(refusal(status, code, "said by AWS"))
    with raises(kind, "'f'", "r-1", code if kind is errors.ServiceFailed else "") as caught:
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert caught[0].sqlstate == sqlstate
    assert len(started.requests) == {errors.Throttled: 3, errors.CredentialsRefused: 2}.get(kind, 1)


def test_every_error_that_botocore_knows_of_invoke_has_a_row_above() -> None:
    loader = botocore.session.Session().get_component("data_loader")
    model = loader.load_service_model("lambda", "service-2")
    known = {
        (model["shapes"][error["shape"]]["error"]["httpStatusCode"], error["shape"])
        for error in model["operations"]["Invoke"]["errors"]
    }
    assert known <= {(status, code) for status, code, _, _ in REFUSALS}


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (
            answer(403, {"Message": "User: x is not authorized"}, x_amzn_ErrorType="AccessDeniedException:http://x/"),
            errors.AccessDenied,
            "User: x is not authorized",
        ),
        (
            answer(404, {"Message": "Function not found"}, x_amzn_ErrorType="ResourceNotFoundException"),
            errors.FunctionNotFound,
            "Function not found",
        ),
        (answer(500, b"<html>oops</html>"), errors.ServiceFailed, "HTTP 500"),
        (answer(500, b""), errors.ServiceFailed, "HTTP 500"),
        (answer(503, b"\xff\xfe"), errors.ServiceFailed, "HTTP 503"),
        (answer(500, ["a", "list"]), errors.ServiceFailed, "HTTP 500"),
        (answer(500, b"[" * 100_000), errors.ServiceFailed, "HTTP 500"),
        (answer(500, {"message": {"not": "a text"}}), errors.ServiceFailed, "HTTP 500"),
        (answer(301, b"", Location="https://evil.example/"), errors.NotLambda, "HTTP 301"),
        (answer(404, {"message": "no such page"}), errors.NotLambda, "HTTP 404"),
        (answer(403, {"code": "AccessDeniedException", "message": "no"}), errors.AccessDenied, "no"),
        (answer(403, b"<html>forbidden</html>"), errors.AccessDenied, "HTTP 403"),
    ],
    ids=[
        "type with URL",
        "Message",
        "HTML",
        "empty",
        "bytes",
        "list",
        "deep",
        "no text",
        "redirect",
        "no code",
        "code in the body",
        "forbidden",
    ],
)
def test_a_refusal_in_another_form_is_an_error_too(
    endpoint: Start, connections: Connections, behaviour: Behaviour, kind: type[LambdaError], words: str
) -> None:
    started = endpoint(behaviour)
    with raises(kind, words, "'f'"):
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert len(started.requests) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"},
            "ReservedFunctionConcurrentInvocationLimitExceeded",
        ),
        ({}, "TooManyRequestsException"),
    ],
)
def test_throttling_says_by_what(endpoint: Start, connections: Connections, given: dict[str, str], reason: str) -> None:
    started = endpoint(refusal(429, "TooManyRequestsException", "Rate Exceeded.", **given))
    with raises(errors.Throttled, f"({reason})", "Rate Exceeded."):
        invoke.invoke(asked(), settings(started, max_attempts=1), connections, nothing)


def test_throttling_without_any_reason_does_not_show_an_empty_one(endpoint: Start, connections: Connections) -> None:
    with raises(errors.Throttled) as caught:
        invoke.invoke(asked(), settings(endpoint(answer(429, b"")), max_attempts=1), connections, nothing)
    assert "()" not in str(caught[0])


def test_not_found_names_function_and_region(endpoint: Start, connections: Connections) -> None:
    started = endpoint(refusal(404, "ResourceNotFoundException", "Function not found"))
    with raises(errors.FunctionNotFound, "'nobody:live'", "eu-west-3", "Function not found"):
        invoke.invoke(asked("nobody:live", region="eu-west-3"), settings(started), connections, nothing)


def test_a_token_that_aws_shows_is_not_shown_again(endpoint: Start, connections: Connections) -> None:
    message = (
        "The request signature we calculated does not match the signature you provided.\n\n"
        "The Canonical String for this request should have been\n'POST\n/2015-03-31/functions/f/invocations\n\n"
        f"host:x\nx-amz-security-token:{TOKEN}\n\nhost;x-amz-security-token\n0'"
    )
    started = endpoint(refusal(403, "InvalidSignatureException", message))
    with raises(errors.CredentialsRefused, "does not match the signature"):
        invoke.invoke(asked(), settings(started), connections, nothing)


def test_a_payload_that_aws_shows_is_not_shown_again(endpoint: Start, connections: Connections) -> None:
    message = (
        "Could not parse request body into json: Could not parse payload into json: Unexpected end-of-input: expected "
        f'close marker for Object (start marker at [Source: (byte[])"{PAYLOAD.decode()}"; line: 1, column: 1])'
    )
    started = endpoint(refusal(400, "InvalidRequestContentException", message))
    with raises(errors.InvalidJson):
        invoke.invoke(asked(), settings(started), connections, nothing)


def test_after_a_refusal_of_credentials_new_ones_are_looked_for_and_tried_once(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(answer(200, {}))
    invoke.invoke(asked(), settings(started), connections, nothing)
    started.requests.clear()
    started.behaviour = in_turn(refusal(403, "ExpiredTokenException"), answer(200, {}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    invoke.invoke(asked(), settings(started), connections, nothing)
    used = [received.headers["authorization"].split("=")[1].split("/")[0] for received in started.requests]
    assert used == [ACCESS_KEY, "AKIDNEW"]


def refused_at(code: str, date: str) -> Behaviour:
    """A refusal with this Date header."""
    return answer(403, {"message": "Signature expired"}, x_amzn_ErrorType=code, Date=date)


def in_another_time(seconds: float, code: str = "InvalidSignatureException") -> Behaviour:
    """A Lambda whose clock is so many seconds ahead of ours, and that refuses as AWS does what is 5 minutes off."""

    def behave(connection: socket.socket, received: Received) -> bool:
        theirs = time.time() + seconds
        signed = datetime.datetime.strptime(received.headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        date = formatdate(theirs, usegmt=True)
        if abs(theirs - signed) > 300:
            return refused_at(code, date)(connection, received)
        return answer(200, {})(connection, received)

    return behave


@pytest.mark.parametrize("seconds", [3600, -3600, 86400])
@pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed"])
def test_a_clock_that_is_wrong_is_corrected_once_for_all_calls(
    endpoint: Start, connections: Connections, seconds: float, code: str
) -> None:
    started = endpoint(in_another_time(seconds, code))
    chosen = settings(started)
    for _ in range(2):
        invoke.invoke(asked(), chosen, connections, nothing)
    assert len(started.requests) == 3, "refused, tried again; then right at once"
    assert len({received.headers["authorization"].split("/")[0] for received in started.requests}) == 1


def test_a_refused_signature_is_not_blamed_on_a_clock_that_is_right(endpoint: Start, connections: Connections) -> None:
    started = endpoint(refused_at("InvalidSignatureException", formatdate(time.time() - 100, usegmt=True)))
    with raises(errors.CredentialsRefused):
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert len(started.requests) == 2, "once more with the credentials that are found then"
    assert abs(signing.clock.now() - time.time()) < 1


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Nov 2026 00:00:00 GMT"])
def test_a_refusal_that_does_not_say_the_time_corrects_no_clock(
    endpoint: Start, connections: Connections, date: str
) -> None:
    started = endpoint(refused_at("RequestExpired", date))
    with raises(errors.CredentialsRefused):
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert abs(signing.clock.now() - time.time()) < 1


def test_an_endpoint_whose_clock_jumps_is_not_followed_for_ever(endpoint: Start, connections: Connections) -> None:
    days = iter(range(1, 100))

    def jumps(connection: socket.socket, received: Received) -> bool:
        date = formatdate(time.time() + next(days) * 86400, usegmt=True)
        return refused_at("RequestExpired", date)(connection, received)

    started = endpoint(jumps)
    with raises(errors.CredentialsRefused):
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert len(started.requests) == 3


def test_other_refusals_keep_the_credentials(endpoint: Start, connections: Connections) -> None:
    started = endpoint(refusal(404, "ResourceNotFoundException"))
    chosen = settings(started)
    with raises(errors.FunctionNotFound):
        invoke.invoke(asked(), chosen, connections, nothing)
    kept = aws.identity(chosen)
    with raises(errors.FunctionNotFound):
        invoke.invoke(asked(), chosen, connections, nothing)
    assert aws.identity(chosen) is kept


def test_credentials_that_come_later_are_found(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    started = endpoint(answer(200, {}))
    with raises(errors.NoCredentials) as caught:
        invoke.invoke(asked(), settings(started), connections, nothing)
    assert caught[0].sqlstate == "28000"
    assert started.requests == []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    invoke.invoke(asked(), settings(started), connections, nothing)
    assert len(started.requests) == 1


def test_a_region_that_comes_later_is_found(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    started = endpoint(answer(200, {}))
    with raises(errors.RegionUnknown) as caught:
        invoke.invoke(asked(), settings(started, region=None), connections, nothing)
    assert caught[0].sqlstate == "22023"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    invoke.invoke(asked(), settings(started, region=None), connections, nothing)
    assert "/eu-west-2/" in started.requests[0].headers["authorization"]


# How often.


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_throttling_is_tried_as_often_as_allowed(endpoint: Start, connections: Connections, attempts: int) -> None:
    started = endpoint(refusal(429, "TooManyRequestsException"))
    with raises(errors.Throttled):
        invoke.invoke(asked(), settings(started, max_attempts=attempts), connections, nothing)
    assert len(started.requests) == attempts


@pytest.mark.usefixtures("quick")
def test_throttling_that_ends_is_not_noticed(endpoint: Start, connections: Connections) -> None:
    throttled = refusal(429, "TooManyRequestsException")
    started = endpoint(in_turn(throttled, throttled, answer(200, "done")))
    assert invoke.invoke(asked(), settings(started), connections, nothing).payload == b'"done"'
    assert len(started.requests) == 3
    assert {received.body for received in started.requests} == {PAYLOAD}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("refused", "attempts"), [(0, 1), (2, 3)])
def test_a_refused_connection_is_tried_again(refused: int, attempts: int) -> None:
    recorder = Recorder(refused=refused)
    assert invoke.invoke(asked(), settings("https://h"), recorder, nothing).status_code == 200
    assert len(recorder.sent) == attempts


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("attempts", [1, 4])
def test_a_connection_that_stays_refused_is_tried_as_often_as_allowed(attempts: int) -> None:
    recorder = Recorder(refused=100)
    with raises(errors.ConnectFailed):
        invoke.invoke(asked(), settings("https://h", max_attempts=attempts), recorder, nothing)
    assert len(recorder.sent) == attempts


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_of_aws_is_never_tried_again(endpoint: Start, connections: Connections, status: int) -> None:
    started = endpoint(in_turn(answer(status, {}), answer(200, {})))
    with raises(errors.ServiceFailed):
        invoke.invoke(asked(), settings(started, max_attempts=10), connections, nothing)
    assert len(started.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "kind", "sqlstate"),
    [
        (hang_up, errors.ConnectionBroke, "08006"),
        (break_off, errors.ConnectionBroke, "08006"),
        (silence, errors.NoAnswer, "LA005"),
        (trickle, errors.NoAnswer, "LA005"),
    ],
)
def test_a_request_that_may_have_arrived_is_sent_once(
    endpoint: Start, connections: Connections, behaviour: Behaviour, kind: type[LambdaError], sqlstate: str
) -> None:
    started = endpoint(in_turn(behaviour, answer(200, {})))
    with raises(kind, "'f'") as caught:
        invoke.invoke(asked(), settings(started, request_timeout=0.3, max_attempts=10), connections, nothing)
    assert caught[0].sqlstate == sqlstate
    assert "may have run" in caught[0].hint
    assert len(started.requests) == 1


def test_a_call_on_a_connection_that_breaks_under_it_is_sent_once(endpoint: Start, connections: Connections) -> None:
    started = endpoint(in_turn(answer(200, {}), hang_up, answer(200, {})))
    invoke.invoke(asked(), settings(started), connections, nothing)
    with raises(errors.ConnectionBroke):
        invoke.invoke(asked(), settings(started, max_attempts=10), connections, nothing)
    assert len(started.requests) == 2
    assert invoke.invoke(asked(), settings(started), connections, nothing).status_code == 200


def test_pauses_double_from_a_tenth_of_a_second_to_five(
    endpoint: Start, connections: Connections, quick: list[float]
) -> None:
    started = endpoint(refusal(429, "TooManyRequestsException"))
    with raises(errors.Throttled):
        invoke.invoke(asked(), settings(started, max_attempts=10), connections, nothing)
    assert quick[:9] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_a_pause_that_would_outlast_the_call_is_not_made(
    monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 4.0)
    started = endpoint(refusal(429, "TooManyRequestsException"))
    with takes(0), raises(errors.Throttled):
        invoke.invoke(asked(), settings(started, request_timeout=3), connections, nothing)
    assert len(started.requests) == 1


# How long.


def test_an_interrupt_ends_a_pause(monkeypatch: pytest.MonkeyPatch, endpoint: Start, connections: Connections) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 30.0)
    started = endpoint(refusal(429, "TooManyRequestsException"))
    with cancelled() as check:
        invoke.invoke(asked(), settings(started), connections, check)


def test_an_interrupt_ends_a_call_and_the_next_one_works(endpoint: Start, connections: Connections) -> None:
    started = endpoint(in_turn(silence, answer(200, {})))
    with cancelled(once=lambda: started.requests) as check:
        invoke.invoke(asked(), settings(started), connections, check)
    assert invoke.invoke(asked(), settings(started), connections, nothing).status_code == 200
    assert len(started.requests) == 2


def test_no_answer_comes_after_request_timeout(endpoint: Start, connections: Connections) -> None:
    with takes(0.3), raises(errors.NoAnswer, "0.3 s", "request_timeout"):
        invoke.invoke(asked(), settings(endpoint(silence), request_timeout=0.3), connections, nothing)


def test_attempts_to_connect_take_connect_timeout_each(connections: Connections) -> None:
    with black_hole() as port, takes(0.2), raises(errors.ConnectFailed, f"127.0.0.1:{port}", "Nothing was sent"):
        invoke.invoke(
            asked(), settings(f"http://127.0.0.1:{port}", connect_timeout=0.2, max_attempts=1), connections, nothing
        )


def test_request_timeout_covers_all_attempts_to_connect(
    monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    chosen = {"connect_timeout": 0.2, "request_timeout": 0.5, "max_attempts": 10}
    with black_hole() as port, takes(0.5), raises(errors.ConnectFailed):
        invoke.invoke(asked(), settings(f"http://127.0.0.1:{port}", **chosen), connections, nothing)


def test_a_refused_connection_says_where_and_that_nothing_was_sent(connections: Connections) -> None:
    port = closed_port()
    with raises(errors.ConnectFailed, f"http://127.0.0.1:{port}", "refused", "Nothing was sent") as caught:
        invoke.invoke(asked(), settings(f"http://127.0.0.1:{port}", max_attempts=1), connections, nothing)
    assert caught[0].sqlstate == "08001"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_password_in_an_endpoint_of_the_environment_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, connections: Connections, scheme: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{scheme}://user:hunter2@127.0.0.1:{closed_port()}")
    with pytest.raises(LambdaError) as caught:
        invoke.invoke(asked(), Settings(region="eu-west-1", max_attempts=1), connections, nothing)
    assert "hunter2" not in str(caught.value) + caught.value.detail + caught.value.hint


def test_a_certificate_that_nobody_vouches_for_is_no_connection(
    endpoint: Start, connections: Connections, certificate: Path
) -> None:
    started = endpoint(answer(200, {}), certificate=certificate)
    with raises(errors.ConnectFailed, "self-signed certificate"):
        invoke.invoke(asked(), settings(started, max_attempts=1), connections, nothing)
    assert started.requests == []
    chosen = settings(started, ca_bundle=str(certificate))
    assert invoke.invoke(asked(), chosen, connections, nothing).status_code == 200


# A function's own failure.


def failed(payload: object, kind: str = "Unhandled") -> Response:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Response(200, content, "$LATEST", None, kind, "r-1", 0.1)


def raised(payload: object, kind: str = "Unhandled") -> LambdaError:
    with pytest.raises(LambdaError) as caught:
        invoke.raise_function_error(asked("f:live"), failed(payload, kind))
    assert "'f:live'" in str(caught.value)
    assert "Request id: r-1" in caught.value.detail
    return caught.value


def test_a_function_that_did_not_fail_raises_nothing() -> None:
    invoke.raise_function_error(asked(), Response(200, b'{"errorType": "x"}', None, None, None, "r-1", 0.1))


PYTHON = {
    "errorMessage": "no temperature",
    "errorType": "ValueError",
    "requestId": "r-1",
    "stackTrace": ['  File "/var/task/f.py", line 3, in handler\n    raise ValueError("no temperature")\n'],
}
NODE = {"errorType": "TypeError", "errorMessage": "x is not a function", "trace": ["TypeError: x", "    at handler"]}
JAVA = {"errorMessage": "boom", "errorType": "java.lang.RuntimeException", "stackTrace": ["f.Handler.run(F.java:7)"]}


@pytest.mark.parametrize(
    ("payload", "message", "line"),
    [
        (PYTHON, "ValueError: no temperature", 'File "/var/task/f.py", line 3, in handler'),
        (PYTHON, "ValueError: no temperature", 'raise ValueError("no temperature")'),
        (NODE, "TypeError: x is not a function", "at handler"),
        (JAVA, "java.lang.RuntimeException: boom", "f.Handler.run(F.java:7)"),
    ],
)
def test_type_message_and_stack_are_shown(payload: object, message: str, line: str) -> None:
    error = raised(payload)
    assert (type(error), error.sqlstate) == (errors.FunctionError, "LA001")
    assert str(error).endswith(message)
    assert line in error.detail


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", "Unhandled"),
        (b"oops, not JSON", "Unhandled"),
        (b"\xff\xfe", "Unhandled"),
        (b"[" * 100_000, "Unhandled"),
        ("a text", "Unhandled"),
        (["a", "list"], "Unhandled"),
        (7, "Unhandled"),
        (None, "Unhandled"),
        ({}, "Unhandled"),
        ({"errorMessage": "only this"}, "Unhandled: only this"),
        ({"errorType": "OnlyThis"}, "OnlyThis"),
        ({"errorType": None, "errorMessage": None, "stackTrace": None}, "Unhandled"),
        ({"errorType": 7, "errorMessage": {"a": 1}}, "7: {'a': 1}"),
        ({"errorType": "E", "stackTrace": 7}, "E"),
        ({"errorType": "E", "stackTrace": "one text"}, "E"),
        ({"errorType": "E", "stackTrace": [None, 7, {"path": "f.go"}]}, "E"),
        ({"errorType": "Runtime.ExitError", "errorMessage": "exited"}, "Runtime.ExitError: exited"),
        ({"errorType": "E", "errorMessage": "{braces} {0}"}, "E: {braces} {0}"),
    ],
    ids=str,
)
def test_a_failure_in_any_form_is_an_error(payload: object, shown: str) -> None:
    error = raised(payload)
    assert type(error) is errors.FunctionError
    assert str(error).endswith(f"raised {shown}")


def test_a_stack_that_is_one_text_is_not_shown_letter_by_letter() -> None:
    assert "o\nn\ne" not in raised({"errorType": "E", "stackTrace": "one text"}).detail


@pytest.mark.parametrize(
    "payload",
    [
        {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r-1 Error: Task timed out after 3.00 seconds"},
        {"errorType": "Sandbox.Timedout"},
        {"errorMessage": "2026-01-02T03:04:05.678Z r-1 Task timed out after 3.00 seconds"},
    ],
)
def test_a_function_that_ran_into_its_timeout_is_told_apart(payload: object) -> None:
    error = raised(payload)
    assert (type(error), error.sqlstate) == (errors.FunctionTimedOut, "LA002")


@pytest.mark.parametrize(
    "payload",
    [
        {"errorType": "RuntimeError", "errorMessage": "Task timed out after 3.00 seconds"},
        {"errorType": "TimeoutError", "errorMessage": "the database did not answer"},
        {"errorMessage": "a Task timed out"},
        "Task timed out after 3.00 seconds",
    ],
    ids=str,
)
def test_a_function_that_only_talks_of_timeouts_is_no_timeout(payload: object) -> None:
    assert type(raised(payload)) is errors.FunctionError


def test_a_huge_message_and_stack_are_cut() -> None:
    error = raised({"errorType": "E", "errorMessage": "m" * 100_000, "stackTrace": ["s" * 1000] * 1000})
    assert 1000 < len(str(error)) < 3000
    assert 1000 < len(error.detail) < 10_000
