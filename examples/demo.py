"""The demo: a throw-away PostgreSQL on an "instance" of a local AWS, and the examples run on it with psql."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from typing import Any

from awslambda_local import LocalAWS

from examples.stage import EXAMPLES, Stage, end_with_terminal, stage

# A folder's name may have a hyphen, so they are imported by name.
temperature: Any = importlib.import_module("examples.temperature.local")


def main() -> int:
    """Runs the demo, or opens psql where it would run."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--playground", action="store_true", help="open psql instead of running the examples")
    playground = parser.parse_args().playground
    with stage(sorted({path.parent for path in EXAMPLES.glob("*/*.sql")})) as here:
        if playground:
            return play(here)
        temperature.prepare(here)
        print("A local AWS answers, and a throw-away PostgreSQL runs as on an EC2 instance in it:")
        print("its role and region come from the instance metadata, nothing is configured.\n")
        here.psql("CREATE EXTENSION awslambda CASCADE;\n")
        here.psql((EXAMPLES / "hello" / "hello.sql").read_text())
        here.psql((EXAMPLES / "temperature" / "1-each-row.sql").read_text())
        arrived = temperature.show_metric(here, "Temperature Reading")
    print("\nMore of them: make example NAME=temperature, and so on. To play: make playground, which opens psql here.")
    return 0 if arrived else 1


def play(here: Stage) -> int:
    """psql on the cluster, until the user leaves it."""
    here.cluster.psql("-c", "CREATE EXTENSION awslambda CASCADE")
    here.aws.client("kinesis").create_stream(StreamName="MyFirstStream", ShardCount=1)
    print(f"The local AWS is at {here.aws.endpoint_url}; its functions: {', '.join(functions(here.aws))}.")
    print("A Kinesis stream to play with: MyFirstStream. What to try, step by step: docs/quick-start.md.")
    print("Try: SELECT awslambda_fn('lambdaTest', '{\"name\":\"bob\"}');  SELECT * FROM awslambda.diagnostics();")
    print("Leave with \\q: all of this is gone then.\n")
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is psql's: it cancels the statement
    return here.play()


def functions(aws: LocalAWS) -> list[str]:
    return sorted(function["FunctionName"] for function in aws.client("lambda").list_functions()["Functions"])


if __name__ == "__main__":
    end_with_terminal()
    sys.exit(main())
