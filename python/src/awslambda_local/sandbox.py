"""One warm handler process, and the Runtime API that feeds it one invocation at a time.

What AWS calls an execution environment. The process runs AWS's own runtime client, so that the handler's context,
its errors and their stack traces are the real ones; what the client cannot report itself (a timeout, the end of the
process, an answer too large) is reported here, in AWS's words. Whatever the handler prints before it answers is in
its log.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from awslambda_local import web
from awslambda_local.functions import FunctionSpec

RESPONSE_LIMIT = 6291556
INIT_SECONDS = 10.0

_LOG_FILE_LIMIT = 16 * 1024 * 1024
_RUNTIME = Path(__file__).with_name("runtime.py")

Kind = Literal["response", "error", "init", "exit", "timeout"]


@dataclass(frozen=True)
class Invocation:
    request_id: str
    function_arn: str
    payload: bytes
    client_context: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What one invocation gave: the answer or the error, both JSON, and the log from START to REPORT."""

    payload: bytes
    failed: bool
    log: str


@dataclass(frozen=True)
class _Event:
    """Something that happened to the process: an answer it posted, or its end (`code`)."""

    kind: Kind
    body: bytes = b""
    code: int = 0


class Sandbox:
    """A handler's process from its start to `close`. Not for two invocations at once: `Pool` sees to that."""

    def __init__(
        self,
        spec: FunctionSpec,
        folder: Path,
        lifeline: int,
        environment: Mapping[str, str],
    ) -> None:
        self.spec = spec
        self.log_stream = environment["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._folder = folder
        self._closed = False
        self._started = time.monotonic()
        self._init_duration: float | None = None
        self._reported_init = False
        self._ready = threading.Event()
        self._gone = threading.Event()
        self._work: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._output = _Output()
        task = Path(environment["LAMBDA_TASK_ROOT"])
        task.mkdir(parents=True)
        Path(environment["TMPDIR"]).mkdir(parents=True)
        with zipfile.ZipFile(io.BytesIO(spec.code)) as archive:
            archive.extractall(task)
        self._api = _RuntimeApi(self)
        self._api.start()
        self._process = subprocess.Popen(
            [sys.executable, str(_RUNTIME), spec.handler, str(lifeline), _library("awslambdaric")],
            cwd=task,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}"},
            stdin=subprocess.DEVNULL,
            stdout=self._output.descriptor,
            stderr=self._output.descriptor,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
        threading.Thread(target=self._watch, daemon=True, name=f"watch-{spec.name}").start()

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def run(self, invocation: Invocation) -> Outcome:
        """Run the handler once. After a timeout, a failed start or the end of the process, `alive` is false."""
        self._ready.wait(INIT_SECONDS)
        start = time.monotonic()
        self._work.put(invocation)
        try:
            event = self._events.get(timeout=self.spec.timeout)
        except queue.Empty:
            event = _Event("timeout")
        duration = time.monotonic() - start
        memory = self._memory_used()
        if event.kind in {"timeout", "exit", "init"}:
            self.close()
        payload, error_type, note = self._result(event, invocation.request_id)
        log = self._log(invocation.request_id, self._output.take() + note, duration, memory, error_type)
        return Outcome(payload, failed=error_type is not None, log=log)

    def close(self) -> None:
        """End the process, and all that the handler has started; `wait_gone` waits until nothing is left."""
        self._closed = True
        self._work.put(None)
        self._process.kill()

    def wait_gone(self, timeout: float) -> None:
        self._gone.wait(timeout)

    # What the Runtime API calls, in its own threads.

    def next_invocation(self) -> Invocation | None:
        """Blocks until there is one; None when the process is to end."""
        self._mark_ready()
        return self._work.get()

    def post(self, kind: Kind, body: bytes) -> None:
        self._events.put(_Event(kind, body))
        self._mark_ready()

    def _mark_ready(self) -> None:
        if not self._ready.is_set():
            self._init_duration = time.monotonic() - self._started
            self._ready.set()

    def _watch(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._events.put(_Event("exit", code=code))
        self._mark_ready()
        self._work.put(None)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._gone.set()
        self._api.stop()

    # What is reported.

    def _result(self, event: _Event, request_id: str) -> tuple[bytes, str | None, str]:
        """The payload, the error type unless all went well, and what AWS adds to the log."""
        if event.kind == "response" and len(event.body) > RESPONSE_LIMIT:
            error_type = "Function.ResponseSizeTooLarge"
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            return _error(error_type, message), error_type, ""
        if event.kind == "timeout":
            message = f"Task timed out after {self.spec.timeout:.2f} seconds"
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            payload = _error("Sandbox.Timedout", f"RequestId: {request_id} Error: {message}")
            return payload, "Sandbox.Timedout", f"{now} {request_id} {message}\n\n"
        if event.kind == "exit":
            message = f"RequestId: {request_id} Error: {_end_of_process(event.code)}"
            return _error("Runtime.ExitError", message), "Runtime.ExitError", f"{message}\nRuntime.ExitError\n"
        return event.body, None if event.kind == "response" else event.kind, ""

    def _log(self, request_id: str, output: str, duration: float, memory: int, error_type: str | None) -> str:
        milliseconds = duration * 1000
        report = (
            f"REPORT RequestId: {request_id}\tDuration: {milliseconds:.2f} ms\t"
            f"Billed Duration: {math.ceil(milliseconds)} ms\t"
            f"Memory Size: {self.spec.memory_size} MB\tMax Memory Used: {memory} MB\t"
        )
        if self._init_duration is not None and not self._reported_init:
            self._reported_init = True
            report += f"Init Duration: {self._init_duration * 1000:.2f} ms\t"
        if error_type == "Sandbox.Timedout":
            report += "Status: timeout"
        elif error_type is not None and "." in error_type:
            report += f"Status: error\tError Type: {error_type}"
        if output and not output.endswith("\n"):
            output += "\n"
        start, end = f"START RequestId: {request_id} Version: {self.spec.version}\n", f"END RequestId: {request_id}\n"
        return f"{start}{output}{end}{report}\n"

    def _memory_used(self) -> int:
        """Megabytes at most so far, where the system tells (Linux), else 0."""
        with contextlib.suppress(OSError), Path(f"/proc/{self._process.pid}/status").open() as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return math.ceil(int(line.split()[1]) / 1024)
        return 0


class _Output:
    """Where the process writes. A file, not a pipe: what was written before an answer is there when the answer is."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._position = 0
        self.descriptor = self._file.fileno()
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | os.O_APPEND)

    def take(self) -> str:
        """What has been written since the last time."""
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, size - self._position, self._position)
        self._position = size
        if size > _LOG_FILE_LIMIT:
            os.ftruncate(self.descriptor, 0)
            self._position = 0
        return text.decode("utf-8", "replace")


class _RuntimeApi(web.Server):
    """Listens on a port of its own, since a process is told apart by nothing else."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)


class _RuntimeApiHandler(web.Handler):
    server: _RuntimeApi

    def do_GET(self) -> None:
        invocation = self.server.sandbox.next_invocation()
        if invocation is None:
            self.close_connection = True
            return
        now, timeout = time.time(), self.server.sandbox.spec.timeout
        trace = f"1-{int(now):08x}-{invocation.request_id.replace('-', '')[:24]}"
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(int((now + timeout) * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn),
            ("Lambda-Runtime-Trace-Id", f"Root={trace};Sampled=0"),
        ]
        if invocation.client_context:
            headers.append(("Lambda-Runtime-Client-Context", invocation.client_context))
        self.reply(200, invocation.payload, headers)

    def do_POST(self) -> None:
        body = self.read_body()
        if "/init/" in self.path:
            self.server.sandbox.post("init", body)
        else:
            self.server.sandbox.post("error" if self.path.endswith("/error") else "response", body)
        self.reply(202, b'{"status":"OK"}\n', [("Content-Type", "application/json")])


def _error(error_type: str, message: str) -> bytes:
    return json.dumps({"errorType": error_type, "errorMessage": message}).encode()


def _end_of_process(code: int) -> str:
    if code == 0:
        return "Runtime exited without providing a reason"
    if code < 0:
        return f"Runtime exited with error: signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"Runtime exited with error: exit status {code}"


def _library(package: str) -> str:
    """The folder that a package is installed in."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: no handler can run without it")
    return str(Path(found.origin).parent.parent)
