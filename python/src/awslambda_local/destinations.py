"""Where an asynchronous invocation's record goes: a queue, a topic, a function or an event bus, as the function is
configured.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from awslambda_local.clients import local_client
from awslambda_local.functions import Target
from awslambda_local.sandbox import Outcome

Condition = Literal["Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency"]


@dataclass(frozen=True)
class InvocationRecord:
    request_id: str
    function_arn: str
    executed_version: str
    condition: Condition
    attempts: int
    request: bytes
    outcome: Outcome | None

    @property
    def as_json(self) -> dict[str, Any]:
        """In AWS's shape: the response is left out when the function was never run."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        qualified = self.function_arn.count(":") > 6
        record: dict[str, Any] = {
            "version": "1.0",
            "timestamp": now,
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": self.function_arn if qualified else f"{self.function_arn}:$LATEST",
                "condition": self.condition,
                "approximateInvokeCount": self.attempts,
            },
            "requestPayload": json.loads(self.request or b"{}"),
        }
        if self.outcome is not None:
            record["responseContext"] = {"statusCode": 200, "executedVersion": self.executed_version}
            if self.outcome.failed:
                record["responseContext"]["functionError"] = "Unhandled"
            record["responsePayload"] = json.loads(self.outcome.payload)
        return record


class Destinations:
    """Delivers records through the local AWS's own endpoint."""

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url

    def deliver(self, target: Target, record: InvocationRecord) -> None:
        """To the destination for the record's condition, if any. A failure is told on stderr; AWS has a metric."""
        which = "OnSuccess" if record.condition == "Success" else "OnFailure"
        arn = target.event_invoke_config.get("DestinationConfig", {}).get(which, {}).get("Destination")
        if not arn:
            return
        try:
            self._send(arn, record, which)
        except Exception as error:  # whatever the destination's service refuses
            print(f"{target.arn}: cannot deliver to {arn}: {error}", file=sys.stderr, flush=True)

    def _send(self, arn: str, record: InvocationRecord, which: str) -> None:
        _, _, service, region, _, resource = arn.split(":", 5)
        client = local_client(service, self._endpoint_url, region)
        body = json.dumps(record.as_json)
        if service == "sqs":
            client.send_message(QueueUrl=client.get_queue_url(QueueName=resource)["QueueUrl"], MessageBody=body)
        elif service == "sns":
            client.publish(TopicArn=arn, Message=body)
        elif service == "lambda":
            client.invoke(FunctionName=arn, InvocationType="Event", Payload=body)
        elif service == "events":
            detail_type = f"Lambda Function Invocation Result - {which.removeprefix('On')}"
            entry = {"Source": "lambda", "DetailType": detail_type, "Detail": body, "EventBusName": arn}
            client.put_events(Entries=[{**entry, "Resources": [record.function_arn]}])
        else:
            raise ValueError(f"a destination in {service} is not supported here")
