"""What an identity asks, as behaviours of an endpoint: the instance metadata service, STS, a credential process."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from tests.endpoints import Behaviour, Received, answer

CALLER = "arn:aws:sts::123456789012:assumed-role/reports/awslambda"
ROLES = "/latest/meta-data/iam/security-credentials/"


def in_minutes(minutes: float) -> str:
    """A time from now, as AWS writes it."""
    time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def metadata(documents: Mapping[str, str]) -> Behaviour:
    """Version 2 of the instance metadata service, with documents by path."""

    def behave(connection: socket.socket, received: Received) -> bool:
        if (received.method, received.path) == ("PUT", "/latest/api/token"):
            return answer(200, b"the-token")(connection, received)
        if received.headers.get("x-aws-ec2-metadata-token") != "the-token":
            return answer(401, b"")(connection, received)
        document = documents.get(received.path)
        return answer(404 if document is None else 200, (document or "").encode())(connection, received)

    return behave


def instance(region: str = "eu-north-1", access_key: str = "AKIDROLE") -> dict[str, str]:
    """The documents of an instance with a role."""
    role = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": access_key,
        "SecretAccessKey": "secret-of-the-role",
        "Token": "token-of-the-role",
        "LastUpdated": in_minutes(-1),
        "Expiration": in_minutes(360),
    }
    return {
        "/latest/meta-data/placement/region": region,
        ROLES: "reports",
        ROLES + "reports": json.dumps(role),
    }


def form(received: Received) -> dict[str, str]:
    """What a request to STS asks."""
    return dict(parse_qsl(received.body.decode()))


def sts(access_key: str = "AKIDASSUMED", minutes: float = 60) -> Behaviour:
    """STS: every role can be assumed, for this long."""

    def behave(connection: socket.socket, received: Received) -> bool:
        action = form(received)["Action"]
        result = {
            "AssumeRole": "<Credentials>"
            f"<AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>secret-of-the-role</SecretAccessKey>"
            f"<SessionToken>token-of-the-role</SessionToken><Expiration>{in_minutes(minutes)}</Expiration>"
            "</Credentials>",
            "GetCallerIdentity": f"<Arn>{CALLER}</Arn><UserId>AROA</UserId><Account>123456789012</Account>",
        }[action]
        body = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{result}'
            f"</{action}Result></{action}Response>"
        )
        return answer(200, body.encode(), Content_Type="text/xml")(connection, received)

    return behave


def sts_refusal(status: int, code: str, message: str = "no") -> Behaviour:
    """An error as STS gives it."""
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
    )
    return answer(status, body.encode(), Content_Type="text/xml")


class Process:
    """A credential_process that prints what the test wrote last; it counts its runs."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._output = folder / "output.json"
        self._runs = folder / "runs"
        script = folder / "credential-process"
        script.write_text(f"echo run >> {self._runs}\ncat {self._output}\n")
        config.write_text(f"[default]\ncredential_process = /bin/sh {script}\n")

    def gives(self, access_key: str, expiration: str) -> None:
        credentials = {"AccessKeyId": access_key, "SecretAccessKey": "secret", "SessionToken": "token"}
        self._output.write_text(json.dumps({"Version": 1, **credentials, "Expiration": expiration}))

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines()) if self._runs.exists() else 0
