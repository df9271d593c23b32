"""CREATE, DROP and dump of aws_commons and aws_lambda, and the types that they share."""

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
CALL = "SELECT (aws_lambda.invoke(aws_commons.create_lambda_function_arn('lambdaTest'), '{}'::json)).status_code"
INSTALLED = "SELECT array_agg(extname::text ORDER BY extname) FROM pg_extension WHERE extname LIKE 'aws%'"
OF_RDS = ["aws_commons", "aws_lambda"]
OBJECTS = """
SELECT array_agg(o ORDER BY o) FROM (
  SELECT 'function ' || oid::regprocedure FROM pg_proc UNION ALL SELECT 'type ' || oid::regtype FROM pg_type
  UNION ALL SELECT 'schema ' || nspname FROM pg_namespace UNION ALL SELECT 'language ' || lanname FROM pg_language
  UNION ALL SELECT 'acl ' || objoid FROM pg_init_privs
  UNION ALL SELECT 'comment ' || description FROM pg_description) AS all_of_them(o)
"""


@pytest.fixture
def empty(cluster: Cluster, connect: Connect) -> Iterator[Sql]:
    """A session of a database without any of the extensions."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE empty")
        yield runner(connect(name="empty"))
        admin.execute("DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
def rds(sql: Sql) -> Sql:
    """A session of the test's own database, with aws_lambda."""
    sql("CREATE EXTENSION aws_lambda CASCADE")
    return sql


