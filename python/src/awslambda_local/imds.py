"""The instance metadata service, version 2: how a server on EC2 learns its role's credentials and its region.

Version 1 is refused: without a token from PUT /latest/api/token there is only 401. Each request for credentials
gives new ones, which the local AWS refuses once they have expired.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from datetime import datetime
from typing import Any

from awslambda_local import web
from awslambda_local.credentials import Credentials

INSTANCE_ID = "i-0123456789abcdef0"
LONGEST_TOKEN = 21600

_ROLES = "/latest/meta-data/iam/security-credentials"


class InstanceMetadata(web.Server):
    """Answers for one instance, which has `role` (a name) or none."""

    def __init__(
        self, address: tuple[str, int], *, credentials: Credentials, role: str | None, region: str, account_id: str
    ) -> None:
        self._credentials = credentials
        self._role = role
        self._region = region
        self._account_id = account_id
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def new_token(self, lifetime: int) -> str:
        token = secrets.token_urlsafe(40)
        now = time.monotonic()
        with self._lock:
            self._tokens = {known: end for known, end in self._tokens.items() if end > now}
            self._tokens[token] = now + lifetime
        return token

    def accepts(self, token: str | None) -> bool:
        with self._lock:
            return self._tokens.get(token or "", 0.0) > time.monotonic()

    def document(self, path: str) -> str | None:
        """What is found at a path; None is a 404."""
        zone = f"{self._region}a"
        simple = {
            "/latest/meta-data/placement/region": self._region,
            "/latest/meta-data/placement/availability-zone": zone,
            "/latest/meta-data/instance-id": INSTANCE_ID,
            "/latest/meta-data/instance-type": "t3.micro",
            "/latest/dynamic/instance-identity/document": json.dumps(self._identity(zone), indent=2),
            _ROLES: self._role,
        }
        if self._role is not None and path == f"{_ROLES}/{self._role}":
            return json.dumps(self._role_credentials(self._role), indent=2)
        return simple.get(path.rstrip("/"))

    def _identity(self, zone: str) -> dict[str, Any]:
        return {
            "accountId": self._account_id,
            "architecture": "x86_64",
            "availabilityZone": zone,
            "instanceId": INSTANCE_ID,
            "instanceType": "t3.micro",
            "region": self._region,
            "version": "2017-09-30",
        }

    def _role_credentials(self, role: str) -> dict[str, str]:
        role_arn = f"arn:aws:iam::{self._account_id}:role/{role}"
        credentials = self._credentials.issue(role_arn, INSTANCE_ID, self._region)
        return {
            "Code": "Success",
            "LastUpdated": _timestamp(credentials.issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": _timestamp(credentials.expiration),
        }


class _Handler(web.Handler):
    server: InstanceMetadata

    def do_PUT(self) -> None:
        self.read_body()
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token":
            self.reply(404)
        elif self.headers.get("X-Forwarded-For"):
            self.reply(403)
        elif not lifetime.isdecimal() or not 1 <= int(lifetime) <= LONGEST_TOKEN:
            self.reply(400)
        else:
            token = self.server.new_token(int(lifetime))
            headers = [("Content-Type", "text/plain"), ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", lifetime)]
            self.reply(200, token.encode(), headers)

    def do_GET(self) -> None:
        self.read_body()
        if not self.server.accepts(self.headers.get("X-aws-ec2-metadata-token")):
            self.reply(401)
            return
        document = self.server.document(self.path)
        if document is None:
            self.reply(404)
        else:
            self.reply(200, document.encode(), [("Content-Type", "text/plain")])


def _timestamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
