"""Waiting for what will be true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(fetch: Callable[[], T], description: str, seconds: float = 30.0) -> T:
    """Returns the first true value that `fetch` gives; fails with the last value and what was waited for."""
    deadline = time.monotonic() + seconds
    while not (value := fetch()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {description}; last seen: {value!r}"
        time.sleep(0.02)
    return value
