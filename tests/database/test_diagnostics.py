"""awslambda.diagnostics(): what a DBA sees when a call fails, and when all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import Connect, runner
from tests.endpoints import Endpoint, answer, closed_port, silence

Sql = Callable[..., Any]
CHECKS = [
    "python", "package", "boto3", "botocore", "server", "cache", "credentials", "region", "identity", "endpoint",
    "clock",
]  # fmt: skip


def rows(sql: Sql, *arguments: str) -> dict[str, tuple[str, str, str]]:
    given = ", ".join(["%s"] * len(arguments))
    found = sql(
        f"""SELECT json_agg(json_build_array("check", status, detail, hint)) FROM awslambda.diagnostics({given})""",
        *arguments,
    )
    return {name: (status, detail, hint) for name, status, detail, hint in found}


def test_all_is_well_on_an_instance(shared: Sql) -> None:
    found = rows(shared)
    assert list(found) == CHECKS
    for name, (status, detail, hint) in found.items():
        assert (status, hint) == ("ok", ""), name
        assert detail, name
    assert "expire at" in found["credentials"][1] and "iam-role" in found["credentials"][1]
    assert found["server"][1] == "none: built-in defaults"
    assert "assumed-role/local-instance-role" in found["identity"][1]


def test_no_secret_is_shown(shared: Sql) -> None:
    text = str(rows(shared))
    assert "ASIA" not in text and "AKIA" not in text and "token" not in text.lower().replace("token-", "")


def test_a_failed_check_does_not_hide_the_others(sql: Sql) -> None:
    sql(
        f"""CREATE SERVER aws FOREIGN DATA WRAPPER awslambda
            OPTIONS (region 'us-east-1', endpoint_url_lambda 'http://127.0.0.1:{closed_port()}')"""
    )
    found = rows(sql)
    assert found["endpoint"][0] == "error" and "refused" in found["endpoint"][1] and found["endpoint"][2]
    assert found["credentials"][0] == "ok" and found["identity"][0] == "ok"
    assert found["server"][1] == "aws"


def test_a_silent_endpoint_is_named_after_the_request_timeout(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    sql(
        f"""CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', request_timeout '1s',
            endpoint_url_lambda '{endpoint(silence).url}')"""
    )
    assert "does not answer" in rows(sql)["endpoint"][1]


def test_a_clock_that_is_off_is_an_error(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    target = endpoint(answer(404, Date="Sat, 21 Nov 2020 18:21:00 GMT"))
    sql(
        f"""CREATE SERVER aws FOREIGN DATA WRAPPER awslambda
            OPTIONS (region 'us-east-1', endpoint_url_lambda '{target.url}')"""
    )
    status, _, hint = rows(sql)["clock"]
    assert status == "error" and "NTP" in hint


def test_a_role_without_usage_of_the_server_is_told_so(sql: Sql, connect: Connect) -> None:
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1')")
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")
    found = rows(runner(connect(user="caller")))
    assert found["server"][0] == "error" and "may not use" in found["server"][1] and "GRANT USAGE" in found["server"][2]


def test_it_checks_the_server_that_is_named(sql: Sql) -> None:
    sql("CREATE SERVER one FOREIGN DATA WRAPPER awslambda OPTIONS (region 'eu-west-1')")
    sql("CREATE SERVER two FOREIGN DATA WRAPPER awslambda OPTIONS (region 'eu-west-2')")
    assert rows(sql, "two")["region"][1] == "eu-west-2 from server option region"
