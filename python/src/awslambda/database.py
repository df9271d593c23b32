"""What the Python side asks of Postgres: of the one that it runs in, or, from a process of its own, over a connection.

Both forms of Database give the same values for the same query: numbers, booleans, bytea and arrays of them as Python
has them, everything else as Postgres's text. psycopg is imported by whoever makes a PsycopgDatabase, which is never a
backend.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from awslambda.servers import Server

if TYPE_CHECKING:
    import psycopg

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
# The whole query takes as long as half a call; these, of one table each, take a tenth of that.
ANY_SERVERS = """
SELECT s.srvname, s.srvoptions, s.srvfdw::pg_catalog.text AS wrapper,
       pg_catalog.has_server_privilege(s.oid, 'USAGE') AS usable,
       pg_catalog.has_foreign_data_wrapper_privilege(s.srvowner, s.srvfdw, 'USAGE') AS rightful
  FROM pg_catalog.pg_foreign_server s
"""
WRAPPERS = """
SELECT w.oid::pg_catalog.text AS wrapper, w.fdwvalidator::pg_catalog.regproc::pg_catalog.text AS validator
  FROM pg_catalog.pg_foreign_data_wrapper w
"""
VALIDATORS = ("awslambda._validate_server_options", "_validate_server_options")  # by the search path
SERVERS_OF = SERVERS.replace("has_server_privilege(", "has_server_privilege($1::pg_catalog.regrole, ")
SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"
SECONDS = "SELECT EXTRACT(epoch FROM $1::pg_catalog.interval)::pg_catalog.float8 AS seconds"
EPOCH = "SELECT EXTRACT(epoch FROM $1::pg_catalog.timestamptz)::pg_catalog.float8 AS seconds"
OIDS = {
    "regclass": "SELECT $1::pg_catalog.regclass::pg_catalog.oid",
    "regprocedure": "SELECT $1::pg_catalog.regprocedure::pg_catalog.oid",
}
INTERRUPTS = "SELECT"
ENCODING = "SELECT pg_catalog.getdatabaseencoding() AS encoding"
PATH = "SELECT pg_catalog.current_setting('search_path') AS path"
ROLE = "SELECT CURRENT_USER AS role"
SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"
JSON = "SELECT $1::pg_catalog.json IS NULL"
JSONB = "SELECT $1::pg_catalog.jsonb IS NULL"
BACKEND = "SELECT pg_catalog.pg_backend_pid() AS pid"
SET = "SELECT pg_catalog.set_config(key, value, false) FROM pg_catalog.json_each_text($1::pg_catalog.json)"
CATALOG = "SELECT relname FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid"

# Of a session that owns slots. Its backend must be gone, and the slots with it, soon after its process is: killed,
# stopped, or cut off. A query that waits must end some time too.
SESSION = {
    "search_path": "pg_catalog, pg_temp",
    "synchronous_commit": "on",  # a record that was delivered must not come back with a crash
    "idle_session_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "3s",
    "tcp_keepalives_interval": "3s",
    "tcp_keepalives_count": "2",
    "statement_timeout": "60s",
    "lock_timeout": "30s",
    "default_transaction_isolation": "read committed",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
}
# Not every platform can look after a client that is gone while its query runs.
WHERE_POSSIBLE = {"client_connection_check_interval": "500ms"}
# The client's side of the same; what the connection string or the environment says goes before.
CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "3",
    "keepalives_interval": "3",
    "keepalives_count": "2",
    "tcp_user_timeout": "10000",
}
ENVIRONMENT = {"connect_timeout": "PGCONNECT_TIMEOUT", "target_session_attrs": "PGTARGETSESSIONATTRS"}
AS_TEXT = ("json", "jsonb", "uuid", "date", "time", "timetz", "timestamp", "timestamptz", "interval", "inet", "cidr")


class Database(Protocol):
    """A session of Postgres, used by one thread."""

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        """The rows of a query whose $1, $2 ... are texts, to be cast in it. Commits, in a process of its own.

        The error that Postgres gives has its `sqlstate`.
        """

    def check_interrupts(self) -> None:
        """Raises if what is being done should end now."""

    @property
    def last_seen(self) -> float:
        """When Postgres last answered, by CLOCK_BOOTTIME, which goes on while the machine sleeps."""


class DatabaseError(Exception):
    """What Postgres said no to. Its DETAIL is left out: it may show a row."""

    def __init__(self, message: str, sqlstate: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.hint = hint


class ConnectionLost(DatabaseError):
    """There is no session, or no longer; what it had locked is free for others."""


class PooledConnection(DatabaseError):
    """Something stands between us and Postgres that gives the session to others too."""


class PsycopgDatabase:
    """A session over a connection of its own, made by libpq's rules; each query is a transaction.

    `dsn` is a connection string or URI, in addition to libpq's environment, which may also say another
    `application_name`. `check` is what check_interrupts does.
    """

    def __init__(
        self, dsn: str = "", application_name: str = "awslambda dispatch", check: Callable[[], None] = lambda: None
    ) -> None:
        import psycopg
        from psycopg import conninfo
        from psycopg.rows import dict_row
        from psycopg.types.string import StrDumper, TextLoader

        self._check = check
        self.last_seen = 0.0
        self._driver = psycopg
        try:
            given = conninfo.conninfo_to_dict(dsn)
        except psycopg.Error:  # which would quote it, and it may have a password
            raise ValueError("it is neither a connection string nor a URI of PostgreSQL") from None
        try:
            self._connection: psycopg.Connection[dict[str, Any]] = psycopg.Connection.connect(
                conninfo.make_conninfo(
                    "",
                    **{
                        **_defaults(given),
                        "fallback_application_name": application_name,
                        **given,
                        "client_encoding": "UTF8",
                    },
                ),
                autocommit=True,
                row_factory=dict_row,
                cursor_factory=psycopg.RawCursor,
            )
        except psycopg.Error as error:
            raise ConnectionLost(" ".join(str(error).split()), error.sqlstate or "") from None
        try:
            self._connection.adapters.register_dumper(str, StrDumper)
            for name in AS_TEXT:
                self._connection.adapters.register_loader(name, TextLoader)
            if self.fetch(BACKEND)[0]["pid"] != self._connection.info.backend_pid:
                raise PooledConnection("this connection goes through a pooler, which gives sessions to others")
            self.fetch(SET, json.dumps(SESSION))
            with contextlib.suppress(DatabaseError):
                self.fetch(SET, json.dumps(WHERE_POSSIBLE))
        except BaseException:
            self.close()
            raise

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        """As Database says; ConnectionLost if the session has ended."""
        try:
            cursor = self._connection.execute(query.encode(), arguments)
            rows = cursor.fetchall() if cursor.description else []
        except self._driver.Error as error:
            kind = ConnectionLost if self._connection.closed else DatabaseError
            message = error.diag.message_primary or " ".join(str(error).split())
            raise kind(message, error.sqlstate or "", error.diag.message_hint or "") from None
        self.last_seen = time.clock_gettime(time.CLOCK_BOOTTIME)
        return rows

    def check_interrupts(self) -> None:
        """As the process that made this said."""
        self._check()

    @property
    def server(self) -> dict[str, object]:
        """Where this is connected, for a log."""
        info = self._connection.info
        return {"host": info.host, "port": info.port, "database": info.dbname, "user": info.user}

    @property
    def lost(self) -> bool:
        """Whether the session is known to have ended."""
        return bool(self._connection.closed)

    def close(self) -> None:
        """Ends the session."""
        self._connection.close()


def is_data_error(error: Exception) -> bool:
    """Whether a value is to blame: SQLSTATE class 22, or bytes that are no text. The session is as good as before."""
    return isinstance(error, UnicodeDecodeError) or str(getattr(error, "sqlstate", "")).startswith("22")


def servers_of(database: Database, role: str) -> list[Server]:
    """All servers of our foreign data wrapper, and which of them a role (as regrole prints it) may use."""
    return [_server(row) for row in database.fetch(SERVERS_OF, role)]


def _server(row: Mapping[str, Any]) -> Server:
    by_superuser = row.get("rolsuper", True)
    return Server(row["srvname"], row["usable"], tuple(row["srvoptions"] or ()), by_superuser, row["rightful"])


def _defaults(given: Mapping[str, Any]) -> dict[str, str]:
    """Connection parameters where nothing was said. Of several hosts the one is wanted that takes writes."""
    hosts = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST", ""))
    defaults = CONNECTION if "," not in hosts else {**CONNECTION, "target_session_attrs": "read-write"}
    return {name: value for name, value in defaults.items() if ENVIRONMENT.get(name, name) not in os.environ}


class PlpyDatabase:
    """The session whose backend this Python runs in. Plans are kept; they hold no permission."""

    def __init__(self, plpy: Any) -> None:
        self._plpy = plpy
        self._plans: dict[str, Any] = {}

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        """As Database says, but nothing is committed: that is for the procedure."""
        return [dict(row) for row in self._execute(query, *arguments)]

    def call(self, query: str, types: Sequence[str], *arguments: object) -> list[dict[str, Any]]:
        """As fetch, for arguments of such types; an array of rows is a list of tuples."""
        if query not in self._plans:
            self._plans[query] = self._plpy.prepare(query, list(types))
        return [dict(row) for row in self._plpy.execute(self._plans[query], list(arguments))]

    def warn(self, message: str, hint: str) -> None:
        """A WARNING to the client and the log."""
        self._plpy.warning(message, hint=hint)

    @property
    def last_seen(self) -> float:
        """Always just now: this is the session."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def servers(self) -> list[Server]:
        """All servers of our foreign data wrapper, whatever it is called now, as the current user sees them; none where
        the extension awslambda is not in the database: aws_lambda does without."""
        found = self._execute(ANY_SERVERS)
        if found:
            ours = {row["wrapper"] for row in self._execute(WRAPPERS) if row["validator"] in VALIDATORS}
            found = [row for row in found if row["wrapper"] in ours]
        return [_server(row) for row in (found if len(found) < 2 else self._execute(SERVERS))]

    def seconds(self, interval: str) -> float:
        """An interval as Postgres reads it; ValueError if it does not."""
        return float(self._data(SECONDS, interval)[0]["seconds"])

    def epoch(self, timestamp: str) -> float:
        """Seconds since 1970 of a timestamptz as this session prints it; infinities are infinite."""
        return float(self._execute(EPOCH, timestamp)[0]["seconds"])

    def oid(self, kind: str, name: str) -> str:
        """Of a regclass or regprocedure as Postgres prints it: by the search path of now."""
        return str(self._execute(OIDS[kind], name)[0]["oid"])

    def check_json(self, text: str, binary: bool = False) -> None:
        """ValueError, with Postgres's message, unless `text` is json; or jsonb if `binary`."""
        self._data(JSONB if binary else JSON, text)

    def encoding(self) -> str:
        """The database's encoding, by Postgres's name."""
        return str(self._execute(ENCODING)[0]["encoding"])

    def search_path(self) -> str:
        """The session's."""
        return str(self._execute(PATH)[0]["path"])

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

    def _execute(self, query: str, *arguments: str | None) -> Any:
        if query not in self._plans:
            self._plans[query] = self._plpy.prepare(query, ["text"] * len(arguments))
        return self._plpy.execute(self._plans[query], list(arguments))


class CommittingDatabase(PlpyDatabase):
    """The same in a procedure: each query is a transaction, so that none is open, and no snapshot held, in between.

    Made outside a transaction block only: `refused` is raised otherwise.
    """

    def __init__(self, plpy: Any, refused: Exception) -> None:
        super().__init__(plpy)
        try:
            plpy.commit()
        except plpy.spiexceptions.InvalidTransactionTermination:
            raise refused from None

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        """As Database says. A procedure that commits cannot have SET: so each transaction begins with it."""
        self._execute(SEARCH_PATH)
        rows = super().fetch(query, *arguments)
        self._plpy.commit()
        return rows

    def call(self, query: str, types: Sequence[str], *arguments: object) -> list[dict[str, Any]]:
        """As fetch."""
        self._execute(SEARCH_PATH)
        rows = super().call(query, types, *arguments)
        self._plpy.commit()
        return rows

    def check_interrupts(self) -> None:
        """As PlpyDatabase's; its snapshot goes at once."""
        super().check_interrupts()
        self._plpy.commit()
