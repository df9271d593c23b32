"""The function's ARN, which the trigger is given."""

from __future__ import annotations

from examples.stage import Stage


def prepare(here: Stage) -> list[str]:
    """psql's variable lambda_arn."""
    found = here.aws.client("lambda").get_function(FunctionName="log-me")
    return ["-v", f"lambda_arn={found['Configuration']['FunctionArn']}"]


def show(here: Stage) -> bool:
    """The trigger's calls are asynchronous: the function's log has them."""
    return True
