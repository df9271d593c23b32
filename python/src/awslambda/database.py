"""What the Python side asks of Postgres: the Database protocol, and the form of it that lives in a backend."""

from __future__ import annotations

from typing import Any, Protocol

from awslambda.servers import Server

SERVERS = """
SELECT s.srvname, s.srvoptions, pg_catalog.has_server_privilege(s.oid, 'USAGE') AS usable
  FROM pg_catalog.pg_foreign_server s
  JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
 WHERE w.fdwname = 'awslambda'
 ORDER BY s.srvname
"""
SECONDS = "SELECT EXTRACT(epoch FROM $1::pg_catalog.interval)::pg_catalog.float8 AS seconds"
INTERRUPTS = "SELECT"
ENCODING = "SELECT pg_catalog.getdatabaseencoding() AS encoding"
ROLE = "SELECT CURRENT_USER AS role"
SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"
CATALOG = "SELECT relname FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid"


class Database(Protocol):
    """One session of a database."""

    def servers(self) -> list[Server]:
        """All servers of the foreign data wrapper awslambda, and whether the current user may use each."""

    def seconds(self, interval: str) -> float:
        """An interval as Postgres reads it; ValueError if it does not."""

    def encoding(self) -> str:
        """The database's encoding, by Postgres's name."""

    def role(self) -> str:
        """The current user."""

    def is_superuser(self) -> bool:
        """Whether the current user is a superuser."""

    def check_interrupts(self) -> None:
        """Raises if this session was cancelled or told to end."""


class PlpyDatabase:
    """The session whose backend this Python runs in. Plans are kept; they hold no permission."""

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._plans: dict[str, Any] = {}

    def servers(self) -> list[Server]:
        rows = self._execute(SERVERS)
        return [Server(row["srvname"], row["usable"], tuple(row["srvoptions"] or ())) for row in rows]

    def seconds(self, interval: str) -> float:
        try:
            return float(self._execute(SECONDS, interval)[0]["seconds"])
        except self._plpy.SPIError as error:
            if error.sqlstate.startswith("22"):
                raise ValueError(interval) from None
            raise

    def encoding(self) -> str:
        return str(self._execute(ENCODING)[0]["encoding"])

    def role(self) -> str:
        return str(self._execute(ROLE)[0]["role"])

    def catalog(self, oid: int) -> str:
        """The name of a system catalog."""
        return str(self._execute(CATALOG, str(oid))[0]["relname"])

    def is_superuser(self) -> bool:
        return bool(self._execute(SUPERUSER)[0]["rolsuper"])

    def check_interrupts(self) -> None:
        self._execute(INTERRUPTS)

    def _execute(self, query: str, *arguments: str) -> Any:
        if query not in self._plans:
            self._plans[query] = self._plpy.prepare(query, ["text"] * len(arguments))
        return self._plpy.execute(self._plans[query], list(arguments))
