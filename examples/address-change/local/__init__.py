"""What the function was told, from its log."""

from __future__ import annotations

import time
from typing import Any

from examples.stage import Stage

GROUP = "/aws/lambda/log-address"
TOLD = [
    "address of customer 1: New Street 1 (completion)",
    "address of customer 1: Rolled Back 1 (intention)",
    "address of customer 2: New Street 2 (completion)",
]


def prepare(here: Stage) -> list[str]:
    """Nothing but the function is needed."""
    return []


def show(here: Stage) -> bool:
    """Prints the function's log."""
    deadline = time.monotonic() + 20
    logs = here.aws.client("logs")
    while len(lines := logged(logs)) < len(TOLD) and time.monotonic() < deadline:
        time.sleep(0.1)
    print("-- The function was told:\n")
    for line in lines:
        print(f"   {line}")
    return sorted(lines) == TOLD


def logged(logs: Any) -> list[str]:
    try:
        events = logs.filter_log_events(logGroupName=GROUP)["events"]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"].strip() for event in events if event["message"].startswith("address of")]
