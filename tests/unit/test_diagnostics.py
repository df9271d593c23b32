"""The checks: each says what it found, and what to do if that is not well; none hides another."""

from __future__ import annotations

import datetime
import email.utils
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awslambda
import boto3
import botocore
import pytest
from awslambda import diagnostics
from awslambda.diagnostics import Check
from awslambda.settings import Settings

from tests.endpoints import Behaviour, Endpoint, Received, answer, black_hole, closed_port, hang_up, silence
from tests.unit.cancelling import cancelled, nothing
from tests.unit.conftest import ACCESS_KEY, SECRET_KEY, TOKEN
from tests.unit.services import CALLER, Process, form, in_minutes, instance, metadata, sts, sts_refusal

Start = Callable[..., Endpoint]

NAMES = [
    "python", "package", "boto3", "botocore", "server", "cache", "credentials", "region", "identity", "endpoint",
    "clock",
]  # fmt: skip


def now(seconds: float = 0) -> str:
    """The value of the header Date, off by some seconds."""
    time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return email.utils.format_datetime(time, usegmt=True)


def services(lambda_: Behaviour | None = None, sts_: Behaviour | None = None) -> Behaviour:
    """Lambda and STS at one endpoint."""

    def behave(connection: socket.socket, received: Received) -> bool:
        if received.method == "POST":
            return (sts_ or sts())(connection, received)
        return (lambda_ or answer(404, {}, Date=now()))(connection, received)

    return behave


def settings(url: str, **options: Any) -> Settings:
    given = {"server": "aws", "region": "eu-west-1", "endpoint_urls": {"": url}, "max_attempts": 1}
    return Settings(**{**given, "connect_timeout": 0.5, "request_timeout": 5.0, **options})


def rows(chosen: Settings) -> dict[str, Check]:
    """The checks by name. Whatever is not well says what to do; no key is ever shown."""
    found = list(diagnostics.checks(chosen, nothing))
    for check in found:
        assert check.status in ("ok", "warning", "error")
        assert check.detail
        assert bool(check.hint) == (check.status != "ok"), check
        for secret in (SECRET_KEY, TOKEN, "secret-of-the-role", "token-of-the-role"):
            assert secret not in check.detail + check.hint
    names = [check.check for check in found]
    assert names == NAMES[: len(names)] and len(names) >= len(NAMES) - 1  # no clock without an endpoint
    return {check.check: check for check in found}


def status(checks: dict[str, Check]) -> dict[str, str]:
    """What is not well."""
    return {name: check.status for name, check in checks.items() if check.status != "ok"}


@pytest.mark.usefixtures("keys")
def test_where_all_is_well_every_check_says_what_it_found(endpoint: Start) -> None:
    started = endpoint(services())
    checks = rows(settings(started.url))
    assert status(checks) == {}
    assert list(checks) == NAMES
    assert sys.executable in checks["python"].detail
    assert checks["package"].detail == f"awslambda {awslambda.__version__} in {Path(awslambda.__file__).parent}"
    assert checks["botocore"].detail == f"{botocore.__version__} from {botocore.__file__}"
    assert checks["boto3"].detail == f"{boto3.__version__} from {boto3.__file__}"
    assert checks["server"].detail == "aws"
    assert checks["credentials"].detail == "env, do not expire"
    assert checks["region"].detail == "eu-west-1 from server option region"
    assert checks["identity"].detail == CALLER
    assert checks["endpoint"].detail.startswith(f"{started.url} answered in ")
    assert "against the endpoint" in checks["clock"].detail or "agrees" in checks["clock"].detail


@pytest.mark.usefixtures("keys")
def test_no_function_is_called(endpoint: Start) -> None:
    started = endpoint(services())
    rows(settings(started.url))
    caller, look = started.requests
    assert form(caller)["Action"] == "GetCallerIdentity"
    assert (look.method, look.path, look.headers["connection"], look.body) == ("GET", "/", "close", b"")


@pytest.mark.usefixtures("keys")
def test_without_a_server_the_defaults_are_checked(endpoint: Start) -> None:
    assert rows(settings(endpoint(services()).url, server=None))["server"].detail == "none: built-in defaults"


# Credentials.


@pytest.mark.usefixtures("keys")
def test_a_cache_that_others_could_reach_is_a_warning(endpoint: Start, tmp_path: Path) -> None:
    chosen = settings(endpoint(services()).url)
    assert rows(chosen)["cache"].detail == str(tmp_path / "cache")
    (tmp_path / "cache").chmod(0o750)
    checks = rows(chosen)
    assert status(checks) == {"cache": "warning"}
    assert checks["cache"].detail == f"{tmp_path}/cache is not used: others can reach it"


