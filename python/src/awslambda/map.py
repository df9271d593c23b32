"""Many calls at once, in helper threads, and their outcomes one after the other: in order, or as they come.

What one call meets is the outcome of that call. No more is started than fits into a window, so that what is held does
not grow with the number of calls, whoever is slow. However the outcomes end, when all are there or before (an
interrupt, nobody wants more), no thread goes on calling.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from awslambda import errors
from awslambda.waits import SLICE, Wait, start_helper, waiting_for_helpers

A = TypeVar("A")
T = TypeVar("T")
Call = Callable[[A, Callable[[], None]], T]  # of one argument, and of what ends its waits by raising

MOST = 256  # calls at once: each has a thread and a connection
WINDOW = 2  # times the calls at once: that many wait for a thread, are under way, or are done and not handed out
LEAVING = 3 * SLICE  # seconds that the threads have to notice that they are not wanted any more


def outcomes(
    call: Call[A, T], arguments: Sequence[A], concurrency: int, ordered: bool, check: Callable[[], None]
) -> Generator[tuple[int, T | errors.LambdaError], None, None]:
    """The position of each argument, and what `call` returned for it or the LambdaError that it raised.

    `check` is called at least every 20 ms while this waits, and ends it by raising.
    """
    if not 1 <= concurrency <= MOST:
        raise errors.InvalidArgument(
            reason=f"invalid max_concurrency: {concurrency}", hint=f"It is from 1 to {MOST}. Nothing was sent."
        )
    threads = _Threads(call, min(concurrency, len(arguments)), check)
    held: dict[int, T | errors.LambdaError] = {}
    sent = done = 0
    try:
        while done < len(arguments):
            while sent < min(done + WINDOW * concurrency, len(arguments)):
                threads.send(sent, arguments[sent])
                sent += 1
            turn = done if ordered else next(iter(held), done)
            if turn in held:
                done += 1
                yield turn, held.pop(turn)
            else:
                position, outcome = threads.receive()
                held[position] = outcome
    finally:
        threads.close()


class _Abandoned(Exception):
    """Nobody waits for what this thread is doing."""


class _Threads(Generic[A, T]):
    """So many helper threads that call, started one after the other by the first calls."""

    def __init__(self, call: Call[A, T], most: int, check: Callable[[], None]) -> None:
        self._call, self._most = call, most
        self._wait = Wait(check, math.inf)
        self._work: queue.SimpleQueue[tuple[int, A] | None] = queue.SimpleQueue()
        # No SimpleQueue: interrupted by a signal when its timeout is just over, its get() waits for ever.
        self._done: queue.Queue[tuple[int, T | Exception]] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()

    def send(self, position: int, argument: A) -> None:
        """Has it called as soon as a thread is free."""
        if len(self._threads) < self._most:
            self._start()
        self._work.put((position, argument))

    def receive(self) -> tuple[int, T | errors.LambdaError]:
        """The next call that is done."""
        while True:
            self._wait.tick()
            try:
                with waiting_for_helpers():
                    position, outcome = self._done.get(timeout=SLICE)
            except queue.Empty:
                continue
            if isinstance(outcome, Exception) and not isinstance(outcome, errors.LambdaError):
                raise outcome
            return position, outcome

    def close(self) -> None:
        """Ends the threads; what they are doing is thrown away."""
        self._closed.set()
        for _ in self._threads:
            self._work.put(None)
        end = time.monotonic() + LEAVING
        with waiting_for_helpers():
            for thread in self._threads:
                thread.join(max(0, end - time.monotonic()))

    def _start(self) -> None:
        try:
            self._threads.append(start_helper(self._run))
        except RuntimeError:  # the system gives no more threads: those that there are will do
            if not self._threads:
                raise

    # In the threads

    def _run(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                self._check()
                self._done.put((work[0], self._outcome(work[1])))
        except _Abandoned:
            pass

    def _check(self) -> None:
        if self._closed.is_set():
            raise _Abandoned

    def _outcome(self, argument: A) -> T | Exception:
        try:
            return self._call(argument, self._check)
        except _Abandoned:
            raise
        except Exception as error:
            return error
