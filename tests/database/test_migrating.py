"""Those who come from AWS SCT, Babelfish and Oracle: the SQL is that of docs/migrating.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text("utf-8")
ARN = "arn:aws:lambda:us-east-1:123456789012:function:lambdaTest"

Sql = Callable[..., Any]


@pytest.fixture
def rds(sql: Sql) -> Sql:
    """The test's own database with aws_lambda."""
    sql("CREATE EXTENSION aws_lambda CASCADE")
    return sql


def shown(first_words: str) -> str:
    """The statement of the page that begins so, and what else its block defines with it."""
    found = re.search(rf"^({re.escape(first_words)}.*?;)$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, first_words
    return found[1]


def test_an_extension_pack_of_sct_calls_its_function(rds: Sql) -> None:
    rds("CREATE SCHEMA aws_oracle_ext")
    rds(shown("CREATE FUNCTION aws_oracle_ext.awslambda_fn"))
    rds(
        f"""DO $$
        DECLARE response json;
        BEGIN
          response := aws_oracle_ext.awslambda_fn('{ARN}', json_build_object('mode', 'send', 'parameters', '1'));
          ASSERT response -> 'error' IS NULL AND response ->> 'Status' = 'OK';
          response := aws_oracle_ext.awslambda_fn('behave', json_build_object('do', 'nothing'));
          ASSERT response::text = 'null';
        END $$"""
    )
    assert rds(f"SELECT awslambda_fn('{ARN}', '{{}}'::json) ->> 'Status'") == "OK"


def test_babelfish_s_agent_calls_sys_awslambda_fn(rds: Sql) -> None:
    rds("CREATE SCHEMA sys")
    rds(shown("CREATE FUNCTION sys.awslambda_fn"))
    rds(
        f"""DO $$
        DECLARE result text; lambda_arn varchar := '{ARN}'; var_xml text := '{{"mode": "add_job"}}';
        BEGIN
          SELECT sys.awslambda_fn(lambda_arn, var_xml) INTO result;
          ASSERT result::json ->> 'mode' = 'add_job';
        END $$"""
    )


def test_oracle_s_procedure_returns_nothing(rds: Sql) -> None:
    rds(shown("CREATE PROCEDURE awslambda_proc"))
    assert rds("CALL awslambda_proc('lambdaTest', '{\"name\": \"bob\"}')") is None
    rds("DO $$ BEGIN CALL awslambda_proc('lambdaTest', concat('{\"n\": ', 1, '}')); END $$")
