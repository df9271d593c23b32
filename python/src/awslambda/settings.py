"""The options of one server (CREATE SERVER ... FOREIGN DATA WRAPPER awslambda), parsed and validated.

Nothing here is secret: whoever connects to the database can read a server's options. No setting of a session decides
any of this (see docs/security.md).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from awslambda import errors, resources

SERVICES = ("kinesis", "lambda", "sns", "sqs", "sts")  # those that endpoint_url_<service> can be set for
SUPERUSER_ONLY = frozenset(
    {"endpoint_url", *(f"endpoint_url_{s}" for s in SERVICES), "profile", "role_arn", "external_id", "ca_bundle"}
)
LONGEST = 3600.0  # seconds


class Settings(NamedTuple):
    """One server's options; the defaults are also what holds while no server exists."""

    server: str | None = None
    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    ca_bundle: str | None = None
    endpoint_urls: Mapping[str, str] = MappingProxyType({})  # by service; "" for all of them
    connect_timeout: float = 3.0  # seconds, for name look-up, connection and TLS together
    request_timeout: float = 60.0  # seconds, for the whole call, retries included
    max_attempts: int = 3  # of what provably did not run
    allowed_resources: tuple[str, ...] | None = None  # None: everything

    def endpoint_url(self, service: str) -> str | None:
        """The configured URL of a service, or None for AWS's own."""
        return self.endpoint_urls.get(service) or self.endpoint_urls.get("")

    def check_allowed(self, resource: str, arn: str | None) -> None:
        """ResourceNotAllowed unless allowed_resources cover a target; `arn` is None if it was not given as one."""
        if self.allowed_resources is not None and not resources.permits(self.allowed_resources, resource, arn):
            raise errors.ResourceNotAllowed(server=self.server, resource=arn or resource)

    @property
    def identity(self) -> tuple[object, ...]:
        """All that decides who we are for AWS and where AWS is: the key of every cache of sessions and clients."""
        return (
            self.region,
            self.profile,
            self.role_arn,
            self.external_id,
            self.ca_bundle,
            *sorted(self.endpoint_urls.items()),
        )


def named(options: Iterable[str]) -> dict[str, str]:
    """Options as the catalog and the command line have them, name=value; ValueError where there is no =."""
    return dict(option.split("=", 1) for option in options)


def parse(server: str | None, options: Mapping[str, str], seconds: Callable[[str], float]) -> Settings:
    """Turns options as CREATE SERVER took them into Settings.

    `seconds` reads an interval as Postgres does ('1s', '800ms', a bare number of seconds). An unknown option is an
    InvalidOption (HV00D), a bad value an InvalidArgument (22023); both name what would be valid.
    """
    values: dict[str, object] = {}
    urls: dict[str, str] = {}
    for name, value in options.items():
        if name == "endpoint_url" or name.removeprefix("endpoint_url_") in SERVICES:
            urls[name.removeprefix("endpoint_url").removeprefix("_")] = _url(name, value)
        elif name in _READERS:
            values[name] = _READERS[name](name, value)
        elif name in _TIMES:
            values[name] = _time(name, value, seconds)
        else:
            raise errors.InvalidOption(option=name, hint=f"Valid options are: {', '.join(OPTIONS)}.")
    if "external_id" in options and "role_arn" not in options:
        raise errors.InvalidArgument(reason="external_id is for assuming a role: it needs role_arn too")
    return Settings(server=server, endpoint_urls=urls, **values)  # type: ignore[arg-type]


def _bad(name: str, value: str, wanted: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(reason=f"invalid value for option {name!r}: {value!r}", hint=f"It must be {wanted}.")


def _matching(pattern: str, wanted: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise _bad(name, value, wanted)
        return value

    return read


_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<host>(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[1-9]\d{0,4}))?"
    r"(?:/[!-~]*)?",
    re.ASCII | re.IGNORECASE,
)


def _url(name: str, value: str) -> str:
    match = _URL.fullmatch(value)
    if (
        not match
        or set("@?#") & set(value)
        or (match["ipv6"] and not _is_address(match["ipv6"]))
        or int(match["port"] or 1) > 65535
        or not (match["scheme"].lower() == "https" or is_loopback(match["ipv6"] or match["host"]))
    ):
        shown = "..." if "@" in value else value  # what stands before an @ may be a password
        raise _bad(name, shown, "https://host[:port], or http:// where the host is a loopback address")
    return value.rstrip("/")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    return ipaddress.ip_address(host).is_loopback if _is_address(host) else host.lower() == "localhost"


def _time(name: str, value: str, seconds: Callable[[str], float]) -> float:
    wanted = f"an interval from 1ms to {LONGEST:g}s, such as '3s' or '800ms'"
    try:
        parsed = seconds(value)
    except ValueError:
        raise _bad(name, value, wanted) from None
    if not 0.001 <= parsed <= LONGEST:
        raise _bad(name, value, wanted)
    return parsed


def _attempts(name: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]|10", value, re.ASCII):
        raise _bad(name, value, "a whole number from 1 to 10")
    return int(value)


def _patterns(name: str, value: str) -> tuple[str, ...]:
    patterns = tuple(p.strip() for p in value.split(","))
    if not all(re.fullmatch(r"[A-Za-z0-9_.:/*$+=@-]+", p, re.ASCII) for p in patterns):
        raise _bad(name, value, "patterns separated by commas, such as 'function:report-*, stream/clicks'")
    return patterns


_READERS: dict[str, Callable[[str, str], object]] = {
    "region": _matching(resources.REGION, "a region's name, such as eu-west-1"),
    "profile": _matching(r"[^\[\]\s]([^\[\]\r\n]*[^\[\]\s])?", "the name of a profile in the AWS configuration files"),
    "role_arn": _matching(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", "a role's ARN: arn:aws:iam::...:role/..."),
    "external_id": _matching(r"[\w+=,.@:/-]{2,1224}", "2 to 1224 letters, digits or + = , . @ : / -"),
    "max_attempts": _attempts,
    "allowed_resources": _patterns,
    "ca_bundle": _matching(r"/[^\0]*", "the absolute path of a file of certificates"),
}
_TIMES = ("connect_timeout", "request_timeout")
OPTIONS = tuple(sorted([*_READERS, *_TIMES, "endpoint_url", *(f"endpoint_url_{s}" for s in SERVICES)]))
