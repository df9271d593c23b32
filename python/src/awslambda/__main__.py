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
    dispatch = commands.add_parser(
        "dispatch",
        help="deliver after commit: what is in the outbox of one database",
        description="Delivers the outbox of one database, until SIGTERM. Any number of them share the work.",
        epilog="Exit codes: 0 all done; 1 somebody has to do something, and the last line says what; 2 a wrong "
        "command line; 3 no connection, with --once and --drain.",
    )
    _add_dsn(dispatch)
    dispatch.add_argument(
        "--concurrency", type=_concurrency, default=32, metavar="N", help="batches in flight at once [32]"
    )
    until = dispatch.add_mutually_exclusive_group()
    until.add_argument("--once", action="store_true", help="one look: deliver what it finds, and end")
    until.add_argument("--drain", action="store_true", help="end when nothing is left that is due")
    dispatch.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of the lines on standard error [text]"
    )
    dispatch.add_argument(
        "--health",
        type=_address,
        metavar="[HOST:]PORT",
        help="serve GET /health and /metrics over HTTP [not at all; HOST is 127.0.0.1]",
    )
    status = commands.add_parser(
        "status",
        help="what waits, fails and is paused, by event source mapping",
        description="Prints awslambda.status.",
    )
    _add_dsn(status)
    status.add_argument(
        "--watch", type=_watch, nargs="?", const=2.0, metavar="SECONDS", help="again and again [every 2 seconds]"
    )
    status.add_argument("--json", action="store_true", help="one object a line; ages in seconds")
    parsed = parser.parse_args(arguments)
    if parsed.command == "dispatch":
        from awslambda import dispatcher

        until_ = "once" if parsed.once else "drain" if parsed.drain else ""
        options = dispatcher.Options(parsed.dsn, parsed.concurrency, until_, parsed.health)
        return dispatcher.main(options, parsed.log_format == "json")
    if parsed.command == "status":
        return _status(parsed.dsn, parsed.watch, parsed.json)
    try:
        chosen = settings.parse(None, settings.named(parsed.option), _seconds)
    except ValueError:
        parser.error("an option is NAME=VALUE")
    except errors.LambdaError as error:
        parser.error(f"{error}\n{error.hint}".rstrip())
    return _doctor(chosen)


def _add_dsn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dsn",
        default="",
        help="connection string or URI of the database, beside libpq's environment variables; a password is better "
        "off in ~/.pgpass or PGPASSFILE: everybody on the host sees command lines",
    )


def _concurrency(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no [HOST:]PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _watch(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 on")
    return seconds


def _status(dsn: str, watch: float | None, as_json: bool) -> int:
    from awslambda import status
    from awslambda.database import DatabaseError

    try:
        return status.main(dsn, watch, as_json, sys.stdout)
    except KeyboardInterrupt:  # how one ends --watch
        return 0
    except (DatabaseError, ValueError) as error:
        print(f"awslambda status: {error}", file=sys.stderr)
        return 1


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
