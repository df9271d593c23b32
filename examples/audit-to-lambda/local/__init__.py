"""The document's route: an audit log in CloudWatch Logs, a stream, and a function of that stream."""

from __future__ import annotations

import json
import time
from typing import Any

from awslambda_local import LocalAWS

from examples.stage import Stage

GROUP = "/aws/rds/cluster/shop/audit"
LINE = "20260102 03:04:{:02},ip-10-0-0-7,app,10.0.0.9,7,{},QUERY,shop,'{}',0"
STATEMENTS = [  # as the audit log has them
    "SELECT 1",
    r"INSERT INTO customers VALUES (1, \'Zoë, Straße 1\')",
    r"UPDATE customers SET name = \'日本\' WHERE id = 1",
]
LINES = [LINE.format(5 + number, 99 + number, statement) for number, statement in enumerate(STATEMENTS)]


def prepare(here: Stage) -> list[str]:
    """Makes queue, stream, mapping, log group and subscription; then the lines are written."""
    build(here, "MyAuditLog", GROUP)
    write(here.aws, GROUP, LINES)
    return []


def build(here: Stage, stream: str, group: str) -> None:
    here.make("sqs", "create_queue", QueueName="changes")
    here.make("kinesis", "create_stream", StreamName=stream, ShardCount=1)
    kinesis = here.aws.client("kinesis")
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    functions = here.aws.client("lambda")
    if not functions.list_event_source_mappings(FunctionName="on-audit-log")["EventSourceMappings"]:
        functions.create_event_source_mapping(
            EventSourceArn=arn,
            FunctionName="on-audit-log",
            StartingPosition="TRIM_HORIZON",
            BatchSize=100,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
    here.make("logs", "create_log_group", logGroupName=group)
    here.make("logs", "create_log_stream", logGroupName=group, logStreamName="shop.1")
    here.make(
        "logs", "put_subscription_filter", logGroupName=group, filterName="to-kinesis", filterPattern="",
        destinationArn=arn, roleArn=f"arn:aws:iam::{here.aws.account_id}:role/logs-to-kinesis",
    )  # fmt: skip


def write(aws: LocalAWS, group: str, lines: list[str]) -> None:
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    aws.client("logs").put_log_events(logGroupName=group, logStreamName="shop.1", logEvents=events)


def show(here: Stage) -> bool:
    """Prints what the function passed on, and what our mapping's function logged."""
    passed = received(here.aws.client("sqs"), 2)
    print("-- Lambda's event source mapping called on-audit-log, which passed on:\n")
    for one in passed:
        print(f"   {one}")
    changes = logged(here.aws.client("logs"), 4)
    print("\n-- Our event source mapping called on-change, which logged:\n")
    for line in changes:
        print(f"   {line}")
    return len(passed) == 2 and len(changes) == 4


def received(sqs: Any, wanted: int) -> list[str]:
    url = sqs.get_queue_url(QueueName="changes")["QueueUrl"]
    bodies: list[str] = []
    deadline = time.monotonic() + 20
    while len(bodies) < wanted and time.monotonic() < deadline:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
            bodies.append(json.loads(message["Body"])["statement"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(bodies)


def logged(logs: Any, wanted: int) -> list[str]:
    deadline = time.monotonic() + 20
    while True:
        try:
            events = logs.filter_log_events(logGroupName="/aws/lambda/on-change")["events"]
        except logs.exceptions.ResourceNotFoundException:
            events = []
        lines = [event["message"].strip() for event in events if event["message"].startswith("change:")]
        if len(lines) >= wanted or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)
