"""The demo: a throw-away PostgreSQL on an "instance" of a local AWS, and the examples run on it with psql."""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

EXAMPLES = Path(__file__).parent
SESSION = ["-v", "VERBOSITY=default", "-v", "SHOW_CONTEXT=never", "-P", "pager=off"]
READINGS = 8


def main() -> int:
    """Runs the demo, or opens psql where it would run."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--playground", action="store_true", help="open psql instead of running the examples")
    playground = parser.parse_args().playground
    folders = sorted({path.parent for path in EXAMPLES.glob("*/*.sql")})
    with LocalAWS(deploy=folders) as aws, Cluster(aws.environment) as cluster:
        if playground:
            return play(aws, cluster)
        print("A local AWS answers, and a throw-away PostgreSQL runs as on an EC2 instance in it:")
        print("its role and region come from the instance metadata, nothing is configured.\n")
        psql(cluster, "CREATE EXTENSION awslambda CASCADE;\n")
        psql(cluster, (EXAMPLES / "hello" / "hello.sql").read_text())
        psql(cluster, (EXAMPLES / "temperature" / "temperature.sql").read_text())
        arrived = show_metric(aws)
    print("\nTo play with it: make playground. It opens psql here, until you leave it.")
    return 0 if arrived == READINGS else 1


def psql(cluster: Cluster, script: str) -> None:
    """Runs a script; prints it and what comes of it in the order of a session."""
    command = [str(cluster.bindir / "psql"), "-X", "-a", *SESSION, "-d", cluster.dsn()]
    subprocess.run(command, input=script, text=True, stderr=subprocess.STDOUT, check=False)
    print()


def show_metric(aws: LocalAWS) -> int:
    """Reads the readings back from CloudWatch, as soon as all have arrived, and prints them; how many they are."""
    deadline = time.monotonic() + 30
    while len(points := metric(aws.client("cloudwatch"))) < READINGS and time.monotonic() < deadline:
        time.sleep(0.1)
    print("-- The metric 'Temperature Reading', read back from CloudWatch:\n")
    for point in points:
        print(f"   {point['Timestamp']:%H:%M} UTC  {point['Average']:5.1f}  {'#' * int(point['Average'] - 50)}")
    return len(points)


def metric(cloudwatch: Any) -> list[dict[str, Any]]:
    now = datetime.datetime.now(datetime.timezone.utc)
    found = cloudwatch.get_metric_statistics(
        Namespace="Temperature Monitoring Database App", MetricName="Temperature Reading", Statistics=["Average"],
        StartTime=now - datetime.timedelta(hours=2), EndTime=now, Period=60,
    )  # fmt: skip
    return sorted(found["Datapoints"], key=lambda point: point["Timestamp"])


def play(aws: LocalAWS, cluster: Cluster) -> int:
    """psql on the cluster, until the user leaves it."""
    cluster.psql("-c", "CREATE EXTENSION awslambda CASCADE")
    print(f"The local AWS is at {aws.endpoint_url}; its functions: {', '.join(functions(aws))}.")
    print("Try: SELECT awslambda_fn('lambdaTest', '{\"name\":\"bob\"}');  SELECT * FROM awslambda.diagnostics();")
    print("Leave with \\q: all of this is gone then.\n")
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is psql's: it cancels the statement
    return subprocess.run([str(cluster.bindir / "psql"), *SESSION, "-d", cluster.dsn()], check=False).returncode


def functions(aws: LocalAWS) -> list[str]:
    return sorted(function["FunctionName"] for function in aws.client("lambda").list_functions()["Functions"])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends what was started
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
