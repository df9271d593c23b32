"""SQL written for RDS, as it stands in people's migrations, triggers and applications."""

from __future__ import annotations

import base64
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster
from psycopg.types.json import Json, Jsonb

from tests.conftest import Connect, runner
from tests.endpoints import Behaviour, Endpoint, Received, answer, black_hole, hang_up, in_turn, refusal, silence
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
OK = answer(200, {"body": "ok"}, X_Amz_Executed_Version="7")


@pytest.fixture(scope="module")
def rds(own: Sql) -> Sql:
    """A session of a database with aws_lambda, shared by the whole module."""
    own("CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE")
    return own


@pytest.fixture
def dsn(rds: Sql, cluster: Cluster) -> str:
    """Of the database of `rds`."""
    return cluster.dsn(rds("SELECT current_database()"))


@dataclass(frozen=True)
class Asked:
    """What a request asks of Lambda."""

    function: str
    region: str
    invocation_type: str
    log_type: str
    payload: Any
    context: Any


def asked(received: Received) -> Asked:
    scope = re.search(r"/\d{8}/([a-z0-9-]+)/lambda/", received.headers["authorization"])
    context = received.headers.get("x-amz-client-context")
    assert scope
    return Asked(
        unquote(received.path.split("/functions/")[1]).replace("/invocations", ""),
        scope[1],
        received.headers["x-amz-invocation-type"],
        received.headers["x-amz-log-type"],
        json.loads(received.body),
        json.loads(base64.b64decode(context)) if context else None,
    )


