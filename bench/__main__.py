"""make bench: the claims about speed, as ratios measured side by side in one run, on its own cluster and stub."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from awslambda_local.cluster import Cluster

from bench import calls, kinesis, map, outbox
from bench.rows import Connection, Row, stub


@dataclass(frozen=True)
class Rounds:
    """How often each is measured."""

    warm: int = 15
    new: int = 9
    others: int = 5
    delivery: int = 3


SHORT = Rounds(3, 3, 1, 1)


def measure(rounds: Rounds) -> list[Row]:
    """All rows, from a cluster and stubs of their own."""
    with tempfile.TemporaryDirectory(prefix="awslambda-bench-") as folder:
        arrivals = Path(folder) / "arrivals"
        with stub(arrivals) as port:
            environment = {
                "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            }  # fmt: skip
            with Cluster(environment, settings={"fsync": "on", "max_wal_size": "4GB"}) as cluster:

                def connect() -> Connection:
                    return psycopg.connect(cluster.dsn(), autocommit=True)

                with connect() as session:
                    session.execute("CREATE EXTENSION awslambda CASCADE")
                    calls.prepare(session, port)
                return [
                    *calls.warm_calls(connect, rounds.warm), *calls.new_backends(connect, rounds.new),
                    *map.calling(connect, rounds.others), *kinesis.reading(connect, rounds.others),
                    *outbox.enqueueing(cluster, connect, rounds.others),
                    *outbox.delivery(cluster, connect, environment, arrivals, rounds.delivery),
                ]  # fmt: skip


def main() -> int:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--short", action="store_true", help="in a minute, and fail if a row misses its bar by a factor of two, twice"
    )
    asked = parser.parse_args()
    rows = measure(SHORT if asked.short else Rounds())
    if asked.short and any(row.is_gross for row in rows):
        rows = measure(SHORT)
    if asked.json:
        print(json.dumps([{**asdict(row), "passes": row.passes} for row in rows], indent=2))
    else:
        for row in rows:
            verdict = "pass" if row.passes else "FALLS SHORT"
            bar = f"{'>=' if row.at_least else '<='} {row.bar:g}"
            print(f"{row.what:58} {row.value:9.2f}  {bar:>9}  {verdict:12} {row.detail}")
    return int(asked.short and any(row.is_gross for row in rows))


if __name__ == "__main__":
    sys.exit(main())
