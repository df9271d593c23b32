"""Other services as Lambda's callers: SNS, S3, EventBridge and CloudWatch Logs send events, SQS, Kinesis and
DynamoDB wait for an answer.

moto knows these connections, and calls a function object's `invoke` for each; that method is replaced here by one
that really runs the function. EventBridge is the one connection that moto lacks.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from typing import Any

from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.events.models import Rule
from moto.events.utils import EventTemplateParser

from awslambda_local.errors import ApiError
from awslambda_local.events import EventQueue
from awslambda_local.functions import FunctionReference
from awslambda_local.service import LambdaService, new_request_id

_SENDERS = {"aws:sns", "aws:s3"}


def connect_sources(service: LambdaService, events: EventQueue) -> None:
    """From now on, what moto's services send to functions runs them."""

    def invoke(function: LambdaFunction, body: str, request_headers: Any, response_headers: dict[str, Any]) -> bytes:
        reference, payload = FunctionReference.of(function), (body or "{}").encode()
        if _is_event(json.loads(payload)):
            events.put(reference, payload, new_request_id())
            return b""
        try:
            outcome = service.run(reference.resolve(), payload)
        except ApiError as error:
            response_headers["x-amz-function-error"] = error.code
            return error.body
        if outcome.failed:
            response_headers["x-amz-function-error"] = "Unhandled"
        return outcome.payload

    send_to_targets = Rule.send_to_targets

    def send_to_all_targets(rule: Rule, original_event: Any, transform_input: bool = True) -> None:
        functions = [target for target in rule.targets if ":lambda:" in target["Arn"]]
        others = copy.copy(rule)
        others.targets = [target for target in rule.targets if target not in functions]
        send_to_targets(others, original_event, transform_input)
        if rule.event_pattern.matches_event(original_event):
            for target in functions:
                _send_to_function(events, target, original_event)

    LambdaFunction.invoke = invoke  # type: ignore[method-assign,assignment]
    Rule.send_to_targets = send_to_all_targets  # type: ignore[method-assign,assignment]


def _is_event(payload: Any) -> bool:
    """Whether the sender does not wait, told by the shape in which each service sends."""
    if not isinstance(payload, dict):
        return False
    records = payload.get("Records") or [{}]
    source = records[0].get("EventSource") or records[0].get("eventSource")
    return "awslogs" in payload or source in _SENDERS


def _send_to_function(events: EventQueue, target: Any, original_event: Any) -> None:
    event: Any = {key: value for key, value in original_event.items() if key != "ingestion-time"}
    event["time"] = datetime.fromtimestamp(float(event["time"]), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    transformer = target.get("InputTransformer")
    if transformer:
        event = EventTemplateParser.parse(transformer["InputTemplate"], transformer.get("InputPathsMap", {}), event)
    payload = target["Input"] if target.get("Input") else json.dumps(event)
    _, _, _, region, account_id, _ = target["Arn"].split(":", 5)
    function = lambda_backends[account_id][region].get_function(target["Arn"])
    events.put(FunctionReference.of(function), payload.encode(), new_request_id())