@pytest.fixture
def through(rds: Sql, endpoint: Callable[[Behaviour], Endpoint]) -> Iterator[Callable[..., tuple[Sql, Endpoint]]]:
    """A session whose only server is an endpoint with this behaviour."""

    def start(behaviour: Behaviour = OK, **options: str) -> tuple[Sql, Endpoint]:
        started = endpoint(behaviour)
        given = {"region": "us-east-1", "endpoint_url": started.url, **options}
        listed = ", ".join(f"{name} '{value}'" for name, value in given.items())
        rds(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({listed})")
        return rds, started

    yield start
    for name in ("connect_timeout_ms", "request_timeout_ms"):
        rds(f"RESET aws_lambda.{name}")
    rds("DROP SERVER IF EXISTS aws")


# Overloads: what is asked of Lambda, for each way to write the call.

F = Asked("f", "us-east-1", "RequestResponse", "None", {"a": 1}, None)
FORMS = {
    # The text form.
    "('f', '{\"a\":1}'::json)": F,
    "('f', '{\"a\":1}'::jsonb)": F,
    f"('{ARN}', '{{\"a\":1}}'::json)": Asked(ARN, "us-east-1", "RequestResponse", "None", {"a": 1}, None),
    f"('{ARN}', '{{\"a\":1}}'::json, 'us-east-1')": Asked(ARN, "us-east-1", "RequestResponse", "None", {"a": 1}, None),
    "('f', '{\"a\":1}'::json, 'eu-west-1')": Asked("f", "eu-west-1", "RequestResponse", "None", {"a": 1}, None),
    "('f', '{\"a\":1}'::json, NULL, 'Event')": Asked("f", "us-east-1", "Event", "None", {"a": 1}, None),
    "('f', '{\"a\":1}'::jsonb, 'eu-west-1', 'RequestResponse', 'Tail', '{\"custom\":{\"x\":\"y\"}}', 'prod')": Asked(
        "f?Qualifier=prod", "eu-west-1", "RequestResponse", "Tail", {"a": 1}, {"custom": {"x": "y"}}
    ),
    "('f:prod', '{\"a\":1}'::json, qualifier => 'prod')": Asked(
        "f:prod", "us-east-1", "RequestResponse", "None", {"a": 1}, None
    ),
    "(function_name := 'f', payload := json_build_object('a', 1), invocation_type := 'Event')": Asked(
        "f", "us-east-1", "Event", "None", {"a": 1}, None
    ),
    "(payload => '{\"a\":1}'::jsonb, function_name => 'f', log_type => 'Tail')": Asked(
        "f", "us-east-1", "RequestResponse", "Tail", {"a": 1}, None
    ),
    "('f', json_build_object('a', 1))": F,
    "('f', jsonb_build_object('a', 1))": F,
    "('f', to_jsonb(t))": F,
    "('f', to_json(t), NULL)": F,
    "('f', row_to_json(t))": F,
    "('f', CONCAT('{\"a\": ', t.a, '}')::json)": F,
    "('f', format('{\"a\": %s}', t.a)::jsonb)": F,
    "('f', (SELECT json_build_object('a', u.a) FROM (VALUES (1)) AS u(a)))": F,
    "('f'::varchar, '{\"a\":1}'::json)": F,
    # The composite form, where there is no region.
    "(aws_commons.create_lambda_function_arn('f'), '{\"a\":1}'::json)": F,
    "(aws_commons.create_lambda_function_arn('f', 'eu-west-1'), '{\"a\":1}'::jsonb, 'Event')": Asked(
        "f", "eu-west-1", "Event", "None", {"a": 1}, None
    ),
    f"(aws_commons.create_lambda_function_arn('{ARN}', 'us-east-1'), row_to_json(t), 'RequestResponse', 'Tail')": Asked(
        ARN, "us-east-1", "RequestResponse", "Tail", {"a": 1}, None
    ),
    "(aws_commons.create_lambda_function_arn(function_name := 'f', region := 'eu-west-1'), '{\"a\":1}'::json,"
    " context => '{\"custom\":{}}', qualifier => '3')": Asked(
        "f?Qualifier=3", "eu-west-1", "RequestResponse", "None", {"a": 1}, {"custom": {}}
    ),
    "('(f,eu-west-1)'::aws_commons._lambda_function_arn_1, '{\"a\":1}'::json)": Asked(
        "f", "eu-west-1", "RequestResponse", "None", {"a": 1}, None
    ),
    "(ROW('f', 'eu-west-1'), '{\"a\":1}'::json, 'DryRun')": Asked("f", "eu-west-1", "DryRun", "None", {"a": 1}, None),
    # The documented forms with psql's \gset: the composite is a literal, so Postgres takes the text overload.
    "('(f,eu-west-1)', '{\"a\":1}'::json)": Asked("f", "eu-west-1", "RequestResponse", "None", {"a": 1}, None),
    "('(f,)', '{\"a\":1}'::json)": F,
    "('(f,eu-west-1)', '{\"a\":1}'::json, 'Event')": Asked("f", "eu-west-1", "Event", "None", {"a": 1}, None),
    "('(f,eu-west-1)', '{\"a\":1}'::jsonb, 'RequestResponse', 'Tail')": Asked(
        "f", "eu-west-1", "RequestResponse", "Tail", {"a": 1}, None
    ),
    "('(f,eu-west-1)', '{\"a\":1}'::json, 'RequestResponse', 'None', '{\"custom\":{\"x\":\"y\"}}')": Asked(
        "f", "eu-west-1", "RequestResponse", "None", {"a": 1}, {"custom": {"x": "y"}}
    ),
    "('(f,eu-west-1)', '{\"a\":1}'::json, 'RequestResponse', log_type => 'Tail')": Asked(
        "f", "eu-west-1", "RequestResponse", "Tail", {"a": 1}, None
    ),
    "('(f,eu-west-1)', '{\"a\":1}'::json, invocation_type => 'Event', qualifier => 'prod')": Asked(
        "f?Qualifier=prod", "eu-west-1", "Event", "None", {"a": 1}, None
    ),
    "('(f:prod,)', '{\"a\":1}'::json, 'eu-west-1')": Asked(
        "f:prod", "eu-west-1", "RequestResponse", "None", {"a": 1}, None
    ),
    # Its six arguments, which are "not unique" on RDS.
    "('(f,eu-west-1)', '{\"a\":1}'::json, 'RequestResponse', 'Tail', '{\"custom\":{}}', '$LATEST')": Asked(
        "f?Qualifier=$LATEST", "eu-west-1", "RequestResponse", "Tail", {"a": 1}, {"custom": {}}
    ),
    "('(f,eu-west-1)', '{\"a\":1}'::jsonb, 'Event', 'None', NULL, 'prod')": Asked(
        "f?Qualifier=prod", "eu-west-1", "Event", "None", {"a": 1}, None
    ),
    "('(f,)', '{\"a\":1}'::json, 'RequestResponse', 'Tail', '{\"custom\":{}}', NULL)": Asked(
        "f", "us-east-1", "RequestResponse", "Tail", {"a": 1}, {"custom": {}}
    ),
    "('f', '{\"a\":1}'::json, 'eu-west-1', 'Event', 'None', '{\"custom\":{}}')": Asked(
        "f", "eu-west-1", "Event", "None", {"a": 1}, {"custom": {}}
    ),
    "('(f,eu-west-1)', '{\"a\":1}', 'RequestResponse', 'Tail', '{\"custom\":{}}', '3')": Asked(
        "f?Qualifier=3", "eu-west-1", "RequestResponse", "Tail", {"a": 1}, {"custom": {}}
    ),
    # Of these six RDS resolves some: to the same.
    "('(\"f\",eu-west-1)', '{\"a\":1}'::json, 'Event', 'None', '{\"custom\":{}}', 'prod'::text)": Asked(
        "f?Qualifier=prod", "eu-west-1", "Event", "None", {"a": 1}, {"custom": {}}
    ),
    "('(f,eu-west-1)', '{\"a\":1}'::json, 'Event', 'None', '{\"custom\":{}}', 'prod'::varchar)": Asked(
        "f?Qualifier=prod", "eu-west-1", "Event", "None", {"a": 1}, {"custom": {}}
    ),
    "('f'::text, '{\"a\":1}'::jsonb, 'eu-west-1', 'Event', 'None', '{\"custom\":{}}')": Asked(
        "f", "eu-west-1", "Event", "None", {"a": 1}, {"custom": {}}
    ),
    "('f', '{\"a\":1}'::json, NULL, 'Event', 'None', '{\"custom\":{}}'::json)": Asked(
        "f", "us-east-1", "Event", "None", {"a": 1}, {"custom": {}}
    ),
    # Payloads without a type, which are "not unique" on RDS.
    "('f', '{\"a\":1}')": F,
    "('f', '{\"a\":1}', NULL, 'Event')": Asked("f", "us-east-1", "Event", "None", {"a": 1}, None),
    "(function_name => 'f', payload => '{\"a\":1}', context => '{\"custom\":{}}')": Asked(
        "f", "us-east-1", "RequestResponse", "None", {"a": 1}, {"custom": {}}
    ),
    "('f', '{\"a\":' || '1}')": F,
    "(aws_commons.create_lambda_function_arn('f'), '{\"a\":1}', 'Event')": Asked(
        "f", "us-east-1", "Event", "None", {"a": 1}, None
    ),
    "('(f,eu-west-1)', '{\"a\":1}', 'Event')": Asked("f", "eu-west-1", "Event", "None", {"a": 1}, None),
    # And the same with a type, which "does not exist" on RDS.
    "('f', '{\"a\":1}'::text)": F,
    "(aws_commons.create_lambda_function_arn('f'), '{\"a\":1}'::text)": F,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_call_asks_what_it_asks_on_rds(through: Any, form: str) -> None:
    sql, endpoint = through()
    sql(f"SELECT i.* FROM (SELECT 1 AS a) AS t, LATERAL aws_lambda.invoke{form} AS i")
    sql(f"SELECT aws_lambda.invoke{form} FROM (SELECT 1 AS a) AS t")
    assert [asked(request) for request in endpoint.requests] == [FORMS[form]] * 2


STAND_INS = """
DO $$
DECLARE one record; schema text;
BEGIN
  FOR one IN
    SELECT oid::regprocedure::text AS name, regexp_replace(pg_get_function_arguments(oid), ', OUT .*', '') AS arguments,
           pronargdefaults > 0 AND proargtypes[1] <> 'text'::regtype AS on_rds
      FROM pg_proc WHERE pronamespace = 'aws_lambda'::regnamespace AND proname = 'invoke'
  LOOP
    FOREACH schema IN ARRAY CASE WHEN one.on_rds THEN '{of_rds,of_ours}' ELSE '{of_ours}' END::text[] LOOP
      EXECUTE format('CREATE FUNCTION %I.invoke(%s) RETURNS text LANGUAGE sql AS %L',
                     schema, one.arguments, format('SELECT %L', one.name));
    END LOOP;
  END LOOP;
END $$
"""
RESOLVE = """
CREATE FUNCTION resolve(schema text, arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
  EXECUTE format('SELECT %I.invoke(%s)', schema, arguments) INTO found;
  RETURN found;
EXCEPTION WHEN ambiguous_function OR undefined_function THEN
  RETURN SQLSTATE;
END $$
"""
COMPOSITE = "aws_commons._lambda_function_arn_1"
KINDS = [  # of each argument by position; None has no type
    [None, "text", "varchar", COMPOSITE],
    [None, "json", "jsonb", "text"],
    [None, "text"],
    [None, "text"],
    [None, "text", "varchar", "json", "jsonb"],
    [None, "text", "varchar", "json", "jsonb"],
    [None, "text", "varchar", "json", "jsonb"],
]


@pytest.fixture
def resolved(sql: Sql, connect: Connect) -> list[tuple[tuple[str | None, ...], str, str]]:
    """Every call by position as kinds of its arguments: the overload that Postgres takes, or the SQLSTATE of its
    refusal, with RDS's four signatures alone and with ours."""
    sql("CREATE EXTENSION aws_lambda CASCADE")
    sql("CREATE SCHEMA of_rds; CREATE SCHEMA of_ours")
    sql(STAND_INS)
    sql(RESOLVE)
    calls = [call for n in range(2, 8) for call in itertools.product(*KINDS[:n])]
    written = [", ".join("NULL" + (f"::{kind}" if kind else "") for kind in call) for call in calls]
    rows = connect().execute(
        "SELECT resolve('of_rds', c), resolve('of_ours', c) FROM unnest(%s::text[]) WITH ORDINALITY AS t (c, n) "
        "ORDER BY n",
        (written,),
    )
    return [(call, *row) for call, row in zip(calls, rows, strict=True)]


def overload(first: str, payload: str, *more: str) -> str:
    return f"aws_lambda.invoke({','.join([first, payload, *more])})"


def test_no_call_that_rds_resolves_means_anything_else_here(resolved: Any) -> None:
    moved = set()
    for call, on_rds, here in resolved:
        if on_rds in ("42725", "42883") or here == on_rds:
            continue
        assert len(call) == 6, call
        payload = call[1]
        assert here == overload("text", payload, "text", "text", "text", "text"), call
        if on_rds == overload("text", payload, "text", "text", "text", payload, "character varying"):
            assert call[5] is None, "region, invocation type, log type, context: the same in both"
            moved.add("text")
        else:
            assert on_rds == overload(COMPOSITE, payload, "text", "text", payload, "character varying")
            assert call[0] is None and call[5] == "text", "(name,region), which is taken apart in both"
            moved.add("composite")
    assert moved == {"text", "composite"}


def test_no_call_by_position_is_ambiguous(resolved: Any) -> None:
    assert {on_rds for _, on_rds, _ in resolved} > {"42725", "42883"}
    assert not [call for call, _, here in resolved if here == "42725"]


BY_NAME = {
    # call: the overload that RDS's own four signatures lead to
    "('f', '{}', context => '{}'::jsonb)": ("text", "jsonb"),
    "('f', '{}', context => '{}'::json)": ("text", "json"),
    "('f', '{}'::jsonb, context => '{}')": ("text", "jsonb"),
    "(function_name => 'f', payload => '{}'::json, region => 'r', invocation_type => 'Event', log_type => 'None',"
    " context => '{}')": ("text", "json"),
    "('f', '{}'::json, 'r', 'Event', log_type => 'None', context => '{}')": ("text", "json"),
    "('f', '{}'::json, 'r', 'Event', 'None', context => '{}')": ("text", "json"),
    "('(f,r)', '{}'::json, 'Event', 'None', '{}', qualifier => 'prod')": ("text", "json"),
    "(ROW('f', 'r'), '{}'::json)": (COMPOSITE, "json"),
    "(ROW('f', 'r'), '{}'::jsonb, 'Event', 'None', '{}', 'prod')": (COMPOSITE, "jsonb"),
}


@pytest.mark.parametrize("form", BY_NAME)
def test_calls_by_name_find_the_overloads_of_rds(rds: Sql, form: str) -> None:
    def found() -> str:
        rds(f"CREATE TEMPORARY VIEW one AS SELECT (aws_lambda.invoke{form}).status_code")
        try:
            return rds(
                """SELECT d.refobjid::regprocedure::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                    WHERE r.ev_class = 'one'::regclass AND d.refclassid = 'pg_proc'::regclass
                      AND d.refobjid::regprocedure::text LIKE 'aws_lambda.invoke(%'"""
            )
        finally:
            rds("DROP VIEW one")

    first, payload = BY_NAME[form]
    region = ["text"] if first == "text" else []
    assert found() == overload(first, payload, *region, "text", "text", payload, "character varying")


def test_json_and_jsonb_contexts_do_not_mix(rds: Sql) -> None:
    with raises("42883", "function aws_lambda.invoke(unknown, json, context => jsonb) does not exist"):
        rds("SELECT aws_lambda.invoke('f', '{}'::json, context => '{}'::jsonb)")


def test_the_result_has_rds_columns_and_types(rds: Sql) -> None:
    arn = "aws_commons._lambda_function_arn_1"
    for first, payload, result in [
        (first, *kind) for first in ("text", arn) for kind in (("json", "json"), ("jsonb", "jsonb"), ("text", "json"))
    ]:
        region = "region text DEFAULT NULL::text, " if first == "text" else ""
        arguments, defined = rds(
            """SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc
                WHERE pronamespace = 'aws_lambda'::regnamespace AND proname = 'invoke'
                  AND proargtypes[0] = %s::regtype AND proargtypes[1] = %s::regtype AND pronargdefaults > 0""",
            first, payload,
        )  # fmt: skip
        assert defined == "record"
        assert arguments == (
            f"function_name {first}, payload {payload}, {region}invocation_type text DEFAULT 'RequestResponse'::text, "
            f"log_type text DEFAULT 'None'::text, context {payload} DEFAULT NULL::{payload}, "
            "qualifier character varying DEFAULT NULL::character varying, "
            f"OUT status_code integer, OUT payload {result}, OUT executed_version text, OUT log_result text"
        )


def test_without_a_region_it_is_the_arn_s_else_the_server_s_else_the_instance_s(through: Any) -> None:
    sql, endpoint = through(region="eu-west-2")
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f"
    for name in (arn, "eu-west-1:123456789012:function:f", "f"):
        sql(f"SELECT aws_lambda.invoke('{name}', '{{}}'::json)")
        sql(f"SELECT aws_lambda.invoke(aws_commons.create_lambda_function_arn('{name}'), '{{}}'::json)")
    sql("ALTER SERVER aws OPTIONS (DROP region)")
    for name in (arn, "f"):
        sql(f"SELECT aws_lambda.invoke('{name}', '{{}}'::json)")
    regions = [asked(received).region for received in endpoint.requests]
    assert regions == [*["eu-west-1"] * 4, *["eu-west-2"] * 2, "eu-west-1", "us-east-1"]


# Results, from real functions.


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_status_payload_version_and_log_are_as_on_rds(rds: Sql, kind: str) -> None:
    call = f"SELECT * FROM aws_lambda.invoke('behave', '{{\"do\": \"about\"}}'::{kind}, NULL, %s, 'Tail', NULL, %s)"
    status, payload, version, log = rds(call, "RequestResponse", "prod")
    assert (status, payload["version"], version) == (200, "1", "1")
    assert "a line in the log: grüß Gott" in base64.b64decode(log).decode()
    call = call.replace("'Tail'", "'None'")
    assert rds(call, "RequestResponse", None)[3] is None
    assert rds(call, "Event", None)[:2] == (202, None)
    assert rds(call, "DryRun", None)[:2] == (204, None)


def test_a_null_of_the_function_is_json_null(rds: Sql, through: Any) -> None:
    call = "SELECT payload::text = 'null' FROM aws_lambda.invoke('{}', '{{\"do\": \"nothing\"}}'::json)"
    assert rds(call.format("behave")) is True
    sql, _ = through(answer(200, b""))
    assert sql(call.format("f")) is True


def test_invocation_type_and_log_type_are_case_sensitive(through: Any) -> None:
    sql, endpoint = through()
    with raises("22023", "invoke API failed", "invalid invocation type: 'event'", "RequestResponse, Event, DryRun"):
        sql("SELECT aws_lambda.invoke('f', '{}'::json, NULL, 'event')")
    with raises("22023", "invoke API failed", "invalid log type: 'tail'", "None, Tail"):
        sql("SELECT aws_lambda.invoke('f', '{}'::json, log_type => 'tail')")
    assert endpoint.connections == 0


# Forms of the statement.

IN_PLPGSQL = {
    "perform from": "PERFORM * FROM aws_lambda.invoke('f', '{}'::json)",
    "perform": "PERFORM aws_lambda.invoke('f', '{}'::json)",
    "into record": "SELECT aws_lambda.invoke('f', '{}'::json) INTO r; ASSERT r::text LIKE '%body%'",
    "star into record": "SELECT * FROM aws_lambda.invoke('f', '{}'::json) INTO r; ASSERT r.status_code = 200",
    "assignment": "r := aws_lambda.invoke('f', '{}'::json); ASSERT r.payload ->> 'body' = 'ok'",
    "column into json": "SELECT payload FROM aws_lambda.invoke('f', '{}'::json) INTO j; ASSERT j ->> 'body' = 'ok'",
    "into jsonb": "SELECT payload INTO b FROM aws_lambda.invoke('f', '{}'::jsonb); ASSERT b ->> 'body' = 'ok'",
    "into text": "SELECT payload INTO t FROM aws_lambda.invoke('f', '{}'::json); ASSERT t::json ->> 'body' = 'ok'",
    "into varchar": "SELECT payload ->> 'body' INTO v FROM aws_lambda.invoke('f', '{}'::json); ASSERT v = 'ok'",
    "into bigint": "SELECT status_code INTO n FROM aws_lambda.invoke('f', '{}'::json); ASSERT n = 200",
    "column of the row": "j := (aws_lambda.invoke('f', '{}'::json)).payload; ASSERT j ->> 'body' = 'ok'",
    "dynamic": "EXECUTE 'SELECT payload FROM aws_lambda.invoke($1, $2)' INTO j USING 'f', '{}'::json; "
    "ASSERT j ->> 'body' = 'ok'",
    "dynamic with a literal": "EXECUTE format('SELECT payload FROM aws_lambda.invoke(%L, %L::json)', 'f', '{}') INTO j",
    "variables by its arguments' names": "DECLARE payload json := '{}'; function_name text := 'f'; BEGIN "
    "PERFORM aws_lambda.invoke(function_name := function_name, payload := payload); END",
    "arn in a variable": "a := aws_commons.create_lambda_function_arn('f', 'us-east-1'); "
    "PERFORM aws_lambda.invoke(a, '{}'::json, 'Event')",
    "loop": "FOR r IN SELECT * FROM aws_lambda.invoke('f', '{}'::json) LOOP ASSERT r.executed_version = '7'; END LOOP",
}


@pytest.mark.parametrize("form", IN_PLPGSQL)
def test_it_is_called_from_plpgsql_in_every_way(through: Any, form: str) -> None:
    sql, endpoint = through()
    sql(
        f"""DO $$ DECLARE r record; j json; b jsonb; t text; v varchar(10); n bigint;
                          a aws_commons._lambda_function_arn_1;
                  BEGIN {IN_PLPGSQL[form]}; END $$"""
    )
    assert len(endpoint.requests) == 1


def test_a_bare_select_in_plpgsql_is_the_error_that_it_is_on_rds(through: Any) -> None:
    sql, _ = through()
    with raises("42601", "query has no destination for result data"):
        sql("DO $$ BEGIN SELECT aws_lambda.invoke('f', '{}'::json); END $$")


IN_SQL = [
    "SELECT (aws_lambda.invoke('f', '{}'::json)).status_code",
    "SELECT (r).payload ->> 'body' FROM (SELECT aws_lambda.invoke('f', '{}'::json) AS r OFFSET 0) AS one",
    "SELECT payload::text, payload -> 'body' FROM aws_lambda.invoke('f', '{}'::json)",
    "WITH called AS MATERIALIZED (SELECT * FROM aws_lambda.invoke('f', '{}'::json)) SELECT status_code FROM called",
    "SELECT * FROM json_each((SELECT payload FROM aws_lambda.invoke('f', '{}'::json)))",
    "SELECT t.x, i.payload FROM (VALUES ('f')) AS t(x), LATERAL aws_lambda.invoke(t.x, to_json(t)) AS i",
    "SELECT t.x, i.payload FROM (VALUES ('f')) AS t(x) CROSS JOIN aws_lambda.invoke(t.x, to_jsonb(t)) AS i",
]


@pytest.mark.parametrize("statement", IN_SQL)
def test_it_is_called_from_sql_in_every_way(through: Any, statement: str) -> None:
    sql, endpoint = through()
    assert sql(statement)
    assert len(endpoint.requests) >= 1


def test_lateral_calls_once_for_each_row(through: Any) -> None:
    sql, endpoint = through()
    sql("SELECT i.* FROM generate_series(1, 3) AS n, LATERAL aws_lambda.invoke('f', to_json(n)) AS i")
    assert [json.loads(request.body) for request in endpoint.requests] == [1, 2, 3]


def test_json_array_elements_takes_the_payload(through: Any) -> None:
    sql, _ = through(answer(200, [{"id": 1}, {"id": 2}]))
    rows = """SELECT sum((e ->> 'id')::int)
                FROM aws_lambda.invoke('f', '{}'::json), LATERAL json_array_elements(payload) AS e"""
    assert sql(rows) == 3
    assert sql(rows.replace("json", "jsonb")) == 3


def test_functions_in_sql_are_checked_when_they_are_created(through: Any) -> None:
    sql, endpoint = through()
    sql(
        """CREATE OR REPLACE FUNCTION pg_temp.get(fn_name text, fn_args json) RETURNS json LANGUAGE sql AS $$
             SELECT payload FROM aws_lambda.invoke(fn_name, fn_args) $$"""
    )
    sql(
        """CREATE OR REPLACE FUNCTION pg_temp.get(text, text) RETURNS text LANGUAGE sql AS $$
             SELECT payload::text FROM aws_lambda.invoke(
               aws_commons.create_lambda_function_arn($1, 'us-east-1'), $2::json, 'RequestResponse') $$"""
    )
    assert sql("SELECT pg_temp.get('f', '{}'::json) ->> 'body'") == "ok"
    assert json.loads(sql("SELECT pg_temp.get('f', '{}'::text)")) == {"body": "ok"}
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize("volatility", ["IMMUTABLE", "STABLE STRICT", "VOLATILE"])
def test_wrappers_of_any_volatility_work(through: Any, volatility: str) -> None:
    sql, _ = through()
    sql(
        f"""CREATE OR REPLACE FUNCTION pg_temp.wrapped(name text, body json) RETURNS json LANGUAGE plpgsql {volatility}
              AS $$ DECLARE answer json; BEGIN
                SELECT payload INTO answer FROM aws_lambda.invoke(name, body); RETURN answer; END $$"""
    )
    assert sql("SELECT pg_temp.wrapped('f', '{}') ->> 'body'") == "ok"


def test_psycopg_s_typed_prepared_statements(through: Any, dsn: str) -> None:
    _, endpoint = through()
    with psycopg.connect(dsn, autocommit=True) as session:
        for payload in (Json({"a": 1}), Jsonb({"a": 1})):
            for _ in range(2):
                row = session.execute(
                    "SELECT * FROM aws_lambda.invoke(%s, %s)", ("f", payload), prepare=True
                ).fetchone()
                assert row == (200, {"body": "ok"}, "7", None)
        arn = "SELECT * FROM aws_lambda.invoke(aws_commons.create_lambda_function_arn(%s, %s), %s, %s)"
        assert session.execute(arn, ("f", "eu-west-1", Json({"a": 1}), "Event"), prepare=True).fetchone()
        assert session.execute("SELECT * FROM aws_lambda.invoke(%s, %s)", ("f", '{"a": 1}')).fetchone()
        session.execute("PREPARE one (text, json) AS SELECT * FROM aws_lambda.invoke($1, $2)")
        assert session.execute("EXECUTE one ('f', '{\"a\": 1}')").fetchone()
    assert {json.dumps(asked(request).payload) for request in endpoint.requests} == {'{"a": 1}'}
    assert [asked(request).invocation_type for request in endpoint.requests].count("Event") == 1
    assert len(endpoint.requests) == 7


def test_psql_s_gset_examples_of_rds_documentation(through: Any, cluster: Cluster) -> None:
    sql, endpoint = through()
    done = cluster.psql(
        "-v", "ON_ERROR_STOP=1", database=sql("SELECT current_database()"),
        sql="""SELECT aws_commons.create_lambda_function_arn('f', 'eu-west-1') AS aws_lambda_arn_1 \\gset
               SELECT * FROM aws_lambda.invoke(:'aws_lambda_arn_1', '{"body": "Hello"}'::json);
               SELECT * FROM aws_lambda.invoke(:'aws_lambda_arn_1', '{"body": "Hello"}'::json, 'RequestResponse');
               SELECT * FROM aws_lambda.invoke(:'aws_lambda_arn_1', '{"body": "Hello"}'::jsonb, 'Event');
               SELECT *, convert_from(decode(log_result, 'base64'), 'utf-8') AS log
                 FROM aws_lambda.invoke(:'aws_lambda_arn_1', '{"body": "Hello"}'::json, 'RequestResponse', 'Tail');
               SELECT * FROM aws_lambda.invoke(:'aws_lambda_arn_1', '{"body": "Hello"}'::json, 'RequestResponse',
                                               'None', NULL, 'my-version');""",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = [asked(request) for request in endpoint.requests]
    assert [one.function for one in seen] == [*["f"] * 4, "f?Qualifier=my-version"]
    assert {one.region for one in seen} == {"eu-west-1"}
    kinds = [(one.invocation_type, one.log_type) for one in seen]
    assert kinds == [
        *[("RequestResponse", "None")] * 2,
        ("Event", "None"),
        ("RequestResponse", "Tail"),
        ("RequestResponse", "None"),
    ]


# Triggers.


def test_the_published_trigger_runs_unmodified(rds: Sql, aws: LocalAWS) -> None:
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName="new-users")["QueueUrl"]
    rds("CREATE TABLE users (id integer, firstname varchar(100), lastname varchar(100), age integer)")
    rds("INSERT into users (id, firstname, lastname, age) values (1, 'albert', 'einstein', 40)")
    rds(RESPOND_WITH_LAMBDA)
    rds("INSERT into users (id, firstname, lastname, age) values (4, 'stephen', 'hawking', 55)")

    def received() -> Any:
        found = sqs.receive_message(QueueUrl=queue).get("Messages", [])
        return [json.loads(message["Body"]) for message in found]

    (event,) = wait_until(received, "the new user is in the queue")
    assert (event["firstname"], event["lastname"]) == ("stephen", "hawking")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", event["created_at"])
    rds("DROP TABLE users; DROP FUNCTION respond_with_lambda")


RESPOND_WITH_LAMBDA = """
CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE;
CREATE OR REPLACE FUNCTION respond_with_lambda()
RETURNS TRIGGER
LANGUAGE PLPGSQL
AS
$$
BEGIN
IF cardinality(TG_ARGV)!=2 THEN
RAISE EXCEPTION 'Expected 2 parameters to respond_with_lambda function but got %', cardinality(TG_ARGV);
ELSEIF TG_ARGV[0]='' THEN
RAISE EXCEPTION 'Lambda name is empty';
ELSEIF TG_ARGV[1]='' THEN
RAISE EXCEPTION 'Lambda region is empty';
ELSE
PERFORM * FROM aws_lambda.invoke(aws_commons.create_lambda_function_arn(TG_ARGV[0], TG_ARGV[1]),
CONCAT('{"firstname": "', NEW.firstname,
'", "lastname": "', NEW.lastname,
'", "created_at": "', TO_CHAR(NOW()::timestamp, 'YYYY-MM-DD"T"HH24:MI:SS'),
'"}')::json,
'Event');
RETURN NEW;
END IF;
END
$$;
DROP TRIGGER IF EXISTS new_user_trigger ON users;
CREATE TRIGGER new_user_trigger
AFTER INSERT ON users
FOR EACH ROW
EXECUTE PROCEDURE respond_with_lambda("on-new-user", "us-east-1");
"""

TRIGGERS = {
    "BEFORE INSERT ON things FOR EACH ROW": ("INSERT INTO things VALUES (1)", {"op": "INSERT", "new": {"id": 1}}),
    "AFTER INSERT OR UPDATE ON things FOR EACH ROW": (
        "INSERT INTO things VALUES (1)", {"op": "INSERT", "new": {"id": 1}},
    ),
    "AFTER UPDATE OF id ON things FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id)": (
        "UPDATE things SET id = 2", {"op": "UPDATE", "new": {"id": 2}},
    ),
    "BEFORE DELETE ON things FOR EACH ROW": ("DELETE FROM things", {"op": "DELETE", "new": {"id": 0}}),
    "AFTER INSERT ON things FOR EACH STATEMENT": ("INSERT INTO things VALUES (1), (2)", {"op": "INSERT", "new": None}),
}  # fmt: skip


@pytest.mark.parametrize("when", TRIGGERS)
def test_triggers_of_every_kind(through: Any, when: str) -> None:
    sql, endpoint = through()
    sql("CREATE TABLE things (id int); INSERT INTO things VALUES (0)")
    try:
        sql(
            """CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
               DECLARE row json := CASE WHEN TG_LEVEL = 'STATEMENT' THEN NULL
                                        WHEN TG_OP = 'DELETE' THEN row_to_json(OLD) ELSE row_to_json(NEW) END;
               BEGIN
                 PERFORM aws_lambda.invoke(aws_commons.create_lambda_function_arn(TG_ARGV[0], TG_ARGV[1]),
                   json_build_object('op', TG_OP, 'new', row), 'Event');
                 RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
               END $$"""
        )
        sql(f"CREATE TRIGGER tell {when} EXECUTE FUNCTION tell('f', 'eu-west-1')")
        statement, payload = TRIGGERS[when]
        sql(statement)
        assert [asked(one) for one in endpoint.requests] == [Asked("f", "eu-west-1", "Event", "None", payload, None)]
    finally:
        sql("DROP TABLE things; DROP FUNCTION tell")


def test_a_failing_call_undoes_the_statement_unless_the_trigger_catches_it(through: Any) -> None:
    sql, _ = through(hang_up)
    sql("CREATE TABLE things (id int)")
    try:
        body = "PERFORM aws_lambda.invoke('f', row_to_json(NEW)); RETURN NEW;"
        trigger = "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$"
        sql(trigger.format(body))
        sql("CREATE TRIGGER tell AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION tell()")
        with raises("08006", "invoke API failed"):
            sql("INSERT INTO things VALUES (1)")
        assert sql("SELECT count(*) FROM things") == 0
        catch = "EXCEPTION WHEN OTHERS THEN INSERT INTO seen VALUES (SQLSTATE, SQLERRM); RETURN NEW;"
        sql("CREATE TEMPORARY TABLE seen (state text, message text)")
        sql(trigger.format(body + catch))
        sql("INSERT INTO things VALUES (1)")
        assert sql("SELECT count(*) FROM things") == 1
        assert sql("SELECT * FROM seen") == ("08006", "invoke API failed")
    finally:
        sql("DROP TABLE things; DROP FUNCTION tell; DROP TABLE IF EXISTS seen")


# Errors: RDS's texts, our SQLSTATEs and hints.


def said(caught: Any) -> tuple[str, str, str]:
    diagnostic = caught.value.diag
    return diagnostic.message_primary, diagnostic.message_detail, diagnostic.message_hint


def test_a_function_that_fails_is_rds_error(rds: Sql) -> None:
    with raises("LA001") as caught:
        rds("SELECT aws_lambda.invoke('behave', '{\"do\": \"fail\"}'::json)")
    message, detail, hint = said(caught)
    assert message == "lambda invocation failed"
    arn = "arn:aws:lambda:us-east-1:123456789012:function:behave"
    details = re.fullmatch(rf'"{arn}" returned error "Unhandled", details: "(\{{.*\}})"\.', detail)
    assert details and json.loads(details[1])["errorMessage"] == "too hot"
    assert "CloudWatch Logs" in hint and "Request id: " in hint
    assert 'SQL function "invoke" statement 1' in caught.value.diag.context
    with raises("LA002", "lambda invocation failed", f'"{arn}" returned error "Unhandled"', "Task timed out"):
        rds(f'SELECT aws_lambda.invoke(\'{arn}\', \'{{"do": "sleep", "seconds": 20}}\'::jsonb)')


FAILED = answer(200, {"errorMessage": "too hot"}, X_Amz_Function_Error="Unhandled")
INVOKED = {
    "('f', '{}'::json)": ARN,
    "('f:prod', '{}'::json)": f"{ARN}:prod",
    "('f', '{}'::json, qualifier => '$LATEST')": f"{ARN}:$LATEST",
    "('f', '{}'::json, 'eu-west-1')": "arn:aws:lambda:eu-west-1:123456789012:function:f",
    "('f', '{}'::json, 'cn-north-1')": "arn:aws-cn:lambda:cn-north-1:123456789012:function:f",
    "('(f,eu-west-1)', '{}'::json)": "arn:aws:lambda:eu-west-1:123456789012:function:f",
    "(aws_commons.create_lambda_function_arn('f'), '{}'::jsonb)": ARN,
    "('function:f', '{}'::json)": ARN,
    "('210987654321:function:f', '{}'::json)": "arn:aws:lambda:us-east-1:210987654321:function:f",
    "('210987654321:function:f:prod', '{}'::json)": "arn:aws:lambda:us-east-1:210987654321:function:f:prod",
    "('eu-west-1:210987654321:function:f', '{}'::json)": "arn:aws:lambda:eu-west-1:210987654321:function:f",
    f"('{ARN}', '{{}}'::json)": ARN,
    f"('{ARN}:prod', '{{}}'::json)": f"{ARN}:prod",
    f"('{ARN}', '{{}}'::json, qualifier => 'prod')": f"{ARN}:prod",
}


def test_the_function_that_failed_is_named_by_its_whole_arn(through: Any) -> None:
    sql, endpoint = through(FAILED)
    sql(f"ALTER SERVER aws OPTIONS (DROP endpoint_url, ADD endpoint_url_lambda '{endpoint.url}')")
    for form, arn in INVOKED.items():
        with raises("LA001", "lambda invocation failed") as caught:
            sql(f"SELECT aws_lambda.invoke{form}")
        assert said(caught)[1].startswith(f'"{arn}" returned error "Unhandled", details: "{{'), form


def test_the_account_in_it_is_that_of_the_server_s_role(through: Any) -> None:
    sql, endpoint = through(FAILED)
    role = "arn:aws:iam::123456789012:role/reports"
    sql(
        f"ALTER SERVER aws OPTIONS (DROP endpoint_url, ADD endpoint_url_lambda '{endpoint.url}', ADD role_arn '{role}')"
    )
    with raises("LA001", f'"{ARN}:prod" returned error'):
        sql("SELECT aws_lambda.invoke('f:prod', '{}'::json)")


def test_without_an_answer_of_sts_the_function_is_named_as_it_was_given(through: Any) -> None:
    with black_hole() as port:
        sql, _ = through(FAILED, endpoint_url_sts=f"http://127.0.0.1:{port}", connect_timeout="300ms")
        started = time.monotonic()
        for name in ("f", "f:prod"):
            with raises("LA001", f'"{name}" returned error'):
                sql(f"SELECT aws_lambda.invoke('{name}', '{{}}'::json)")
        with raises("LA001", '"arn:aws:lambda:us-east-1:210987654321:function:f" returned error'):
            sql("SELECT aws_lambda.invoke('210987654321:function:f', '{}'::json)")
        sql(
            """DO $$ BEGIN FOR i IN 1 .. 20 LOOP
                 BEGIN PERFORM aws_lambda.invoke('f', '{}'::json); EXCEPTION WHEN SQLSTATE 'LA001' THEN NULL; END;
               END LOOP; END $$"""
        )
        assert 0.3 <= time.monotonic() - started < 3


def test_an_interrupt_ends_asking_for_the_account(through: Any, endpoint: Callable[[Behaviour], Endpoint]) -> None:
    sts = endpoint(silence)
    sql, _ = through(FAILED, endpoint_url_sts=sts.url)
    sql("SET statement_timeout = '1s'")
    try:
        with raises("57014", "canceling statement due to statement timeout"):
            sql("SELECT aws_lambda.invoke('f', '{}'::json)")
    finally:
        sql("RESET statement_timeout")
    assert len(sts.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "sqlstate", "words"),
    [
        (refusal(404, "ResourceNotFoundException", "Function not found"), "42704", "'f' in us-east-1"),
        (refusal(403, "AccessDeniedException", "x is not authorized"), "42501", "x is not authorized"),
        (refusal(403, "ExpiredTokenException", "expired"), "28000", "expired"),
        (refusal(429, "TooManyRequestsException", Reason="ConcurrentInvocationLimitExceeded"), "LA003", "throttled"),
        (refusal(500, "ServiceException"), "LA004", "HTTP 500"),
        (refusal(400, "InvalidParameterValueException", "bad"), "22023", "bad"),
        (hang_up, "08006", "closed without an answer"),
        (silence, "LA005", "did not answer within 1 s"),
    ],
)
def test_a_call_that_fails_is_rds_error(through: Any, behaviour: Behaviour, sqlstate: str, words: str) -> None:
    sql, _ = through(behaviour, request_timeout="1s", max_attempts="1")
    with raises(sqlstate) as caught:
        sql("SELECT aws_lambda.invoke('f', '{}'::json)")
    message, detail, hint = said(caught)
    assert message == "invoke API failed"
    assert re.fullmatch(r"AWS Lambda client returned '.*'\.", detail, re.DOTALL) and words in detail
    assert hint


def test_only_what_did_not_run_is_sent_again(through: Any) -> None:
    throttled = refusal(429, "TooManyRequestsException", Reason="ConcurrentInvocationLimitExceeded")
    sql, endpoint = through(in_turn(throttled, OK))
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200
    assert len(endpoint.requests) == 2
    endpoint.behaviour = refusal(500, "ServiceException")
    with raises("LA004"):
        sql("SELECT aws_lambda.invoke('f', '{}'::json)")
    assert len(endpoint.requests) == 3


def test_no_setting_decides_where_a_call_goes(through: Any) -> None:
    sql, endpoint = through()
    sql("SET aws_lambda.endpoint_override = 'http://127.0.0.1:1'")
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200
    sql("RESET aws_lambda.endpoint_override")
    assert len(endpoint.requests) == 1


def test_a_rollback_does_not_undo_a_call(through: Any) -> None:
    sql, endpoint = through()
    sql("BEGIN")
    sql("SELECT aws_lambda.invoke('f', '{}'::json, NULL, 'Event')")
    sql("ROLLBACK")
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_cannot_be_reached(rds: Sql) -> None:
    options = "region 'us-east-1', endpoint_url 'http://127.0.0.1:1', max_attempts '1'"
    rds(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")
    try:
        with raises("08001", "invoke API failed", "AWS Lambda client returned 'Cannot connect to", "Nothing was sent"):
            rds("SELECT * FROM aws_lambda.invoke('f', '{}'::json)")
    finally:
        rds("DROP SERVER aws")


BAD = {
    f"('{ARN}', '{{}}'::json, 'eu-west-1')": ("22023", "contradicts the one in"),
    f"(aws_commons.create_lambda_function_arn('{ARN}', 'eu-west-1'), '{{}}'::json)": ("22023", "contradicts the one"),
    "('(f,us-east-1)', '{}'::json, 'eu-west-1')": ("22023", "contradicts the one in '(f,us-east-1)'"),
    "('f:prod', '{}'::json, qualifier => 'test')": ("22023", "the qualifier 'test' contradicts the one in 'f:prod'"),
    "('f', '{}'::json, 'Event')": ("22023", "invocation_type => 'Event'"),
    "('f', '{}', 'RequestResponse')": ("22023", "invocation_type => 'RequestResponse'"),
    "('f', '{}'::json, '')": ("22023", "not the name of a region"),
    "('(f,us-east-1)', '{}'::json, 'Event', 'Event')": ("22023", "invalid log type: 'Event'"),
    "('(f,us-east-1,x)', '{}'::json)": ("22023", "not the name or ARN"),
    "('(f', '{}'::json)": ("22023", "not the name or ARN"),
    "('', '{}'::json)": ("22023", "not the name or ARN"),
    "(NULL, '{}'::json)": ("22004", "function_name must not be NULL"),
    "(NULL::aws_commons._lambda_function_arn_1, '{}'::json)": ("22004", "function_name must not be NULL"),
    "(aws_commons.create_lambda_function_arn(NULL), '{}'::json)": ("22004", "function_name must not be NULL"),
    "('f', NULL)": ("22004", "payload must not be NULL"),
    "('f', NULL::json)": ("22004", "payload must not be NULL"),
    "('f', '{}'::json, NULL, NULL)": ("22004", "invocation_type must not be NULL"),
    "('f', '{}'::json, log_type => NULL)": ("22004", "log_type must not be NULL"),
    "('f', '')": ("22P02", "is not JSON"),
    "('f', '{}', context => '')": ("22023", "client context is not a JSON object"),
    "('f', to_json(repeat('x', 7000000)))": ("54000", "6291456"),
    "('f', to_json(repeat('x', 1100000)), NULL, 'Event')": ("54000", "1048576"),
    "('f', '{bad')": ("22P02", "is not JSON"),
    "('f', '{}', context => '{bad')": ("22023", "the client context is not JSON"),
    "('f', '{}'::json, 'event')": ("22023", "invocation_type => 'Event'"),
    "('(f,us-east-1)', '{}'::json, 'event')": ("22023", "invalid invocation type: 'event'"),
    "('f', '{}'::json, 'Event', 'None', NULL, 'prod')": ("22023", "invocation_type => 'Event'"),
    "('(f,us-east-1)', '{}'::json, 'Event', 'None', '{bad', 'prod')": ("22023", "the client context is not JSON"),
    "('(f,us-east-1)', '{}', 'Event', 'None', '{}', 'prod', 'test')": ("22023", "'prod' and 'test' both stand"),
    "('(f,us-east-1)', '{}'::json, 'Event', NULL)": ("22004", "log_type must not be NULL"),
    "('f', '{bad'::text)": ("22P02", "jsonb_build_object"),
}


@pytest.mark.parametrize("form", BAD)
def test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent(through: Any, form: str) -> None:
    sql, endpoint = through()
    sqlstate, words = BAD[form]
    with raises(sqlstate, words) as caught:
        sql(f"SELECT aws_lambda.invoke{form}")
    message, detail, hint = said(caught)
    assert message == "invoke API failed" and detail.startswith("AWS Lambda client returned '") and hint
    assert endpoint.connections == 0


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT aws_lambda.invoke('f', '{}'::json)",
        "DO $$ BEGIN PERFORM aws_lambda.invoke('f', '{}'::json); EXCEPTION WHEN OTHERS THEN NULL; END $$",
    ],
)
def test_an_interrupt_passes_through(through: Any, statement: str) -> None:
    sql, endpoint = through(silence)
    sql("SET statement_timeout = '200ms'")
    try:
        with raises("57014", "canceling statement due to statement timeout") as caught:
            sql(statement)
        assert "invoke API failed" not in str(caught.value)
    finally:
        sql("RESET statement_timeout")
    endpoint.behaviour = OK
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200


