"""A throw-away PostgreSQL: a cluster in a temporary folder, on a Unix socket, gone when it is closed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_SECONDS = 60.0


class Cluster:
    """A running cluster. Started by root, it runs as the user postgres, as initdb wants it.

    `environment` is all that the server sees of the environment, beside PATH; `settings` are for postgresql.conf.
    `fsync` is off unless the settings say otherwise: what is killed with the machine is lost.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        bindir: Path | None = None,
        wrapper: Sequence[str] = (),
        initdb: Sequence[str] = ("--encoding=UTF8", "--locale=C"),
    ) -> None:
        self.bindir = bindir or _bindir()
        self.folder = Path(tempfile.mkdtemp(prefix="awslambda-pg-", dir="/tmp"))  # a socket's path must be short
        self.environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
            "AWSLAMBDA_CACHE": str(self.folder / "cache"),  # the instance may be another one with the same address
            **(environment or {}),
        }  # fmt: skip
        self.log = self.folder / "log"
        self.port = 5432
        self._user = "postgres" if os.getuid() == 0 else None
        self._wrapper = wrapper
        self._server: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        try:
            self._run(
                "initdb",
                "-D",
                str(self.data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "--no-instructions",
                *initdb,
            )
            everywhere = {
                "listen_addresses": "''", "unix_socket_directories": f"'{self.folder}'", "fsync": "off",
                "log_line_prefix": "'%m [%p] '", "max_connections": "100", **(settings or {}),
            }  # fmt: skip
            with (self.data / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = {value}\n" for name, value in everywhere.items())
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """A libpq connection string."""
        return f"host={self.folder} port={self.port} dbname={database} user={user}"

    def start(self) -> None:
        """Starts the server and returns when it takes connections."""
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [*self._wrapper, str(self.bindir / "postgres"), "-D", str(self.data)],
                env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **({} if self._wrapper else self._as_user()),
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown with SIGINT, smart with SIGTERM, immediate with SIGQUIT."""
        if self._server is not None and self._server.poll() is None:
            os.kill(self.postmaster, how)
            self._server.wait()
        self._server = None

    @property
    def postmaster(self) -> int:
        """The process id of the postmaster."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def psql(
        self, *arguments: str, database: str = "postgres", sql: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs psql without its start-up file; its output and exit code are the caller's business."""
        return subprocess.run(
            [str(self.bindir / "psql"), "-X", "-d", self.dsn(database), *arguments],
            input=sql, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def close(self) -> None:
        """Ends the server and removes everything."""
        if (self.data / "postmaster.pid").exists():
            self.stop(signal.SIGQUIT)
        elif self._server is not None and self._server.poll() is None:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_ready(self) -> bool:
        return (self.data / "postmaster.pid").exists() and (
            self._status("pg_isready", "-q", "-d", self.dsn()) if (self.bindir / "pg_isready").exists()
            else "ready" in (self.data / "postmaster.pid").read_text()
        )  # fmt: skip

    def _status(self, program: str, *arguments: str) -> bool:
        return (
            subprocess.run([str(self.bindir / program), *arguments], check=False, capture_output=True).returncode == 0
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bindir / program), *arguments]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _as_user(self) -> dict[str, Any]:
        return {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}


def _bindir() -> Path:
    """Of the newest PostgreSQL below Debian's folder, or of the pg_config on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    return Path(subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
