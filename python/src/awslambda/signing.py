"""Signature Version 4 on plain values: what authorises Invoke, the one request that does not go through botocore.

A signature is, to the byte, the one of botocore's SigV4Auth for the same request; a property test says so. botocore's
takes as long as everything else about a call together, because it parses the URL, sorts and trims several times over
and derives the key anew.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
TOLERATED_SKEW = 240.0  # seconds; AWS refuses signatures that are off by more than 300


class Clock:
    """What time it is for AWS, which is what a signature must say."""

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds

    def now(self) -> float:
        """In seconds since 1970."""
        return time.time() - self._ahead

    def correct(self, date: str | None) -> bool:
        """Goes by the Date header of an answer from now on, if it is so far from our time that this is why AWS refused
        a signature; whether it is."""
        theirs = time_of(date)
        if theirs is None or abs(self.now() - theirs) <= TOLERATED_SKEW:
            return False
        self._ahead = time.time() - theirs
        return True


clock = Clock()  # of this process


def time_of(date: str | None) -> float | None:
    """What a Date header says, in seconds since 1970; None if it is none."""
    import datetime
    from email.utils import parsedate_to_datetime

    try:
        said = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    if said.tzinfo is None:  # what -0000 becomes
        said = said.replace(tzinfo=datetime.timezone.utc)
    return said.timestamp()


class Request(NamedTuple):
    """What is signed."""

    service: str
    region: str
    method: str
    host: str  # the value of the Host header
    path: str  # with the query, quoted as it is sent
    headers: Mapping[str, str]  # all that are to be signed, besides Host; no name twice
    body: bytes


def sign(request: Request, access_key: str, secret_key: str, token: str | None, now: float) -> dict[str, str]:
    """The headers of the request with those that authorise it, at `now` in seconds since 1970."""
    year, month, day, hour, minute, second = time.gmtime(now)[:6]
    date = f"{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"
    headers = {**request.headers, "X-Amz-Date": date}
    if token:
        headers["X-Amz-Security-Token"] = token
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed["host"] = request.host
    names = sorted(signed)
    lines = "".join([f"{name}:{signed[name]}\n" for name in names])
    listed = ";".join(names)
    hashed = sha256(request.body).hexdigest()
    canonical = f"{request.method}\n{_canonical_path(request.path)}\n{lines}\n{listed}\n{hashed}"
    scope = f"{date[:8]}/{request.region}/{request.service}/aws4_request"
    text = f"{ALGORITHM}\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = _key(secret_key, date[:8], request.region, request.service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["Authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={listed}, Signature={signature}"
    )
    return headers


@lru_cache(maxsize=16)
def _key(secret_key: str, date: str, region: str, service: str) -> bytes:
    """The signing key, which is good for a day."""
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(maxsize=256)
def _canonical_path(path: str) -> str:
    """Path and query on a line each. What is quoted in the path is quoted once more, as for every service but S3."""
    path, _, query = path.partition("?")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    slash = "/" if parts and path.endswith("/") else ""
    canonical = quote(f"/{'/'.join(parts)}{slash}", safe="/~")
    pairs = sorted(pair.partition("=") for pair in query.split("&")) if query else []
    return canonical + "\n" + "&".join([f"{name}={value}" for name, _, value in pairs])
