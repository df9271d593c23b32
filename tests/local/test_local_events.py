"""Asynchronous invocations, and functions called by other services."""

from __future__ import annotations

import base64
import gzip
import json
import time
import uuid

import pytest


@pytest.fixture(scope="module")
def failed_queue(aws):
    sqs = aws.client("sqs")
    return sqs.create_queue(QueueName="failed")["QueueUrl"]


@pytest.fixture(scope="module")
def succeeded_queue(aws):
    """A queue that is subscribed to the topic `succeeded`."""
    sqs, sns = aws.client("sqs"), aws.client("sns")
    url = sqs.create_queue(QueueName="succeeded")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=sns.create_topic(Name="succeeded")["TopicArn"], Protocol="sqs", Endpoint=arn)
    return url


@pytest.fixture
def collected(log_of, wait_until):
    """The lines of function `collect` that contain a text, once there are so many."""

    def lines(text, count=1):
        def found():
            lines = [line for line in log_of("collect") if line.startswith("got ") and text in line]
            return lines if len(lines) >= count else None

        return wait_until(found, f"{count} events with {text!r} have been handled")

    return lines


@pytest.fixture
def received(aws, wait_until):
    def message(url, text):
        sqs = aws.client("sqs")

        def found():
            for candidate in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=candidate["ReceiptHandle"])
                if text in candidate["Body"]:
                    return json.loads(candidate["Body"])
            return None

        return wait_until(found, f"a message with {text!r} is in the queue")

    return message


@pytest.fixture
def mark():
    return uuid.uuid4().hex


def test_an_event_is_accepted_at_once_and_run_later(invoke, log_of, wait_until):
    start = time.monotonic()
    response = invoke("slow", {"seconds": 0.5}, InvocationType="Event")
    assert time.monotonic() - start < 0.4
    assert (response["StatusCode"], response["Payload"]) == (202, None)
    assert "ExecutedVersion" not in response
    request_id = response["ResponseMetadata"]["RequestId"]
    wait_until(lambda: f"END RequestId: {request_id}" in log_of("slow"), "the event has been handled")


def test_a_failing_event_is_retried_twice_and_then_goes_to_the_failure_destination(
    invoke, collected, received, failed_queue, mark
):
    event = {"please fail": mark}
    response = invoke("collect", event, InvocationType="Event")
    record = received(failed_queue, mark)
    assert record["version"] == "1.0"
    assert record["requestContext"] == {
        "requestId": response["ResponseMetadata"]["RequestId"],
        "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:collect:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert record["requestPayload"] == event
    assert record["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    }
    assert record["responsePayload"]["errorMessage"] == "asked to fail"
    assert len(collected(mark, count=3)) == 3


def test_a_handled_event_goes_to_the_success_destination(invoke, received, succeeded_queue, mark):
    invoke("collect", {"fine": mark}, InvocationType="Event")
    record = json.loads(received(succeeded_queue, mark)["Message"])
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responsePayload"] == {"collected": True}


def test_without_retries_a_failing_event_is_run_once(functions, invoke, received, failed_queue, mark):
    functions.put_function_event_invoke_config(
        FunctionName="fail",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:failed"}},
    )
    invoke("fail", {"message": mark}, InvocationType="Event")
    assert received(failed_queue, mark)["requestContext"]["approximateInvokeCount"] == 1


def test_an_event_for_a_function_with_no_concurrency_goes_to_the_destination_unrun(
    functions, invoke, received, failed_queue, mark
):
    functions.put_function_event_invoke_config(
        FunctionName="never",
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:failed"}},
    )
    assert invoke("never", {"mark": mark}, InvocationType="Event")["StatusCode"] == 202
    record = received(failed_queue, mark)
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responseContext" not in record


def test_a_throttled_event_is_run_when_there_is_room(invoke, log_of, wait_until, mark):
    ids = [
        invoke("single", {"seconds": 0.2, "mark": mark}, InvocationType="Event")["ResponseMetadata"]["RequestId"]
        for _ in range(3)
    ]
    for request_id in ids:
        wait_until(lambda wanted=request_id: f"END RequestId: {wanted}" in log_of("single"), "each event was run")


def test_a_failing_destination_is_told_and_stops_nothing(aws, functions, invoke, wait_until, collected, mark):
    functions.put_function_event_invoke_config(
        FunctionName="large",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:no-such-queue"}},
    )
    invoke("large", {"no size": mark}, InvocationType="Event")
    wait_until(lambda: "no-such-queue" in aws.output, "the failed delivery is told")
    invoke("collect", {"after": mark}, InvocationType="Event")
    collected(mark)


def test_a_message_to_a_topic_runs_the_function(aws, collected, mark):
    sns = aws.client("sns")
    topic = sns.create_topic(Name="to-lambda")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint="arn:aws:lambda:us-east-1:123456789012:function:collect")
    sns.publish(TopicArn=topic, Message=mark)
    assert json.loads(collected(mark)[0].removeprefix("got "))["Records"][0]["Sns"]["Message"] == mark


def test_a_message_in_a_mapped_queue_runs_the_function(aws, functions, collected, mark):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="to-lambda")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="collect")
    sqs.send_message(QueueUrl=url, MessageBody=mark)
    assert json.loads(collected(mark)[0].removeprefix("got "))["Records"][0]["body"] == mark


def test_a_record_in_a_mapped_stream_runs_the_function(aws, functions, collected, mark):
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName="to-lambda", ShardCount=1)
    arn = kinesis.describe_stream(StreamName="to-lambda")["StreamDescription"]["StreamARN"]
    functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="collect", StartingPosition="LATEST")
    data = base64.b64encode(mark.encode()).decode()
    kinesis.put_record(StreamName="to-lambda", Data=mark.encode(), PartitionKey="k")
    assert json.loads(collected(data)[0].removeprefix("got "))["Records"][0]["kinesis"]["data"] == data


def test_an_event_on_the_bus_runs_the_function(aws, collected, mark):
    events = aws.client("events")
    events.put_rule(Name="to-lambda", EventPattern=json.dumps({"source": ["test"]}))
    arn = "arn:aws:lambda:us-east-1:123456789012:function:collect"
    events.put_targets(Rule="to-lambda", Targets=[{"Id": "1", "Arn": arn}])
    events.put_events(Entries=[{"Source": "test", "DetailType": "d", "Detail": json.dumps({"mark": mark})}])
    event = json.loads(collected(mark)[0].removeprefix("got "))
    assert (event["detail-type"], event["detail"]) == ("d", {"mark": mark})


def test_a_log_subscription_runs_the_function(aws, log_of, wait_until, mark):
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="app")
    logs.create_log_stream(logGroupName="app", logStreamName="s")
    logs.put_subscription_filter(
        logGroupName="app",
        filterName="all",
        filterPattern="",
        destinationArn="arn:aws:lambda:us-east-1:123456789012:function:collect",
    )
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName="app", logStreamName="s", logEvents=[{"timestamp": now, "message": mark}])

    def found():
        for line in log_of("collect"):
            if line.startswith('got {"awslogs"'):
                data = json.loads(line.removeprefix("got "))["awslogs"]["data"]
                content = json.loads(gzip.decompress(base64.b64decode(data)))
                if mark in [event["message"] for event in content["logEvents"]]:
                    return content
        return None

    assert wait_until(found, "the log event reached the function")["logGroup"] == "app"
