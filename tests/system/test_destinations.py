"""On-failure destinations against a queue, a topic and a function that are real (in the local AWS)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from awslambda import aws as aws_
from awslambda import destinations, errors
from awslambda.settings import Settings
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

Sql = Callable[..., Any]


@pytest.fixture
def here(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of the local AWS, with this process as an instance in it."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(aws_, "_identities", {})
    yield Settings(region=aws.region)


@pytest.fixture
def queue(aws: LocalAWS) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The ARN of a queue, and what takes its next message."""
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=f"failures-{time.monotonic_ns()}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def receive() -> Any:
        messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", [])
        return json.loads(messages[0]["Body"]) if messages else None

    yield arn, receive
    sqs.delete_queue(QueueUrl=url)


def nothing() -> None:
    """Nobody interrupts."""


def test_a_queue_has_what_was_sent(here: Settings, queue: tuple[str, Callable[[], Any]]) -> None:
    arn, receive = queue
    destinations.send(arn, '{"a": "\u00fc"}', here, nothing)
    assert receive() == {"a": "\u00fc"}


def test_a_topic_passes_on_what_was_sent(here: Settings, queue: tuple[str, Callable[[], Any]], aws: LocalAWS) -> None:
    arn, receive = queue
    sns = aws.client("sns")
    topic = sns.create_topic(Name="failures")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    destinations.send(topic, '{"a": 1}', here, nothing)
    assert json.loads(receive()["Message"]) == {"a": 1}


def test_a_function_is_called_with_what_was_sent(here: Settings, aws: LocalAWS) -> None:
    arn = aws.client("lambda").get_function(FunctionName="echo")["Configuration"]["FunctionArn"]
    destinations.send(arn, '{"a": 1}', here, nothing)


@pytest.mark.parametrize("service", ["sqs", "sns"])
def test_what_does_not_exist_is_told(here: Settings, service: str, aws: LocalAWS) -> None:
    arn = f"arn:aws:{service}:{aws.region}:{aws.account_id}:no-such"
    with pytest.raises(errors.DestinationNotFound, match="no-such"):
        destinations.send(arn, "{}", here, nothing)


def test_what_no_retry_could_deliver_is_told_to_the_mapping_s_destination(
    sql: Sql, cluster: Cluster, database: str, aws: LocalAWS, queue: tuple[str, Callable[[], Any]]
) -> None:
    arn, receive = queue
    sql("SELECT awslambda.arm()")
    sql("CREATE TABLE orders (id int PRIMARY KEY)")
    mapping = sql(
        "INSERT INTO awslambda.event_source_mapping (name, source, function_name, maximum_retry_attempts, on_failure) "
        "VALUES ('orders', 'orders', 'behave', 0, %s) RETURNING id",
        arn,
    )
    message_id = sql(
        "INSERT INTO awslambda.outbox (mapping, key, payload, role) VALUES (%s, '{\"id\": 1}', "
        '\'{"eventName": "INSERT", "key": {"id": 1}}\', \'postgres\') RETURNING message_id',
        mapping,
    )
    done = subprocess.run(
        ["/usr/local/bin/awslambda", "dispatch", "--drain", "--dsn", cluster.dsn(database)],
        env={"PATH": os.environ["PATH"], **aws.environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = receive()
    assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert told["requestContext"]["approximateInvokeCount"] == 1
    assert told["PostgreSQLBatchInfo"]["eventSourceMapping"] == "orders"
    assert told["PostgreSQLBatchInfo"]["messageIds"] == [str(message_id)]
    [record] = told["requestPayload"]["Records"]
    assert (record["eventID"], record["key"]) == (str(message_id), {"id": 1})
    assert told["responseContext"] == {"functionError": "Unhandled"}
    assert sql("SELECT reason FROM awslambda.dead_letter WHERE message_id = %s", message_id) == "RetryAttemptsExhausted"
    assert sql("SELECT destination_error FROM awslambda.dead_letter") is None
