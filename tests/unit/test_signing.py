"""Our signer against botocore's: the same headers, for whatever may be signed."""

from __future__ import annotations

import datetime
import string
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from awslambda import signing
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

REGIONS = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "zz-new-1"]
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f"
SIX_MEGABYTES = bytes(range(256)) * (6 * 4096)

given_by_botocore = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "authorization", "date", "host"}
names = st.text(string.ascii_letters + string.digits + "-", min_size=1).filter(
    lambda name: name.lower() not in given_by_botocore.union(SIGNED_HEADERS_BLACKLIST)
)
words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from(" \t"))
segments = st.one_of(
    st.sampled_from(["", ".", "..", "...", "f:live", "f:$LATEST", ARN, "größe", "a b", "%", "~"]), st.text(max_size=20)
).map(lambda segment: quote(segment, safe="-._~"))
queries = st.lists(
    st.tuples(st.sampled_from(["Qualifier", "a", "A", ""]), st.sampled_from(["", "=", "=live", "=%24LATEST", "=7"]))
).map(lambda pairs: "&".join(name + value for name, value in pairs))
paths = st.tuples(st.lists(segments), st.one_of(st.just(""), queries.map(lambda query: "?" + query))).map(
    lambda parts: "/" + "/".join(parts[0]) + parts[1]
)
headers = st.dictionaries(names, words).filter(lambda found: len({name.lower() for name in found}) == len(found))
keys = st.text(string.ascii_letters + string.digits + "+/", min_size=1, max_size=40)
INVOKE = {"X-Amz-Invocation-Type": "RequestResponse", "X-Amz-Log-Type": "Tail"}
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


def botocores(request: signing.Request, credentials: ReadOnlyCredentials, now: datetime.datetime) -> Mapping[str, Any]:
    """The headers as botocore signs them."""
    url = f"https://{request.host}{request.path}"
    unsigned = AWSRequest(request.method, url, request.headers, request.body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: now.replace(tzinfo=None))
        SigV4Auth(credentials, request.service, request.region).add_auth(unsigned)
    return dict(unsigned.headers.items())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    region=st.sampled_from(REGIONS),
    host=st.sampled_from(["lambda.eu-west-1.amazonaws.com", "localhost:4566", "[::1]:4566"]),
    path=paths,
    given_headers=headers,
    body=st.binary(),
    access_key=keys,
    secret_key=keys,
    token=st.none() | st.just("") | keys,
    now=st.datetimes(min_value=datetime.datetime(1970, 1, 2), timezones=st.just(datetime.timezone.utc)),
)
@example("eu-west-1", "h", "/gateway//a/../2015-03-31/functions/f%3Alive/invocations", INVOKE, b"", "A", "s", None, NOW)
@example("eu-west-1", "h", "/f/invocations?Qualifier=%24LATEST", INVOKE, b"{}", "A", "s", "token", NOW)
@example("eu-west-1", "h", f"/{quote(ARN, safe='')}/invocations", INVOKE, SIX_MEGABYTES, "A", "s", "token", NOW)
@example("eu-west-1", "h", "/f", {"X-Amz-Client-Context": "e30=", "a": " x \t  y  "}, b"\0\xff", "A", "s", "t", NOW)
def test_what_is_signed_is_what_botocore_signs(
    region: str,
    host: str,
    path: str,
    given_headers: dict[str, str],
    body: bytes,
    access_key: str,
    secret_key: str,
    token: str | None,
    now: datetime.datetime,
) -> None:
    request = signing.Request("lambda", region, "POST", host, path, given_headers, body)
    ours = signing.sign(request, access_key, secret_key, token, now.timestamp())
    assert ours == botocores(request, ReadOnlyCredentials(access_key, secret_key, token), now)


def test_the_signature_is_the_one_of_awss_own_example() -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/signing-elements.html, as in AWS's test suite: get-vanilla."""
    request = signing.Request("service", "us-east-1", "GET", "example.amazonaws.com", "/", {}, b"")
    now = datetime.datetime(2015, 8, 30, 12, 36, tzinfo=datetime.timezone.utc).timestamp()
    signed = signing.sign(request, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, now)
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-"
        "date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


@pytest.mark.parametrize(
    "change",
    [{"secret_key": "other"}, {"now": NOW.timestamp() + 86400}, {"region": "eu-west-2"}, {"service": "sns"}],
    ids=str,
)
def test_the_key_of_another_secret_day_region_or_service_is_another(change: dict[str, Any]) -> None:
    def signature(
        secret_key: str = "s", now: float = NOW.timestamp(), region: str = "eu-west-1", service: str = "lambda"
    ) -> str:
        request = signing.Request(service, region, "POST", "h", "/", {}, b"")
        return signing.sign(request, "A", secret_key, None, now)["Authorization"].rpartition("=")[2]

    assert signature() == signature()
    assert signature() != signature(**change)
