"""Warm processes, and how many of them there may be.

One process per invocation under way. A process that is done waits, idle, for the next invocation of the same
function version; a process of older code or configuration never runs again. Limits are Lambda's: a function's
reserved concurrency, and the account's.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from awslambda_local.credentials import Credentials
from awslambda_local.environment import handler_environment
from awslambda_local.errors import ServiceFailure, TooManyRequests
from awslambda_local.functions import FunctionSpec, Target
from awslambda_local.sandbox import Sandbox


class Pool:
    """Hands out processes; `borrow` is safe from any thread."""

    def __init__(self, credentials: Credentials, endpoint_url: str, *, concurrency: int, idle_processes: int) -> None:
        self._credentials = credentials
        self._endpoint_url = endpoint_url
        self._concurrency = concurrency
        self._idle_processes = idle_processes
        self._idle: list[Sandbox] = []
        self._busy: Counter[tuple[str, str, str]] = Counter()
        self._all: set[Sandbox] = set()
        self._starting = 0
        self._closed = False
        self._lock = threading.Condition()
        self._numbers = itertools.count(1)
        self._root = tempfile.TemporaryDirectory(prefix="awslambda-local-", ignore_cleanup_errors=True)
        self._lifeline, self._lifeline_held = os.pipe()

    @contextlib.contextmanager
    def borrow(self, target: Target) -> Iterator[Sandbox]:
        """A warm process, else a new one, for one invocation. Raises TooManyRequests at a limit."""
        with self._lock:
            self._admit(target)
            sandbox, outdated = self._take(target.spec)
        for old in outdated:
            self._end(old)
        try:
            sandbox = sandbox or self._start(target.spec)
            yield sandbox
            self._give_back(sandbox)
        finally:
            with self._lock:
                self._busy[target.spec.function] -= 1

    def close(self) -> None:
        """End all processes, busy ones too, and remove their files. From now on `borrow` raises ServiceFailure."""
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: self._starting == 0, timeout=5)
            everything, self._idle = list(self._all), []
        for sandbox in everything:
            sandbox.close()
        for sandbox in everything:
            sandbox.wait_gone(timeout=5)
        os.close(self._lifeline_held)  # not the other end: its number must not come to mean something else
        self._root.cleanup()

    def _admit(self, target: Target) -> None:
        reserved = target.reserved_concurrency
        if reserved is not None and self._busy[target.spec.function] >= reserved:
            raise TooManyRequests("Rate Exceeded.", Reason="ReservedFunctionConcurrentInvocationLimitExceeded")
        if self._busy.total() >= self._concurrency:
            raise TooManyRequests("Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded")
        self._busy[target.spec.function] += 1

    def _take(self, spec: FunctionSpec) -> tuple[Sandbox | None, list[Sandbox]]:
        """An idle process of exactly this spec, the one used last, and those of the same version that are outdated."""
        siblings = [s for s in self._idle if (s.spec.function, s.spec.version) == (spec.function, spec.version)]
        fitting = [s for s in siblings if s.spec == spec and s.alive]
        outdated = [s for s in siblings if s not in fitting]
        taken = fitting[-1] if fitting else None
        self._idle = [s for s in self._idle if s is not taken and s not in outdated]
        return taken, outdated

    def _start(self, spec: FunctionSpec) -> Sandbox:
        with self._lock:
            if self._closed:
                raise ServiceFailure("The local AWS is ending.")
            self._starting += 1
        try:
            folder = Path(self._root.name) / str(next(self._numbers))
            credentials = self._credentials.issue_lasting(spec.role, spec.name, spec.region)
            environment = handler_environment(spec, credentials, self._endpoint_url, folder)
            sandbox = Sandbox(spec, folder, self._lifeline, environment)
            with self._lock:
                self._all.add(sandbox)
            return sandbox
        finally:
            with self._lock:
                self._starting -= 1
                self._lock.notify_all()

    def _give_back(self, sandbox: Sandbox) -> None:
        with self._lock:
            if sandbox.alive:
                self._idle.append(sandbox)
            else:
                self._all.discard(sandbox)
            surplus = [self._idle.pop(0) for _ in range(len(self._idle) - self._idle_processes)]
        for old in surplus:
            self._end(old)

    def _end(self, sandbox: Sandbox) -> None:
        sandbox.close()
        with self._lock:
            self._all.discard(sandbox)
