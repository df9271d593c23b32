"""Invoke that fails: in the function, in its process, or before it is run at all."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.exceptions import ClientError


def refused(call, *arguments, **options):
    """The error, its status and its code, of a call that AWS refuses."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response


def path(name):
    return f"/2015-03-31/functions/{name}/invocations"


def test_an_exception_is_unhandled_with_its_type_message_and_stack(invoke):
    response = invoke("fail", {"message": "out of stock"})
    assert (response["StatusCode"], response["FunctionError"]) == (200, "Unhandled")
    error = response["Payload"]
    assert (error["errorType"], error["errorMessage"]) == ("OrderRefused", "out of stock")
    assert 'fail.py", line 10, in lambda_handler' in error["stackTrace"][0]
    assert error["requestId"] == response["ResponseMetadata"]["RequestId"]


def test_a_failed_function_is_run_again_in_the_same_process(invoke):
    first = base64.b64decode(invoke("fail", {}, LogType="Tail")["LogResult"])
    second = base64.b64decode(invoke("fail", {}, LogType="Tail")["LogResult"])
    assert b"about to fail" in first
    assert b"Init Duration" not in second


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"how": "sys.exit"}, "Runtime exited with error: exit status 3"),
        ({"how": "os._exit", "code": 7}, "Runtime exited with error: exit status 7"),
        ({"how": "os._exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"how": "signal"}, "Runtime exited with error: signal: killed"),
    ],
)
def test_the_end_of_the_process_is_an_exit_error_and_the_next_call_works(invoke, event, message):
    response = invoke("leave", event, LogType="Tail")
    assert (response["FunctionError"], response["Payload"]["errorType"]) == ("Unhandled", "Runtime.ExitError")
    request_id = response["ResponseMetadata"]["RequestId"]
    assert response["Payload"]["errorMessage"] == f"RequestId: {request_id} Error: {message}"
    assert "last words" in base64.b64decode(response["LogResult"]).decode()
    assert invoke("leave", {"how": "not at all"})["Payload"] == "still here"


def test_a_timeout_ends_the_process_and_the_next_call_works(invoke):
    response = invoke("slow", {"seconds": 20}, LogType="Tail")
    assert (response["FunctionError"], response["Payload"]["errorType"]) == ("Unhandled", "Sandbox.Timedout")
    assert response["Payload"]["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    log = base64.b64decode(response["LogResult"]).decode()
    assert "sleeping\n" in log
    assert "Status: timeout" in log
    assert invoke("slow", {})["Payload"] == "awake"


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("missing_module", "Runtime.ImportModuleError", "Unable to import module 'missing_module'"),
        ("wrong_handler", "Runtime.HandlerNotFound", "Handler 'no_such_name' missing on module 'wrong_handler'"),
        ("not_json", "Runtime.MarshalError", "Unable to marshal response"),
    ],
)
def test_a_handler_that_cannot_be_loaded_or_answered_for_says_why(invoke, name, error_type, message):
    for _ in range(2):
        response = invoke(name, {})
        assert (response["FunctionError"], response["Payload"]["errorType"]) == ("Unhandled", error_type)
        assert response["Payload"]["errorMessage"].startswith(message)


def test_an_answer_over_the_limit_is_an_error_and_one_below_is_not(invoke):
    assert len(invoke("large", {"size": 6291554})["Payload"]) == 6291554  # and two quotes
    response = invoke("large", {"size": 6291555})
    assert response["FunctionError"] == "Unhandled"
    assert response["Payload"]["errorType"] == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6291456), ("Event", 1048576)])
def test_a_payload_over_the_limit_is_refused_and_one_at_the_limit_is_not(send, kind, limit):
    at_limit = json.dumps("x" * (limit - 2)).encode()
    status, _, _ = send(path("slow" if kind == "Event" else "large"), at_limit, X_Amz_Invocation_Type=kind)
    assert status == {"RequestResponse": 200, "Event": 202}[kind]
    status, headers, body = send(path("large"), at_limit + b" ", X_Amz_Invocation_Type=kind)
    assert (status, headers["x-amzn-ErrorType"]) == (413, "RequestTooLargeException")
    assert json.loads(body)["message"] == (
        f"{limit + 1} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
    )


@pytest.mark.parametrize("payload", [b"{", b"hello", b"NaN", b"\xff", b'{"a":1}x', b"[" * 100_000])
@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_payload_that_is_no_json_is_refused(send, payload, kind):
    status, headers, body = send(path("echo"), payload, X_Amz_Invocation_Type=kind)
    assert (status, headers["x-amzn-ErrorType"]) == (400, "InvalidRequestContentException")
    assert json.loads(body)["message"].startswith("Could not parse request body into json: ")


def test_an_invocation_type_that_does_not_exist_is_refused(send):
    status, headers, body = send(path("echo"), b"{}", X_Amz_Invocation_Type="Later")
    assert (status, headers["x-amzn-ErrorType"]) == (400, "InvalidParameterValueException")
    assert "enum value set: [Event, RequestResponse, DryRun]" in json.loads(body)["message"]


@pytest.mark.parametrize("context", ["not base64!", base64.b64encode(b"[1]").decode(), "e" * 3584])
def test_a_broken_or_too_large_client_context_is_refused(invoke, context):
    status, code, _ = refused(invoke, "echo", {}, ClientContext=context)
    assert (status, code) == (400, "InvalidRequestContentException")


def test_reserved_concurrency_zero_throttles(invoke):
    status, code, response = refused(invoke, "never", {})
    assert (status, code) == (429, "TooManyRequestsException")
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_reserved_concurrency_one_throttles_the_second_and_only_while_the_first_runs(
    functions, invoke, wait_until, log_of
):
    functions.invoke(FunctionName="single", Payload=b'{"seconds": 2}', InvocationType="Event")

    def throttled():
        try:
            invoke("single", {})
        except ClientError as error:
            return error.response
        return None

    response = wait_until(throttled, "a call beside a running one is throttled")
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (
        "TooManyRequestsException",
        429,
    )
    wait_until(lambda: throttled() is None, "the running one is done")


def test_an_unsigned_call_is_refused(send):
    status, headers, body = send(path("echo"), b"{}", key=None)
    assert (status, headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
    assert json.loads(body)["message"] == "Missing Authentication Token"


def test_a_signature_without_credential_is_refused(send):
    status, headers, _ = send(path("echo"), b"{}", key=None, Authorization="Bearer abc")
    assert (status, headers["x-amzn-ErrorType"]) == (403, "IncompleteSignatureException")
