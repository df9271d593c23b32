"""Where examples are shown: a local AWS, and a throw-away PostgreSQL that runs as on an EC2 instance in it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

EXAMPLES = Path(__file__).parent
SESSION = ["-v", "VERBOSITY=default", "-v", "SHOW_CONTEXT=never", "-P", "pager=off"]


@dataclass(frozen=True)
class Stage:
    aws: LocalAWS
    cluster: Cluster

    def psql(self, script: str, *options: str) -> bool:
        """Runs a script; prints it and what comes of it in the order of a session. Whether it has as many errors as
        comments that say so."""
        command = [str(self.cluster.bindir / "psql"), "-X", "-a", *SESSION, *options, "-d", self.cluster.dsn()]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as session:
            assert session.stdin is not None and session.stdout is not None
            session.stdin.write(script)
            session.stdin.close()
            failed = 0
            for line in session.stdout:
                print(line, end="")
                failed += line.startswith("ERROR:")
        print()
        return failed == len(re.findall(r"^-- It fails:", script, re.MULTILINE))

    def make(self, service: str, operation: str, **what: Any) -> Any:
        """Calls an operation that makes something; what is there already is as good."""
        client = self.aws.client(service)
        try:
            return getattr(client, operation)(**what)
        except client.exceptions.ClientError as error:
            if not re.search("Exists|InUse|Conflict", error.response["Error"]["Code"]):
                raise
            return None

    def play(self) -> int:
        """psql, until the user leaves it."""
        return subprocess.run(
            [str(self.cluster.bindir / "psql"), *SESSION, "-d", self.cluster.dsn()], check=False
        ).returncode


def outside(aws: LocalAWS) -> dict[str, str]:
    """Environment variables of a program that is to use the local AWS."""
    return {
        "AWS_ENDPOINT_URL": aws.endpoint_url, "AWS_DEFAULT_REGION": aws.region, "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip


@contextlib.contextmanager
def stage(folders: Sequence[Path]) -> Iterator[Stage]:
    """With the functions of some folders."""
    with LocalAWS(deploy=list(folders)) as aws, Cluster(aws.environment) as cluster:
        yield Stage(aws, cluster)


def end_with_terminal() -> None:
    """Ends what was started when this process is told to; prints line by line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
