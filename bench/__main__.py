"""make bench: the claims about speed, as ratios measured side by side in one run, on its own cluster and stub."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import psycopg
from awslambda_local.cluster import Cluster

from bench import calls, kinesis, map, outbox
from bench.rows import Connection, stub


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    as_json = parser.parse_args().json
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
                rows = [
                    *calls.warm_calls(connect), *calls.new_backends(connect),
                    *map.calling(connect), *kinesis.reading(connect),
                    *outbox.enqueueing(cluster, connect), *outbox.delivery(cluster, connect, environment, arrivals),
                ]  # fmt: skip
    if as_json:
        print(json.dumps([{**asdict(row), "passes": row.passes} for row in rows], indent=2))
    else:
        for row in rows:
            verdict = "pass" if row.passes else "FALLS SHORT"
            bar = f"{'>=' if row.at_least else '<='} {row.bar:g}"
            print(f"{row.what:58} {row.value:9.2f}  {bar:>9}  {verdict:12} {row.detail}")


if __name__ == "__main__":
    main()