# Timeouts.


def test_the_session_s_timeouts_count_for_this_call_instead_of_the_server_s(through: Any) -> None:
    sql, endpoint = through(OK, request_timeout="50s")
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200  # credentials are known from here on
    endpoint.behaviour = silence
    sql("SET aws_lambda.request_timeout_ms = 150")
    with raises("LA005", "within 0.15 s", "aws_lambda.request_timeout_ms counts instead"):
        sql("SELECT aws_lambda.invoke('f', '{}'::json)")
    sql("SET aws_lambda.request_timeout_ms = 900000")
    sql("SET aws_lambda.connect_timeout_ms = '1000'")
    endpoint.behaviour = OK
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200
    sql("RESET aws_lambda.request_timeout_ms")
    sql("RESET aws_lambda.connect_timeout_ms")
    assert sql("SHOW aws_lambda.request_timeout_ms") == ""
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200


def test_the_session_s_connect_timeout_counts(through: Any) -> None:
    with black_hole() as port:
        sql, _ = through(endpoint_url=f"http://127.0.0.1:{port}", connect_timeout="50s", max_attempts="1")
        sql("SET aws_lambda.connect_timeout_ms = 150")
        with raises("08001", "did not answer in time"):
            sql("SELECT aws_lambda.invoke('f', '{}'::json)")


