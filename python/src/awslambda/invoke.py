"""Lambda's Invoke on plain values: one request on a kept connection, and every way it can end.

A request that may have reached a function is never sent again. What provably did not run (no connection, throttled) is
tried up to `max_attempts` times with full jitter, within `request_timeout`.
https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import awslambda
from awslambda import aws, errors, resources, signing
from awslambda.connection import Answer, BrokenError, ConnectError, Connections
from awslambda.settings import Settings
from awslambda.waits import Wait

INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")
LOG_TYPES = ("None", "Tail")
PAYLOAD_LIMITS = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024, "DryRun": 6 * 1024 * 1024}  # bytes
CLIENT_CONTEXT_LIMIT = 3583  # bytes of base64
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0  # seconds: the first and the longest upper bound of the jitter
LONGEST_FOR_ARN = 3.0  # seconds that an error waits for the function's ARN
MESSAGE_LIMIT = 2000  # characters of a function's error message that an error shows
USER_AGENT = f"awslambda-postgresql/{awslambda.__version__}"
DETAIL_LIMIT = 8000  # characters of a function's stack that an error shows

# What Invoke's errors are here: by AWS's code, else by HTTP status, else ServiceFailed.
CODES: dict[str, type[errors.LambdaError]] = {
    "AccessDeniedException": errors.AccessDenied,
    "EC2ThrottledException": errors.Throttled,
    "ExpiredTokenException": errors.CredentialsRefused,
    "IncompleteSignatureException": errors.CredentialsRefused,
    "InvalidClientTokenId": errors.CredentialsRefused,
    "InvalidRequestContentException": errors.InvalidJson,
    "InvalidSignatureException": errors.CredentialsRefused,
    "MissingAuthenticationTokenException": errors.CredentialsRefused,
    "RecursiveInvocationException": errors.ServiceFailed,
    "RequestExpired": errors.CredentialsRefused,
    "EFSMountFailureException": errors.ServiceFailed,
    "ResourceNotFoundException": errors.FunctionNotFound,
    "S3FilesMountFailureException": errors.ServiceFailed,
    "SnapStartException": errors.ServiceFailed,
    "ThrottlingException": errors.Throttled,
    "UnrecognizedClientException": errors.CredentialsRefused,
}
STATUSES: dict[int, type[errors.LambdaError]] = {
    400: errors.InvalidArgument,
    401: errors.CredentialsRefused,
    403: errors.AccessDenied,
    413: errors.PayloadTooLarge,
    415: errors.InvalidArgument,
    429: errors.Throttled,
}


@dataclass(frozen=True)
class Request:
    """One invocation as asked for. `client_context` is JSON text; `region` is the caller's argument, if any."""

    function: resources.Target
    payload: bytes
    invocation_type: str = "RequestResponse"
    log_type: str = "None"
    client_context: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        _one_of("invocation type", self.invocation_type, INVOCATION_TYPES)
        _one_of("log type", self.log_type, LOG_TYPES)
        limit = PAYLOAD_LIMITS[self.invocation_type]
        if len(self.payload) > limit:
            raise errors.PayloadTooLarge(
                function=self.function.given, size=len(self.payload), invocation_type=self.invocation_type, limit=limit
            )
        if self.region is not None and not re.fullmatch(resources.REGION, self.region, re.ASCII):
            raise errors.InvalidArgument(
                reason=f"not the name of a region: {self.region[:100]!r}",
                hint="It is like eu-west-1. Nothing was sent.",
            )
        if self.client_context is not None and not self.client_context.lstrip().startswith("{"):
            raise errors.InvalidArgument(
                reason="the client context is not a JSON object",
                hint='It is like {"custom": {"tenant": "a"}}. Nothing was sent.',
            )
        if self.client_context is not None and len(_client_context(self.client_context)) > CLIENT_CONTEXT_LIMIT:
            raise errors.InvalidArgument(
                reason=f"the client context has more than {CLIENT_CONTEXT_LIMIT} bytes in base64",
                hint="Nothing was sent.",
            )
        if self.region and self.function.region and self.region != self.function.region:
            raise errors.InvalidArgument(
                reason=f"the region {self.region!r} contradicts the one in {self.function.given!r}",
                hint="Leave the argument region out: an ARN's own region counts. Nothing was sent.",
            )