@pytest.mark.usefixtures("keys")
def test_a_cache_that_nobody_wants_is_none(endpoint: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWSLAMBDA_CACHE", "")
    checks = rows(settings(endpoint(services()).url))
    assert status(checks) == {} and "none" in checks["cache"].detail


def test_missing_credentials_hide_neither_region_nor_endpoint(endpoint: Start) -> None:
    checks = rows(settings(endpoint(services()).url))
    assert status(checks) == {"credentials": "error", "identity": "error"}
    assert checks["credentials"].detail.startswith("No AWS credentials: ")


@pytest.mark.usefixtures("keys")
def test_a_profile_that_does_not_exist_is_named(endpoint: Start) -> None:
    checks = rows(settings(endpoint(services()).url, profile="nobody"))
    assert status(checks)["credentials"] == "error"
    assert "nobody" in checks["credentials"].detail


@pytest.mark.usefixtures("keys")
def test_credentials_that_sts_refuses_are_an_error_of_the_identity_alone(endpoint: Start) -> None:
    checks = rows(settings(endpoint(services(sts_=sts_refusal(403, "ExpiredToken", "it has expired"))).url))
    assert status(checks) == {"identity": "error"}
    assert "it has expired" in checks["identity"].detail


def test_the_expiry_of_credentials_is_told_in_utc(endpoint: Start, tmp_path: Path) -> None:
    process = Process(tmp_path, tmp_path / "config")
    tomorrow = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=1)
    process.gives(ACCESS_KEY, f"{tomorrow}T20:30:00+05:30")
    detail = rows(settings(endpoint(services()).url))["credentials"].detail
    assert f"custom-process, expire at {tomorrow} 15:00:00 UTC, in " in detail


def test_credentials_that_should_have_been_refreshed_are_a_warning(endpoint: Start, tmp_path: Path) -> None:
    Process(tmp_path, tmp_path / "config").gives(ACCESS_KEY, in_minutes(5))
    checks = rows(settings(endpoint(services()).url))
    assert status(checks) == {"credentials": "warning"}
    assert "in 0:0" in checks["credentials"].detail


def test_the_role_of_an_instance_and_its_region_are_told(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint(metadata(instance("eu-north-1"))).url)
    checks = rows(settings(endpoint(services()).url, region=None))
    assert status(checks) == {}
    assert checks["credentials"].detail.startswith("iam-role, expire at ")
    assert checks["region"].detail == "eu-north-1 from instance metadata"


# Region.


@pytest.mark.usefixtures("keys")
def test_an_unknown_region_is_told_at_each_check_that_needs_one(endpoint: Start) -> None:
    checks = rows(settings(endpoint(services()).url, region=None))
    assert status(checks) == {"region": "error", "identity": "error", "endpoint": "error"}
    assert "region" in checks["endpoint"].detail and "clock" not in checks


# Endpoint.


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("status_code", [200, 403, 404, 500])
def test_any_answer_shows_that_the_endpoint_is_there(endpoint: Start, status_code: int) -> None:
    assert status(rows(settings(endpoint(services(answer(status_code, {}, Date=now()))).url))) == {}


@pytest.mark.usefixtures("keys")
def test_an_endpoint_that_refuses_is_named() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    checks = rows(settings(url))
    assert status(checks)["endpoint"] == "error"
    assert url in checks["endpoint"].detail and "refused" in checks["endpoint"].detail


@pytest.mark.usefixtures("keys")
def test_a_black_hole_is_told_from_silence(endpoint: Start) -> None:
    with black_hole() as port:
        checks = rows(
            settings(
                "http://127.0.0.1:1",
                endpoint_urls={"lambda": f"http://127.0.0.1:{port}", "sts": endpoint(services()).url},
            )
        )
        assert status(checks) == {"endpoint": "error"}
        assert "Cannot connect" in checks["endpoint"].detail
    checks = rows(settings(endpoint(services(silence)).url, request_timeout=0.3))
    assert checks["endpoint"].status == "error"
    assert "accepts connections but does not answer: no answer in time" in checks["endpoint"].detail


@pytest.mark.usefixtures("keys")
def test_an_endpoint_that_hangs_up_says_so(endpoint: Start) -> None:
    checks = rows(settings(endpoint(services(hang_up)).url))
    assert status(checks) == {"endpoint": "error"}
    assert "closed without an answer" in checks["endpoint"].detail


def test_a_silent_check_leaves_the_others_their_time(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint(silence).url)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "30")
    checks = rows(settings(endpoint(services()).url, request_timeout=0.5))
    assert status(checks) == {"credentials": "error", "identity": "error"}


def test_an_interrupt_ends_the_checks(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> None:
    started = endpoint(silence)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", started.url)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "30")
    chosen = settings(endpoint(services()).url, request_timeout=30)
    with cancelled(once=lambda: started.requests) as check:
        list(diagnostics.checks(chosen, check))


# Clock.


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("seconds", "expected", "shown"),
    [(0, "ok", ""), (100, "ok", "-"), (-100, "ok", "+"), (-400, "error", "+"), (400, "error", "-")],
)
def test_a_clock_that_is_off_is_told_before_aws_refuses_signatures(
    endpoint: Start, seconds: float, expected: str, shown: str
) -> None:
    check = rows(settings(endpoint(services(answer(200, {}, Date=now(seconds)))).url))["clock"]
    assert check.status == expected
    if seconds:
        assert check.detail.startswith(shown)
        assert abs(seconds) - 5 < abs(float(check.detail.split()[0])) < abs(seconds) + 5


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "behaviour",
    [answer(200, {}), answer(200, {}, Date=""), answer(200, {}, Date="today"), answer(200, {}, Date="1 2 3 4 5 6")],
    ids=["none", "empty", "words", "numbers"],
)
def test_an_endpoint_without_a_clock_is_a_warning(endpoint: Start, behaviour: Behaviour) -> None:
    assert status(rows(settings(endpoint(services(behaviour)).url))) == {"clock": "warning"}


@pytest.mark.usefixtures("keys")
def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch, endpoint: Start) -> None:
    started = endpoint(services(answer(200, {}, Date=now().replace("GMT", "-0000"))))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        checks = rows(settings(started.url))
    time.tzset()
    assert status(checks) == {}
