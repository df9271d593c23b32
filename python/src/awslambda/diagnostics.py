"""The checks of awslambda.diagnostics() and `awslambda doctor`: everything a call needs, without calling a function."""

from __future__ import annotations

import contextlib
import datetime
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import awslambda
from awslambda import aws, errors, signing
from awslambda.cache import VARIABLE, Cache, place
from awslambda.connection import BrokenError, ConnectError, Connections
from awslambda.settings import Settings
from awslambda.waits import Wait

SOON = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class Check:
    """One row: `status` is ok, warning or error; `hint` says what to do about the latter two."""

    check: str
    status: str
    detail: str
    hint: str = ""


def checks(settings: Settings, check: Callable[[], None]) -> Iterator[Check]:
    """All checks of one server, each on its own: a failed one does not hide the others. All is asked anew."""
    identity = aws.Identity(settings)

    def wait() -> Wait:
        return Wait(check, settings.request_timeout)

    yield _python()
    yield Check("package", "ok", f"awslambda {awslambda.__version__} in {Path(awslambda.__file__).parent}")
    yield from (Check(name, "ok", version) for name, version in aws.versions().items())
    yield Check("server", "ok", settings.server or "none: built-in defaults")
    yield _cache()
    yield _guarded("credentials", lambda: _credentials(identity, wait()))
    yield _guarded("region", lambda: Check("region", "ok", "{} from {}".format(*identity.region(wait()))))
    yield _guarded("identity", lambda: Check("identity", "ok", _caller(identity, settings, wait())))
    yield from _endpoint(identity, settings, wait())


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except errors.LambdaError as error:
        return failed(name, error)


def failed(name: str, error: errors.LambdaError) -> Check:
    """The row of a check that ended in an error."""
    return Check(name, "error", str(error), error.hint)


def _python() -> Check:
    detail = f"{platform.python_version()}, {sys.executable or 'embedded'}, sys.path begins with {sys.path[0]}"
    return Check("python", "ok", detail)


def _cache() -> Check:
    folder = place()
    if not folder:
        return Check("cache", "ok", f"none: so says {VARIABLE}")
    if problem := Cache(folder, ()).problem():
        hint = (
            "So each backend asks for credentials itself. Remove what is there, or name another folder in the "
            f"environment variable {VARIABLE} of PostgreSQL."
        )
        return Check("cache", "warning", f"{folder} is not used: {problem}", hint)
    return Check("cache", "ok", folder)


def _caller(identity: aws.Identity, settings: Settings, wait: Wait) -> str:
    region, _ = identity.region(wait)
    return identity.caller(wait, region, settings.request_timeout)


def _credentials(identity: aws.Identity, wait: Wait) -> Check:
    identity.frozen_credentials(wait)
    source, expiry = identity.credentials_source, identity.credentials_expiry
    if expiry is None:
        return Check("credentials", "ok", f"{source}, do not expire")
    left = expiry - datetime.datetime.now(expiry.tzinfo)
    expiry = expiry.astimezone(datetime.timezone.utc)
    detail = f"{source}, expire at {expiry:%Y-%m-%d %H:%M:%S} UTC, in {str(left).split('.')[0]}"
    if left < SOON:
        return Check("credentials", "warning", detail, "They should have been refreshed by now: check IMDS or STS.")
    return Check("credentials", "ok", detail)


def _endpoint(identity: aws.Identity, settings: Settings, wait: Wait) -> Iterator[Check]:
    try:
        region, _ = identity.region(wait)
        url = identity.url("lambda", region, wait)
    except errors.LambdaError as error:
        yield failed("endpoint", error)
        return
    request = f"GET / HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n\r\n".encode("ascii")
    started = time.monotonic()
    try:
        with contextlib.closing(Connections()) as connections:
            answer = connections.exchange(url.endpoint, request, settings.connect_timeout, wait)
    except ConnectError as error:
        yield failed("endpoint", errors.ConnectFailed(endpoint=url.text, reason=error))
        return
    except (BrokenError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        hint = "Something else than AWS may be listening there, or a firewall lets connections in but no data out."
        yield Check("endpoint", "error", f"{url.text} accepts connections but does not answer: {reason}", hint)
        return
    yield Check("endpoint", "ok", f"{url.text} answered in {(time.monotonic() - started) * 1000:.0f} ms")
    yield _clock(answer.headers.get("date"))


def _clock(date: str | None) -> Check:
    now = signing.time_of(date)
    if now is None:
        hint = "Compare the clock of this host with another: AWS refuses signatures that are 5 minutes off."
        return Check("clock", "warning", "the endpoint does not say what time it is", hint)
    skew = time.time() - now
    if abs(skew) > signing.TOLERATED_SKEW:
        hint = "AWS refuses signatures of a clock that is 5 minutes off: start chrony or another NTP client."
        return Check("clock", "error", f"{skew:+.0f} s against the endpoint", hint)
    return Check("clock", "ok", f"{skew:+.0f} s against the endpoint")
