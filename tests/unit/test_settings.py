"""A server's options: what each takes and refuses, and what the refusal says."""

from __future__ import annotations

import re

import pytest
from awslambda import errors, settings
from awslambda.settings import Settings

INTERVALS = {"1s": 1.0, "800ms": 0.8, "00:01:30": 90.0, "2.5": 2.5, "1 hour": 3600.0, "1ms": 0.001}


def seconds(interval: str) -> float:
    """A reader of intervals that knows a few."""
    if interval not in INTERVALS:
        raise ValueError(interval)
    return INTERVALS[interval]


def parse(**options: str) -> Settings:
    return settings.parse("reports", options, seconds)


def refused(name: str, value: str) -> errors.InvalidArgument:
    """The error that this value is: it names the option and says what would be valid."""
    with pytest.raises(errors.InvalidArgument) as caught:
        settings.parse("reports", {"role_arn": ROLE, name: value}, seconds)
    assert caught.value.sqlstate == "22023"
    assert repr(name) in str(caught.value)
    assert caught.value.hint.startswith("It must be ") or "whole number" in caught.value.hint
    return caught.value


ROLE = "arn:aws:iam::123456789012:role/reports"


def test_without_options_the_documented_defaults_hold() -> None:
    assert parse() == Settings(
        server="reports",
        region=None,
        profile=None,
        role_arn=None,
        external_id=None,
        ca_bundle=None,
        endpoint_urls={},
        connect_timeout=3.0,
        request_timeout=60.0,
        max_attempts=3,
        allowed_resources=None,
    )


GOOD = [
    ("region", "eu-west-1"),
    ("region", "us-gov-east-1"),
    ("region", "cn-northwest-1"),
    ("region", "us-isob-east-1"),
    ("region", "eusc-de-east-1"),
    ("profile", "reports"),
    ("profile", "two words"),
    ("profile", "x"),
    ("role_arn", ROLE),
    ("role_arn", "arn:aws-cn:iam::123456789012:role/path/to/a_role+=,.@-x"),
    ("role_arn", "arn:aws-us-gov:iam::123456789012:role/r"),
    ("ca_bundle", "/etc/ssl/certs/ca-certificates.crt"),
    ("ca_bundle", "/etc/a bundle.pem"),
]
BAD = [
    ("region", ""),
    ("region", "EU-WEST-1"),
    ("region", "eu-west-1\n"),
    ("region", "eu-west"),
    ("region", "eu_west_1"),
    ("region", "eu-west-1.evil.example/#"),
    ("region", "eu-west-١"),  # an Arabic digit
    ("profile", ""),
    ("profile", " reports"),
    ("profile", "reports]"),
    ("profile", "a\nb"),
    ("role_arn", "reports"),
    ("role_arn", "arn:aws:iam::123456789012:user/bob"),
    ("role_arn", "arn:aws:iam::12345678901:role/reports"),
    ("role_arn", "arn:aws:iam::123456789012:role/"),
    ("role_arn", "arn:aws:iam::١٢٣٤٥٦٧٨٩٠١٢:role/reports"),
    ("external_id", "x"),
    ("external_id", "x" * 1225),
    ("external_id", "a b"),
    ("external_id", "ä-and-ö"),
    ("max_attempts", "0"),
    ("max_attempts", "11"),
    ("max_attempts", "-1"),
    ("max_attempts", "3.0"),
    ("max_attempts", ""),
    ("max_attempts", "٣"),
    ("max_attempts", "3\n"),
    ("ca_bundle", ""),
    ("ca_bundle", "certificates.pem"),
    ("ca_bundle", "../etc/certificates.pem"),
    ("allowed_resources", ""),
    ("allowed_resources", "function:a,"),
    ("allowed_resources", "function:a,,function:b"),
    ("allowed_resources", "function:a function:b"),
    ("allowed_resources", "function:'a'"),
    ("allowed_resources", "function:[ab]"),
    ("allowed_resources", "function:a?"),
    ("allowed_resources", "function:ä"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_a_good_value_is_kept_as_it_was_written(name: str, value: str) -> None:
    assert getattr(parse(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_and_shown(name: str, value: str) -> None:
    assert repr(value) in str(refused(name, value))


@pytest.mark.parametrize("value", ["xy", "a" * 1224, "a=b+c,d.e@f:g/h-i_j9"])
def test_an_external_id_goes_with_a_role(value: str) -> None:
    assert parse(role_arn=ROLE, external_id=value).external_id == value


def test_an_external_id_without_a_role_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="role_arn"):
        parse(external_id="abc")


@pytest.mark.parametrize("value", range(1, 11))
def test_one_to_ten_attempts_can_be_asked_for(value: int) -> None:
    assert parse(max_attempts=str(value)).max_attempts == value


# Times.


@pytest.mark.parametrize("name", ["connect_timeout", "request_timeout"])
@pytest.mark.parametrize("value", INTERVALS)
def test_a_time_is_what_the_given_reader_reads(name: str, value: str) -> None:
    assert getattr(parse(**{name: value}), name) == INTERVALS[value]


@pytest.mark.parametrize("name", ["connect_timeout", "request_timeout"])
def test_what_the_reader_cannot_read_is_no_time(name: str) -> None:
    assert "'soon'" in str(refused(name, "soon"))


@pytest.mark.parametrize("name", ["connect_timeout", "request_timeout"])
@pytest.mark.parametrize("read", [0.0, -1.0, 0.0009, 3600.1, float("inf"), float("-inf"), float("nan")])
def test_a_time_below_a_millisecond_or_beyond_an_hour_is_refused(name: str, read: float) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"{name}.*'some time'") as caught:
        settings.parse(None, {name: "some time"}, lambda _: read)
    assert "1ms" in caught.value.hint and "3600s" in caught.value.hint


# Endpoints.


@pytest.mark.parametrize(
    "value",
    [
        "https://lambda.eu-west-1.amazonaws.com",
        "https://vpce-0abc.lambda.eu-west-1.vpce.amazonaws.com:8443",
        "https://gateway.example/lambda",
        "https://[2001:db8::1]:8443",
        "https://10.0.0.1",
        "http://127.0.0.1:4566",
        "http://127.0.0.2",
        "http://localhost:4566",
        "http://LOCALHOST:4566",
        "http://[::1]:4566",
    ],
)
def test_https_to_anywhere_and_http_to_this_host_are_taken(value: str) -> None:
    assert parse(endpoint_url=value).endpoint_url("lambda") == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "lambda.eu-west-1.amazonaws.com",
        "127.0.0.1:4566",
        "//127.0.0.1:4566",
        "https://",
        "https:///path",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "https://host:port",
        "https://host:99999",
        "https://host:0",
        "https://host:",
        "https://[::1",
        "https://[:::]",
        "https://[1.2]",
        "https://ho st",
        "https://host/pa th",
        "https://host/\npath",
        "https://host\t",
        "https://hôst",
        "https://host?query=1",
        "https://host?",
        "https://host#fragment",
        "https://host#",
    ],
)
def test_what_is_no_plain_url_is_refused(value: str) -> None:
    assert "https://" in refused("endpoint_url", value).hint