CREATE = {
    "cascade": ["CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE"],
    "as in dumps": [
        "CREATE EXTENSION IF NOT EXISTS aws_commons WITH SCHEMA public",
        "CREATE EXTENSION IF NOT EXISTS aws_lambda WITH SCHEMA public",
    ],
    "with schema": ["CREATE EXTENSION IF NOT EXISTS aws_lambda WITH SCHEMA public CASCADE"],
    "one by one": ["CREATE EXTENSION IF NOT EXISTS aws_commons", "CREATE EXTENSION IF NOT EXISTS aws_lambda"],
    "in a block": [
        """DO $$ BEGIN
             IF EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'aws_lambda') THEN
               CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE;
             END IF;
           END $$"""
    ],
    "in a procedure": [
        """CREATE PROCEDURE migrate() LANGUAGE plpgsql AS $$ BEGIN
             CREATE EXTENSION IF NOT EXISTS aws_commons CASCADE;
             CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE;
             COMMIT;
           END $$""",
        "CALL migrate()",
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", CREATE)
def test_every_form_of_create_extension_works_and_shows_schema_public(empty: Sql, form: str) -> None:
    for statement in CREATE[form]:
        empty(statement)
    assert empty(INSTALLED) == OF_RDS
    assert empty("SELECT array_agg(lanname::text ORDER BY oid) FROM pg_language WHERE lanname ~ 'python'") == [
        "aws_lambda_python"
    ]
    assert empty(
        "SELECT array_agg(DISTINCT extnamespace::regnamespace::text) FROM pg_extension WHERE extname ~ '^aws'"
    ) == ["public"]
    assert empty("CREATE EXTENSION IF NOT EXISTS aws_lambda WITH SCHEMA public CASCADE") is None
    assert empty(CALL) == 200
    assert empty("SHOW search_path") == '"$user", public'


def test_aws_commons_stands_alone(empty: Sql) -> None:
    empty("CREATE EXTENSION aws_commons")
    assert empty(INSTALLED) == ["aws_commons"]
    assert empty("SELECT count(*) FROM pg_language WHERE lanname = 'plpython3u'") == 0


def test_aws_lambda_without_cascade_says_what_it_requires(empty: Sql) -> None:
    with raises("42704", 'required extension "aws_commons" is not installed', "CASCADE"):
        empty("CREATE EXTENSION aws_lambda")


@pytest.mark.parametrize("extension", ["aws_commons", "aws_lambda"])
def test_only_a_superuser_creates_them(empty: Sql, extension: str) -> None:
    empty("CREATE ROLE almost CREATEDB CREATEROLE")
    empty("GRANT ALL ON DATABASE empty TO almost; GRANT ALL ON SCHEMA public TO almost")
    empty("SET ROLE almost")
    try:
        with raises("42501", "permission denied to create extension", "superuser"):
            empty(f"CREATE EXTENSION {extension} CASCADE")
    finally:
        empty("RESET ROLE")
        empty("DROP OWNED BY almost")
        empty("DROP ROLE almost")


def test_drop_extension_leaves_nothing(empty: Sql) -> None:
    before = empty(OBJECTS)
    empty("CREATE EXTENSION aws_lambda CASCADE")
    assert empty(CALL) == 200
    with raises("2BP01", "extension aws_lambda depends on extension aws_commons"):
        empty("DROP EXTENSION aws_commons")
    empty("DROP EXTENSION aws_lambda CASCADE")
    assert empty(INSTALLED) == ["aws_commons"]
    assert empty("SELECT count(*) FROM pg_language WHERE lanname ~ 'python'") == 0
    empty("CREATE EXTENSION aws_lambda")
    empty("DROP EXTENSION aws_commons CASCADE")
    assert empty(OBJECTS) == before


def test_servers_count_from_when_awslambda_is_there_until_it_goes(empty: Sql) -> None:
    empty("CREATE EXTENSION aws_lambda CASCADE")
    assert empty(CALL) == 200
    empty("CREATE EXTENSION awslambda CASCADE")
    assert empty(CALL) == 200
    assert empty("SELECT awslambda_fn('lambdaTest', '{}'::json)") == {"Status": "OK"}
    empty("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (allowed_resources 'function:other')")
    with raises("42501", "The server 'aws' does not allow 'function:lambdaTest'"):
        empty(CALL)
    empty("DROP EXTENSION awslambda CASCADE")
    empty("DROP EXTENSION plpython3u")
    assert empty(INSTALLED) == OF_RDS
    assert empty(CALL) == 200
    empty("CREATE EXTENSION awslambda CASCADE")
    empty("DROP EXTENSION aws_lambda")
    assert empty("SELECT awslambda_fn('lambdaTest', '{}'::json)") == {"Status": "OK"}


RDS_DUMP = """
SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET client_min_messages = warning;
SET row_security = off;

CREATE EXTENSION IF NOT EXISTS aws_commons WITH SCHEMA public;
COMMENT ON EXTENSION aws_commons IS 'Common data types across AWS services';
CREATE EXTENSION IF NOT EXISTS aws_lambda WITH SCHEMA public;
COMMENT ON EXTENSION aws_lambda IS 'AWS Lambda integration';

CREATE FUNCTION public.tell() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
  SELECT payload INTO NEW.answer FROM aws_lambda.invoke(NEW.target, json_build_object('name', NEW.name));
  RETURN NEW;
END
$$;
ALTER FUNCTION public.tell() OWNER TO postgres;

CREATE FUNCTION public.told(name text) RETURNS json
    LANGUAGE sql
    AS $$ SELECT payload FROM aws_lambda.invoke('lambdaTest', json_build_object('name', name)) $$;

SET default_tablespace = '';
SET default_table_access_method = heap;

CREATE TABLE public.calls (
    name text,
    target aws_commons._lambda_function_arn_1,
    answer json
);
ALTER TABLE public.calls OWNER TO postgres;

COPY public.calls (name, target, answer) FROM stdin;
alice\t(lambdaTest,us-east-1)\t{"Status": "OK"}
\\.

CREATE TRIGGER tell BEFORE INSERT ON public.calls FOR EACH ROW EXECUTE FUNCTION public.tell();

GRANT USAGE ON SCHEMA aws_lambda TO postgres;
GRANT ALL ON FUNCTION aws_lambda.invoke(function_name text, payload json, region text, invocation_type text, log_type text, context json, qualifier character varying, OUT status_code integer, OUT payload json, OUT executed_version text, OUT log_result text) TO postgres;
"""  # noqa: E501 - as pg_dump writes it


def test_a_dump_of_rds_restores_into_an_empty_database_and_calls(empty: Sql, cluster: Cluster) -> None:
    restored = cluster.psql("-v", "ON_ERROR_STOP=1", "-q", database="empty", sql=RDS_DUMP)
    assert restored.returncode == 0, restored.stderr
    assert empty(INSTALLED) == OF_RDS
    empty("INSERT INTO calls SELECT 'bob', target FROM calls")
    assert empty("SELECT answer FROM calls WHERE name = 'bob'") == {"name": "bob", "Status": "OK"}
    assert empty("SELECT told('carol')") == {"name": "carol", "Status": "OK"}


def test_a_schema_that_belongs_to_another_extension_is_refused_by_its_name(empty: Sql) -> None:
    empty("CREATE EXTENSION pg_trgm")
    empty("CREATE SCHEMA aws_commons")
    empty("ALTER EXTENSION pg_trgm ADD SCHEMA aws_commons")
    for extension in ("aws_commons", "aws_lambda"):
        with raises(
            "42P06", "there is a schema aws_commons already", "belongs to the extension pg_trgm", "DROP EXTENSION"
        ):
            empty(f"CREATE EXTENSION {extension} CASCADE")
    assert empty(INSTALLED) is None


@pytest.mark.parametrize("schema", ["aws_commons", "aws_lambda"])
def test_a_schema_that_was_left_over_is_refused_with_what_to_do(empty: Sql, schema: str) -> None:
    empty(f"CREATE SCHEMA {schema}")
    with raises(
        "42P06", f"there is a schema {schema} already", "belongs to no extension", f"DROP SCHEMA {schema} CASCADE"
    ):
        empty("CREATE EXTENSION aws_lambda CASCADE")
    empty(f"DROP SCHEMA {schema} CASCADE")
    empty("CREATE EXTENSION aws_lambda CASCADE")
    assert empty(CALL) == 200


def test_a_hostile_schema_gets_nothing_called_while_the_extensions_are_created(empty: Sql) -> None:
    empty("CREATE SCHEMA hostile")
    for function in ("to_regnamespace(text)", "format(text, name)", "format(text, text)"):
        empty(f"CREATE FUNCTION hostile.{function} RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$")
    empty(
        "CREATE FUNCTION hostile.trap(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$"
    )
    empty("CREATE OPERATOR hostile.= (LEFTARG = name, RIGHTARG = name, FUNCTION = hostile.trap)")
    empty("SET search_path = hostile, pg_catalog")
    empty("CREATE EXTENSION aws_lambda WITH SCHEMA hostile CASCADE")
    assert empty("SHOW search_path") == "hostile, pg_catalog"
    empty("RESET search_path")
    assert empty("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'aws_lambda'") == "hostile"


def test_constructors_make_the_composites_that_rds_makes(rds: Sql) -> None:
    assert rds("SELECT aws_commons.create_lambda_function_arn('f', 'us-east-1')::text") == "(f,us-east-1)"
    assert rds("SELECT aws_commons.create_lambda_function_arn('f')::text") == "(f,)"
    named = "aws_commons.create_lambda_function_arn(region => 'us-east-1', function_name => 'f')"
    assert rds(f"SELECT ({named}).function_name, ({named}).region") == ("f", "us-east-1")
    assert (
        rds("SELECT aws_commons.create_s3_uri('bucket', 'a/b.csv', 'us-east-1')::text") == "(bucket,a/b.csv,us-east-1)"
    )
    uri = "aws_commons.create_s3_uri(bucket := 'b', file_path := 'f', region := 'r')"
    assert rds(f"SELECT ({uri}).bucket, ({uri}).file_path, ({uri}).region") == ("b", "f", "r")
    keys = "aws_commons.create_aws_credentials(access_key := 'a', secret_key := 's', session_token := 't')"
    assert rds(f"SELECT {keys}::text") == "(a,s,t)"
    assert rds(f"SELECT ({keys}).access_key, ({keys}).secret_key, ({keys}).session_token") == ("a", "s", "t")
    types = "SELECT pg_typeof({})::text"
    assert rds(types.format(named)) == "aws_commons._lambda_function_arn_1"
    assert rds(types.format(uri)) == "aws_commons._s3_uri_1"
    assert rds(types.format(keys)) == "aws_commons._aws_credentials_1"


def test_a_dump_with_a_column_of_the_composite_restores_elsewhere(
    rds: Sql, database: str, cluster: Cluster, empty: Sql
) -> None:
    rds("CREATE ROLE app LOGIN")
    rds("CREATE TABLE targets (name text, arn aws_commons._lambda_function_arn_1, file aws_commons._s3_uri_1)")
    rds(
        """INSERT INTO targets VALUES ('test', aws_commons.create_lambda_function_arn('lambdaTest', 'us-east-1'),
                                       aws_commons.create_s3_uri('b', 'a file', 'r'))"""
    )
    rds("CREATE VIEW called AS SELECT i.* FROM targets, aws_lambda.invoke(arn, json_build_object('name', name)) AS i")
    rds("GRANT USAGE ON SCHEMA aws_lambda, aws_commons TO app")
    rds("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA aws_lambda TO app")
    dump = subprocess.run(
        [cluster.bindir / "pg_dump", cluster.dsn(database)], capture_output=True, text=True, check=True
    ).stdout
    assert "CREATE EXTENSION IF NOT EXISTS aws_lambda WITH SCHEMA public;" in dump
    assert "CREATE FUNCTION aws_" not in dump and "LANGUAGE aws_lambda_python" not in dump
    restored = cluster.psql("-v", "ON_ERROR_STOP=1", "-q", database="empty", sql=dump)
    assert restored.returncode == 0, restored.stderr
    assert empty("SELECT arn::text, (file).file_path FROM targets") == ("(lambdaTest,us-east-1)", "a file")
    assert empty("SELECT payload FROM called") == {"name": "test", "Status": "OK"}
    assert empty("SELECT has_schema_privilege('app', 'aws_lambda', 'USAGE')")
    may = """SELECT bool_and(has_function_privilege('app', oid, 'EXECUTE')) FROM pg_proc
              WHERE pronamespace = '{}'::regnamespace"""
    assert empty(may.format("aws_lambda")) is True
    assert empty(may.format("aws_commons")) is False
    for session in (rds, empty):
        session("DROP OWNED BY app")


def test_every_python_body_compiles(rds: Sql) -> None:
    bodies = rds(
        """SELECT array_agg(aws_lambda._python_validator(p.oid)::text)
             FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE l.lanname = 'aws_lambda_python'"""
    )
    assert len(bodies) == 1


def test_every_public_object_has_a_comment(rds: Sql) -> None:
    silent = rds(
        """SELECT array_agg(pg_describe_object(d.classid, d.objid, 0))
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname IN ('aws_commons', 'aws_lambda')
            WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
              AND obj_description(d.objid, d.classid::regclass::name) IS NULL
              AND pg_describe_object(d.classid, d.objid, 0) NOT LIKE 'type %[]'"""
    )
    assert silent is None
