"""Who is calling, as far as a local AWS cares: a request must be signed, and temporary credentials end.

Signatures are not verified and no IAM policy is evaluated: any access key is let in. Only the temporary credentials
issued here, by the instance's metadata or by STS, are refused once they have expired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from moto.core.utils import utcnow
from moto.iam.models import get_account_id_from
from moto.sts.models import AssumedRole, STSBackend, sts_backends
from moto.utilities.utils import get_partition

from awslambda_local.errors import ExpiredToken, IncompleteSignature, MissingAuthenticationToken

EXPIRED = "The security token included in the request is expired"

_SCOPE = re.compile(r"Credential=([^/\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Caller:
    """Whose request it is, and which region it was signed for."""

    access_key_id: str
    account_id: str
    region: str

    @property
    def arn(self) -> str:
        backend = sts_backends[self.account_id][get_partition(self.region)]
        return str(backend.get_caller_identity(self.access_key_id, self.region)[1])


@dataclass(frozen=True)
class TemporaryCredentials:
    access_key_id: str
    secret_access_key: str
    session_token: str
    issued: datetime
    expiration: datetime


class Credentials:
    """Issues temporary credentials, and knows when those issued here expire.

    `lifetime` (seconds) caps all of them, STS's included, so that a test need not wait for an hour.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._expirations: dict[str, datetime] = {}

    def watch_sts(self) -> None:
        """Cap and note what STS issues from now on. moto offers no hook for it, so its method is wrapped."""
        assume_role = STSBackend.assume_role

        def assume_and_note(backend: STSBackend, **request: Any) -> AssumedRole:
            role = assume_role(backend, **request)
            role.expiration = min(role.expiration, utcnow() + timedelta(seconds=self._lifetime))
            self._expirations[role.access_key_id] = role.expiration.replace(tzinfo=timezone.utc)
            return role

        STSBackend.assume_role = assume_and_note  # type: ignore[method-assign,assignment]

    def issue(self, role_arn: str, session_name: str, region: str) -> TemporaryCredentials:
        """New credentials of a role; every call gives other ones."""
        account_id, partition = role_arn.split(":")[4], get_partition(region)
        role = sts_backends[account_id][partition].assume_role(
            region_name=region,
            role_session_name=session_name,
            role_arn=role_arn,
            policy="",
            duration=int(self._lifetime) + 1,
            external_id="",
        )
        return TemporaryCredentials(
            role.access_key_id,
            role.secret_access_key,
            role.session_token,
            issued=datetime.now(timezone.utc),
            expiration=role.expiration.replace(tzinfo=timezone.utc),
        )

    def issue_lasting(self, role_arn: str, session_name: str, region: str) -> TemporaryCredentials:
        """The same for a handler's process, which lives as long as it is warm: these are never refused."""
        credentials = self.issue(role_arn, session_name, region)
        del self._expirations[credentials.access_key_id]
        return credentials

    def expired(self, authorization: str) -> bool:
        scope = _SCOPE.search(authorization)
        expiration = self._expirations.get(scope[1]) if scope else None
        return expiration is not None and expiration <= datetime.now(timezone.utc)

    def caller(self, authorization: str | None) -> Caller:
        """Who signed; raises what AWS answers to nobody, to a broken header, and to expired credentials."""
        if not authorization:
            raise MissingAuthenticationToken("Missing Authentication Token")
        scope = _SCOPE.search(authorization)
        if scope is None:
            raise IncompleteSignature("Authorization header requires 'Credential' parameter.")
        if self.expired(authorization):
            raise ExpiredToken(EXPIRED)
        return Caller(access_key_id=scope[1], account_id=get_account_id_from(scope[1]), region=scope[2])
