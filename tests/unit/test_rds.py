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
        "region": None, "invocation_type": "RequestResponse", "log_type": "None", "context": None,
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
        ('("f",us-east-1)', "f", "us-east-1"),
        (' ("f:prod","us-east-1") ', "f:prod", "us-east-1"),
    ],
)
def test_a_composite_as_text_is_taken_apart(text: str, name: str, region: str | None) -> None:
    found = rds.recognised(given(text))
    assert (found.function_name, found.region) == (name, region)


@pytest.mark.parametrize(
    "text", ["(f)", "(,us-east-1)", "(f,a,b)", '("f,us-east-1)', "(f,us-east-1", "f,us-east-1)", "()", r"(\f,)"]
)
def test_what_no_constructor_makes_is_no_composite(text: str) -> None:
    assert rds.recognised(given(text)) == given(text)


@pytest.mark.parametrize(
    ("more", "meant"),
    [
        ({"region": "Event"}, {"invocation_type": "Event"}),
        ({"region": "RequestResponse", "invocation_type": "Tail"}, {"log_type": "Tail"}),
        (
            {"region": "DryRun", "invocation_type": "None", "log_type": "{}"},
            {"invocation_type": "DryRun", "context": "{}"},
        ),
        ({"region": "RequestResponse", "log_type": "Tail"}, {"log_type": "Tail"}),
        (
            {"region": "RequestResponse", "invocation_type": "Tail", "context": "{}"},
            {"log_type": "Tail", "context": "{}"},
        ),
        (
            {"region": "Event", "invocation_type": "Tail", "log_type": "{}", "qualifier": "3"},
            {"invocation_type": "Event", "log_type": "Tail", "context": "{}", "qualifier": "3"},
        ),
        (
            {"region": "Event", "invocation_type": "Tail", "log_type": "{}", "context": "3"},
            {"invocation_type": "Event", "log_type": "Tail", "context": "{}", "qualifier": "3"},
        ),
        (
            {"region": "DryRun", "invocation_type": "None", "log_type": None, "context": "prod"},
            {"invocation_type": "DryRun", "qualifier": "prod"},
        ),
        ({"region": "event", "invocation_type": None}, {"invocation_type": "event", "log_type": None}),
    ],
)
def test_arguments_of_the_form_without_region_go_one_place_to_the_right(
    more: dict[str, str | None], meant: dict[str, str | None]
) -> None:
    found = rds.recognised(given("(f,us-east-1)", **more))
    assert found == given("f", **{"region": "us-east-1", **meant})


def test_one_argument_too_many_is_not_dropped() -> None:
    seven = {"region": "Event", "invocation_type": "None", "log_type": "{}", "context": "prod", "qualifier": "test"}
    with pytest.raises(errors.InvalidArgument, match="'prod' and 'test' both stand where the qualifier") as caught:
        rds.recognised(given("(f,us-east-1)", **seven))
    assert "six arguments" in caught.value.hint


@pytest.mark.parametrize("spelling", ["Event", "event", "EVENT"])
def test_an_invocation_type_in_the_place_of_the_region_is_shown_its_name_and_spelling(spelling: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"'{spelling}' stands where the region is expected") as caught:
        rds.recognised(given("f", region=spelling))
    assert "invocation_type => 'Event'" in caught.value.hint


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
             "resource", "option", "options", "size", "limit", "invocation_type", "argument", "kind",
             "destination", "stream", "shard", "sequence_number", "operation", "consumer", "procedure", "after"), "x",
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