@dataclass(frozen=True)
class Response:
    """What Lambda answered. `payload` is empty for Event and DryRun; `log_result` is base64 of the log's last 4 KB."""

    status_code: int
    payload: bytes
    executed_version: str | None
    log_result: str | None
    function_error: str | None
    request_id: str | None
    duration: float  # seconds, from sending the request to its answer's last byte


def invoke(request: Request, settings: Settings, connections: Connections, check: Callable[[], None]) -> Response:
    """Calls the function. A function that fails is a Response with `function_error`, not an exception.

    `check` is called at least every 20 ms while this waits, and ends it by raising.
    """
    wait = Wait(check, settings.request_timeout)
    attempt, refused = 0, False
    while True:
        attempt += 1
        try:
            return _attempt(request, settings, connections, wait)
        except (errors.ConnectFailed, errors.Throttled):
            import random

            pause = random.uniform(0, min(LONGEST_BACK_OFF, BACK_OFF * 2 ** (attempt - 1)))  # noqa: S311 - no secret
            if attempt >= settings.max_attempts or time.monotonic() + pause >= wait.deadline:
                raise
            wait.sleep(pause)
        except errors.CredentialsRefused:  # nothing ran; they may have been replaced since this session found them
            aws.forget(settings)
            if refused or time.monotonic() >= wait.deadline:
                raise
            refused = True
        except (errors.NoCredentials, errors.RegionUnknown):
            aws.forget(settings)
            raise


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise errors.InvalidArgument(
            reason=f"invalid {what}: {value!r}", hint=f"One of {', '.join(valid)}, in this spelling. Nothing was sent."
        )


def raise_function_error(request: Request, response: Response) -> None:
    """Raises what a function's failure is in SQL; does nothing if it did not fail."""
    if response.function_error is None:
        return
    problem = _object(response.payload)
    kind, message = str(problem.get("errorType") or ""), str(problem.get("errorMessage") or "")
    timed_out = kind == "Sandbox.Timedout" or (not kind and "Task timed out after" in message)
    stack = problem.get("stackTrace") or problem.get("trace")  # Python, Java; Node.js
    lines = [str(line).rstrip() for line in stack] if isinstance(stack, list) else []
    raise (errors.FunctionTimedOut if timed_out else errors.FunctionError)(
        function=request.function.given,
        error=": ".join(part for part in (kind or response.function_error, message[:MESSAGE_LIMIT]) if part),
        detail="\n".join([f"Request id: {response.request_id}", *lines])[:DETAIL_LIMIT],
    )


def arn(request: Request, settings: Settings, check: Callable[[], None]) -> str:
    """The whole ARN of a function that was called, for an error: with the qualifier that was asked for. The function as
    it was given, if STS has to be asked for the account and does not answer within `connect_timeout`."""
    function, identity = request.function, aws.identity(settings)
    wait = Wait(check, LONGEST_FOR_ARN)
    try:
        region = _region(request, identity, wait)
        account = function.account or identity.account(wait, region, settings.connect_timeout)
        whole = account and replace(function, account=account).arn(region, identity.partition)
    except errors.LambdaError:
        return function.given
    return ":".join(part for part in (whole, function.qualifier) if part) if whole else function.given


