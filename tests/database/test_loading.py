"""CREATE and DROP EXTENSION, and how a session comes to its Python code."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.errors import raises

Sql = Callable[..., Any]
CALL = "SELECT awslambda_fn('lambdaTest', '{}')"
OBJECTS = """
SELECT array_agg(o ORDER BY o) FROM (
  SELECT 'function ' || oid::regprocedure FROM pg_proc UNION ALL SELECT 'type ' || oid::regtype FROM pg_type
  UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
  UNION ALL SELECT 'wrapper ' || fdwname FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'table ' || oid::regclass FROM pg_class UNION ALL SELECT 'acl ' || objoid FROM pg_init_privs
  UNION ALL SELECT 'comment ' || description FROM pg_description) AS all_of_them(o)
"""


@pytest.fixture
def empty(cluster: Cluster, connect: Connect) -> Iterator[Sql]:
    """A session of a database without the extension."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE empty")
        yield runner(connect(name="empty"))
        admin.execute("DROP DATABASE empty WITH (FORCE)")


def test_drop_extension_leaves_nothing(empty: Sql) -> None:
    empty("CREATE EXTENSION plpython3u")
    before = empty(OBJECTS)
    empty("CREATE EXTENSION awslambda")
    assert empty(CALL)
    assert empty(OBJECTS) != before
    empty("DROP EXTENSION awslambda")
    assert empty(OBJECTS) == before


def test_drop_extension_does_not_take_servers_along_silently(empty: Sql) -> None:
    empty("CREATE EXTENSION awslambda CASCADE")
    empty("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda")
    with raises("2BP01", "server aws depends on"):
        empty("DROP EXTENSION awslambda")


def test_with_schema_puts_the_short_forms_there(empty: Sql) -> None:
    empty('CREATE SCHEMA "My Tools 100%"')
    empty('CREATE EXTENSION awslambda WITH SCHEMA "My Tools 100%" CASCADE')
    assert empty("SELECT \"My Tools 100%\".awslambda_fn('lambdaTest', '{}')") == '{"Status": "OK"}'
    assert empty("SELECT (awslambda.invoke('lambdaTest', '{}')).status_code") == 200
    assert empty("SELECT to_regproc('public.awslambda_fn')") is None
    empty("CREATE ROLE tool_user")
    try:
        empty("SELECT awslambda.grant_usage('tool_user')")
        empty("SET ROLE tool_user")
        assert empty("SELECT \"My Tools 100%\".awslambda_fn('lambdaTest', '{}')") == '{"Status": "OK"}'
    finally:
        empty("RESET ROLE")
        empty("DROP OWNED BY tool_user")
        empty("DROP ROLE tool_user")


def test_two_databases_of_one_cluster_know_nothing_of_each_other(sql: Sql, empty: Sql) -> None:
    empty("CREATE EXTENSION awslambda CASCADE")
    sql(
        "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (endpoint_url 'http://127.0.0.1:1', max_attempts '1')"
    )
    with raises("08001"):
        sql(CALL)
    assert empty(CALL) == '{"Status": "OK"}'


def test_a_schema_that_somebody_made_before_is_refused(empty: Sql) -> None:
    empty("CREATE EXTENSION plpython3u")
    empty("CREATE SCHEMA awslambda")
    with raises("42P06", "there is a schema awslambda already", "belongs to no extension"):
        empty("CREATE EXTENSION awslambda")


def test_a_function_that_somebody_made_before_is_refused(empty: Sql) -> None:
    empty("CREATE EXTENSION plpython3u")
    empty("CREATE FUNCTION public.awslambda_fn(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$")
    with raises("42723", "already exists with same argument types"):
        empty("CREATE EXTENSION awslambda")


def test_every_python_body_compiles(own: Sql) -> None:
    functions = own(
        """SELECT array_agg(p.oid::regprocedure::text || plpython3_validator(p.oid)::text)
             FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE l.lanname = 'plpython3u'
              AND p.pronamespace IN ('awslambda'::regnamespace, 'public'::regnamespace)"""
    )
    assert len(functions) >= 9


def test_every_public_object_has_a_comment(own: Sql) -> None:
    silent = own(
        r"""SELECT array_agg(pg_describe_object(d.classid, d.objid, 0))
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'awslambda'
            WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
              AND obj_description(d.objid, d.classid::regclass::name) IS NULL
              AND pg_describe_object(d.classid, d.objid, 0) !~ '^(type .*\[\]|sequence .*|.* awslambda\._.*)$'"""
    )
    assert silent is None