def test_rds_s_default_of_three_seconds_is_not_imitated(through: Any) -> None:
    def late(connection: socket.socket, received: Received) -> bool:
        time.sleep(3.2)
        return OK(connection, received)

    sql, _ = through(late)
    assert sql("SELECT current_setting('aws_lambda.request_timeout_ms', true)") in (None, "")
    assert sql("SELECT (aws_lambda.invoke('f', '{}'::json)).status_code") == 200


def test_without_settings_the_server_s_times_count(through: Any) -> None:
    with black_hole() as port:
        sql, _ = through(silence, request_timeout="500ms", connect_timeout="150ms", max_attempts="1")
        with raises("LA005", "within 0.5 s"):
            sql("SELECT aws_lambda.invoke('f', '{}'::json)")
        sql(f"ALTER SERVER aws OPTIONS (SET endpoint_url 'http://127.0.0.1:{port}', SET request_timeout '20s')")
        started = time.monotonic()
        with raises("08001", "did not answer in time"):
            sql("SELECT aws_lambda.invoke('f', '{}'::json)")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("value", ["0", "-1", "900001", "3s", "1.5", "off", "99999999999"])
@pytest.mark.parametrize("name", ["connect_timeout_ms", "request_timeout_ms"])
def test_a_timeout_that_is_none_is_refused(through: Any, name: str, value: str) -> None:
    sql, endpoint = through()
    sql(f"SET aws_lambda.{name} = '{value}'")
    with raises("22023", f"aws_lambda.{name}: '{value}'", "from 1 to 900000", "Nothing was sent"):
        sql("SELECT aws_lambda.invoke('f', '{}'::json)")
    assert endpoint.connections == 0


