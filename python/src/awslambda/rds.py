"""What SQL written for RDS means: its arguments in their places, and this package's errors in RDS's words.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL-Lambda-functions.html
"""

from __future__ import annotations

import re
from typing import NamedTuple

from awslambda import errors
from awslambda import invoke as lambda_
from awslambda.settings import Settings

LONGEST_TIMEOUT = 900_000  # ms
DETAIL_LIMIT = 8000  # characters of a function's error object that an error shows

# A composite value as text, as Postgres reads it but for escapes, which neither a name nor a region has.
_COMPOSITE = re.compile(r'\s*\(("?)([^"\\,()]+)\1,("?)([^"\\,()]*)\3\)\s*', re.ASCII)


class Arguments(NamedTuple):
    """Those of aws_lambda.invoke but the payload. `context` is JSON text."""

    function_name: str
    region: str | None
    invocation_type: str | None
    log_type: str | None
    context: str | None
    qualifier: str | None


class Problem(NamedTuple):
    """An error as RDS words it, with our SQLSTATE and the hint that RDS lacks."""

    sqlstate: str
    message: str
    detail: str
    hint: str


def recognised(given: Arguments) -> Arguments:
    """The arguments where they belong. A composite value that came as text ended in an overload with `region`: name and
    region are in it, and what follows the payload is for one place further right, up to a qualifier in the sixth.

    psql's \\gset makes a literal of the result of create_lambda_function_arn, and Postgres prefers text for literals.
    """
    composite = _COMPOSITE.fullmatch(given.function_name)
    meant = next((kind for kind in lambda_.INVOCATION_TYPES if kind.lower() == (given.region or "").lower()), None)
    if composite is None:
        if meant:
            raise errors.InvalidArgument(
                reason=f"{given.region!r} stands where the region is expected",
                hint="With a function's name as text, region is the third argument and invocation_type the fourth: "
                f"write invocation_type => '{meant}', or pass aws_commons.create_lambda_function_arn(...), "
                "after which there is no region. Nothing was sent.",
            )
        return given
    name, region = composite[2], composite[4]
    if not meant:
        if region and given.region and region != given.region:
            raise errors.InvalidArgument(
                reason=f"the region {given.region!r} contradicts the one in {given.function_name!r}",
                hint="Leave the argument region out. Nothing was sent.",
            )
        return given._replace(function_name=name, region=given.region or region or None)
    shifted = given._replace(function_name=name, region=region or None, invocation_type=given.region)
    if given.invocation_type == "RequestResponse":  # the default: log_type is by name, or not given
        return shifted
    shifted = shifted._replace(log_type=given.invocation_type)
    if given.log_type == "None":  # the default: context is by name, or not given
        return shifted
    if given.context is not None and given.qualifier is not None:
        raise errors.InvalidArgument(
            reason=f"{given.context!r} and {given.qualifier!r} both stand where the qualifier is expected",
            hint=f"After {given.function_name!r} there is no region, so there are six arguments. Nothing was sent.",
        )
    return shifted._replace(context=given.log_type, qualifier=given.context or given.qualifier)


def timed(settings: Settings, connect_timeout_ms: str | None, request_timeout_ms: str | None) -> Settings:
    """The server's options with the session's timeouts, where these are set: `None` and `''` say that they are not."""
    connect = _seconds("aws_lambda.connect_timeout_ms", connect_timeout_ms)
    whole = _seconds("aws_lambda.request_timeout_ms", request_timeout_ms)
    return settings._replace(
        connect_timeout=settings.connect_timeout if connect is None else connect,
        request_timeout=settings.request_timeout if whole is None else whole,
    )


def function_problem(error: errors.LambdaError, arn: str, response: lambda_.Response) -> Problem:
    """The function ran and failed; `error` is what that is in SQL."""
    details = response.payload.decode("utf-8", "replace")[:DETAIL_LIMIT]
    return Problem(
        error.sqlstate,
        "lambda invocation failed",
        f'"{arn}" returned error "{response.function_error}", details: "{details}".',
        f"{error.hint} Request id: {response.request_id}",
    )


def problem(error: errors.LambdaError) -> Problem:
    """The call failed."""
    hint = error.hint or "awslambda.diagnostics(), of the extension awslambda, checks what a call needs."
    if isinstance(error, errors.NoAnswer):
        hint += " aws_lambda.request_timeout_ms counts instead where it is set."
    return Problem(
        error.sqlstate,
        "invoke API failed",
        f"AWS Lambda client returned '{error}'.",
        "\n".join(part for part in (hint, error.detail) if part),
    )


def _seconds(name: str, value: str | None) -> float | None:
    if not value:
        return None
    if not re.fullmatch(r"\s*0*[1-9]\d{0,5}\s*", value, re.ASCII) or int(value) > LONGEST_TIMEOUT:
        raise errors.InvalidArgument(
            reason=f"invalid value for the setting {name}: {value[:100]!r}",
            hint=f"It is a number of milliseconds, from 1 to {LONGEST_TIMEOUT}. RESET {name} leaves the time to the "
            "server. Nothing was sent.",
        )
    return int(value) / 1000
