"""Every wait ends when it must: by its event, by its deadline, or by an interrupt."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from awslambda import waits
from awslambda.waits import Wait

from tests.unit.cancelling import cancelled, nothing, takes
from tests.waiting import wait_until

Waiting = Callable[[Wait], object]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection on which nobody says anything."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that comes after the test only."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=["sleep", "for_socket to read", "for_socket to write", "in_thread"])
def waiting(
    request: pytest.FixtureRequest, pair: tuple[socket.socket, socket.socket], never: threading.Event
) -> Waiting:
    """Each kind of wait, for what does not come."""
    if request.param == "for_socket to write":
        fill(pair[0])
    kinds: dict[str, Waiting] = {
        "sleep": lambda wait: wait.sleep(60),
        "for_socket to read": lambda wait: wait.for_socket(pair[0].fileno(), select.POLLIN),
        "for_socket to write": lambda wait: wait.for_socket(pair[0].fileno(), select.POLLOUT),
        "in_thread": lambda wait: wait.in_thread(never.wait),
    }
    return kinds[request.param]


def fill(sock: socket.socket) -> None:
    """Writes until no more goes in."""
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(b"x" * 100_000)


def drain(sock: socket.socket) -> None:
    """Reads all that is there."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1_000_000)


def test_an_interrupt_ends_every_wait(waiting: Waiting) -> None:
    with cancelled() as check:
        waiting(Wait(check, 60))


def test_an_interrupt_that_was_there_before_ends_every_wait(waiting: Waiting) -> None:
    with cancelled(after=0) as check:
        waiting(Wait(check, 60))


def test_an_interrupt_ends_a_part_of_a_wait(waiting: Waiting) -> None:
    with cancelled() as check:
        waiting(Wait(check, 60).within(30))


def test_the_deadline_ends_every_wait(waiting: Waiting) -> None:
    with takes(0.1), pytest.raises(TimeoutError):
        waiting(Wait(nothing, 0.1))


def test_nothing_waits_past_a_deadline_that_has_passed(waiting: Waiting) -> None:
    with takes(0), pytest.raises(TimeoutError):
        waiting(Wait(nothing, -1))


def test_interrupts_are_looked_for_in_the_waiting_thread_only(waiting: Waiting) -> None:
    threads: set[int] = set()
    with pytest.raises(TimeoutError):
        waiting(Wait(lambda: threads.add(threading.get_ident()), 0.1))
    assert threads == {threading.get_ident()}


def test_interrupts_are_looked_for_often_enough_and_not_all_the_time() -> None:
    looked: list[float] = []
    wait = Wait(lambda: looked.append(time.monotonic()), 60)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        wait.tick()
    assert 3 <= len(looked) <= 16


def test_tick_says_how_much_time_is_left() -> None:
    assert 59 < Wait(nothing, 60).tick() <= 60


def test_a_part_ends_before_the_whole_and_never_after_it() -> None:
    whole = Wait(nothing, 10)
    assert whole.within(1).deadline == pytest.approx(time.monotonic() + 1, abs=0.5)
    assert whole.within(20).deadline == pytest.approx(whole.deadline, abs=0.01)


# Sleeping, and sockets.


def test_a_sleep_is_as_long_as_asked_for() -> None:
    with takes(0.15):
        Wait(nothing, 60).sleep(0.15)


def test_what_comes_over_a_socket_ends_the_wait_for_it(pair: tuple[socket.socket, socket.socket]) -> None:
    threading.Timer(0.1, pair[1].send, [b"x"]).start()
    with takes(0.1):
        Wait(nothing, 60).for_socket(pair[0].fileno(), select.POLLIN)


def test_room_in_a_socket_ends_the_wait_for_it(pair: tuple[socket.socket, socket.socket]) -> None:
    Wait(nothing, 60).for_socket(pair[0].fileno(), select.POLLOUT)
    fill(pair[0])
    reader = threading.Timer(0.1, drain, [pair[1]])
    reader.start()
    with takes(0.1):
        Wait(nothing, 60).for_socket(pair[0].fileno(), select.POLLOUT)
    reader.join()


def test_the_end_of_a_connection_ends_the_wait_for_either(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    Wait(nothing, 60).for_socket(pair[0].fileno(), select.POLLIN)


# Helper threads.


def test_the_result_comes_through() -> None:
    assert Wait(nothing, 60).in_thread(lambda: {"a": None}) == {"a": None}


@pytest.mark.parametrize("value", [None, False, (), ValueError("a value")], ids=repr)
def test_any_result_is_a_result(value: object) -> None:
    assert Wait(nothing, 60).in_thread(lambda: value) is value


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError("x"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_an_exception_comes_through(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Wait(nothing, 60).in_thread(work)
    assert caught.value is error


def test_the_work_is_done_in_another_thread() -> None:
    assert Wait(nothing, 60).in_thread(threading.get_ident) != threading.get_ident()


def test_a_result_is_there_at_once() -> None:
    with takes(0):
        for _ in range(100):
            Wait(nothing, 60).in_thread(int)


def test_a_helper_thread_blocks_all_signals() -> None:
    blocked = Wait(nothing, 60).in_thread(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []))
    assert blocked == signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def test_the_waiting_thread_blocks_no_more_signals_than_before(never: threading.Event) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        Wait(nothing, 60).in_thread(int)
        with pytest.raises(TimeoutError):
            Wait(nothing, 0.05).in_thread(never.wait)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signals_are_not_left_blocked_when_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        Wait(nothing, 60).in_thread(int)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_helper_that_was_left_behind_fails_in_silence(never: threading.Event) -> None:
    def work() -> None:
        never.wait()
        raise ValueError

    before = set(threading.enumerate())
    with cancelled() as check:
        Wait(check, 60).in_thread(work)
    (left,) = set(threading.enumerate()) - before
    never.set()
    wait_until(lambda: not left.is_alive(), "the helper thread ends")  # pytest makes an error of what it would print


def test_a_helper_does_not_keep_the_process_from_ending(never: threading.Event) -> None:
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        Wait(nothing, 0.05).in_thread(never.wait)
    assert [thread.daemon for thread in set(threading.enumerate()) - before] == [True]


def test_a_backend_does_not_queue_for_openssl_behind_all_of_its_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_openssl", threading.Lock()), ("_turn", threading.Lock()), ("_main_threads", [])):
        monkeypatch.setattr(waits, name, value)
    waits.keep_openssl()
    ended = threading.Event()
    took: list[float] = []

    def handshakes() -> None:
        while not ended.is_set():
            with waits.in_openssl():
                time.sleep(0.005)

    helpers = [waits.start_helper(handshakes) for _ in range(100)]
    try:
        for _ in range(5):
            with waits.waiting_for_helpers():
                time.sleep(0.05)
                waited_from = time.monotonic()
            took.append(time.monotonic() - waited_from)
    finally:
        ended.set()
        with waits.waiting_for_helpers():
            for helper in helpers:
                helper.join(5)
    assert sorted(took)[2] < 0.1


def test_many_short_waits_are_interrupted_as_one_long_one_is() -> None:
    with cancelled() as check:
        wait = Wait(check, 60)
        while True:
            wait.sleep(0.001)
