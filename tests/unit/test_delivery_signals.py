"""Delivery's waiting, interrupted by signals."""

from __future__ import annotations

import os
import signal
import threading
import time

from awslambda.delivery import Delivery


class NoDatabase:
    """Has nothing to interrupt for."""

    def check_interrupts(self) -> None:
        pass


def test_a_signal_whose_handling_outlasts_the_wait_does_not_make_it_wait_for_ever() -> None:
    delivery = Delivery(NoDatabase(), 1, lambda _: None)  # type: ignore[arg-type]
    before = signal.signal(signal.SIGUSR2, lambda *_: time.sleep(0.1))
    rescue = threading.Timer(5, lambda: delivery._done.put(None))  # type: ignore[arg-type]
    rescue.start()
    try:
        threading.Timer(0.005, os.kill, [os.getpid(), signal.SIGUSR2]).start()
        delivery._next_look = time.monotonic() + 0.02
        delivery.wait()
        assert not delivery._ready, "it waited until something was done"
    finally:
        rescue.cancel()
        signal.signal(signal.SIGUSR2, before)
