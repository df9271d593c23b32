"""What one local AWS is started with. Each field is an option of the command line; the defaults are AWS's own where
AWS has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Ports of 0 mean any free one; times are in seconds."""

    host: str = "127.0.0.1"
    port: int = 4566
    imds_port: int = 4567
    region: str = "us-east-1"
    deploy: Sequence[Path] = ()
    instance_role: str | None = "local-instance-role"
    credentials_lifetime: float = 6 * 3600
    retry_delays: Sequence[float] = (60.0, 120.0)
    concurrency: int = 100
    idle_processes: int = 32

    @property
    def reachable_host(self) -> str:
        """The address at which this machine itself reaches the endpoints."""
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared with, not bound to