@pytest.mark.parametrize("where", ["ROLE postgres", "ROLE postgres IN DATABASE {}", "DATABASE {}"])
def test_timeouts_of_a_role_or_database_count(through: Any, dsn: str, where: str) -> None:
    sql, _ = through(OK)
    altered = f"ALTER {where.format(sql('SELECT current_database()'))}"
    sql(f"{altered} SET aws_lambda.request_timeout_ms = 1")
    try:
        with psycopg.connect(dsn) as session, raises("08001", "no answer in time"):
            session.execute("SELECT aws_lambda.invoke('f', '{}'::json)")
    finally:
        sql(f"{altered} RESET aws_lambda.request_timeout_ms")
    with psycopg.connect(dsn) as session:
        assert session.execute("SELECT aws_lambda.invoke('f', '{}'::json)").fetchone()


# Permissions.


@pytest.fixture
def granted(sql: Sql) -> Sql:
    """The test's own database with aws_lambda, and the roles nobody and caller; caller has what RDS's guide grants."""
    sql("CREATE EXTENSION aws_lambda CASCADE")
    sql("CREATE ROLE nobody LOGIN; CREATE ROLE caller LOGIN")
    sql("GRANT USAGE ON SCHEMA aws_lambda TO caller")
    sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA aws_lambda TO caller")
    return sql


