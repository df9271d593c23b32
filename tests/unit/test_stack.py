"""deploy/stack.py: what became of a stack, as CloudFormation says it; the local AWS's stacks fail in other ways."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from deploy import stack


def test_a_stack_that_fails_says_which_resources_and_why() -> None:
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-west-1")
    client = session.client("cloudformation")

    class Account(stack.Account):
        def client(self, service: str, config: Any = None) -> Any:
            return client

    def event(resource: str, status: str, reason: str) -> dict[str, Any]:
        return {
            "StackId": "id", "EventId": resource, "StackName": "shop", "Timestamp": datetime.now(timezone.utc),
            "LogicalResourceId": resource, "ResourceStatus": status, "ResourceStatusReason": reason,
        }  # fmt: skip

    said = {"StackName": "shop", "CreationTime": datetime.now(timezone.utc), "StackStatus": "ROLLBACK_COMPLETE"}
    events = [
        event("shop", "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [Bucket]."),
        event("Topic", "CREATE_FAILED", "Resource creation cancelled"),
        event("Bucket", "CREATE_FAILED", "temperature-1 already exists"),
        event("shop", "CREATE_IN_PROGRESS", "User Initiated"),
        event("Old", "DELETE_FAILED", "of another time"),
    ]
    with Stubber(client) as stub:
        stub.add_response("create_stack", {"StackId": "id"})
        stub.add_response("describe_stacks", {"Stacks": [said]})
        stub.add_response("describe_stack_events", {"StackEvents": events})
        with pytest.raises(stack.Failed) as failed:
            Account(session).create({}, "shop", {})
    assert str(failed.value).split("\n") == [
        "the stack shop has failed", "Bucket: temperature-1 already exists", "Topic: Resource creation cancelled",
    ]  # fmt: skip
