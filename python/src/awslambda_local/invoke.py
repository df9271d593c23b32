"""The Invoke operation over HTTP: what it accepts, what it refuses, and how it answers.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from email.message import Message
from typing import NoReturn
from urllib.parse import parse_qs, unquote

from awslambda_local.credentials import Credentials
from awslambda_local.errors import (
    ApiError,
    InvalidParameterValue,
    InvalidRequestContent,
    RequestTooLarge,
)
from awslambda_local.events import EventQueue
from awslambda_local.functions import FunctionReference, Target
from awslambda_local.service import LambdaService, new_request_id

PAYLOAD_LIMITS = {"RequestResponse": 6291456, "Event": 1048576, "DryRun": 6291456}
CLIENT_CONTEXT_LIMIT = 3583
LOG_TAIL = 4096

_PATH = re.compile(r"/2015-03-31/functions/([^/?]+)/invocations/?(?:\?(.*))?")


@dataclass(frozen=True)
class Request:
    """What Invoke reads of an HTTP request. Header names are looked up without regard to case."""

    function: str
    query: str
    headers: Message[str, str]
    payload: bytes


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""


def invocation_path(method: str, path: str) -> tuple[str, str] | None:
    """The function named and the query, when this is a call of Invoke."""
    match = _PATH.fullmatch(path) if method == "POST" else None
    return (unquote(match[1]), match[2] or "") if match else None


@dataclass(frozen=True)
class InvokeApi:
    service: LambdaService
    events: EventQueue
    credentials: Credentials

    def handle(self, request: Request) -> Response:
        request_id = new_request_id()
        headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
        try:
            return self._invoke(request, request_id, headers)
        except ApiError as error:
            return Response(error.status, [*headers, ("x-amzn-ErrorType", error.code)], error.body)

    def _invoke(self, request: Request, request_id: str, headers: list[tuple[str, str]]) -> Response:
        caller = self.credentials.caller(request.headers.get("Authorization"))
        invocation_type = _invocation_type(request)
        reference = FunctionReference.parse(request.function, _qualifier(request), caller)
        client_context = _client_context(request.headers.get("X-Amz-Client-Context"))
        target = reference.resolve()
        _check_json(request.payload)
        if invocation_type == "DryRun":
            return Response(204, headers)
        if invocation_type == "Event":
            self.events.put(reference, request.payload, request_id)  # client contexts go to synchronous calls only
            return Response(202, headers)
        tail = request.headers.get("X-Amz-Log-Type") == "Tail"
        return self._wait(target, request.payload, request_id, client_context, headers, tail=tail)

    def _wait(
        self,
        target: Target,
        payload: bytes,
        request_id: str,
        client_context: str | None,
        headers: list[tuple[str, str]],
        *,
        tail: bool,
    ) -> Response:
        outcome = self.service.run(target, payload, request_id=request_id, client_context=client_context)
        headers = [*headers, ("X-Amz-Executed-Version", target.spec.version)]
        if outcome.failed:
            headers.append(("X-Amz-Function-Error", "Unhandled"))
        if tail:
            headers.append(("X-Amz-Log-Result", base64.b64encode(outcome.log.encode()[-LOG_TAIL:]).decode()))
        return Response(200, headers, outcome.payload)


def _invocation_type(request: Request) -> str:
    invocation_type = request.headers.get("X-Amz-Invocation-Type") or "RequestResponse"
    limit = PAYLOAD_LIMITS.get(invocation_type)
    if limit is None:
        raise InvalidParameterValue(
            f"Value '{invocation_type}' at 'invocationType' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
        )
    if len(request.payload) > limit:
        raise RequestTooLarge(
            f"{len(request.payload)} byte payload is too large for the {invocation_type} invocation type "
            f"(limit {limit} bytes)"
        )
    return invocation_type


def _qualifier(request: Request) -> str | None:
    return parse_qs(request.query).get("Qualifier", [None])[0]


def _client_context(header: str | None) -> str | None:
    """The client context's JSON, as the Runtime API hands it on."""
    if not header:
        return None
    if len(header) > CLIENT_CONTEXT_LIMIT:
        raise InvalidRequestContent(f"Client context must be at most {CLIENT_CONTEXT_LIMIT} bytes of base64")
    try:
        context = json.loads(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        context = None
    if not isinstance(context, dict):
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.")
    return json.dumps(context)


def _check_json(payload: bytes) -> None:
    """No payload at all is fine: the handler gets an empty object."""
    if not payload:
        return
    try:
        json.loads(payload.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestContent(f"Could not parse request body into json: {error}") from None


def _refuse(constant: str) -> NoReturn:
    """NaN and Infinity: Python's JSON has them, JSON has not."""
    raise ValueError(f"{constant} is not JSON")