TEXT_FORM = "SELECT (aws_lambda.invoke('lambdaTest', '{}'::json)).status_code"


def test_postgres_own_refusals_come_first(granted: Sql, connect: Connect) -> None:
    nobody = runner(connect(user="nobody"))
    with raises("42501", "permission denied for schema aws_lambda"):
        nobody(TEXT_FORM)
    with raises("42501", "permission denied for schema aws_commons"):
        nobody("SELECT aws_commons.create_lambda_function_arn('f')")
    granted("GRANT USAGE ON SCHEMA aws_lambda, aws_commons TO nobody")
    with raises("42501", "permission denied for function invoke"):
        nobody(TEXT_FORM)
    with raises("42501", "permission denied for function create_lambda_function_arn"):
        nobody("SELECT aws_commons.create_lambda_function_arn('f')")


def test_rds_grants_are_all_that_the_text_form_needs(granted: Sql, connect: Connect) -> None:
    caller = runner(connect(user="caller"))
    assert caller(TEXT_FORM) == 200
    assert caller("SELECT (aws_lambda.invoke('(lambdaTest,us-east-1)', '{}'::json, 'Event')).status_code") == 202
    for schema in ("awslambda", "aws_commons"):
        assert granted("SELECT has_schema_privilege('caller', %s, 'USAGE')", schema) is False
    with raises("42501", "permission denied for schema aws_commons"):
        caller("SELECT aws_lambda.invoke(aws_commons.create_lambda_function_arn('lambdaTest'), '{}'::json)")
    granted("GRANT USAGE ON SCHEMA aws_commons TO caller")
    granted("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA aws_commons TO caller")
    arn = "aws_commons.create_lambda_function_arn('lambdaTest')"
    assert caller(f"SELECT (aws_lambda.invoke({arn}, '{{}}'::json)).status_code") == 200


