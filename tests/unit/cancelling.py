"""How a test says that a wait ends when it must: by cancellation, or by its deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

LATE = 0.5  # seconds; 0.1 is promised, the rest is for noisy machines


class Cancelled(Exception):
    """What the checks here raise, as Postgres does for a cancelled query."""


def nothing() -> None:
    """The check of a session that nobody cancels."""


@contextlib.contextmanager
def cancelled(after: float = 0.1, once: Callable[[], object] = lambda: True) -> Iterator[Callable[[], None]]:
    """Gives a check that raises `after` seconds after `once` was first seen true. The block must end by it, then and
    not much later."""
    due = time.monotonic() + after if once() else None

    def check() -> None:
        nonlocal due
        if due is None and once():
            due = time.monotonic() + after
        if due is not None and time.monotonic() >= due:
            raise Cancelled

    with pytest.raises(Cancelled):
        yield check
    assert due is not None and time.monotonic() - due < LATE


@contextlib.contextmanager
def takes(seconds: float) -> Iterator[None]:
    """The block lasts as long as that, and not much longer."""
    started = time.monotonic()
    yield
    taken = time.monotonic() - started
    assert seconds - 0.01 <= taken < seconds + LATE
