"""CloudWatch Logs to a stream to rows, in SQL alone: changes of a MySQL database, by its audit log."""

from __future__ import annotations

import base64
import gzip
import json
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from awslambda_local import LocalAWS

from tests.errors import raises

Sql = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "examples" / "audit-to-lambda" / "on-audit-log.py"
LINE = "20260102 03:04:{:02},ip-10-0-0-7,app,10.0.0.9,7,{},QUERY,shop,'{}',0"
STATEMENTS = [  # as the log has them
    "SELECT 1",
    r"INSERT INTO customers VALUES (1, \'Zoë, the first\', \'Straße 1\')",
    r"UPDATE customers\nSET name = \"日本\" WHERE id = 1",
]


def test_the_audit_log_of_another_database_becomes_rows_once(sql: Sql, aws: LocalAWS) -> None:
    logs, kinesis = aws.client("logs"), aws.client("kinesis")
    kinesis.create_stream(StreamName="audit", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="audit")["StreamDescriptionSummary"]["StreamARN"]
    logs.create_log_group(logGroupName="/aws/rds/cluster/shop/audit")
    logs.create_log_stream(logGroupName="/aws/rds/cluster/shop/audit", logStreamName="shop.1")
    logs.put_subscription_filter(
        logGroupName="/aws/rds/cluster/shop/audit", filterName="all", filterPattern="", destinationArn=arn,
        roleArn=f"arn:aws:iam::{aws.account_id}:role/logs",
    )  # fmt: skip
    sql("CREATE TABLE changes (at timestamptz, statement text)")
    sql(
        "CREATE FUNCTION apply(records awslambda.kinesis_record[]) RETURNS void LANGUAGE sql AS $$"
        " INSERT INTO changes SELECT a.event_time, a.object FROM unnest(records) AS r"
        " CROSS JOIN LATERAL awslambda.cloudwatch_logs_events(r.data) AS e"
        " CROSS JOIN LATERAL awslambda.mysql_audit_event(e.message, 'Europe/Berlin') AS a"
        " WHERE a.object ~* '^\\s*(INSERT|UPDATE|DELETE)' $$"
    )
    consume = "CALL awslambda.kinesis_consume('shop', 'audit', handler => 'apply(awslambda.kinesis_record[])'{})"
    now = int(time.time() * 1000)
    for number, statement in enumerate(STATEMENTS):
        message = LINE.format(number, 99 + number, statement)
        logs.put_log_events(
            logGroupName="/aws/rds/cluster/shop/audit", logStreamName="shop.1",
            logEvents=[{"timestamp": now + number, "message": message}],
        )  # fmt: skip
    for _ in range(2):
        sql(consume.format(""))
        assert sql("SELECT array_agg(statement ORDER BY at) FROM changes") == [
            "INSERT INTO customers VALUES (1, 'Zoë, the first', 'Straße 1')",
            'UPDATE customers\nSET name = "日本" WHERE id = 1',
        ]
    assert sql("SELECT min(at) = '2026-01-02 02:04:01+00' FROM changes")
    kinesis.put_record(StreamName="audit", Data=b"something else", PartitionKey="k")
    with raises("22P03", "The record", "cannot be stored", "not what CloudWatch Logs sends"):
        sql(consume.format(""))
    sql(consume.format(", on_error => 'dead_letter'"))
    assert sql("SELECT convert_from(data, 'UTF8') FROM awslambda.kinesis_dead_letter") == "something else"


def test_the_function_of_the_example_names_what_failed_and_passes_on_what_was_cut_off(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="passed-on")["QueueUrl"]
    for name, value in {
        "AWS_ENDPOINT_URL": aws.endpoint_url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "QUEUE_URL": url,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    handler = runpy.run_path(str(EXAMPLE))["lambda_handler"]

    def record(number: int, *statements: str) -> dict[str, Any]:
        messages = [f"20260102 03:04:05,h,u,c,7,9,QUERY,shop,{statement}" for statement in statements]
        document = {"messageType": "DATA_MESSAGE", "logEvents": [{"message": message} for message in messages]}
        data = base64.b64encode(gzip.compress(json.dumps(document).encode())).decode()
        return {"kinesis": {"sequenceNumber": str(number), "data": data}}

    broken = {"kinesis": {"sequenceNumber": "2", "data": "eA=="}}
    good = record(1, r"'INSERT INTO t VALUES (\'Zoë\')\n',0", "'SELECT 1',0", r"'update t set a = \'cut o")
    said = handler({"Records": [good, broken, record(3, "'DELETE FROM t',0")]}, None)
    assert said == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(json.loads(one["Body"])["statement"] for one in messages) == [
        "INSERT INTO t VALUES ('Zoë')\n",
        "update t set a = 'cut o",
    ]
    assert handler({"Records": [record(3, "'DELETE FROM t',0")]}, None) == {"batchItemFailures": []}
