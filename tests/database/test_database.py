"""The two forms of Database: the same queries, the same values, the same errors. And what only a connection has."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from awslambda.database import SESSION, ConnectionLost, DatabaseError, PooledConnection, PsycopgDatabase
from awslambda_local.cluster import Cluster

from tests.waiting import wait_until

Fetch = Callable[..., list[dict[str, Any]]]

IN_BACKEND = """
CREATE FUNCTION pg_temp.fetch(query text, VARIADIC arguments text[]) RETURNS text LANGUAGE plpython3u AS $$
from awslambda.database import PlpyDatabase
database = PlpyDatabase(plpy)
database.check_interrupts()
return repr(database.fetch(query, *arguments))
$$
"""


@pytest.fixture
def over_connection(cluster: Cluster, database: str) -> Iterator[PsycopgDatabase]:
    with contextlib.closing(PsycopgDatabase(cluster.dsn(database))) as opened:
        yield opened


@pytest.fixture(params=["psycopg", "plpy"], scope="module")
def fetch(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Fetch]:
    """Database.fetch of either form."""
    if request.param == "psycopg":
        with contextlib.closing(PsycopgDatabase(cluster.dsn("shared"))) as opened:
            yield opened.fetch
        return
    with psycopg.connect(cluster.dsn("shared"), autocommit=True) as session:
        session.execute("SELECT count(*) FROM awslambda.diagnostics()")  # it puts our folder on sys.path
        session.execute(IN_BACKEND)

        def in_backend(query: str, *arguments: str | None) -> list[dict[str, Any]]:
            found = session.execute("SELECT pg_temp.fetch(%s, VARIADIC %s::text[])", (query, list(arguments)))
            [text] = found.fetchone() or []
            rows: list[dict[str, Any]] = eval(text, {"Decimal": Decimal})
            return rows

        yield in_backend


def value(fetch: Fetch, expression: str, *arguments: str | None) -> Any:
    [row] = fetch(f"SELECT {expression} AS value", *arguments)
    return row["value"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1::smallint", 1),
        ("1::int", 1),
        ("9007199254740993::bigint", 9007199254740993),
        ("26::oid", 26),
        ("1.5::float8", 1.5),
        ("1.50::numeric", Decimal("1.50")),
        ("true", True),
        ("NULL::int", None),
        ("'a'::text", "a"),
        ("'a'::varchar", "a"),
        ("'a'::name", "a"),
        ("'a'::\"char\"", "a"),
        ("'\\x00ff'::bytea", b"\x00\xff"),
        ("'{1,2,NULL}'::int[]", [1, 2, None]),
        ("'{1,2}'::bigint[]", [1, 2]),
        ("'{}'::bigint[]", []),
        ("""'{"a b",NULL,"\\"q\\"",NULL2}'::text[]""", ["a b", None, '"q"', "NULL2"]),
        ("'{ \"a\":1.0}'::json", '{ "a":1.0}'),
        ("'{ \"a\":1.0}'::jsonb", '{"a": 1.0}'),
        ("'6a1f0f8e-2f64-4c55-8f0c-5d7c8f0f4a2b'::uuid", "6a1f0f8e-2f64-4c55-8f0c-5d7c8f0f4a2b"),
        ("'{6a1f0f8e-2f64-4c55-8f0c-5d7c8f0f4a2b}'::uuid[]", ["6a1f0f8e-2f64-4c55-8f0c-5d7c8f0f4a2b"]),
        ("'1 day 00:00:03.5'::interval", "1 day 00:00:03.5"),
        ("'2026-11-21'::date", "2026-11-21"),
        ("'2026-11-21 10:00:00.25'::timestamp", "2026-11-21 10:00:00.25"),
        ("'infinity'::timestamptz", "infinity"),
        ("'pg_class'::regclass", "pg_class"),
        ("'postgres'::regrole", "postgres"),
    ],
)
def test_values_are_the_same_in_both_forms(fetch: Fetch, expression: str, expected: object) -> None:
    found = value(fetch, expression)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("expression", "argument", "expected"),
    [
        ("$1", "it's $1 %s \\ \u00fc\U0001f600", "it's $1 %s \\ \u00fc\U0001f600"),
        ("pg_typeof($1)::text", "1", "text"),
        ("$1", "", ""),
        ("$1::bigint + 1", "41", 42),
        ("$1::bigint[]", "{1,2}", [1, 2]),
        ("$1::interval", None, None),
        ("$1::text IS NULL", None, True),
        ("length($1)", "x" * 3_000_000, 3_000_000),
    ],
    ids=str,
)
def test_arguments_are_texts_or_null(fetch: Fetch, expression: str, argument: str | None, expected: object) -> None:
    assert value(fetch, expression, argument) == expected


def test_a_query_may_return_many_rows_none_or_nothing_at_all(fetch: Fetch) -> None:
    assert fetch("SELECT n, n * 2 AS double FROM generate_series(1, 3) n") == [
        {"n": 1, "double": 2}, {"n": 2, "double": 4}, {"n": 3, "double": 6},
    ]  # fmt: skip
    assert fetch("SELECT 1 AS one WHERE false") == []
    assert fetch("CREATE TEMPORARY TABLE t (n int)") == []
    assert fetch("INSERT INTO t VALUES ($1::int) RETURNING n", "7") == [{"n": 7}]
    assert fetch("DELETE FROM t") == []


def test_the_same_query_again_and_again_gives_the_same(fetch: Fetch) -> None:
    for number in range(8):  # psycopg prepares it on the way
        assert value(fetch, "$1::int", str(number)) == number


@pytest.mark.parametrize(
    ("query", "arguments", "sqlstate"),
    [
        ("SELECT 1/0", [], "22012"),
        ("SELECT $1::int", ["x"], "22P02"),
        ("SELECT * FROM no_such_table", [], "42P01"),
    ],
)
def test_an_error_has_its_sqlstate_and_the_session_goes_on(
    fetch: Fetch, query: str, arguments: list[str], sqlstate: str
) -> None:
    with pytest.raises((DatabaseError, psycopg.Error)) as caught:
        fetch(query, *arguments)
    assert caught.value.sqlstate == sqlstate
    assert value(fetch, "1") == 1


# A connection of its own.


def test_an_error_shows_no_row(over_connection: PsycopgDatabase) -> None:
    over_connection.fetch("CREATE TABLE public.secrets (secret text CHECK (secret = ''))")
    with pytest.raises(DatabaseError) as caught:
        over_connection.fetch("INSERT INTO public.secrets VALUES ($1)", "sesame")
    assert caught.value.sqlstate == "23514" and "sesame" not in str(caught.value) + caught.value.hint


def test_each_query_is_a_transaction(over_connection: PsycopgDatabase, sql: Callable[..., Any]) -> None:
    over_connection.fetch("CREATE TABLE public.t (n int)")
    over_connection.fetch("INSERT INTO public.t VALUES (1)")
    assert sql("SELECT count(*) FROM public.t") == 1
    with pytest.raises(DatabaseError):
        over_connection.fetch("INSERT INTO public.t VALUES (1/0)")
    assert sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'") == 0


def test_the_session_is_one_that_ends_soon_after_its_process(
    over_connection: PsycopgDatabase, sql: Callable[..., Any]
) -> None:
    shown = {
        row["name"]: row["setting"]
        for row in over_connection.fetch("SELECT name, current_setting(name) AS setting FROM pg_settings")
    }
    for name, expected in SESSION.items():
        if not name.startswith("tcp_"):  # which a Unix socket has not got
            assert shown[name] == expected.replace("60s", "1min"), name
    assert shown["client_connection_check_interval"] == "500ms"
    assert shown["client_encoding"] == "UTF8"
    assert shown["application_name"] == "awslambda dispatch"


def test_the_settings_of_a_role_or_of_the_environment_do_not_change_what_delivery_rests_on(
    cluster: Cluster, database: str, sql: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(f"ALTER DATABASE {database} SET synchronous_commit = off")
    sql(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGOPTIONS", "-c idle_session_timeout=0 -c search_path=public -c IntervalStyle=iso_8601")
    with contextlib.closing(PsycopgDatabase(cluster.dsn(database))) as opened:
        assert value(opened.fetch, "current_setting('synchronous_commit')") == "on"
        assert value(opened.fetch, "current_setting('transaction_isolation')") == "read committed"
        assert value(opened.fetch, "current_setting('idle_session_timeout')") == "10s"
        assert value(opened.fetch, "current_setting('search_path')") == "pg_catalog, pg_temp"
        assert value(opened.fetch, "'1 day 2 hours'::interval") == "1 day 02:00:00"
        assert value(opened.fetch, "$1", "\u20ac") == "\u20ac"


def test_the_name_in_pg_stat_activity_is_libpq_s_business(
    cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGAPPNAME", "mine")
    with contextlib.closing(PsycopgDatabase(cluster.dsn(database))) as opened:
        assert value(opened.fetch, "current_setting('application_name')") == "mine"


def test_a_session_that_was_ended_is_a_lost_connection(
    over_connection: PsycopgDatabase, sql: Callable[..., Any]
) -> None:
    assert not over_connection.lost
    sql("SELECT pg_terminate_backend(%s)", value(over_connection.fetch, "pg_backend_pid()"))
    with pytest.raises(ConnectionLost):
        over_connection.fetch("SELECT 1")
    assert over_connection.lost
    with pytest.raises(ConnectionLost):
        over_connection.fetch("SELECT 1")


def test_when_postgres_last_answered_is_known(over_connection: PsycopgDatabase, sql: Callable[..., Any]) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    over_connection.fetch("SELECT 1")
    seen = over_connection.last_seen
    assert before <= seen <= time.clock_gettime(time.CLOCK_BOOTTIME)
    sql("SELECT pg_terminate_backend(%s)", value(over_connection.fetch, "pg_backend_pid()"))
    seen = over_connection.last_seen
    with pytest.raises(ConnectionLost):
        over_connection.fetch("SELECT 1")
    assert over_connection.last_seen == seen


def test_no_server_is_a_lost_connection_that_says_where() -> None:
    with pytest.raises(ConnectionLost, match="nowhere"):
        PsycopgDatabase("host=/nowhere")


def test_a_wrong_connection_string_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="connection string") as caught:
        PsycopgDatabase("host=x password=open sesame")
    assert "sesame" not in str(caught.value) and caught.value.__cause__ is None


def test_a_password_is_in_no_error(cluster: Cluster) -> None:
    with pytest.raises(ConnectionLost) as caught:
        PsycopgDatabase(cluster.dsn("no_such_database") + " password=sesame")
    assert "no_such_database" in str(caught.value) and "sesame" not in str(caught.value)


def test_of_several_hosts_the_one_that_takes_writes_is_found(cluster: Cluster, database: str) -> None:
    dsn = cluster.dsn(database).replace("host=", "host=/nowhere,")
    with contextlib.closing(PsycopgDatabase(dsn)) as opened:
        assert opened.server["host"] == str(cluster.folder)
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")  # type: ignore[call-overload]
    with pytest.raises(ConnectionLost, match="read-only"):
        PsycopgDatabase(dsn)


@pytest.fixture
def pooler(cluster: Cluster) -> Iterator[int]:
    """A port behind which somebody else's key of cancellation is told, as every pooler does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{cluster.folder}/.s.PGSQL.{cluster.port}")
                threading.Thread(target=pump, args=(client, server, bytes), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, changed), daemon=True).start()

    def changed(data: bytes) -> bytes:
        at = data.find(b"K\0\0\0\x0c")
        return data if at < 0 else data[: at + 5] + b"\x11\x22\x33\x44" + data[at + 9 :]

    def pump(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                target.sendall(change(data))

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_a_pooler_is_refused_before_anything_is_set(pooler: int, database: str, sql: Callable[..., Any]) -> None:
    with pytest.raises(PooledConnection, match="pooler"):
        PsycopgDatabase(
            f"host=127.0.0.1 port={pooler} dbname={database} user=postgres sslmode=disable gssencmode=disable"
        )
    wait_until(
        lambda: sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'awslambda dispatch'"),
        "the refused session to end",
    )


def test_psycopg_is_not_in_a_backend(sql: Callable[..., Any]) -> None:
    sql("SELECT awslambda_fn('echo', '1')")
    sql("SELECT count(*) FROM awslambda.diagnostics()")
    sql("""
        CREATE FUNCTION modules() RETURNS text LANGUAGE plpython3u AS $$
            import sys
            return " ".join(name for name in sys.modules if name.startswith("psycopg"))
        $$
    """)
    assert sql("SELECT modules()") == ""
