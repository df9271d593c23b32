"""What came of the readings, as CloudWatch has it."""

from __future__ import annotations

import datetime
import time
from typing import Any

from examples.stage import Stage

READINGS = 8
METRICS = ("Temperature Reading", "After Commit", "In Batches")


def prepare(here: Stage) -> list[str]:
    """Nothing but functions is needed."""
    return []


def show(here: Stage) -> bool:
    """Prints the three metrics; whether all readings have arrived in each."""
    return all([show_metric(here, name) for name in METRICS])


def show_metric(here: Stage, name: str) -> bool:
    """Reads a metric back, as soon as all readings have arrived, and prints it."""
    deadline = time.monotonic() + 30
    cloudwatch = here.aws.client("cloudwatch")
    while len(points := metric(cloudwatch, name)) < READINGS and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"-- The metric '{name}', read back from CloudWatch:\n")
    for point in points:
        print(f"   {point['Timestamp']:%H:%M} UTC  {point['Average']:5.1f}  {'#' * int(point['Average'] - 50)}")
    print()
    return len(points) == READINGS


def metric(cloudwatch: Any, name: str) -> list[dict[str, Any]]:
    now = datetime.datetime.now(datetime.timezone.utc)
    found = cloudwatch.get_metric_statistics(
        Namespace="Temperature Monitoring Database App", MetricName=name, Statistics=["Average"],
        StartTime=now - datetime.timedelta(hours=2), EndTime=now, Period=60,
    )  # fmt: skip
    return sorted(found["Datapoints"], key=lambda point: point["Timestamp"])
