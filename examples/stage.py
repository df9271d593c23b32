"""Where examples are shown: a local AWS, and a throw-away PostgreSQL that runs as on an EC2 instance in it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

EXAMPLES = Path(__file__).parent
SESSION = ["-v", "VERBOSITY=default", "-v", "SHOW_CONTEXT=never", "-P", "pager=off"]


@dataclass(frozen=True)
class Stage:
    aws: LocalAWS
    cluster: Cluster

    @property
    def outside(self) -> dict[str, str]:
        """Environment variables of a program that is to use the local AWS."""
        return {
            "AWS_ENDPOINT_URL": self.aws.endpoint_url, "AWS_DEFAULT_REGION": self.aws.region,
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip

    def psql(self, script: str, *options: str) -> None:
        """Runs a script; prints it and what comes of it in the order of a session."""
        command = [str(self.cluster.bindir / "psql"), "-X", "-a", *SESSION, *options, "-d", self.cluster.dsn()]
        subprocess.run(command, input=script, text=True, stderr=subprocess.STDOUT, check=False)
        print()

    def play(self) -> int:
        """psql, until the user leaves it."""
        return subprocess.run(
            [str(self.cluster.bindir / "psql"), *SESSION, "-d", self.cluster.dsn()], check=False
        ).returncode


@contextlib.contextmanager
def stage(folders: Sequence[Path]) -> Iterator[Stage]:
    """With the functions of some folders."""
    with LocalAWS(deploy=list(folders)) as aws, Cluster(aws.environment) as cluster:
        yield Stage(aws, cluster)


def end_with_terminal() -> None:
    """Ends what was started when this process is told to; prints line by line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
