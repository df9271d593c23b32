"""boto3 clients of the local AWS itself, whatever the machine's own AWS configuration says."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

# Any key is let in; one that nobody was issued belongs to moto's account.
ACCESS_KEY_ID = "test"
SECRET_ACCESS_KEY = "test"  # noqa: S105 - a placeholder, there is nothing to keep secret


def local_client(service: str, endpoint_url: str, region: str) -> Any:
    """A client of one service; it never goes through a proxy, nor anywhere else than to `endpoint_url`."""
    session = boto3.session.Session(ACCESS_KEY_ID, SECRET_ACCESS_KEY, region_name=region)
    config = Config(proxies={}, retries={"total_max_attempts": 1}, read_timeout=900)
    return session.client(service, endpoint_url=endpoint_url, config=config)
