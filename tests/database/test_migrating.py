"""docs/migrating.md: the tests of each row of its table; for AWS SCT, Babelfish and Oracle, the SQL that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.database import test_aws_commons as commons
from tests.database import test_aws_lambda as calls
from tests.database import test_privileges as privileges
from tests.system import test_install as installing

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


ROWS: dict[str, list[Callable[..., None]]] = {
    "`CREATE EXTENSION IF NOT EXISTS aws_lambda CASCADE`, `WITH SCHEMA public`, in a DO block or procedure; "
    "`DROP EXTENSION ... CASCADE`": [
        commons.test_every_form_of_create_extension_works_and_shows_schema_public,
        commons.test_drop_extension_leaves_nothing,
    ],
    "a dump's `CREATE EXTENSION IF NOT EXISTS aws_commons WITH SCHEMA public` and then `aws_lambda`, without CASCADE": [
        commons.test_every_form_of_create_extension_works_and_shows_schema_public,
        commons.test_a_dump_of_rds_restores_into_an_empty_database_and_calls,
    ],
    "`aws_lambda` without CASCADE and without `aws_commons`": [
        commons.test_aws_lambda_without_cascade_says_what_it_requires
    ],
    "`\\dx`": [commons.test_every_form_of_create_extension_works_and_shows_schema_public],
    "version of the extensions": [installing.test_destdir_is_honoured_and_uninstall_removes_its_own_version_only],
    "who may create them": [commons.test_only_a_superuser_creates_them],
    "a schema `aws_commons` or `aws_lambda` that is there already (as `aws_s3` of others makes one)": [
        commons.test_a_schema_that_belongs_to_another_extension_is_refused_by_its_name,
        commons.test_a_schema_that_was_left_over_is_refused_with_what_to_do,
    ],
    "the composite types as columns; dump and restore": [
        commons.test_a_dump_with_a_column_of_the_composite_restores_elsewhere
    ],
    "`aws_commons.create_s3_uri`, `create_aws_credentials`": [
        commons.test_constructors_make_the_composites_that_rds_makes
    ],
    "`aws_lambda.invoke`: names, order, defaults and types of arguments and columns, four overloads": [
        calls.test_the_result_has_rds_columns_and_types,
        calls.test_a_call_asks_what_it_asks_on_rds,
        calls.test_no_call_that_rds_resolves_means_anything_else_here,
        calls.test_calls_by_name_find_the_overloads_of_rds,
    ],
    "payload and context of different kinds (`json` and `jsonb`)": [calls.test_json_and_jsonb_contexts_do_not_mix],
    "a payload without a type: `invoke('f', '{}')`": [
        calls.test_a_call_asks_what_it_asks_on_rds,
        calls.test_no_call_by_position_is_ambiguous,
    ],
    "a payload of type `text`: `'{}'::text`": [
        calls.test_a_call_asks_what_it_asks_on_rds,
        calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent,
    ],
    "the literal `(name,region)` for the function, as psql's `\\gset` makes it": [
        calls.test_psql_s_gset_examples_of_rds_documentation
    ],
    "the same, and an invocation type third, a log type fourth, a context fifth": [
        calls.test_psql_s_gset_examples_of_rds_documentation,
        calls.test_a_call_asks_what_it_asks_on_rds,
    ],
    "the same, and a qualifier sixth": [
        calls.test_psql_s_gset_examples_of_rds_documentation,
        calls.test_a_call_asks_what_it_asks_on_rds,
    ],
    "six arguments without a type after a plain name (region, invocation type, log type, context)": [
        calls.test_a_call_asks_what_it_asks_on_rds
    ],
    "an invocation type third after a plain name: `invoke('f', '{}'::json, 'Event')`": [
        calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent
    ],
    "a bare `SELECT aws_lambda.invoke(...)` in PL/pgSQL": [
        calls.test_a_bare_select_in_plpgsql_is_the_error_that_it_is_on_rds
    ],
    "`invocation_type`, `log_type`": [calls.test_invocation_type_and_log_type_are_case_sensitive],
    "status of RequestResponse, Event, DryRun": [calls.test_status_payload_version_and_log_are_as_on_rds],
    "payload of Event and DryRun": [calls.test_status_payload_version_and_log_are_as_on_rds],
    "a function that returns `null`": [calls.test_a_null_of_the_function_is_json_null],
    "`log_result`": [calls.test_status_payload_version_and_log_are_as_on_rds],
    "region or qualifier that contradicts the ARN's": [
        calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent
    ],
    "no region at all": [calls.test_without_a_region_it_is_the_arn_s_else_the_server_s_else_the_instance_s],
    "NULL function, payload, invocation type or log type": [
        calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent
    ],
    "payload over the limit": [calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent],
    "inside the transaction, not undone by rollback": [calls.test_a_rollback_does_not_undo_a_call],
    "the function fails": [calls.test_a_function_that_fails_is_rds_error],
    "`<arn>` in it": [
        calls.test_the_function_that_failed_is_named_by_its_whole_arn,
        calls.test_the_account_in_it_is_that_of_the_server_s_role,
        calls.test_without_an_answer_of_sts_the_function_is_named_as_it_was_given,
    ],
    "the call fails": [calls.test_a_call_that_fails_is_rds_error],
    "HINT": [
        calls.test_a_function_that_fails_is_rds_error,
        calls.test_a_call_that_fails_is_rds_error,
        calls.test_bad_input_is_rds_error_with_a_hint_and_nothing_is_sent,
    ],
    "SQLSTATE": [calls.test_a_call_that_fails_is_rds_error],
    "USAGE on the schema, EXECUTE on the function": [calls.test_postgres_own_refusals_come_first],
    "`statement_timeout`, cancel, terminate": [
        calls.test_an_interrupt_passes_through,
        calls.test_an_interrupt_ends_asking_for_the_account,
    ],
    "`aws_lambda.connect_timeout_ms`, `request_timeout_ms` (1 to 900000)": [
        calls.test_the_session_s_timeouts_count_for_this_call_instead_of_the_server_s,
        calls.test_the_session_s_connect_timeout_counts,
        calls.test_a_timeout_that_is_none_is_refused,
        calls.test_timeouts_of_a_role_or_database_count,
    ],
    "their defaults": [
        calls.test_rds_s_default_of_three_seconds_is_not_imitated,
        calls.test_without_settings_the_server_s_times_count,
    ],
    "calling again": [calls.test_only_what_did_not_run_is_sent_again],
    "EXECUTE, USAGE": [privileges.test_the_extensions_of_rds_grant_nothing_to_public_and_need_what_rds_guide_grants],
    "which functions": [calls.test_servers_and_their_limits_are_those_of_awslambda_fn],
    "`aws_lambda.endpoint_override`": [calls.test_no_setting_decides_where_a_call_goes],
}


def test_every_row_of_the_table_has_its_tests() -> None:
    table = PAGE.split("\n|---|---|---|---|\n")[1].split("\n\n")[0]
    behaviours = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()]
    assert [behaviour for behaviour in behaviours if not behaviour.startswith("**")] == list(ROWS)


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
