"""Lambda's Invoke on plain values: one request on a kept connection, and every way it can end.

A request that may have reached a function is never sent again. What provably did not run (no connection, throttled) is
tried up to `max_attempts` times with full jitter, within `request_timeout`.
https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from awslambda import aws, errors, resources, signing
from awslambda import request as request_
from awslambda.connection import Answer, BrokenError, ConnectError, Connections
from awslambda.settings import Settings
from awslambda.waits import Wait

INVOCATION_TYPES = ("RequestResponse", "Event", "DryRun")
LOG_TYPES = ("None", "Tail")
PAYLOAD_LIMITS = {"RequestResponse": 6 * 1024 * 1024, "Event": 1024 * 1024, "DryRun": 6 * 1024 * 1024}  # bytes
CLIENT_CONTEXT_LIMIT = 3583  # bytes of base64
LONGEST_FOR_ARN = 3.0  # seconds that an error waits for the function's ARN
MESSAGE_LIMIT = 2000  # characters of a function's error message that an error shows
DETAIL_LIMIT = 8000  # characters of a function's stack that an error shows

# What Invoke's errors are here: by AWS's code, else by HTTP status, else ServiceFailed.
CODES: dict[str, type[errors.LambdaError]] = {
    **request_.CODES,
    "EC2ThrottledException": errors.Throttled,
    "EFSMountFailureException": errors.ServiceFailed,
    "InvalidRequestContentException": errors.InvalidJson,
    "RecursiveInvocationException": errors.ServiceFailed,
    "ResourceNotFoundException": errors.FunctionNotFound,
    "S3FilesMountFailureException": errors.ServiceFailed,
    "SnapStartException": errors.ServiceFailed,
    "ThrottlingException": errors.Throttled,
}
STATUSES: dict[int, type[errors.LambdaError]] = {
    400: errors.InvalidArgument,
    401: errors.CredentialsRefused,
    403: errors.AccessDenied,
    413: errors.PayloadTooLarge,
    415: errors.InvalidArgument,
    429: errors.Throttled,
}


class Request:
    """One invocation as asked for. `client_context` is JSON text; `region` is the caller's argument, if any."""

    def __init__(  # noqa: PLR0917 - the fields of one
        self,
        function: resources.Target,
        payload: bytes,
        invocation_type: str = "RequestResponse",
        log_type: str = "None",
        client_context: str | None = None,
        region: str | None = None,
    ) -> None:
        self.function = function
        self.payload = payload
        self.invocation_type = invocation_type
        self.log_type = log_type
        self.client_context = client_context
        self.region = region
        self._check()

    def carrying(self, payload: bytes) -> Request:
        """The same call with another payload."""
        return Request(self.function, payload, self.invocation_type, self.log_type, self.client_context, self.region)

    def _check(self) -> None:
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


class Response(NamedTuple):
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
    harmless = (errors.ConnectFailed, errors.Throttled)
    return request_.retried(lambda: _attempt(request, settings, connections, wait), settings, wait, harmless)


def prepare(request: Request, settings: Settings, check: Callable[[], None]) -> None:
    """Raises what would keep every call like this one from being sent: not allowed, no region, no credentials. They
    are known afterwards: many threads that call at once need not look for them."""
    wait = Wait(check, settings.request_timeout)

    def attempt() -> None:
        identity = aws.identity(settings)
        _aimed(request, settings, identity, wait)
        identity.frozen_credentials(wait)

    request_.retried(attempt, settings, wait, (errors.ConnectFailed,))


def _one_of(what: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise errors.InvalidArgument(
            reason=f"invalid {what}: {value!r}", hint=f"One of {', '.join(valid)}, in this spelling. Nothing was sent."
        )


def raise_function_error(request: Request, response: Response) -> None:
    """Raises what a function's failure is in SQL; does nothing if it did not fail."""
    if response.function_error is None:
        return
    problem = request_.document(response.payload)
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
        whole = account and function._replace(account=account).arn(region, identity.partition)
    except errors.LambdaError:
        return function.given
    return ":".join(part for part in (whole, function.qualifier) if part) if whole else function.given


def _attempt(request: Request, settings: Settings, connections: Connections, wait: Wait) -> Response:
    function = request.function
    identity = aws.identity(settings)
    region, url = _aimed(request, settings, identity, wait)
    path = url.path + _path(function.given, function.extra_qualifier)
    unsigned = signing.Request("lambda", region, "POST", url.host, path, _headers(request), request.payload)
    message = request_.message(unsigned, identity.sign(unsigned, wait))
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


def _aimed(request: Request, settings: Settings, identity: aws.Identity, wait: Wait) -> tuple[str, aws.Url]:
    """Where a call goes, if it may go there."""
    function, region = request.function, _region(request, identity, wait)
    settings.check_allowed(function.resource, function.arn(region, identity.partition))
    return region, identity.url("lambda", region, wait)


def _region(request: Request, identity: aws.Identity, wait: Wait) -> str:
    return request.function.region or request.region or identity.region(wait)[0]


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


def _refusal(request: Request, answer: Answer, region: str, url: aws.Url) -> errors.LambdaError:
    """The error that a refused or failed Invoke is, by AWS's own code."""
    said = request_.document(answer.body)
    code, message = request_.refusal(answer, said)
    if not code and (answer.status == 404 or answer.status < 400):
        return errors.NotLambda(endpoint=url.text, function=request.function.given, status=answer.status)
    message = message[:MESSAGE_LIMIT]
    kind = CODES.get(code) or STATUSES.get(answer.status, errors.ServiceFailed)
    if kind is errors.InvalidJson:
        message = "Lambda could not parse it"  # AWS's own message quotes the payload
    said_of = f"calling the Lambda function {request.function.given!r}: {message}"
    reasons = {errors.InvalidJson: message, errors.Throttled: said.get("Reason") or code or message}
    return kind(
        function=request.function.given,
        region=region,
        code=code or "no code",
        date=answer.headers.get("date"),
        status=answer.status,
        reason=reasons.get(kind, said_of),
        size=len(request.payload),
        limit=PAYLOAD_LIMITS[request.invocation_type],
        invocation_type=request.invocation_type,
        detail=f"AWS said: {message}\nRequest id: {answer.headers.get('x-amzn-requestid', 'none')}",
    )
