"""What the Python side asks of the Postgres that it runs in."""

from __future__ import annotations

from typing import Any

from awslambda.servers import Server

SERVERS = """
SELECT s.srvname, s.srvoptions, o.rolsuper,
       pg_catalog.has_server_privilege(s.oid, 'USAGE') AS usable,
       pg_catalog.has_foreign_data_wrapper_privilege(s.srvowner, w.oid, 'USAGE') AS rightful
  FROM pg_catalog.pg_foreign_server s
  JOIN pg_catalog.pg_roles o ON o.oid = s.srvowner
  JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
  JOIN pg_catalog.pg_proc v ON v.oid = w.fdwvalidator
  JOIN pg_catalog.pg_namespace n ON n.oid = v.pronamespace
 WHERE v.proname = '_validate_server_options' AND n.nspname = 'awslambda'
 ORDER BY s.srvname
"""
SECONDS = "SELECT EXTRACT(epoch FROM $1::pg_catalog.interval)::pg_catalog.float8 AS seconds"
INTERRUPTS = "SELECT"
ENCODING = "SELECT pg_catalog.getdatabaseencoding() AS encoding"
ROLE = "SELECT CURRENT_USER AS role"
SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"
JSON = "SELECT $1::pg_catalog.json IS NULL"
JSONB = "SELECT $1::pg_catalog.jsonb IS NULL"
CATALOG = "SELECT relname FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid"


class PlpyDatabase:
    """The session whose backend this Python runs in. Plans are kept; they hold no permission."""

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._plans: dict[str, Any] = {}

    def servers(self) -> list[Server]:
        """All servers of our foreign data wrapper, whatever it is called now, as the current user sees them; none where
        the extension awslambda is not in the database: aws_lambda does without."""
        rows = self._execute(SERVERS)
        return [
            Server(row["srvname"], row["usable"], tuple(row["srvoptions"] or ()), row["rolsuper"], row["rightful"])
            for row in rows
        ]

    def seconds(self, interval: str) -> float:
        """An interval as Postgres reads it; ValueError if it does not."""
        return float(self._data(SECONDS, interval)[0]["seconds"])

    def check_json(self, text: str, binary: bool = False) -> None:
        """ValueError, with Postgres's message, unless `text` is json; or jsonb if `binary`."""
        self._data(JSONB if binary else JSON, text)

    def encoding(self) -> str:
        """The database's encoding, by Postgres's name."""
        return str(self._execute(ENCODING)[0]["encoding"])

    def role(self) -> str:
        """The current user."""
        return str(self._execute(ROLE)[0]["role"])

    def catalog(self, oid: int) -> str:
        """The name of a system catalog."""
        return str(self._execute(CATALOG, str(oid))[0]["relname"])

    def is_superuser(self) -> bool:
        """Whether the current user is a superuser."""
        return bool(self._execute(SUPERUSER)[0]["rolsuper"])

    def check_interrupts(self) -> None:
        """Raises if this session was cancelled or told to end."""
        self._execute(INTERRUPTS)

    def _data(self, query: str, text: str) -> Any:
        """What Postgres makes of a value; a data exception (class 22) is a ValueError."""
        try:
            return self._execute(query, text)
        except self._plpy.SPIError as error:
            if error.sqlstate.startswith("22"):
                raise ValueError(str(error)) from None
            raise

    def _execute(self, query: str, *arguments: str) -> Any:
        if query not in self._plans:
            self._plans[query] = self._plpy.prepare(query, ["text"] * len(arguments))
        return self._plpy.execute(self._plans[query], list(arguments))
