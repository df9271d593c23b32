"""From what a caller names to the function that is meant: names, ARNs, versions and aliases, looked up in moto's
state.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_RequestParameters
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.utilities.utils import get_partition

from awslambda_local.credentials import Caller
from awslambda_local.errors import (
    AccessDenied,
    InvalidParameterValue,
    InvalidRuntime,
    ResourceNotFound,
    Validation,
)

_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?"
    r"(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
_REFERENCE = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?(?:(?P<region>[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account_id>\d{12}):)?(?:function:)?(?P<name>[a-zA-Z0-9-_]{1,64})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]+))?"
)


@dataclass(frozen=True)
class FunctionSpec:
    """All that a handler's process is made from: two processes of equal specs are interchangeable."""

    account_id: str
    region: str
    name: str
    version: str
    runtime: str
    handler: str
    role: str
    timeout: float
    memory_size: int
    environment: Mapping[str, str]
    code_sha256: str
    code: bytes = field(compare=False, repr=False)

    @property
    def function(self) -> tuple[str, str, str]:
        """What concurrency is counted by: the function, all its versions together."""
        return self.account_id, self.region, self.name

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"


@dataclass(frozen=True)
class Target:
    """A function as it was at one moment, ready to be run."""

    spec: FunctionSpec
    arn: str
    reserved_concurrency: int | None
    event_invoke_config: Mapping[str, Any]


@dataclass(frozen=True)
class FunctionReference:
    """Which function is meant, and under which qualifier. `resolve` looks it up anew each time."""

    account_id: str
    region: str
    name: str
    qualifier: str | None

    @classmethod
    def parse(cls, text: str, qualifier: str | None, caller: Caller) -> FunctionReference:
        """A name, `name:qualifier`, a partial or a full ARN, as seen by `caller`."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise Validation(
                f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: "
                f"Member must satisfy regular expression pattern: {_PATTERN}"
            )
        if qualifier and match["qualifier"] and qualifier != match["qualifier"]:
            raise InvalidParameterValue(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        if match["region"] and match["region"] != caller.region:
            raise ResourceNotFound(
                f"Functions from '{match['region']}' are not reachable in this region ('{caller.region}')"
            )
        account_id = match["account_id"] or caller.account_id
        reference = cls(account_id, caller.region, match["name"], qualifier or match["qualifier"])
        if account_id != caller.account_id:
            raise AccessDenied(
                f"User: {caller.arn} is not authorized to perform: lambda:InvokeFunction on resource: {reference.arn} "
                "because no resource-based policy allows the lambda:InvokeFunction action"
            )
        return reference

    @classmethod
    def of(cls, function: LambdaFunction) -> FunctionReference:
        version = str(function.version)
        return cls(
            function.account_id, function.region, function.function_name, None if version == "$LATEST" else version
        )

    @property
    def arn(self) -> str:
        partition = get_partition(self.region)
        arn = f"arn:{partition}:lambda:{self.region}:{self.account_id}:function:{self.name}"
        return f"{arn}:{self.qualifier}" if self.qualifier else arn

    def resolve(self) -> Target:
        """The function as it is now; raises ResourceNotFound."""
        backend = lambda_backends[self.account_id][self.region]
        try:
            version = backend.get_function(self.name, self.qualifier)
            latest = backend.get_function(self.name)  # concurrency and event configuration are kept there
        except UnknownFunctionException:
            raise ResourceNotFound(f"Function not found: {self.arn}") from None
        reserved = latest.reserved_concurrency
        return Target(
            spec=_spec(version),
            arn=self.arn,
            reserved_concurrency=None if reserved is None else int(reserved),
            event_invoke_config=latest.event_invoke_config[-1].config if latest.event_invoke_config else {},
        )


def _spec(function: LambdaFunction) -> FunctionSpec:
    runtime = str(function.run_time)
    if not runtime.startswith("python") or not getattr(function, "code_bytes", b""):
        raise InvalidRuntime(
            f"The local AWS runs Python from zip files only; the runtime of this function is {runtime}."
        )
    return FunctionSpec(
        account_id=function.account_id,
        region=function.region,
        name=function.function_name,
        version=str(function.version),
        runtime=runtime,
        handler=str(function.handler),
        role=function.role,
        timeout=float(function.timeout),
        memory_size=int(function.memory_size),
        environment=function.environment_vars,
        code_sha256=function.code_sha_256,
        code=function.code_bytes,
    )
