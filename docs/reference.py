"""Prints docs/reference.md: what COMMENT ON says of the extensions' public objects in a database, and what sql/ says of
each argument and column where it stands.

    .venv/bin/python docs/reference.py > docs/reference.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from awslambda_local.cluster import Cluster

SQL = Path(__file__).parents[1] / "sql"
FUNCTIONS = """
SELECT p.pronamespace::regnamespace::text AS schema, p.proname AS name, pg_get_function_arguments(p.oid) AS arguments,
       pg_get_function_result(p.oid) AS result, obj_description(p.oid, 'pg_proc') AS comment
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_proc p ON p.oid = d.objid
 WHERE e.extname IN ('awslambda', 'aws_commons', 'aws_lambda') AND d.deptype = 'e'
   AND d.classid = 'pg_proc'::regclass AND p.proname NOT LIKE '\\_%'
 ORDER BY e.extname <> 'awslambda', e.extname = 'aws_commons', p.proname <> 'awslambda_fn', p.proname, p.oid
"""
TYPES = """
SELECT t.oid::regtype::text AS name, obj_description(t.oid, 'pg_type') AS comment,
       array_agg(ARRAY[a.attname, format_type(a.atttypid, a.atttypmod)] ORDER BY a.attnum) AS columns
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_type t ON t.oid = d.objid
  JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
 WHERE e.extname IN ('awslambda', 'aws_commons', 'aws_lambda') AND d.deptype = 'e'
   AND d.classid = 'pg_type'::regclass AND t.typtype = 'c'
 GROUP BY t.oid ORDER BY 1
"""
TABLES = """
SELECT CASE c.relkind WHEN 'v' THEN 'View' ELSE 'Table' END AS kind, c.oid::regclass::text AS name,
       obj_description(c.oid, 'pg_class') AS comment,
       array_agg(ARRAY[a.attname, format_type(a.atttypid, a.atttypmod)] ORDER BY a.attnum) AS columns
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_class c ON c.oid = d.objid
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND a.attname NOT LIKE '\\_%'
 WHERE e.extname = 'awslambda' AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
   AND c.relkind IN ('r', 'v') AND c.relname NOT LIKE '\\_%'
 GROUP BY c.oid ORDER BY 2
"""
OTHERS = """
SELECT 'Schema' AS kind, n.nspname AS name, obj_description(n.oid, 'pg_namespace') AS comment
  FROM pg_namespace n WHERE n.nspname IN ('awslambda', 'aws_commons', 'aws_lambda')
UNION ALL
SELECT 'Foreign data wrapper', w.fdwname, obj_description(w.oid, 'pg_foreign_data_wrapper')
  FROM pg_foreign_data_wrapper w WHERE w.fdwname = 'awslambda'
"""


def meanings() -> dict[str, dict[str, str]]:
    """What the comments in sql/ say: by name of a function or type, then of its argument or column."""
    found: dict[str, dict[str, str]] = {}
    declaration = re.compile(
        r"^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE|TYPE|TABLE) ([\w@.]+)(?: AS| )? ?\(\n(.*?)^\)", re.M | re.S
    )
    for file in sorted(SQL.glob("*/[0-9]*.sql")):
        for declared in declaration.finditer(file.read_text("utf-8")):
            comments = re.findall(r"^ +(?!OUT )(\w+) .*?-- (.*)$", declared[2], re.M)
            known = found.setdefault(declared[1].removeprefix("@extschema@."), {})
            known.update({name: comment for name, comment in comments if name not in known})
    return found


def reference(session: psycopg.Connection[Any]) -> Iterator[str]:
    """The page, line by line."""
    meaning = meanings()
    yield "# Reference"
    yield ""
    yield "Made from the catalog by `docs/reference.py`; psql shows it with `\\df+ awslambda*` and `\\df+ awslambda.*`."
    yield "The errors are in [errors.md](errors.md), the options of servers in [servers.md](servers.md)."
    last = ""
    for schema, name, arguments, result, comment in session.execute(FUNCTIONS):
        qualified = name if schema == "public" else f"{schema}.{name}"
        every = re.split(r", (?=\w+ )", arguments) if arguments else []
        listed = [split(argument.removeprefix("IN ")) for argument in every if not argument.startswith("OUT ")]
        columns = ", ".join(one.removeprefix("OUT ") for one in every if one.startswith("OUT "))
        returned = f" → ({columns})" if columns else f" → {result}" if result else ""
        if qualified != last:
            yield from ["", f"## {qualified}"]
        yield from [
            "",
            f"`{qualified}({', '.join(f'{a} {kind}' for a, kind, _ in listed)}){returned}`",
            "",
            plain(comment),
        ]
        if qualified != last and listed:
            yield from ["", "| argument | type | default | meaning |", "|---|---|---|---|"]
            for argument, kind, default in listed:
                yield f"| `{argument}` | `{kind}` | {default} | {meaning.get(qualified, {}).get(argument, '')} |"
        last = qualified
    for name, comment, columns in session.execute(TYPES):
        yield from ["", f"## Type {name}", "", plain(comment), "", "| column | type | meaning |", "|---|---|---|"]
        for column, kind in columns:
            yield f"| `{column}` | `{kind}` | {meaning.get(name, {}).get(column, '')} |"
    for kind, name, comment, columns in session.execute(TABLES):
        yield from ["", f"## {kind} {name}", "", plain(comment), "", "| column | type | meaning |", "|---|---|---|"]
        for column, of_type in columns:
            yield f"| `{column}` | `{of_type}` | {meaning.get(name, {}).get(column, '')} |"
    for kind, name, comment in session.execute(OTHERS):
        yield from ["", f"## {kind} {name}", "", plain(comment)]


def split(argument: str) -> tuple[str, str, str]:
    """Name, type and default of an argument."""
    declared, _, default = argument.partition(" DEFAULT ")
    name, kind = declared.split(" ", 1)
    default = re.sub(r"::[\w ]+(\[\])?$", "", default)
    return name, kind, f"`{default}`" if default else "none"


def plain(comment: str) -> str:
    """A comment as a paragraph of Markdown, the address at its end as a link."""
    return re.sub(r"(https://\S+)$", r"<\1>", comment)


def main() -> None:
    with Cluster() as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute("SET client_min_messages = warning")
        for extension in ("awslambda", "aws_lambda"):
            session.execute(f"CREATE EXTENSION {extension} CASCADE")
        for line in reference(session):
            print(line)


if __name__ == "__main__":
    main()
