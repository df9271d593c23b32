"""Invoke that succeeds: what the handler gets, what the caller gets."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

ECHO = "/2015-03-31/functions/echo/invocations"


@pytest.mark.parametrize("event", [{"name": "bob"}, {"ü": "日本 🐘"}, [1, 2], "text", 17, True, None])
def test_the_handler_gets_the_payload_and_its_answer_comes_back(invoke, event):
    response = invoke("echo", event) if event is not None else invoke("echo", Payload="null")
    assert response["StatusCode"] == 200
    assert "FunctionError" not in response
    assert response["Payload"]["event"] == event


def test_without_a_payload_the_event_is_an_empty_object(invoke):
    assert invoke("echo")["Payload"]["event"] == {}


def test_the_context_holds_the_request_id_of_the_response_and_the_time_left(invoke):
    response = invoke("echo", {})
    assert response["Payload"]["request_id"] == response["ResponseMetadata"]["RequestId"]
    assert 1000 < response["Payload"]["remaining"] <= 3000


def test_the_client_context_reaches_the_handler(invoke):
    context = base64.b64encode(json.dumps({"custom": {"message_id": "m-1"}}).encode()).decode()
    assert invoke("echo", {}, ClientContext=context)["Payload"]["custom"] == {"message_id": "m-1"}


def test_only_log_type_tail_returns_the_log(invoke):
    assert "LogResult" not in invoke("talkative", {"lines": 1})
    assert "LogResult" not in invoke("talkative", {"lines": 1}, LogType="None")
    response = invoke("talkative", {"lines": 2}, LogType="Tail")
    log = base64.b64decode(response["LogResult"]).decode()
    request_id = response["ResponseMetadata"]["RequestId"]
    assert log.startswith(f"START RequestId: {request_id} Version: $LATEST\nline 0\nline 1\nto stderr\n[WARNING]")
    assert f"\nEND RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: " in log
    assert "\tMemory Size: 128 MB\tMax Memory Used: " in log


def test_the_log_tail_is_the_last_four_kilobytes(invoke):
    log = base64.b64decode(invoke("talkative", {"lines": 2000}, LogType="Tail")["LogResult"])
    assert len(log) == 4096
    assert b"line 1999\n" in log
    assert b"line 0\n" not in log


def test_the_log_is_in_cloudwatch_logs(invoke, log_of, wait_until):
    request_id = invoke("talkative", {"lines": 1})["ResponseMetadata"]["RequestId"]
    wait_until(lambda: f"END RequestId: {request_id}" in log_of("talkative"), "the invocation's log is stored")
    assert "line 0" in log_of("talkative")


def test_a_warm_process_is_used_again(invoke):
    assert invoke("environment")["Payload"]["pid"] == invoke("environment")["Payload"]["pid"]


def test_the_environment_is_that_of_lambda_and_not_that_of_this_machine(aws, invoke, monkeypatch):
    answer = invoke("environment")["Payload"]
    variables = answer["variables"]
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": "environment",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/environment",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "_HANDLER": "environment.handler",
        "GREETING": "hello",
        "TZ": ":UTC",
    }
    assert expected.items() <= variables.items()
    assert variables["LAMBDA_TASK_ROOT"] == answer["directory"]
    assert not {"HOME", "PYTHONPATH", "USER", "AWS_CA_BUNDLE"} & variables.keys()


def test_a_handler_calls_aws_back_under_its_own_role(aws, invoke, wait_until):
    arn = invoke("caller", {"value": 42})["Payload"]
    assert arn == f"arn:aws:sts::{aws.account_id}:assumed-role/lambda-role/caller"
    cloudwatch = aws.client("cloudwatch")
    now = time.time()
    statistics = cloudwatch.get_metric_statistics(
        Namespace="local", MetricName="called", StartTime=now - 600, EndTime=now + 600, Period=60, Statistics=["Sum"]
    )
    assert [point["Sum"] for point in statistics["Datapoints"]] == [42.0]


def test_invocations_run_at_the_same_time(invoke):
    def nap(_: int) -> str:
        return invoke("slow", {"seconds": 0.5})["Payload"]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(nap, range(4)))  # warm four processes
        start = time.monotonic()
        assert list(threads.map(nap, range(4))) == ["awake"] * 4
    assert time.monotonic() - start < 1.5


def test_new_code_and_a_new_environment_take_effect_at_once(functions, invoke, zipped):
    functions.create_function(
        FunctionName="changing",
        Runtime="python3.11",
        Role=functions.get_function(FunctionName="echo")["Configuration"]["Role"],
        Handler="m.f",
        Code={"ZipFile": zipped("import os\ndef f(e, c): return [1, os.environ.get('COLOUR')]")},
    )
    assert invoke("changing")["Payload"] == [1, None]
    functions.update_function_configuration(FunctionName="changing", Environment={"Variables": {"COLOUR": "red"}})
    assert invoke("changing")["Payload"] == [1, "red"]
    functions.update_function_code(
        FunctionName="changing", ZipFile=zipped("import os\ndef f(e, c): return [2, os.environ.get('COLOUR')]")
    )
    assert invoke("changing")["Payload"] == [2, "red"]


def test_dry_run_runs_nothing(invoke, log_of):
    response = invoke("never", {}, InvocationType="DryRun")
    assert response["StatusCode"] == 204
    assert response["Payload"] is None
    assert log_of("never") == []


def test_a_connection_is_kept_over_answers_errors_and_other_services(send):
    for _ in range(3):
        assert send(ECHO, b"{}")[0] == 200
        assert send("/2015-03-31/functions/nobody/invocations", b"{}")[0] == 404
        assert send(ECHO, b"{}", X_Amz_Invocation_Type="DryRun")[0] == 204
        status, headers, _ = send("/2015-03-31/functions/", method="GET")
        assert (status, headers["Connection"]) == (200, None)


def test_a_warm_invocation_takes_a_few_milliseconds(send):
    def timed() -> float:
        start = time.perf_counter()
        assert send(ECHO, b'{"name":"bob"}')[0] == 200
        return time.perf_counter() - start

    times = sorted(timed() for _ in range(200))
    assert times[len(times) // 4] < 0.020  # 2 ms on an idle machine; this one may be busy
