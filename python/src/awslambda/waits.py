"""Waiting that Postgres can interrupt.

Python that is blocked in C sees neither statement_timeout nor pg_cancel_backend nor a shutdown. So nothing here blocks
for longer than a slice: between slices `check` gives Postgres the chance to stop us, by raising. What cannot wait in
slices by itself (name look-up, botocore's own requests) runs in a helper thread while the main thread does. A helper
thread blocks all signals: they are the backend's.
"""

from __future__ import annotations

import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SLICE = 0.02  # seconds: how late an interrupt can be noticed

# Who is in OpenSSL. A session may end wherever Postgres's code runs, and takes OpenSSL down with it: a helper thread
# that is in the middle of that crashes, and with it the server. So a backend's main thread has it unless it waits.
_openssl = threading.Lock()
_turn = threading.Lock()  # of helpers, who ask for it one at a time: the main thread waits for one, not for all
_main_threads: list[int] = []  # that of a backend


def keep_openssl() -> None:
    """For a backend's main thread, before it has helper threads."""
    if not _main_threads:
        _openssl.acquire()
        _main_threads.append(threading.get_ident())


def in_openssl() -> AbstractContextManager[Any]:
    """What calls OpenSSL does so in here; no waiting."""
    return nullcontext() if threading.get_ident() in _main_threads or not _main_threads else _InTurn()


class _InTurn:
    """A helper's stay in OpenSSL."""

    def __enter__(self) -> None:
        _turn.acquire()
        _openssl.acquire()

    def __exit__(self, *_: object) -> None:
        _openssl.release()
        _turn.release()


@contextmanager
def waiting_for_helpers() -> Iterator[None]:
    """The main thread waits in Python: helper threads may be in OpenSSL."""
    if threading.get_ident() not in _main_threads:
        yield
        return
    _openssl.release()
    try:
        yield
    finally:
        _openssl.acquire()


class Wait:
    """Waiting until a deadline, in slices.

    `check` raises when the wait must end, and may be called at any moment of it. Past the deadline everything here
    raises TimeoutError.
    """

    def __init__(self, check: Callable[[], None], seconds: float) -> None:
        self._check = check
        self._checked = time.monotonic()
        self.deadline = self._checked + seconds

    def within(self, seconds: float) -> Wait:
        """A part of this wait that ends sooner."""
        return Wait(self._check, min(seconds, self.deadline - time.monotonic()))

    def tick(self) -> float:
        """The seconds left, after letting Postgres check for interrupts if a slice has passed since it did."""
        now = time.monotonic()
        if now - self._checked >= SLICE:
            self._checked = now
            self._check()
        if now >= self.deadline:
            raise TimeoutError
        return self.deadline - now

    def for_socket(self, descriptor: int, events: int) -> None:
        """Returns when one of select.poll's `events` (or an error) has come."""
        poller = select.poll()
        poller.register(descriptor, events)
        while not poller.poll(min(self.tick(), SLICE) * 1000):
            pass

    def sleep(self, seconds: float) -> None:
        """Sleeps; TimeoutError if the deadline comes first."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self.tick(), SLICE))

    def in_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` in a helper thread; its result or its exception. After a timeout or an interrupt the thread is
        left behind: `work` must not touch anything that is used again then."""
        helper = _Helper(work)
        _start(helper)
        done = False
        while not done:
            left = min(self.tick(), SLICE)
            with waiting_for_helpers():
                done = helper.done.wait(left)
        if isinstance(helper.outcome, BaseException):
            raise helper.outcome
        return helper.outcome[0]


def start_helper(work: Callable[[], None]) -> threading.Thread:
    """Runs `work` in a helper thread that nobody need wait for."""
    thread = threading.Thread(target=work, name="awslambda", daemon=True)
    _start(thread)
    return thread


def _start(thread: threading.Thread) -> None:
    """A thread inherits the mask of who starts it: all signals are blocked in it from its first moment on."""
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


class _Helper(threading.Thread, Generic[T]):
    """A thread that keeps its outcome: (value,) or the exception."""

    outcome: tuple[T] | BaseException

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="awslambda", daemon=True)
        self._work = work
        self.done = threading.Event()

    def run(self) -> None:
        try:
            self.outcome = (self._work(),)
        except BaseException as error:
            self.outcome = error
        self.done.set()