def test_a_stored_arn_needs_nothing_of_aws_commons(granted: Sql, connect: Connect) -> None:
    granted("CREATE TABLE targets (arn aws_commons._lambda_function_arn_1)")
    granted("INSERT INTO targets VALUES (aws_commons.create_lambda_function_arn('lambdaTest', 'us-east-1'))")
    granted("GRANT SELECT ON targets TO caller")
    caller = runner(connect(user="caller"))
    assert caller("SELECT (aws_lambda.invoke(arn, '{}'::json)).status_code FROM targets") == 200


def test_servers_and_their_limits_are_those_of_awslambda_fn(granted: Sql, connect: Connect) -> None:
    granted(
        """CREATE SERVER aws FOREIGN DATA WRAPPER awslambda
           OPTIONS (region 'us-east-1', allowed_resources 'function:lambda*')"""
    )
    caller = runner(connect(user="caller"))
    with raises("42501", "invoke API failed", "The role 'caller' may not use the server 'aws'", "GRANT USAGE ON"):
        caller(TEXT_FORM)
    granted("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    assert caller(TEXT_FORM) == 200
    with raises("42501", "invoke API failed", "does not allow 'function:echo'"):
        caller("SELECT aws_lambda.invoke('echo', '{}'::json)")


def test_a_security_definer_wrapper_uses_its_owner_s_grants_and_server(granted: Sql, connect: Connect) -> None:
    granted("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1')")
    granted(
        """CREATE FUNCTION ask(text) RETURNS json LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $$
             SELECT payload FROM aws_lambda.invoke('lambdaTest', pg_catalog.json_build_object('name', $1)) $$"""
    )
    nobody = runner(connect(user="nobody"))
    assert nobody("SELECT ask('bob')") == {"name": "bob", "Status": "OK"}
    with raises("42501", "permission denied for schema aws_lambda"):
        nobody(TEXT_FORM)


def test_a_hostile_search_path_reaches_nothing(granted: Sql) -> None:
    granted("CREATE SCHEMA hostile")
    for function in ("current_setting(text, boolean)", "_call(text, text, boolean, text, text, text, text, text)"):
        granted(f"CREATE FUNCTION hostile.{function} RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$")
    granted("CREATE DOMAIN hostile.json AS text CHECK (false)")
    granted("SET search_path = hostile, pg_catalog, public")
    arn = "aws_commons.create_lambda_function_arn('lambdaTest')"
    assert granted(f"SELECT (aws_lambda.invoke({arn}, '{{}}'::pg_catalog.json)).status_code") == 200
    assert granted("SELECT (aws_lambda.invoke('lambdaTest', '{}')).status_code") == 200
