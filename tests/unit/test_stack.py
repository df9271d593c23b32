"""deploy/stack.py: what became of a stack, as CloudFormation says it; the local AWS's stacks fail in other ways."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from deploy import stack

SESSION = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-west-1")


class Account(stack.Account):
    """Whose CloudFormation is a stub."""

    def __init__(self) -> None:
        super().__init__(SESSION)
        self.formation = SESSION.client("cloudformation")

    def client(self, service: str, config: Any = None) -> Any:
        assert service == "cloudformation"
        return self.formation


def test_parameters_that_are_not_given_keep_their_values() -> None:
    account = Account()
    said = {
        "StackName": "shop", "CreationTime": datetime.now(timezone.utc), "StackStatus": "UPDATE_COMPLETE",
        "Parameters": [{"ParameterKey": key, "ParameterValue": "old"} for key in "abc"],
    }  # fmt: skip
    wanted = [{"ParameterKey": "a", "ParameterValue": "new"}, {"ParameterKey": "b", "UsePreviousValue": True}]
    with Stubber(account.formation) as stub:
        stub.add_client_error("create_stack", "AlreadyExistsException")
        stub.add_response("describe_stacks", {"Stacks": [said]})
        ignored = {key: ANY for key in ("StackName", "TemplateBody", "Capabilities")}
        stub.add_response("update_stack", {"StackId": "id"}, {"Parameters": wanted, **ignored})
        for _ in range(2):
            stub.add_response("describe_stacks", {"Stacks": [said]})
        account.create({"Parameters": {"a": {}, "b": {}}}, "shop", {"a": "new"})


def test_a_stack_that_fails_says_which_resources_and_why() -> None:
    account = Account()

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
    with Stubber(account.formation) as stub:
        stub.add_response("create_stack", {"StackId": "id"})
        stub.add_response("describe_stacks", {"Stacks": [said]})
        stub.add_response("describe_stack_events", {"StackEvents": events})
        with pytest.raises(stack.Failed) as failed:
            account.create({}, "shop", {})
    assert str(failed.value).split("\n") == [
        "the stack shop has failed", "Bucket: temperature-1 already exists", "Topic: Resource creation cancelled",
    ]  # fmt: skip
