"""What a call is aimed at: a name or an ARN, parsed; and whether a server's allowed_resources cover it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from awslambda import errors

REGION = r"[a-z]{2,}(?:-[a-z]+)+-\d+"

# The pattern of Invoke's FunctionName: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_FUNCTION = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*):lambda:(?=[a-z]+-))?(?:(?P<region>" + REGION + r"):)?"
    r"(?:(?P<account>\d{12}):)?(?P<kind>function:)?(?P<name>[a-zA-Z0-9_-]{1,64})"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]{1,128}))?",
    re.ASCII,
)


class Target(NamedTuple):
    """A function as the caller named it. `account` and `region` are None where the name does not say."""

    given: str
    name: str
    extra_qualifier: str | None  # given beside the name, not in it
    account: str | None
    region: str | None
    partition: str | None

    @property
    def resource(self) -> str:
        return f"function:{self.name}"

    @property
    def qualifier(self) -> str | None:
        """The one in the name, or beside it."""
        match = _FUNCTION.fullmatch(self.given)
        return self.extra_qualifier or (match and match["qualifier"])

    def arn(self, region: str, partition: Callable[[str], str]) -> str | None:
        """The ARN without a qualifier, completed with the call's region and its partition; None for a bare name."""
        if self.account is None:
            return None
        return f"arn:{self.partition or partition(region)}:lambda:{region}:{self.account}:{self.resource}"


@lru_cache(maxsize=256)
def function(given: str, qualifier: str | None = None) -> Target:
    """Parses a name, name:qualifier, partial or full ARN; `qualifier` may repeat the one in it, not contradict it."""
    match = _FUNCTION.fullmatch(given)
    is_arn = given.startswith("arn:")
    if not match or (is_arn and not (match["partition"] and match["region"] and match["account"] and match["kind"])):
        shown = given if len(given) <= 170 else given[:170] + "..."
        raise errors.InvalidArgument(
            reason=f"not the name or ARN of a Lambda function: {shown!r}",
            hint="A name has 1 to 64 letters, digits, - or _, and may be followed by :qualifier; "
            "an ARN is arn:aws:lambda:region:account:function:name[:qualifier]. Nothing was sent.",
        )
    if qualifier is not None and not re.fullmatch(r"\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9_-]{1,128}", qualifier, re.ASCII):
        raise errors.InvalidArgument(
            reason=f"not a qualifier: {qualifier[:128]!r}", hint="It is an alias, a version's number, or $LATEST."
        )
    if qualifier is not None and match["qualifier"] not in (None, qualifier):
        raise errors.InvalidArgument(
            reason=f"the qualifier {qualifier!r} contradicts the one in {given!r}",
            hint="Give it once. Nothing was sent.",
        )
    extra = qualifier if match["qualifier"] is None else None
    return Target(given, match["name"], extra, match["account"], match["region"], match["partition"])


# StreamARN and StreamName: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ListShards.html
_STREAM = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:kinesis:(?P<region>" + REGION + r"):\d{12}:stream/)?(?P<name>[a-zA-Z0-9_.-]{1,128})",
    re.ASCII,
)


class Stream(NamedTuple):
    """A Kinesis stream as the caller named it; `region` is None where that is no ARN."""

    given: str
    name: str
    region: str | None

    @property
    def resource(self) -> str:
        return f"stream/{self.name}"

    @property
    def arn(self) -> str | None:
        return self.given if self.region else None


def stream(given: str) -> Stream:
    """Parses a stream's name or ARN."""
    match = _STREAM.fullmatch(given)
    if not match:
        raise errors.InvalidArgument(
            reason=f"not the name or ARN of a Kinesis stream: {given[:200]!r}",
            hint="A name has 1 to 128 letters, digits, - _ or .; an ARN is arn:aws:kinesis:region:account:stream/name.",
        )
    return Stream(given, match["name"], match["region"])


def permits(patterns: Sequence[str], resource: str, arn: str | None) -> bool:
    """A target named by name is matched as the resource part of an ARN, one given as an ARN by ARN patterns only, so
    that another account is never reached by a name pattern. * stands for any characters, also none."""
    return any(
        _matches(pattern, resource if arn is None else arn)
        for pattern in patterns
        if pattern.startswith("arn:") == (arn is not None)
    )


def _matches(pattern: str, text: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    start, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True
