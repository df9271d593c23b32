"""`awslambda status`: the view awslambda.status, as a table for people or JSON for programs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from awslambda.database import PsycopgDatabase

STATUS = """
SELECT mapping, source::text AS source, function_name, enabled, pending, in_flight::pg_catalog.int8 AS in_flight,
       EXTRACT(epoch FROM oldest_age)::pg_catalog.float8 AS oldest_age, delivered, failed, dead, last_error,
       paused_reason, dispatchers
  FROM awslambda.status
 ORDER BY mapping NULLS FIRST
"""
PATIENCE = "SELECT pg_catalog.set_config('statement_timeout', '5s', false)"
# Columns that are texts of any length go below the table.
BELOW = {"paused_reason": "paused", "last_error": "last error"}


def read(dsn: str, application_name: str = "awslambda status") -> list[dict[str, Any]]:
    """The rows of awslambda.status; `oldest_age` in seconds."""
    with contextlib.closing(PsycopgDatabase(dsn, application_name=application_name)) as database:
        database.fetch(PATIENCE)
        return database.fetch(STATUS)


def main(dsn: str, watch: float | None, as_json: bool, stream: TextIO) -> int:
    """Prints it, every `watch` seconds if that is a number."""
    while True:
        text = as_lines(read(dsn)) if as_json else table(read(dsn))
        if watch is not None and stream.isatty() and not as_json:
            text = f"\033[H\033[2J{text}"
        stream.write(text)
        stream.flush()
        if watch is None:
            return 0
        time.sleep(watch)


def as_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """One object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns under their names, numbers to the right; what is paused or failed, and why, in lines below."""
    if not rows:
        return "no event source mappings, and nothing in the outbox\n"
    names = [name for name in rows[0] if name not in BELOW]
    cells = [[_shown(name, row[name]) for name in names] for row in rows]
    right = [all(isinstance(row[name], (int, float, type(None))) for row in rows) for name in names]
    heads = [name.replace("_", " ") for name in names]
    widths = [max(len(line[at]) for line in [heads, *cells]) for at in range(len(names))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [heads, *cells]
    ]
    for row in rows:
        lines += [
            f"{_shown('', row['mapping'])}: {label}: {' '.join(str(row[name]).split())}"
            for name, label in BELOW.items()
            if row[name]
        ]
    return "".join(f"{line}\n" for line in lines)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_shown("", one) for one in value)
    if name == "oldest_age":
        return age(value)
    return " ".join(str(value).split())


def age(seconds: float) -> str:
    """In the two units that matter: 850ms, 12s, 3m 5s, 2h 0m, 1d 4h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    whole = int(seconds)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller}{small}"
    return f"{whole}s"