@pytest.mark.parametrize(
    "value",
    [
        "http://lambda.eu-west-1.amazonaws.com",
        "http://10.0.0.1:4566",
        "http://0.0.0.0:4566",
        "http://169.254.169.254",
        "http://[2001:db8::1]:4566",
        "http://localhost.example:4566",
        "http://127.0.0.1.example",
        "http://example/127.0.0.1",
    ],
)
def test_http_to_another_host_is_refused(value: str) -> None:
    error = refused("endpoint_url", value)
    assert value in str(error)
    assert "loopback" in error.hint


@pytest.mark.parametrize(
    "value", ["http://127.0.0.1@evil.example", "http://127.0.0.1:80@evil.example", "https://user@host", "https://@host"]
)
def test_a_url_with_a_user_is_refused(value: str) -> None:
    refused("endpoint_url", value)


@pytest.mark.parametrize(
    "value",
    [
        "https://user:hunter2@host",
        "https://:hunter2@host",
        "http://user:hunter2@127.0.0.1",
        "https://user:hunter2@host:99999",
        "https://user:hunter2@[host",
        "https://user:hunter2@host:port/",
        "https:/user:hunter2@host",
        "user:hunter2@host",
    ],
)
@pytest.mark.parametrize("name", ["endpoint_url", "endpoint_url_lambda", "endpoint_url_sts"])
def test_a_password_in_a_url_is_never_shown(name: str, value: str) -> None:
    error = refused(name, value)
    assert "hunter2" not in str(error) + error.detail + error.hint


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", ".example"])
def test_a_host_that_cannot_be_a_host_is_refused(host: str) -> None:
    refused("endpoint_url", f"https://{host}/")


def test_a_slash_at_the_end_of_a_url_does_not_count() -> None:
    assert parse(endpoint_url="https://host/").endpoint_url("lambda") == "https://host"


