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
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Request:
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
