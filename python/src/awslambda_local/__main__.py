"""The command line: starts the local AWS, says where it is, and runs until it is told to end (SIGINT or SIGTERM)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from awslambda_local.options import Options


def parse(arguments: list[str]) -> tuple[Options, Path | None, bool]:
    """The options, the file to write when ready, and whether to end when standard input does."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m awslambda_local",
        description="A local AWS whose Lambda really runs Python handlers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen on")
    add("--port", type=int, default=default.port, help="port of all services; 0: any free one")
    add("--imds-port", type=int, default=default.imds_port, help="port of the instance metadata; 0: any free one")
    add("--region", default=default.region, help="the instance's region, and that of the deployed functions")
    add("--deploy", type=Path, action="append", default=[], metavar="FOLDER", help="deploy the functions in a folder")
    add("--retry-delays", type=_seconds, default=(60.0, 120.0), metavar="S,S", help="before each retry of an event")
    add("--credentials-lifetime", type=float, default=default.credentials_lifetime, metavar="S", help="in seconds")
    add("--instance-role", default=default.instance_role, metavar="NAME", help="the role of the instance")
    add("--no-instance-role", action="store_true", help="an instance without a role")
    add("--concurrency", type=int, default=default.concurrency, help="invocations at once, all functions together")
    add("--idle-processes", type=int, default=default.idle_processes, help="processes kept warm at most")
    add("--ready-file", type=Path, metavar="FILE", help="write the endpoints there, as JSON, when all is up")
    add("--end-with-stdin", action="store_true", help="end when standard input is closed")
    given = parser.parse_args(arguments)
    options = Options(
        host=given.host,
        port=given.port,
        imds_port=given.imds_port,
        region=given.region,
        deploy=given.deploy,
        retry_delays=given.retry_delays,
        credentials_lifetime=given.credentials_lifetime,
        instance_role=None if given.no_instance_role else given.instance_role,
        concurrency=given.concurrency,
        idle_processes=given.idle_processes,
    )
    return options, given.ready_file, given.end_with_stdin


def main(arguments: list[str] | None = None) -> int:
    options, ready_file, end_with_stdin = parse(sys.argv[1:] if arguments is None else arguments)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # what is set for the real AWS must not reach the local one
    return _run(options, ready_file, _End(with_stdin=end_with_stdin))


class _End:
    """SIGINT, SIGTERM or, if so wished, the end of standard input: whichever comes first, also before `wait`.

    A pipe and not a lock: a signal that the system hands to another thread does not wake who waits for a lock.
    """

    def __init__(self, *, with_stdin: bool) -> None:
        self._signalled, self._signal = os.pipe()
        os.set_blocking(self._signal, False)
        signal.set_wakeup_fd(self._signal)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the number in the pipe is all that is needed
        if with_stdin:
            threading.Thread(target=self._await_stdin, daemon=True).start()

    def wait(self) -> None:
        os.read(self._signalled, 1)

    def _await_stdin(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.write(self._signal, b"\0")


def _run(options: Options, ready_file: Path | None, end: _End) -> int:
    from awslambda_local.deploy import DeployError, deploy
    from awslambda_local.server import start

    try:
        server = start(options)
    except OSError as error:
        ports = f"ports {options.port} and {options.imds_port}"
        print(f"cannot listen on {options.host}, {ports}: {error}", file=sys.stderr)
        return 1
    try:
        functions = deploy(list(options.deploy), server.endpoint_url, options.region)
        _say(f"AWS      {server.endpoint_url}  (region {server.region}, account {server.account_id})")
        _say(f"IMDSv2   {server.imds_endpoint}  (role {options.instance_role or 'none'})")
        for name in functions:
            _say(f"function {name}")
        if ready_file is not None:
            endpoints = ("endpoint_url", "imds_endpoint", "region", "account_id")
            _write(ready_file, json.dumps({name: getattr(server, name) for name in endpoints}))
        _say("ready")
        end.wait()
    except DeployError as error:
        print(f"cannot deploy: {error}", file=sys.stderr)
        return 1
    finally:
        server.stop()
    return 0


def _seconds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def _say(line: str) -> None:
    print(line, flush=True)


def _write(path: Path, text: str) -> None:
    """Whoever sees the file sees all of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
