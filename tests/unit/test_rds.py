"""What RDS's arguments mean, and how errors read in RDS's words."""

from __future__ import annotations

from typing import Any

import pytest
from awslambda import errors, rds
from awslambda.invoke import Response
from awslambda.settings import Settings

ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"


def given(name: str, **more: Any) -> rds.Arguments:
    defaults = {
        "payload": "{}", "region": None, "invocation_type": "RequestResponse", "log_type": "None", "context": None,
        "qualifier": None,
    }  # fmt: skip
    return rds.Arguments(name, **{**defaults, **more})


@pytest.mark.parametrize(
    ("text", "name", "region"),
    [
        ("(f,us-east-1)", "f", "us-east-1"),
        ("(f,)", "f", None),
        ("(f:prod,eu-west-1)", "f:prod", "eu-west-1"),
        (f"({ARN},us-east-1)", ARN, "us-east-1"),
    ],
)
def test_a_composite_as_text_is_taken_apart(text: str, name: str, region: str | None) -> None:
    request = rds.request(given(text))
    assert (request.function.given, request.region) == (name, region)


@pytest.mark.parametrize(
    "text", ["(f)", "(,us-east-1)", "(f,a,b)", '("f",us-east-1)', "(f,us-east-1", "f,us-east-1)", "()"]
)
def test_what_no_constructor_makes_is_no_name(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="not the name or ARN"):
        rds.request(given(text))


@pytest.mark.parametrize(
    ("more", "kinds", "context"),
    [
        ({"region": "Event"}, ("Event", "None"), None),
        ({"region": "RequestResponse", "invocation_type": "Tail"}, ("RequestResponse", "Tail"), None),
        ({"region": "DryRun", "invocation_type": "None", "log_type": "{}"}, ("DryRun", "None"), "{}"),
        ({"region": "RequestResponse", "log_type": "Tail"}, ("RequestResponse", "Tail"), None),
        ({"region": "RequestResponse", "invocation_type": "Tail", "context": "{}"}, ("RequestResponse", "Tail"), "{}"),
    ],
)
def test_arguments_of_the_form_without_region_go_one_place_to_the_right(
    more: dict[str, str], kinds: tuple[str, str], context: str | None
) -> None:
    request = rds.request(given("(f,us-east-1)", **more))
    assert ((request.invocation_type, request.log_type), request.client_context) == (kinds, context)
    assert request.region == "us-east-1"


@pytest.mark.parametrize("unset", [None, ""])
def test_a_timeout_that_is_not_set_leaves_the_server_s(unset: str | None) -> None:
    server = Settings(connect_timeout=7.0, request_timeout=8.0)
    assert rds.timed(server, unset, unset) == server
    assert rds.timed(server, "1", " 900000 ") == Settings(connect_timeout=0.001, request_timeout=900.0)


@pytest.mark.parametrize("value", ["0", "900001", "1s", "-5", "1_000", "٣", "nan", "1e3", "+5", "0x10", " "])
def test_a_timeout_out_of_range_names_setting_value_and_range(value: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"aws_lambda\.connect_timeout_ms") as caught:
        rds.timed(Settings(), value, None)
    assert "from 1 to 900000" in caught.value.hint


def test_problems_are_worded_as_on_rds_and_always_have_a_hint() -> None:
    for kind in (errors.LambdaError, *errors.LambdaError.__subclasses__()):
        fields = dict.fromkeys(
            ("function", "error", "reason", "code", "status", "endpoint", "region", "server", "servers", "role",
             "resource", "option", "options", "size", "limit", "invocation_type", "argument", "kind"), "x",
        )  # fmt: skip
        problem = rds.problem(kind(seconds=1.0, **fields))
        assert (problem.sqlstate, problem.message) == (kind.sqlstate, "invoke API failed")
        assert problem.detail.startswith("AWS Lambda client returned '") and problem.detail.endswith("'.")
        assert problem.hint


def test_a_function_s_error_object_is_cut_before_it_is_too_long() -> None:
    response = Response(200, b'"' + b"x" * 100_000 + b'"', "1", None, "Unhandled", "r-1", 0.1)
    problem = rds.function_problem(errors.FunctionError(function="f", error="e"), ARN, response)
    assert problem.message == "lambda invocation failed" and problem.sqlstate == "LA001"
    assert problem.detail.startswith(f'"{ARN}" returned error "Unhandled", details: "')
    assert len(problem.detail) < 9000 and "r-1" in problem.hint