def _object(payload: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(payload)
    except (ValueError, RecursionError):
        problem = None
    return problem if isinstance(problem, dict) else {}


def _attempt(request: Request, settings: Settings, connections: Connections, wait: Wait) -> Response:
    function = request.function
    identity = aws.identity(settings)
    region = _region(request, identity, wait)
    _check_allowed(settings, function, function.arn(region, identity.partition))
    url = identity.url("lambda", region)
    path = url.path + _path(function.given, function.extra_qualifier)
    unsigned = signing.Request("lambda", region, "POST", url.host, path, _headers(request), request.payload)
    message = _message(unsigned, identity.sign(unsigned, wait))
    started = time.monotonic()
    try:
        answer = connections.exchange(url.endpoint, message, settings.connect_timeout, wait)
    except ConnectError as error:
        raise errors.ConnectFailed(endpoint=url.text, reason=error) from None
    except BrokenError as error:
        raise errors.ConnectionBroke(endpoint=url.text, function=function.given, reason=error) from None
    except TimeoutError:
        raise errors.NoAnswer(function=function.given, seconds=settings.request_timeout) from None
    if answer.status >= 300:
        raise _refusal(request, answer, region, url)
    return Response(
        status_code=answer.status,
        payload=answer.body,
        executed_version=answer.headers.get("x-amz-executed-version"),
        log_result=answer.headers.get("x-amz-log-result"),
        function_error=answer.headers.get("x-amz-function-error"),
        request_id=answer.headers.get("x-amzn-requestid"),
        duration=time.monotonic() - started,
    )


def _region(request: Request, identity: aws.Identity, wait: Wait) -> str:
    return request.function.region or request.region or identity.region(wait)[0]


def _check_allowed(settings: Settings, function: resources.Target, arn: str | None) -> None:
    patterns = settings.allowed_resources
    if patterns is not None and not resources.permits(patterns, function.resource, arn):
        raise errors.ResourceNotAllowed(server=settings.server, resource=arn or function.resource)


@lru_cache(maxsize=256)
def _path(function: str, qualifier: str | None) -> str:
    path = f"/2015-03-31/functions/{quote(function, safe='-._~')}/invocations"
    return path + (f"?Qualifier={quote(qualifier, safe='-._~')}" if qualifier else "")


def _headers(request: Request) -> dict[str, str]:
    headers = {
        "X-Amz-Invocation-Type": request.invocation_type,
        "X-Amz-Log-Type": request.log_type,
    }
    if request.client_context is not None:
        headers["X-Amz-Client-Context"] = _client_context(request.client_context)
    return headers


def _client_context(text: str) -> str:
    return b64encode(text.encode()).decode()


def _message(request: signing.Request, headers: Mapping[str, str]) -> bytes:
    """What goes over the wire, with the headers that authorise it."""
    head = (
        f"{request.method} {request.path} HTTP/1.1\r\nHost: {request.host}\r\nUser-Agent: {USER_AGENT}\r\n"
        f"Content-Length: {len(request.body)}\r\n"
    )
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{head}{lines}\r\n".encode("ascii") + request.body


def _refusal(request: Request, answer: Answer, region: str, url: aws.Url) -> errors.LambdaError:
    """The error that a refused or failed Invoke is, by AWS's own code."""
    said = _object(answer.body)
    code = str(answer.headers.get("x-amzn-errortype") or said.get("__type") or said.get("code") or "")
    code = code.split(":", maxsplit=1)[0].rsplit("#", maxsplit=1)[-1]
    if not code and (answer.status == 404 or answer.status < 400):
        return errors.NotLambda(endpoint=url.text, function=request.function.given, status=answer.status)
    message = str(said.get("message") or said.get("Message") or code or f"HTTP {answer.status}")
    message = message.split("\n", maxsplit=1)[0][:MESSAGE_LIMIT]  # then AWS shows the signed headers, with the token
    kind = CODES.get(code) or STATUSES.get(answer.status, errors.ServiceFailed)
    if kind is errors.InvalidJson:
        message = "Lambda could not parse it"  # AWS's own message quotes the payload
    said_of = f"calling the Lambda function {request.function.given!r}: {message}"
    reasons = {errors.InvalidJson: message, errors.Throttled: said.get("Reason") or code or message}
    return kind(
        function=request.function.given,
        region=region,
        code=code or "no code",
        status=answer.status,
        reason=reasons.get(kind, said_of),
        size=len(request.payload),
        limit=PAYLOAD_LIMITS[request.invocation_type],
        invocation_type=request.invocation_type,
        detail=f"AWS said: {message}\nRequest id: {answer.headers.get('x-amzn-requestid', 'none')}",
    )