def test_a_botocore_that_other_code_loaded_is_refused(sql: Sql) -> None:
    sql(
        """DO LANGUAGE plpython3u $$
        import sys, types
        sys.modules['botocore'] = types.ModuleType('botocore')
        sys.modules['botocore'].__file__ = '/somewhere/else/botocore/__init__.py'
        $$"""
    )
    with raises("55000", "botocore from /somewhere/else", "Reconnect"):
        sql(CALL)


def test_another_version_that_the_session_loaded_is_refused(sql: Sql, connect: Connect) -> None:
    assert sql(CALL)
    source = sql("SELECT prosrc FROM pg_proc WHERE oid = 'awslambda_fn(text, text)'::regprocedure")
    folder = source.split('sys.path[0] != "')[1].split('"')[0]
    newer = source.replace(folder, folder + ".1")
    arguments = "fn_name text, fn_args text"
    sql(f"CREATE FUNCTION of_newer({arguments}) RETURNS text LANGUAGE plpython3u AS $python${newer}$python$")
    with raises("55000", f"awslambda from {folder}, not from {folder}.1", "Reconnect"):
        sql("SELECT of_newer('lambdaTest', '{}')")
    assert sql(CALL), "the loaded version goes on"
    fresh = runner(connect())
    with raises("55000", f"is not in {folder}.1", "make install"):
        fresh("SELECT of_newer('lambdaTest', '{}')")


def test_a_dump_restores_with_servers_and_grants(sql: Sql, database: str, cluster: Cluster, empty: Sql) -> None:
    sql("CREATE ROLE reporting")
    sql("SELECT awslambda.grant_usage('reporting')")
    role = "arn:aws:iam::123456789012:role/r"
    sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', role_arn '{role}')")
    sql("GRANT USAGE ON FOREIGN SERVER aws TO reporting")
    dump = subprocess.run(
        [cluster.bindir / "pg_dump", cluster.dsn(database)], capture_output=True, text=True, check=True
    )
    restored = cluster.psql("-v", "ON_ERROR_STOP=1", "-q", database="empty", sql=dump.stdout)
    assert restored.returncode == 0, restored.stderr
    assert empty("SELECT srvoptions FROM pg_foreign_server") == [
        "region=us-east-1",
        f"role_arn={role}",
    ]
    assert empty("SELECT has_function_privilege('reporting', 'awslambda_fn(text, text)', 'EXECUTE')")
    assert empty("SELECT has_server_privilege('reporting', 'aws', 'USAGE')")
    empty("DROP EXTENSION awslambda CASCADE")


HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.trap() RETURNS boolean TRAPS;
CREATE FUNCTION hostile.trap(oid, text) RETURNS boolean TRAPS;
CREATE FUNCTION hostile.trap(name, name) RETURNS boolean TRAPS;
CREATE FUNCTION hostile.trap(oid, oid) RETURNS boolean TRAPS;
CREATE FUNCTION hostile.has_server_privilege(oid, text) RETURNS boolean TRAPS;
CREATE FUNCTION hostile.getdatabaseencoding() RETURNS name TRAPS;
CREATE FUNCTION hostile.format(text, regrole) RETURNS text TRAPS;
CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.trap);
CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.trap);
CREATE TABLE hostile.pg_foreign_server (srvname name, srvoptions text[], oid oid, srvfdw oid);
CREATE TABLE hostile.pg_class (oid oid, relname name);
CREATE DOMAIN hostile.interval AS text CHECK (false);
""".replace("TRAPS", "LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$")


def test_a_hostile_search_path_reaches_none_of_our_queries(sql: Sql) -> None:
    for statement in HOSTILE.strip().split(";\n"):
        sql(statement)
    sql("CREATE ROLE victim")
    sql("SET search_path = hostile, pg_catalog, public")
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (connect_timeout '1s')")
    sql("SELECT awslambda.grant_usage('victim')")
    assert sql(CALL) == '{"Status": "OK"}'
    assert sql("SELECT (awslambda.invoke('lambdaTest', '{}'::pg_catalog.jsonb)).status_code") == 200
    assert sql("SELECT pg_catalog.count(*) FROM awslambda.diagnostics()") > 5
    sql("RESET search_path")
    sql("DROP OWNED BY victim")
