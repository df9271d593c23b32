"""Who may do what: a matrix in which a function that is not listed fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Connect, runner
from tests.errors import raises

Sql = Callable[..., Any]

SUPERUSER, CALLER = "superuser only", "after grant_usage"
FUNCTIONS = {
    "awslambda._buried(integer)": CALLER,
    "awslambda._capture()": SUPERUSER,
    "awslambda._carry_out_event_source_mapping()": SUPERUSER,
    "awslambda._check_event_source_mapping()": SUPERUSER,
    "awslambda._family(regclass)": SUPERUSER,
    "awslambda._filter(text)": CALLER,
    "awslambda._follow_ddl()": SUPERUSER,
    "awslambda._follow_drop()": SUPERUSER,
    "awslambda._follow_source(integer)": SUPERUSER,
    "awslambda._hide_escapes(json,text)": SUPERUSER,
    "awslambda._json(text,text)": SUPERUSER,
    "awslambda._may_call(text,text)": CALLER,
    "awslambda._may_map(regclass,text,text)": CALLER,
    "awslambda._owns(regclass)": CALLER,
    "awslambda._passes(json,jsonpath)": SUPERUSER,
    "awslambda._primary_key(regclass)": CALLER,
    "awslambda._set_triggers(integer,regclass,text[])": SUPERUSER,
    "awslambda._validate_server_options(text[],oid)": SUPERUSER,
    "awslambda.create_event_source_mapping(regclass,text,text,boolean,text[],text[],text,text[],text,text,text,integer,"
    "interval,integer,integer,interval,boolean,text[],text,interval)": CALLER,
    "awslambda.delete_event_source_mapping(text)": CALLER,
    "awslambda.update_event_source_mapping(text,text,boolean,text[],text[],text,text[],text,text,text,integer,"
    "interval,integer,integer,interval,boolean,text[],text,interval)": CALLER,
    "awslambda.diagnostics(text)": CALLER,
    "awslambda.grant_usage(regrole)": SUPERUSER,
    "awslambda.invoke(text,jsonb,text,text,jsonb,text,text,text)": CALLER,
    "awslambda_fn(text,json)": CALLER,
    "awslambda_fn(text,jsonb)": CALLER,
    "awslambda_fn(text,text)": CALLER,
    "awslambda_fn_async(text,json)": CALLER,
    "awslambda_fn_async(text,jsonb)": CALLER,
    "awslambda_fn_async(text,text)": CALLER,
}
OF_RDS = [  # callable after GRANT USAGE ON SCHEMA and GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA, as on RDS
    "aws_commons.create_aws_credentials(text,text,text)",
    "aws_commons.create_lambda_function_arn(text,text)",
    "aws_commons.create_s3_uri(text,text,text)",
    "aws_lambda._call(text,text,boolean,text,text,text,text,text)",
    "aws_lambda._invoke(text,text,boolean,text,text,text,text,text,text,text)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,json,text,text,json,character varying)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,jsonb,text,text,jsonb,character varying)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,text,text,text,text,character varying)",
    "aws_lambda.invoke(text,json,text,text,text,json,character varying)",
    "aws_lambda.invoke(text,jsonb,text,text,text,jsonb,character varying)",
    "aws_lambda.invoke(text,text,text,text,text,text,character varying)",
]
MEMBERS = """
SELECT array_agg(d.objid::regprocedure::text) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
 WHERE e.extname = ANY (%s) AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
