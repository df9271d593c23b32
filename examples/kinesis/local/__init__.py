"""The stream."""

from __future__ import annotations

from examples.stage import Stage


def prepare(here: Stage) -> list[str]:
    """Makes the stream."""
    here.make("kinesis", "create_stream", StreamName="MySensorReadings", ShardCount=1)
    return []


def show(here: Stage) -> bool:
    """All of it was shown in SQL."""
    return True
