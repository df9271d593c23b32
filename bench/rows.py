"""What all benchmarks share: a row of the table, the stub, a session with peers to compare with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Row:
    """One claim: `value` must be at most `bar`, or at least."""

    what: str
    value: float
    bar: float
    detail: str
    at_least: bool = False

    @property
    def passes(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def is_gross(self) -> bool:
        """It misses its bar by more than a factor of two: no noise of a machine does that."""
        return self.value < self.bar / 2 if self.at_least else self.value > self.bar * 2


@contextmanager
def stub(arrivals: Path | None = None) -> Iterator[int]:
    """Runs the stub as a process of its own; its port. `arrivals`: where it notes what came when."""
    command = [sys.executable, "-m", "bench.stub", *([str(arrivals)] if arrivals else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()
