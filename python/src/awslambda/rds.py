"""What SQL written for RDS means: its arguments as a Request, and this package's errors in RDS's words.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL-Lambda-functions.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from awslambda import errors, resources
from awslambda import invoke as lambda_
from awslambda.settings import Settings

LONGEST_TIMEOUT = 900_000  # ms
DETAIL_LIMIT = 8000  # characters of a function's error object that an error shows

# A composite value as text. Neither a name nor a region needs the quotes that such values may have.
_COMPOSITE = re.compile(r'\(([^"\\,()\s]+),([^"\\,()\s]*)\)', re.ASCII)


@dataclass(frozen=True)
class Arguments:
    """Those of aws_lambda.invoke. `payload` and `context` are JSON text."""

    function_name: str
    payload: str
    region: str | None
    invocation_type: str
    log_type: str
    context: str | None
    qualifier: str | None


@dataclass(frozen=True)
class Problem:
    """An error as RDS words it, with our SQLSTATE and the hint that RDS lacks."""

    sqlstate: str
    message: str
    detail: str
    hint: str


def request(given: Arguments) -> lambda_.Request:
    """What is asked of Lambda. A function's name that is a composite value as text is taken apart."""
    given = _recognised(given)
    return lambda_.Request(
        resources.function(given.function_name, given.qualifier),
        given.payload.encode(),
        given.invocation_type,
        given.log_type,
        given.context,
        given.region,
    )


def timed(settings: Settings, connect_timeout_ms: str | None, request_timeout_ms: str | None) -> Settings:
    """The server's options with the session's timeouts, where these are set: `None` and `''` say that they are not."""
    connect = _seconds("aws_lambda.connect_timeout_ms", connect_timeout_ms)
    whole = _seconds("aws_lambda.request_timeout_ms", request_timeout_ms)
    return replace(
        settings,
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
    hint = error.hint or "awslambda.diagnostics() checks what a call needs."
    if isinstance(error, errors.NoAnswer):
        hint += " aws_lambda.request_timeout_ms counts instead where it is set."
    return Problem(
        error.sqlstate,
        "invoke API failed",
        f"AWS Lambda client returned '{error}'.",
        "\n".join(part for part in (hint, error.detail) if part),
    )


def _recognised(given: Arguments) -> Arguments:
    """A composite value that came as text ended in the overload with `region`: its arguments, one place further left.

    psql's \\gset makes a literal of the result of create_lambda_function_arn, and Postgres prefers text for literals.
    """
    composite = _COMPOSITE.fullmatch(given.function_name)
    if composite is None:
        if given.region in lambda_.INVOCATION_TYPES:
            raise errors.InvalidArgument(
                reason=f"{given.region!r} stands where the region is expected",
                hint="With a function's name as text, region is the third argument and invocation_type the fourth: "
                f"write invocation_type => '{given.region}', or pass aws_commons.create_lambda_function_arn(...), "
                "after which there is no region. Nothing was sent.",
            )
        return given
    name, region = composite.groups()
    if given.region not in lambda_.INVOCATION_TYPES:
        if region and given.region and region != given.region:
            raise errors.InvalidArgument(
                reason=f"the region {given.region!r} contradicts the one in {given.function_name!r}",
                hint="Leave the argument region out. Nothing was sent.",
            )
        return replace(given, function_name=name, region=given.region or region or None)
    shifted = replace(given, function_name=name, region=region or None, invocation_type=given.region)
    if given.invocation_type == "RequestResponse":  # the default: log_type is by name, or not given
        return shifted
    context = given.context if given.log_type == "None" else given.log_type
    return replace(shifted, log_type=given.invocation_type, context=context)


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
