"""The instance metadata, and the credentials it issues."""

from __future__ import annotations

import http.client
import json
import os

import boto3
import botocore.session
import botocore.utils
import pytest
from awslambda_local import LocalAWS

ROLES = "/latest/meta-data/iam/security-credentials/"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


@pytest.fixture(scope="module")
def short_lived():
    """A local AWS whose credentials end after a second, on an instance in another region."""
    with LocalAWS(credentials_lifetime=1, region="eu-central-1", instance_role="postgres") as aws:
        yield aws


def ask(aws, path, *, method="GET", token=None, **headers):
    connection = http.client.HTTPConnection(aws.imds_endpoint.removeprefix("http://"), timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        given["X-aws-ec2-metadata-token"] = token
    connection.request(method, path, headers=given)
    response = connection.getresponse()
    status, body = response.status, response.read().decode()
    connection.close()
    return status, body


def get(aws, path):
    _, token = ask(aws, "/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    return ask(aws, path, token=token)


def test_version_1_is_refused(aws):
    assert ask(aws, ROLES) == (401, "")
    assert ask(aws, ROLES, token="made-up") == (401, "")


@pytest.mark.parametrize("lifetime", [None, "0", "21601", "-1", "soon"])
def test_a_token_needs_a_lifetime_of_at_most_six_hours(aws, lifetime):
    headers = {} if lifetime is None else {"X_aws_ec2_metadata_token_ttl_seconds": lifetime}
    assert ask(aws, "/latest/api/token", method="PUT", **headers)[0] == 400


def test_a_token_ends_with_its_lifetime(aws, wait_until):
    _, token = ask(aws, "/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="1")
    assert ask(aws, ROLES, token=token)[0] == 200
    wait_until(lambda: ask(aws, ROLES, token=token)[0] == 401, "the token has expired")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (ROLES, "postgres"),
        ("/latest/meta-data/placement/region", "eu-central-1"),
        ("/latest/meta-data/placement/availability-zone", "eu-central-1a"),
        ("/latest/meta-data/placement/availability-zone/", "eu-central-1a"),
        ("/latest/meta-data/instance-id", "i-0123456789abcdef0"),
    ],
)
def test_the_metadata_tells_role_region_zone_and_instance(short_lived, path, expected):
    assert get(short_lived, path) == (200, expected)


def test_the_identity_document_tells_region_and_account(short_lived):
    status, body = get(short_lived, "/latest/dynamic/instance-identity/document")
    document = json.loads(body)
    assert (status, document["region"], document["accountId"]) == (200, "eu-central-1", "123456789012")


@pytest.mark.parametrize("path", ["/", "/latest/meta-data/nothing", ROLES + "other-role", "/latest/user-data"])
def test_what_is_not_there_is_a_404(short_lived, path):
    assert get(short_lived, path)[0] == 404


def test_each_request_for_credentials_gives_new_ones(short_lived):
    first, second = (json.loads(get(short_lived, ROLES + "postgres")[1]) for _ in range(2))
    assert first["AccessKeyId"] != second["AccessKeyId"]
    assert first["AccessKeyId"].startswith("ASIA")
    assert first.keys() == {"Code", "LastUpdated", "Type", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"}


def test_an_instance_without_a_role_has_no_credentials():
    with LocalAWS(instance_role=None) as aws:
        assert get(aws, ROLES)[0] == 404
        assert get(aws, "/latest/meta-data/placement/region")[0] == 200


def test_botocore_gets_the_roles_credentials_and_the_region(aws, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**aws.environment, "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}.items():
        monkeypatch.setenv(name, value)
    session = boto3.Session()
    assert session.get_credentials().method == "iam-role"
    assert botocore.utils.IMDSRegionProvider(botocore.session.Session()).provide() == "us-east-1"
    identity = session.client("sts", region_name="us-east-1").get_caller_identity()
    assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/local-instance-role/i-0123456789abcdef0"
    response = session.client("lambda", region_name="us-east-1").invoke(FunctionName="echo", Payload=b"1")
    assert json.loads(response["Payload"].read())["event"] == 1


def signed_with(aws, key, service="lambda", **headers):
    connection = http.client.HTTPConnection(aws.endpoint_url.removeprefix("http://"), timeout=10)
    scope = f"{key}/20260101/{aws.region}/{service}/aws4_request"
    given = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    path = "/2015-03-31/functions/nobody/invocations" if service == "lambda" else "/"
    connection.request("POST", path, b"{}", given)
    response = connection.getresponse()
    outcome = response.status, response.headers["x-amzn-ErrorType"], json.loads(response.read())
    connection.close()
    return outcome


EXPIRED = "The security token included in the request is expired"


def test_credentials_of_the_instance_are_refused_once_they_have_expired(short_lived, wait_until):
    key = json.loads(get(short_lived, ROLES + "postgres")[1])["AccessKeyId"]
    assert signed_with(short_lived, key)[0] == 404  # let in; there is no such function
    wait_until(lambda: signed_with(short_lived, key)[0] == 403, "the credentials have expired")
    assert signed_with(short_lived, key)[1:] == ("ExpiredTokenException", {"Type": "User", "message": EXPIRED})
    status, code, body = signed_with(short_lived, key, "kinesis", X_Amz_Target="Kinesis_20131202.ListStreams")
    assert (status, code, body["message"]) == (400, "ExpiredTokenException", EXPIRED)


def test_credentials_of_an_assumed_role_are_refused_once_they_have_expired(short_lived, wait_until):
    sts = short_lived.client("sts")
    role = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/reports", RoleSessionName="session")["Credentials"]
    assert signed_with(short_lived, role["AccessKeyId"])[0] == 404
    wait_until(lambda: signed_with(short_lived, role["AccessKeyId"])[0] == 403, "the credentials have expired")


def test_a_handlers_own_credentials_do_not_expire(short_lived, zipped, wait_until):
    iam, functions = short_lived.client("iam"), short_lived.client("lambda")
    role = iam.get_role(RoleName="lambda-role")["Role"]["Arn"]
    code = "import os\ndef f(e, c): return os.environ['AWS_ACCESS_KEY_ID']"
    functions.create_function(
        FunctionName="key", Runtime="python3.11", Role=role, Handler="m.f", Code={"ZipFile": zipped(code)}
    )
    key = json.loads(functions.invoke(FunctionName="key")["Payload"].read())
    other = json.loads(get(short_lived, ROLES + "postgres")[1])["AccessKeyId"]
    wait_until(lambda: signed_with(short_lived, other)[0] == 403, "credentials of the same age have expired")
    assert signed_with(short_lived, key)[0] == 404


def test_a_role_in_another_account_calls_that_accounts_functions(aws):
    role = "arn:aws:iam::222222222222:role/elsewhere"
    keys = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    elsewhere = boto3.client(
        "lambda",
        region_name=aws.region,
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    with pytest.raises(elsewhere.exceptions.ResourceNotFoundException, match="222222222222"):
        elsewhere.invoke(FunctionName="echo")
