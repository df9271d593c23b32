"""The script for those who come from Aurora MySQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from awslambda_local.cluster import Cluster
from awslambda_local.deploy import find_functions

from tests.endpoints import Endpoint, answer
from tests.errors import raises

EXAMPLE = Path(__file__).parents[2] / "examples" / "aurora-mysql"
ARN = "arn:aws:lambda:us-east-1:123456789012:function:log-me"

Sql = Callable[..., Any]


@pytest.fixture
def ported(sql: Sql, database: str, cluster: Cluster, endpoint: Any) -> tuple[Sql, Endpoint]:
    """A database after the example's two scripts, whose calls arrive at an endpoint."""
    started = endpoint(answer(202))
    sql(
        f"""CREATE SERVER aws FOREIGN DATA WRAPPER awslambda
            OPTIONS (region 'us-east-1', endpoint_url '{started.url}')"""
    )
    for script in ("aurora_mysql.sql", "trigger.sql"):
        done = cluster.psql(
            "-v", "ON_ERROR_STOP=1", "-v", f"lambda_arn={ARN}", "-f", str(EXAMPLE / script), database=database
        )
        assert done.returncode == 0, done.stderr
    return sql, started


def test_the_trigger_calls_before_each_update_and_a_rollback_does_not_undo_it(ported: tuple[Sql, Endpoint]) -> None:
    sql, endpoint = ported
    sql("BEGIN")
    sql("UPDATE t SET x = 42")
    sql("ROLLBACK")
    sql("UPDATE t SET x = x + 1")
    assert sql("SELECT x, y FROM t") == (2, 1)
    connection = str(sql("SELECT pg_backend_pid()"))
    assert [json.loads(request.body) for request in endpoint.requests] == [
        {"trigger": "t_bufer", "connection": connection, "old": "1", "new": new} for new in ("42", "2")
    ]
    assert {request.headers["x-amz-invocation-type"] for request in endpoint.requests} == {"Event"}


@pytest.mark.parametrize("kind", ["::json", "::jsonb", "::text", ""])
def test_every_kind_of_json_is_taken(ported: tuple[Sql, Endpoint], kind: str) -> None:
    sql, endpoint = ported
    payload = f"""'{{"a": 1}}'{kind}"""
    sql(f"SELECT lambda_async('{ARN}', {payload})")
    sql(f"CALL mysql.lambda_async('{ARN}', {payload})")
    endpoint.behaviour = answer(200, {"Status": "OK"})
    assert sql(f"SELECT lambda_sync('{ARN}', {payload}) ->> 'Status'") == "OK"
    assert [json.loads(request.body) for request in endpoint.requests] == [{"a": 1}] * 3
    types = [request.headers["x-amz-invocation-type"] for request in endpoint.requests]
    assert types == ["Event", "Event", "RequestResponse"]


def test_a_quote_in_concatenated_json_is_an_error_that_sends_nothing(ported: tuple[Sql, Endpoint]) -> None:
    sql, endpoint = ported
    with raises("22P02", "is not JSON", "jsonb_build_object"):
        sql("SELECT lambda_async('log-me', concat('{\"name\": \"', 'a \"b\"', '\"}'))")
    assert endpoint.requests == []


def test_the_handler_logs_what_the_trigger_says(sql: Sql, aws: Any, database: str, cluster: Cluster) -> None:
    (source,) = find_functions(EXAMPLE)
    assert source.name == "log-me"
    client = aws.client("lambda")
    like = client.get_function(FunctionName="echo")["Configuration"]
    client.create_function(
        FunctionName=source.name, Runtime=like["Runtime"], Handler=source.handler, Role=like["Role"],
        Code={"ZipFile": source.archive},
    )  # fmt: skip
    try:
        assert cluster.psql("-f", str(EXAMPLE / "aurora_mysql.sql"), database=database).returncode == 0
        assert sql('SELECT lambda_sync(%s, \'{"old": "1"}\')', ARN) == {"logged": {"old": "1"}}
    finally:
        client.delete_function(FunctionName=source.name)
