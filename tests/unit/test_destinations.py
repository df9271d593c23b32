"""On-failure destinations: which ARNs, what is sent, and every way it can end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from awslambda import destinations, errors
from awslambda.outbox import Death, Mapping, Record, Route, Scan
from awslambda.settings import Settings

from tests.endpoints import Behaviour, Endpoint, answer, closed_port, hang_up, refusal, silence
from tests.unit.cancelling import cancelled, nothing, takes
from tests.unit.conftest import SECRET_KEY, TOKEN

Start = Callable[[Behaviour], Endpoint]

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failures"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:failures"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:on-failure"
PUBLISHED = b"""<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>
<MessageId>m-1</MessageId></PublishResult></PublishResponse>"""

pytestmark = pytest.mark.usefixtures("keys")


def settings(listening: Endpoint, **more: Any) -> Settings:
    return Settings(endpoint_urls={"": listening.url}, **more)


def sns_refusal(status: int, code: str) -> Behaviour:
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    return answer(status, body.encode(), Content_Type="text/xml")


def sqs_refusal(status: int, code: str) -> Behaviour:
    return answer(status, {"__type": f"com.amazonaws.sqs#{code}", "message": "no"})


def death(on_failure: str = QUEUE, records: int = 1, **more: Any) -> Death:
    mapping = Mapping(7, "orders", "f", "app", on_failure=on_failure)
    route = Route(mapping, Scan())
    made = tuple(Record(7, id, None, 0, 10, 2, 1_763_769_660.25 + id) for id in range(1, records + 1))
    fields = {"reason": "RetryAttemptsExhausted", "error": "FunctionError: it raised ValueError", "counted": True}
    return Death(route, made, **{**fields, **more})


# ARNs.


@pytest.mark.parametrize(
    ("arn", "service"),
    [
        (QUEUE, "sqs"),
        (TOPIC, "sns"),
        (FUNCTION, "lambda"),
        (FUNCTION + ":live", "lambda"),
        ("on-failure", "lambda"),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:q", "sqs"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t", "sns"),
    ],
)
def test_arns_of_queues_topics_and_functions_are_known(arn: str, service: str) -> None:
    assert destinations.parse(arn).service == service


@pytest.mark.parametrize(
    "arn",
    ["", "a b", "arn:aws:s3:::bucket", QUEUE + "/x", QUEUE + ":x", "arn:aws:sqs::123456789012:q",
     "arn:aws:sqs:eu-west-1:12345:q", "arn:aws:kinesis:eu-west-1:123456789012:stream/s", QUEUE + "\n"],
)  # fmt: skip
def test_anything_else_says_what_it_must_be(arn: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        destinations.parse(arn)
    assert "arn:aws:sqs:region:account:name" in caught.value.hint


@pytest.mark.parametrize("arn", [QUEUE, TOPIC])
def test_fifo_is_refused_as_lambda_does(arn: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="FIFO"):
        destinations.parse(arn + ".fifo")


# The document.


def test_the_document_is_lambda_s_record_of_a_failed_invocation() -> None:
    made = json.loads(destinations.document(death(records=2), ["id-1", "id-2"], '{"Records": []}'))
    timestamp = made.pop("timestamp")
    assert timestamp.endswith("Z") and len(timestamp) == len("2019-11-14T18:16:05.568Z")
    assert made == {
        "version": "1.0",
        "requestContext": {
            "requestId": "id-1",
            "functionArn": "f",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"Records": []},
        "responseContext": {"functionError": "Unhandled"},
        "responsePayload": {"errorType": "FunctionError", "errorMessage": "FunctionError: it raised ValueError"},
        "PostgreSQLBatchInfo": {
            "eventSourceMapping": "orders",
            "messageIds": ["id-1", "id-2"],
            "batchSize": 2,
            "approximateArrivalOfFirstRecord": "2025-11-22T00:01:01.250Z",
            "approximateArrivalOfLastRecord": "2025-11-22T00:01:02.250Z",
        },
    }


def test_a_record_that_never_reached_a_function_has_no_response() -> None:
    made = json.loads(destinations.document(death(reason="RecordAgeExceeded", error="", counted=False), ["id-1"]))
    assert made["requestContext"]["condition"] == "RecordAgeExceeded"
    assert made["requestContext"]["approximateInvokeCount"] == 2
    assert made["responseContext"] is made["responsePayload"] is made["requestPayload"] is None


def test_numbers_of_the_payload_do_not_change() -> None:
    assert '"requestPayload": {"n": 1.00000000000000000000001e400}' in destinations.document(
        death(), ["id-1"], '{"n": 1.00000000000000000000001e400}'
    )


@pytest.mark.parametrize(("arn", "limit"), [(QUEUE, 1024 * 1024), (TOPIC, 256 * 1024), (FUNCTION, 1024 * 1024)])
def test_a_payload_that_is_too_large_for_the_destination_is_left_out(arn: str, limit: int) -> None:
    small = destinations.document(death(arn), ["id-1"], json.dumps("x" * (limit - 2000)))
    assert len(json.loads(small)["requestPayload"]) == limit - 2000 and len(small) <= limit
    large = json.loads(destinations.document(death(arn), ["id-1"], json.dumps("\u00fc" * limit, ensure_ascii=False)))
    assert large["requestPayload"] is None and large["PostgreSQLBatchInfo"]["messageIds"] == ["id-1"]


# Sending.


def test_a_queue_gets_it_by_its_url(endpoint: Start) -> None:
    listening = endpoint(answer(200, {"MessageId": "m-1"}))
    destinations.send(QUEUE, '{"a": 1}', settings(listening), nothing)
    [received] = listening.requests
    assert received.headers["x-amz-target"] == "AmazonSQS.SendMessage"
    assert json.loads(received.body) == {
        "QueueUrl": f"{listening.url}/123456789012/failures", "MessageBody": '{"a": 1}',
    }  # fmt: skip
    assert "/eu-west-1/sqs/aws4_request" in received.headers["authorization"]
    assert received.headers["x-amz-security-token"] == TOKEN


def test_a_topic_gets_it(endpoint: Start) -> None:
    listening = endpoint(answer(200, PUBLISHED, Content_Type="text/xml"))
    destinations.send(TOPIC, "{}", settings(listening), nothing)
    [received] = listening.requests
    assert b"Action=Publish" in received.body and b"Message=%7B%7D" in received.body
    assert "/eu-west-1/sns/aws4_request" in received.headers["authorization"]


def test_a_function_gets_it_as_an_event(endpoint: Start) -> None:
    listening = endpoint(answer(202, b""))
    destinations.send(FUNCTION + ":live", '{"a": 1}', settings(listening), nothing)
    [received] = listening.requests
    assert received.path == "/2015-03-31/functions/" + FUNCTION.replace(":", "%3A") + "%3Alive/invocations"
    assert received.headers["x-amz-invocation-type"] == "Event" and received.body == b'{"a": 1}'


def test_a_service_has_an_endpoint_of_its_own(endpoint: Start) -> None:
    listening = endpoint(answer(200, {"MessageId": "m-1"}))
    urls = {"sqs": listening.url, "": f"http://127.0.0.1:{closed_port()}"}
    destinations.send(QUEUE, "{}", Settings(endpoint_urls=urls), nothing)
    assert len(listening.requests) == 1


def test_a_client_is_made_once(endpoint: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = endpoint(answer(200, {"MessageId": "m-1"}))
    for _ in range(5):
        destinations.send(QUEUE, "{}", settings(listening), nothing)
    assert listening.connections == 1
    started = time.monotonic()
    destinations.send(QUEUE, "{}", settings(listening), nothing)
    assert time.monotonic() - started < 0.1


# What allowed_resources cover.


@pytest.mark.parametrize(
    ("arn", "patterns", "allowed"),
    [
        (QUEUE, None, True),
        (QUEUE, (QUEUE,), True),
        (QUEUE, ("arn:aws:sqs:*:123456789012:fail*",), True),
        (QUEUE, ("failures", "*", "function:*"), False),
        (QUEUE, (TOPIC,), False),
        (TOPIC, (TOPIC,), True),
        (TOPIC, ("arn:aws:sns:eu-west-1:210987654321:*",), False),
        (FUNCTION, ("function:*",), False),
    ],
)
def test_a_destination_must_be_covered_by_a_pattern_that_is_an_arn(
    endpoint: Start, arn: str, patterns: tuple[str, ...] | None, allowed: bool
) -> None:
    listening = endpoint(answer(200, PUBLISHED, Content_Type="text/xml") if arn == TOPIC else answer(200, {}))
    chosen = settings(listening, server="aws", allowed_resources=patterns)
    if allowed:
        destinations.send(arn, "{}", chosen, nothing)
    else:
        with pytest.raises(errors.ResourceNotAllowed) as caught:
            destinations.send(arn, "{}", chosen, nothing)
        assert arn in str(caught.value)
    assert len(listening.requests) == int(allowed)


# Every way it can end.


@pytest.mark.parametrize(
    ("arn", "behaviour", "expected"),
    [
        (QUEUE, sqs_refusal(400, "QueueDoesNotExist"), errors.DestinationNotFound),
        (TOPIC, sns_refusal(404, "NotFound"), errors.DestinationNotFound),
        (QUEUE, sqs_refusal(403, "AccessDeniedException"), errors.AccessDenied),
        (QUEUE, sqs_refusal(400, "KmsAccessDenied"), errors.AccessDenied),
        (TOPIC, sns_refusal(403, "AuthorizationError"), errors.AccessDenied),
        (QUEUE, sqs_refusal(403, "InvalidSecurity"), errors.CredentialsRefused),
        (TOPIC, sns_refusal(403, "ExpiredToken"), errors.CredentialsRefused),
        (QUEUE, sqs_refusal(403, "RequestThrottled"), errors.DestinationFailed),
        (TOPIC, sns_refusal(500, "InternalError"), errors.DestinationFailed),
        (TOPIC, answer(502, b"<html>"), errors.LambdaError),
        (QUEUE, hang_up, errors.DestinationFailed),
        (FUNCTION, refusal(404, "ResourceNotFoundException"), errors.FunctionNotFound),
    ],
)
def test_a_refusal_is_an_error_and_nothing_is_sent_twice(
    endpoint: Start, arn: str, behaviour: Behaviour, expected: type[errors.LambdaError]
) -> None:
    listening = endpoint(behaviour)
    with pytest.raises(expected) as caught:
        destinations.send(arn, "the-document", settings(listening, max_attempts=1), nothing)
    assert len(listening.requests) == 1
    said = f"{caught.value} {caught.value.detail} {caught.value.hint}"
    assert "the-document" not in said and SECRET_KEY not in said and TOKEN not in said


@pytest.mark.parametrize("arn", [QUEUE, TOPIC, FUNCTION])
def test_nobody_there_means_nothing_was_sent(arn: str) -> None:
    urls = {"": f"http://127.0.0.1:{closed_port()}"}
    with pytest.raises(errors.ConnectFailed):
        destinations.send(arn, "{}", Settings(endpoint_urls=urls, max_attempts=1), nothing)


@pytest.mark.parametrize("arn", [QUEUE, TOPIC])
def test_silence_ends_with_request_timeout(endpoint: Start, arn: str) -> None:
    chosen = settings(endpoint(silence), request_timeout=0.4)
    with pytest.raises(errors.DestinationFailed, match="no answer in time"), takes(0.4):
        destinations.send(arn, "{}", chosen, nothing)


@pytest.mark.parametrize("arn", [QUEUE, TOPIC, FUNCTION])
def test_it_can_be_interrupted(endpoint: Start, arn: str) -> None:
    listening = endpoint(silence)
    with cancelled(once=lambda: listening.requests) as check:
        destinations.send(arn, "{}", settings(listening), check)


def test_refused_credentials_are_looked_for_anew(endpoint: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = endpoint(sqs_refusal(403, "InvalidSecurity"))
    with pytest.raises(errors.CredentialsRefused):
        destinations.send(QUEUE, "{}", settings(listening), nothing)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    listening.behaviour = answer(200, {"MessageId": "m-1"})
    destinations.send(QUEUE, "{}", settings(listening), nothing)
    assert "AKIDNEW" in listening.requests[-1].headers["authorization"]
