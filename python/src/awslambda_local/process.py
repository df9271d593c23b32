"""The local AWS as a process of its own, for tests and demos: started, waited for, and ended with its `with` block.

with LocalAWS(deploy=["functions"]) as aws:
    aws.client("lambda").invoke(FunctionName="hello")
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PACKAGES = Path(__file__).parent.parent
_POLL = 0.02


class LocalAWSError(RuntimeError):
    """The local AWS did not start; the message holds what it printed."""


class LocalAWS:
    """A local AWS on free ports of this machine, from `start` to `stop`; also a context manager.

    It ends with this process too, however that ends. Times are in seconds; see `python -m awslambda_local --help`.
    """

    endpoint_url: str
    imds_endpoint: str
    region: str
    account_id: str

    def __init__(
        self,
        *,
        deploy: Sequence[str | Path] = (),
        region: str = "us-east-1",
        retry_delays: Sequence[float] = (60, 120),
        credentials_lifetime: float = 6 * 3600,
        instance_role: str | None = "local-instance-role",
        concurrency: int = 100,
        port: int = 0,
        imds_port: int = 0,
        start_timeout: float = 60,
    ) -> None:
        self._arguments = [
            f"--port={port}",
            f"--imds-port={imds_port}",
            f"--region={region}",
            f"--retry-delays={','.join(map(str, retry_delays))}",
            f"--credentials-lifetime={credentials_lifetime}",
            f"--concurrency={concurrency}",
            f"--instance-role={instance_role}" if instance_role else "--no-instance-role",
            *(f"--deploy={folder}" for folder in deploy),
        ]
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._printed = ""

    def __enter__(self) -> LocalAWS:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it is ready; raises LocalAWSError when it ends before or takes longer than `start_timeout`."""
        with tempfile.TemporaryDirectory() as folder:
            ready_file = Path(folder) / "ready.json"
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
            command = [sys.executable, "-m", "awslambda_local", "--end-with-stdin", f"--ready-file={ready_file}"]
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                env={**os.environ, "PYTHONPATH": _python_path()},
                start_new_session=True,  # Ctrl-C is for whoever started it
            )
            self._wait_for(ready_file)
            endpoints = json.loads(ready_file.read_text())
        self.endpoint_url = endpoints["endpoint_url"]
        self.imds_endpoint = endpoints["imds_endpoint"]
        self.region = endpoints["region"]
        self.account_id = endpoints["account_id"]

    def stop(self) -> None:
        """Ends it and all its handlers; returns when they are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._printed = self.output
        if self._output is not None:
            self._output.close()
            self._output = None

    @property
    def pid(self) -> int:
        """The process's id, while it runs."""
        if self._process is None:
            raise LocalAWSError("the local AWS is not running")
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far, errors included."""
        if self._output is None:
            return self._printed
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", "replace")

    @property
    def environment(self) -> dict[str, str]:
        """What a process on the 'instance' needs, a Postgres server say: credentials and region come by IMDS."""
        return {"AWS_ENDPOINT_URL": self.endpoint_url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds_endpoint}

    def client(self, service: str) -> Any:
        """A boto3 client of the local AWS, with dummy keys and no retries."""
        from awslambda_local.clients import local_client

        return local_client(service, self.endpoint_url, self.region)

    def _wait_for(self, ready_file: Path) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not ready_file.exists():
            if self._process is None or self._process.poll() is not None:
                self.stop()
                raise LocalAWSError(f"the local AWS ended before it was ready:\n{self.output}")
            if time.monotonic() > deadline:
                self.stop()
                raise LocalAWSError(f"the local AWS was not ready after {self._start_timeout} s:\n{self.output}")
            time.sleep(_POLL)


def _python_path() -> str:
    """So that the new process finds this package where this one did, installed or not."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_PACKAGES), *([inherited] if inherited else [])])
