"""Which function is meant: names, versions, aliases, ARNs."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

ARN = "arn:aws:lambda:us-east-1:123456789012:function:versioned"


def refused(call, *arguments, **options):
    with pytest.raises(ClientError) as caught:
        call(*arguments, **options)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"], error["Error"]["Message"]


@pytest.fixture(scope="module", autouse=True)
def second_version(functions, zipped):
    """Version 1, alias prod on it, and newer code as $LATEST."""
    functions.update_function_code(
        FunctionName="versioned", ZipFile=zipped("def lambda_handler(e, c): return c.invoked_function_arn")
    )
    functions.update_function_configuration(FunctionName="versioned", Handler="m.lambda_handler")


@pytest.mark.parametrize(
    "name",
    [
        "versioned:1",
        "versioned:prod",
        "123456789012:function:versioned:prod",
        "function:versioned:1",
        f"{ARN}:1",
        f"{ARN}:prod",
    ],
)
def test_a_version_or_alias_in_the_name_runs_that_version(invoke, name):
    response = invoke(name, {})
    assert (response["ExecutedVersion"], response["Payload"]) == ("1", "first")


@pytest.mark.parametrize("qualifier", ["1", "prod"])
@pytest.mark.parametrize("name", ["versioned", ARN, "123456789012:function:versioned"])
def test_a_qualifier_runs_that_version(invoke, name, qualifier):
    response = invoke(name, {}, Qualifier=qualifier)
    assert (response["ExecutedVersion"], response["Payload"]) == ("1", "first")


@pytest.mark.parametrize(
    ("name", "arn"),
    [("versioned", ARN), (ARN, ARN), ("versioned:$LATEST", f"{ARN}:$LATEST"), ("function:versioned", ARN)],
)
def test_without_a_version_the_latest_runs_and_sees_the_arn_it_was_called_by(invoke, name, arn):
    response = invoke(name, {})
    assert (response["ExecutedVersion"], response["Payload"]) == ("$LATEST", arn)


def test_the_same_qualifier_twice_is_no_contradiction(invoke):
    assert invoke("versioned:prod", {}, Qualifier="prod")["Payload"] == "first"


def test_two_qualifiers_that_differ_are_refused(invoke):
    assert refused(invoke, "versioned:prod", {}, Qualifier="1") == (
        400,
        "InvalidParameterValueException",
        "The derived qualifier from the function name does not match the specified qualifier.",
    )


@pytest.mark.parametrize(("name", "qualifier"), [("nobody", None), ("versioned", "9"), ("versioned", "test")])
@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_an_unknown_function_or_version_is_not_found(invoke, name, qualifier, kind):
    options = {"Qualifier": qualifier} if qualifier else {}
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}" + (f":{qualifier}" if qualifier else "")
    assert refused(invoke, name, {}, InvocationType=kind, **options) == (
        404,
        "ResourceNotFoundException",
        f"Function not found: {arn}",
    )


def test_an_arn_of_another_region_is_not_reachable(invoke):
    assert refused(invoke, ARN.replace("us-east-1", "eu-west-1"), {}) == (
        404,
        "ResourceNotFoundException",
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    )


def test_an_arn_of_another_account_is_denied(invoke):
    status, code, message = refused(invoke, ARN.replace("123456789012", "999999999999"), {})
    assert (status, code) == (403, "AccessDeniedException")
    assert "is not authorized to perform: lambda:InvokeFunction on resource" in message


def test_a_name_that_cannot_be_one_is_refused(send):
    status, headers, _ = send("/2015-03-31/functions/a%20b/invocations", b"{}")
    assert (status, headers["x-amzn-ErrorType"]) == (400, "ValidationException")


def test_a_region_has_its_own_functions(aws):
    import boto3

    elsewhere = boto3.client(
        "lambda",
        region_name="eu-west-1",
        endpoint_url=aws.endpoint_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    assert refused(elsewhere.invoke, FunctionName="echo")[0] == 404
