"""Many calls at once: their order, how many there are at a time, and that all of it ends when it must."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from awslambda import errors, map, waits
from awslambda.map import outcomes

from tests.unit.cancelling import cancelled, nothing
from tests.waiting import wait_until

Check = Callable[[], None]


@pytest.fixture(autouse=True)
def helpers() -> Iterator[Callable[[], int]]:
    """Says how many threads there are that a test has started; in its end there must be none."""
    before = set(threading.enumerate())

    def count() -> int:
        return len(set(threading.enumerate()) - before)

    yield count
    wait_until(lambda: not count(), "the helper threads have ended", seconds=2)


def sleeping(seconds: float, check: Check) -> float:
    waits.Wait(check, 60).sleep(seconds)
    return seconds


def square(number: int, _: Check) -> int:
    return number * number


@pytest.mark.parametrize("concurrency", [1, 3, 256])
@pytest.mark.parametrize("many", [0, 1, 2, 300])
def test_every_call_has_its_outcome_in_order(many: int, concurrency: int) -> None:
    found = list(outcomes(square, range(many), concurrency, True, nothing))
    assert found == [(number, number * number) for number in range(many)]


@pytest.mark.parametrize("concurrency", [1, 3, 256])
def test_every_call_has_one_outcome_if_they_come_as_they_end(concurrency: int) -> None:
    found = list(outcomes(square, range(300), concurrency, False, nothing))
    assert sorted(found) == [(number, number * number) for number in range(300)]


def test_a_slow_call_comes_in_its_turn_or_when_it_ends() -> None:
    slow_first = [0.3, 0.0, 0.0]
    assert [position for position, _ in outcomes(sleeping, slow_first, 3, True, nothing)] == [0, 1, 2]
    assert [position for position, _ in outcomes(sleeping, slow_first, 3, False, nothing)][-1] == 0


def test_so_many_are_at_work_at_once_and_no_more() -> None:
    lock, at_work, most = threading.Lock(), 0, 0

    def call(seconds: float, check: Check) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        sleeping(seconds, check)
        with lock:
            at_work -= 1

    assert len(list(outcomes(call, [0.02] * 40, 8, False, nothing))) == 40
    assert most == 8


def test_a_slow_first_call_does_not_let_the_others_pile_up() -> None:
    begun: list[int] = []
    release = threading.Event()

    def call(number: int, check: Check) -> int:
        begun.append(number)
        while number == 0 and not release.wait(0.01):
            check()
        return number

    started = time.monotonic()

    def check() -> None:
        if time.monotonic() - started > 0.3:
            release.set()

    running = outcomes(call, range(1000), 4, True, check)
    assert next(running) == (0, 0)
    assert len(begun) == map.WINDOW * 4
    running.close()


@pytest.mark.parametrize("ordered", [True, False])
def test_nothing_more_is_begun_than_fits_while_nobody_takes_the_outcomes(ordered: bool) -> None:
    begun: list[int] = []

    def call(number: int, _: Check) -> int:
        begun.append(number)
        return number

    running = outcomes(call, range(1000), 4, ordered, nothing)
    next(running)
    wait_until(lambda: len(begun) >= map.WINDOW * 4, "the window is full")
    threading.Event().wait(0.1)
    assert len(begun) <= map.WINDOW * 4 + 1
    running.close()


def test_what_one_call_meets_is_its_own_outcome() -> None:
    def call(number: int, _: Check) -> int:
        if number == 1:
            raise errors.Throttled(function="f", reason="no")
        return number

    (_, first), (_, second), (_, third) = outcomes(call, range(3), 2, True, nothing)
    assert (first, third) == (0, 2)
    assert isinstance(second, errors.Throttled)


def test_a_bug_is_raised_instead_of_waited_for() -> None:
    def call(number: int, _: Check) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(outcomes(call, [2, 0, 1], 2, True, nothing))


@pytest.mark.parametrize("concurrency", [-1, 0, 257])
def test_how_many_at_once_has_bounds(concurrency: int) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"max_concurrency: {concurrency}"):
        list(outcomes(square, [1], concurrency, True, nothing))


@pytest.mark.parametrize("ordered", [True, False])
def test_an_interrupt_ends_it_and_nothing_more_is_begun(helpers: Callable[[], int], ordered: bool) -> None:
    begun: list[float] = []

    def call(seconds: float, check: Check) -> float:
        begun.append(seconds)
        return sleeping(seconds, check)

    with cancelled() as check:
        list(outcomes(call, [50.0] * 20, 4, ordered, check))
    wait_until(lambda: not helpers(), "the helper threads have ended", seconds=2)
    assert len(begun) == 4


def test_an_interrupt_is_noticed_while_calls_end_all_the_time() -> None:
    steps = [30.0] + [0.015] * 1000  # the window is full of what ends before a slice is over

    with cancelled(after=0.15) as check:
        list(outcomes(sleeping, steps, 200, True, check))


def test_who_wants_no_more_ends_the_threads(helpers: Callable[[], int]) -> None:
    running = outcomes(sleeping, [0.0, *[50.0] * 20], 8, False, nothing)
    assert next(running) == (0, 0.0)
    assert helpers() == 8
    running.close()
    wait_until(lambda: not helpers(), "the helper threads have ended", seconds=2)


def test_the_threads_leave_the_signals_to_the_main_thread() -> None:
    def call(_: int, __: Check) -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    ((_, blocked),) = outcomes(call, [0], 1, True, nothing)
    assert isinstance(blocked, set)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM} <= blocked


def test_a_signal_in_the_middle_of_the_wait_does_not_hang_it(helpers: Callable[[], int]) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: time.sleep(0.03))
    try:
        for at in range(1, 20):
            threading.Timer(at / 100, os.kill, [os.getpid(), signal.SIGUSR2]).start()
        assert len(list(outcomes(sleeping, [0.25] * 2, 2, True, nothing))) == 2
        wait_until(lambda: not helpers(), "all signals have come")
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_with_fewer_threads_than_wanted_it_goes_on_with_those(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [True, True]

    def start(work: Callable[[], None]) -> threading.Thread:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        return waits.start_helper(work)

    monkeypatch.setattr(map, "start_helper", start)
    assert len(list(outcomes(square, range(20), 8, True, nothing))) == 20
    with pytest.raises(RuntimeError), contextlib.closing(outcomes(square, range(20), 8, True, nothing)) as running:
        next(running)