def test_a_service_without_its_own_endpoint_uses_the_one_for_all() -> None:
    parsed = parse(endpoint_url="https://all.example", endpoint_url_lambda="https://lambda.example")
    assert parsed.endpoint_url("lambda") == "https://lambda.example"
    assert parsed.endpoint_url("sts") == "https://all.example"


def test_the_endpoint_of_one_service_is_not_that_of_another() -> None:
    parsed = parse(endpoint_url_sts="https://sts.example")
    assert parsed.endpoint_url("sts") == "https://sts.example"
    assert parsed.endpoint_url("lambda") is None


# Which options there are.


@pytest.mark.parametrize(
    "name", ["regoin", "Region", "REGION", "endpoint_url_", "endpoint_url_s3", "endpoint_url_LAMBDA", "server", ""]
)
def test_an_unknown_option_is_refused_and_the_valid_ones_are_listed(name: str) -> None:
    with pytest.raises(errors.InvalidOption) as caught:
        settings.parse(None, {name: "x"}, seconds)
    assert caught.value.sqlstate == "HV00D"
    assert repr(name) in str(caught.value)
    listed = re.findall(r"[a-z_]+", caught.value.hint.removeprefix("Valid options are"))
    assert listed == [
        "allowed_resources",
        "ca_bundle",
        "connect_timeout",
        "endpoint_url",
        "endpoint_url_kinesis",
        "endpoint_url_lambda",
        "endpoint_url_sns",
        "endpoint_url_sqs",
        "endpoint_url_sts",
        "external_id",
        "max_attempts",
        "profile",
        "region",
        "request_timeout",
        "role_arn",
    ]


def test_every_option_that_is_listed_is_taken() -> None:
    values = {"role_arn": ROLE, "region": "eu-west-1", "max_attempts": "2", "ca_bundle": "/x", "external_id": "abc"}
    values |= {"connect_timeout": "1s", "request_timeout": "1s", "allowed_resources": "function:f", "profile": "p"}
    values |= {name: "https://h" for name in settings.OPTIONS if name.startswith("endpoint_url")}
    assert values.keys() == set(settings.OPTIONS)
    parse(**values)


def test_what_decides_identity_and_destination_is_for_superusers() -> None:
    assert {
        "endpoint_url",
        "endpoint_url_kinesis",
        "endpoint_url_lambda",
        "endpoint_url_sns",
        "endpoint_url_sqs",
        "endpoint_url_sts",
        "profile",
        "role_arn",
        "ca_bundle",
        "external_id",
    } == settings.SUPERUSER_ONLY


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ("function:report-*", ("function:report-*",)),
        ("function:report-*, stream/clicks", ("function:report-*", "stream/clicks")),
        ("  function:a ,\n\tfunction:b  ", ("function:a", "function:b")),
        ("*", ("*",)),
        ("arn:aws:lambda:*:123456789012:function:f", ("arn:aws:lambda:*:123456789012:function:f",)),
    ],
)
def test_patterns_are_separated_by_commas(value: str, patterns: tuple[str, ...]) -> None:
    assert parse(allowed_resources=value).allowed_resources == patterns


# What caches go by.


@pytest.mark.parametrize(
    "change",
    [
        {"region": "eu-west-2"},
        {"profile": "p"},
        {"role_arn": ROLE},
        {"external_id": "abc"},
        {"ca_bundle": "/x"},
        {"endpoint_urls": {"": "https://h"}},
        {"endpoint_urls": {"lambda": "https://h"}},
        {"endpoint_urls": {"sts": "https://h"}},
    ],
    ids=str,
)
def test_whatever_decides_who_we_are_makes_another_identity(change: dict[str, object]) -> None:
    plain = Settings(region="eu-west-1")
    assert plain._replace(**change).identity != plain.identity  # type: ignore[arg-type]


def test_all_identities_of_different_options_differ() -> None:
    one, other = "https://one.example", "https://other.example"
    several = [
        Settings(endpoint_urls={"lambda": one, "sts": other}),
        Settings(endpoint_urls={"lambda": other, "sts": one}),
        Settings(endpoint_urls={"": one}),
        Settings(profile="x"),
        Settings(region="x"),
        Settings(role_arn="x"),
    ]
    assert len({settings.identity for settings in several}) == len(several)


def test_options_are_named_up_to_their_first_equals_sign() -> None:
    assert settings.named(["region=eu-west-1", "external_id=a=b", "profile="]) == {
        "region": "eu-west-1",
        "external_id": "a=b",
        "profile": "",
    }
    with pytest.raises(ValueError, match="sequence element"):
        settings.named(["region"])
