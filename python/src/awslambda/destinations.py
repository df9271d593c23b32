"""Where a record is reported that could not be delivered: a Lambda function, or an SQS queue or SNS topic by its ARN.

What is sent is Lambda's own record of a failed invocation, so that what handles those can handle these.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html#invocation-async-destinations
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awslambda import aws, errors, resources
from awslambda import invoke as lambda_
from awslambda.connection import Connections
from awslambda.settings import Settings
from awslambda.waits import Wait

if TYPE_CHECKING:
    from awslambda.outbox import Death

# Bytes of a message, by service.
LIMITS = {"lambda": lambda_.PAYLOAD_LIMITS["Event"], "sqs": 1024 * 1024, "sns": 256 * 1024}

_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:(?P<service>sqs|sns):(?P<region>" + resources.REGION + r"):(?P<account>\d{12}):"
    r"(?P<name>[A-Za-z0-9_-]{1,256}(?:\.fifo)?)",
    re.ASCII,
)


@dataclass(frozen=True)
class Destination:
    """A mapping's on_failure, parsed. `account`, `region` and `name` are a queue's or a topic's."""

    arn: str
    service: str
    region: str = ""
    account: str = ""
    name: str = ""


def parse(arn: str) -> Destination:
    """InvalidArgument unless it is a function, or the ARN of a standard queue or a standard topic."""
    if match := _ARN.fullmatch(arn):
        if match["name"].endswith(".fifo"):
            raise errors.InvalidArgument(
                reason=f"an on-failure destination cannot be FIFO: {arn!r}",
                hint="As for Lambda, it is a standard queue or a standard topic.",
            )
        return Destination(arn, match["service"], match["region"], match["account"], match["name"])
    with contextlib.suppress(errors.InvalidArgument):
        resources.function(arn)
        return Destination(arn, "lambda")
    raise errors.InvalidArgument(
        reason=f"not an on-failure destination: {arn[:200]!r}",
        hint="It is a function's name or ARN, or a queue's or a topic's ARN: arn:aws:sqs:region:account:name.",
    )


def document(death: Death, message_ids: Sequence[str], payload: str | None = None) -> str:
    """The record of a failed invocation as JSON. `payload`, the JSON that the function would have got, is left out if
    the whole would be too large for the destination: awslambda.dead_letter has it, by message id."""
    mapping, times = death.route.mapping, [record.enqueued_at for record in death.records]
    kind = death.error.split(":", 1)[0]
    members = {
        "version": "1.0",
        "timestamp": _time(datetime.datetime.now(datetime.timezone.utc).timestamp()),
        "requestContext": {
            "requestId": message_ids[0] if message_ids else None,
            "functionArn": mapping.function_name,
            "condition": death.reason,
            "approximateInvokeCount": max(record.attempts for record in death.records) + death.counted,
        },
        "responseContext": {"functionError": "Unhandled"} if kind in ("FunctionError", "FunctionTimedOut") else None,
        "responsePayload": {"errorType": kind, "errorMessage": death.error} if death.error else None,
        "PostgreSQLBatchInfo": {
            "eventSourceMapping": mapping.name or None,
            "messageIds": list(message_ids),
            "batchSize": len(death.records),
            "approximateArrivalOfFirstRecord": _time(min(times)),
            "approximateArrivalOfLastRecord": _time(max(times)),
        },
    }
    texts = {name: json.dumps(value) for name, value in members.items()}
    whole = _object({**texts, "requestPayload": "null" if payload is None else payload})
    if len(whole.encode()) > LIMITS[parse(str(mapping.on_failure)).service]:
        return _object({**texts, "requestPayload": "null"})
    return whole


def send(arn: str, document: str, settings: Settings, check: Callable[[], None]) -> None:
    """Sends it once, within `request_timeout`, if the server's allowed_resources have a pattern for the ARN.

    `check` is called at least every 20 ms while this waits, and ends it by raising.
    """
    destination = parse(arn)
    if destination.service == "lambda":
        request = lambda_.Request(resources.function(arn), document.encode(), "Event")
        with contextlib.closing(Connections()) as connections:
            lambda_.invoke(request, settings, connections, check)
        return
    settings.check_allowed("", arn)
    wait = Wait(check, settings.request_timeout)
    identity = aws.identity(settings)
    operation, parameters = "publish", {"TopicArn": arn, "Message": document}
    if destination.service == "sqs":
        url = identity.url("sqs", destination.region, wait).text
        operation = "send_message"
        parameters = {"QueueUrl": f"{url}/{destination.account}/{destination.name}", "MessageBody": document}
    try:
        identity.request(destination.service, destination.region, operation, parameters, arn, wait)
    except (errors.CredentialsRefused, errors.NoCredentials):
        aws.forget(settings)
        raise


def _object(members: dict[str, str]) -> str:
    """Of members whose values are JSON already: numbers must not change on the way."""
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


def _time(epoch: float) -> str:
    """As AWS writes it."""
    time = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