"""


@pytest.fixture
def roles(sql: Sql) -> None:
    sql("CREATE ROLE nobody LOGIN")
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")


def test_every_function_is_in_the_matrix(own: Sql) -> None:
    assert sorted(own(MEMBERS, ["awslambda"])) == sorted(FUNCTIONS)


def test_every_function_of_the_extensions_of_rds_is_in_its_list(sql: Sql) -> None:
    sql("CREATE EXTENSION aws_lambda CASCADE")
    assert sorted(sql(MEMBERS, ["aws_commons", "aws_lambda"])) == OF_RDS
    assert sql("SELECT count(*) FROM pg_proc WHERE oid = ANY (%s::regprocedure[]) AND prosecdef", OF_RDS) == 0


def test_the_extensions_of_rds_grant_nothing_to_public_and_need_what_rds_guide_grants(sql: Sql) -> None:
    sql("CREATE EXTENSION aws_lambda CASCADE")
    sql("CREATE ROLE caller LOGIN")
    may = "SELECT has_function_privilege('caller', %s, 'EXECUTE')"
    assert not any(sql(may, function) for function in OF_RDS)
    for schema in ("aws_commons", "aws_lambda"):
        assert sql("SELECT has_schema_privilege('caller', %s, 'USAGE')", schema) is False
        sql(f"GRANT USAGE ON SCHEMA {schema} TO caller")
        sql(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO caller")
    assert all(sql(may, function) for function in OF_RDS)
    assert not any(sql(may, function) for function in FUNCTIONS)


@pytest.mark.usefixtures("roles")
def test_execute_is_as_in_the_matrix(sql: Sql) -> None:
    for function, who in FUNCTIONS.items():
        for role, expected in (("nobody", False), ("caller", who == CALLER)):
            assert sql("SELECT has_function_privilege(%s, %s, 'EXECUTE')", role, function) is expected, (role, function)


@pytest.mark.usefixtures("roles")
def test_nobody_has_usage_of_schema_type_or_wrapper(sql: Sql) -> None:
    for role, expected in (("nobody", False), ("caller", True)):
        assert sql("SELECT has_schema_privilege(%s, 'awslambda', 'USAGE')", role) is expected
        assert sql("SELECT has_type_privilege(%s, 'awslambda.invocation', 'USAGE')", role) is expected
        assert sql("SELECT has_schema_privilege(%s, 'awslambda', 'CREATE')", role) is False
        assert sql("SELECT has_foreign_data_wrapper_privilege(%s, 'awslambda', 'USAGE')", role) is False


@pytest.mark.usefixtures("roles")
def test_without_a_grant_postgres_itself_refuses(connect: Connect) -> None:
    nobody = runner(connect(user="nobody"))
    with raises("42501", "permission denied for function awslambda_fn"):
        nobody("SELECT awslambda_fn('lambdaTest', '{}')")
    with raises("42501", "permission denied for function awslambda_fn_async"):
        nobody("SELECT awslambda_fn_async('lambdaTest', '{}')")
    with raises("42501", "permission denied for schema awslambda"):
        nobody("SELECT awslambda.invoke('lambdaTest', '{}')")
    with raises("42501", "permission denied for foreign-data wrapper awslambda"):
        nobody("CREATE SERVER mine FOREIGN DATA WRAPPER awslambda")


@pytest.mark.usefixtures("roles")
def test_a_caller_cannot_pass_it_on(connect: Connect) -> None:
    caller = runner(connect(user="caller"))
    assert caller("SELECT awslambda_fn('lambdaTest', '{}')")
    with raises("42501", "permission denied for function grant_usage"):
        caller("SELECT awslambda.grant_usage('nobody')")


def test_grant_usage_of_a_role_that_does_not_exist_or_has_a_strange_name(sql: Sql, connect: Connect) -> None:
    with raises("42704", 'role "nobody_at_all" does not exist'):
        sql("SELECT awslambda.grant_usage('nobody_at_all')")
    sql('CREATE ROLE "x; DROP SCHEMA public" LOGIN')
    sql("SELECT awslambda.grant_usage('\"x; DROP SCHEMA public\"')")
    assert runner(connect(user="'x; DROP SCHEMA public'"))("SELECT awslambda_fn('lambdaTest', '{}')")


def test_default_privileges_of_the_installer_open_nothing(sql: Sql, connect: Connect) -> None:
    sql("CREATE ROLE app LOGIN")
    sql("DROP EXTENSION awslambda")
    for what in ("FUNCTIONS", "TYPES", "SCHEMAS"):
        sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO app")
    sql("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO app")
    sql("CREATE EXTENSION aws_lambda CASCADE")
    app = runner(connect(user="app"))
    with raises("42501", "permission denied for function awslambda_fn"):
        app("SELECT awslambda_fn('lambdaTest', '{}')")
    for schema in ("awslambda", "aws_lambda", "aws_commons"):
        assert app("SELECT has_schema_privilege(%s, 'USAGE, CREATE')", schema) is False
    sql("DROP EXTENSION awslambda, aws_commons CASCADE")
    sql("DROP OWNED BY app")


def test_grant_usage_of_null_is_refused(own: Sql) -> None:
    with raises("22004", "role must not be NULL"):
        own("SELECT awslambda.grant_usage(NULL)")


def test_a_fresh_install_grants_nothing_to_anybody(own: Sql) -> None:
    for function in FUNCTIONS:
        acl = own("SELECT proacl::text FROM pg_proc WHERE oid = %s::regprocedure", function)
        assert acl == "{postgres=X/postgres}", function
