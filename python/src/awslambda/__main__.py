"""The program awslambda: what there is to do from the shell of the database server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import awslambda
from awslambda import diagnostics, errors, settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if all is well, 1 if a check failed, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="awslambda", description="AWS Lambda for PostgreSQL.")
    parser.add_argument("--version", action="version", version=f"awslambda {awslambda.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor",
        help="check all that a call needs, without calling a function",
        description="The checks of awslambda.diagnostics(). Run it as PostgreSQL's operating-system user, with the "
        "environment that PostgreSQL has.",
    )
    doctor.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a server's option, as in CREATE SERVER",
    )
    parsed = parser.parse_args(arguments)
    try:
        chosen = settings.parse(None, settings.named(parsed.option), _seconds)
    except ValueError:
        parser.error("an option is NAME=VALUE")
    except errors.LambdaError as error:
        parser.error(f"{error}\n{error.hint}".rstrip())
    return _doctor(chosen)


def _doctor(chosen: settings.Settings) -> int:
    worst = 0
    for check in diagnostics.checks(chosen, lambda: None):
        print(f"{check.status:8}{check.check:12}{check.detail}")
        if check.hint:
            print(f"{'':20}{check.hint}")
        worst |= check.status == "error"
    return int(worst)


def _seconds(interval: str) -> float:
    """Of the intervals that Postgres reads, those that are a number with s, ms or nothing behind it."""
    if interval.endswith("ms"):
        return float(interval[:-2]) / 1000
    return float(interval.removesuffix("s"))


if __name__ == "__main__":
    sys.exit(main())
