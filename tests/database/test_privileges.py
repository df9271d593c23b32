"""Who may do what: a matrix in which a function that is not listed fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Connect, runner
from tests.errors import raises

Sql = Callable[..., Any]

SUPERUSER, CALLER, DISPATCHER = "superuser only", "after grant_usage", "after grant_dispatch"
MAPPING = (
    "text,boolean,text[],text[],text,text[],text,text,text,integer,interval,integer,integer,interval,boolean,text[],text,"
    "interval"
)
FUNCTIONS = {
    "awslambda._back_off(integer)": SUPERUSER,
    "awslambda._batch(integer,bigint[])": DISPATCHER,
    "awslambda._messages(bigint[])": DISPATCHER,
    "awslambda._begin_writing()": SUPERUSER,
    "awslambda._buried(integer)": CALLER,
    "awslambda._capture()": SUPERUSER,
    "awslambda._carry_out_event_source_mapping()": SUPERUSER,
    "awslambda._check_event_source_mapping()": SUPERUSER,
    "awslambda._check_home()": DISPATCHER,
    "awslambda._claim(integer[])": DISPATCHER,
    "awslambda._enqueue(text,json,text,interval,text,text,interval)": CALLER,
    "awslambda._family(regclass)": SUPERUSER,
    "awslambda._filter(text)": CALLER,
    "awslambda._flush()": DISPATCHER,
    "awslambda._follow_ddl()": SUPERUSER,
    "awslambda._follow_drop()": SUPERUSER,
    "awslambda._follow_source(integer)": SUPERUSER,
    "awslambda._here()": SUPERUSER,
    "awslambda._hide_escapes(json,text)": SUPERUSER,
    "awslambda._host()": SUPERUSER,
    "awslambda._json(text,text)": SUPERUSER,
    "awslambda._kinesis_advance(text,text,text,text,numeric,bigint,timestamp with time zone,bigint,"
    "timestamp with time zone,bigint,boolean,text)": CALLER,
    "awslambda._kinesis_begin(text,text,text,bigint)": CALLER,
    "awslambda._kinesis_bury(text,text,awslambda.kinesis_record[],text,text)": CALLER,
    "awslambda._kinesis_call(regprocedure)": CALLER,
    "awslambda._kinesis_commit()": SUPERUSER,
    "awslambda._kinesis_follow(text,text,text,json,text,timestamp with time zone,numeric)": CALLER,
    "awslambda._kinesis_hold(text,text,text[])": CALLER,
    "awslambda._kinesis_insert(regclass)": CALLER,
    "awslambda._kinesis_lock(text,text,text)": CALLER,
    "awslambda._kinesis_poll(text,text,text,timestamp with time zone,numeric,bigint,integer,interval,boolean,"
    "text,text)": CALLER,
    "awslambda._kinesis_ready(text,text,text)": CALLER,
    "awslambda._kinesis_received(bigint,text,bigint)": SUPERUSER,
    "awslambda._kinesis_statement(regclass,regprocedure)": CALLER,
    "awslambda._kinesis_step(text,text,text,text,awslambda.kinesis_record[],regclass,regprocedure,text,boolean,bigint,"
    "timestamp with time zone,boolean,text,text)": CALLER,
    "awslambda._kinesis_store(text,text,text,awslambda.kinesis_record[],text,boolean,text)": CALLER,
    "awslambda._kinesis_unlock(text,text)": CALLER,
    "awslambda._look(bigint,integer[],bigint[],integer[])": DISPATCHER,
    "awslambda._mappings()": DISPATCHER,
    "awslambda._may_call(text,text)": CALLER,
    "awslambda._may_map(regclass,text,text)": CALLER,
    "awslambda._message_id(text,bigint)": SUPERUSER,
    "awslambda._occurrence()": SUPERUSER,
    "awslambda._origin(text,text)": SUPERUSER,
    "awslambda._owns(regclass)": CALLER,
    "awslambda._partition(text)": CALLER,
    "awslambda._passes(json,jsonpath)": SUPERUSER,
    "awslambda._primary_key(regclass)": CALLER,
    "awslambda._promote(integer,text[])": SUPERUSER,
    "awslambda._redriven()": SUPERUSER,
    "awslambda._release(integer[])": DISPATCHER,
    "awslambda._set_triggers(integer,regclass,text[])": SUPERUSER,
    "awslambda._settle(json)": DISPATCHER,
    "awslambda._slot(text,uuid)": SUPERUSER,
    "awslambda._slots()": DISPATCHER,
    "awslambda._stem()": SUPERUSER,
    "awslambda._stored(regclass)": CALLER,
    "awslambda._validate_server_options(text[],oid)": SUPERUSER,
    "awslambda._wake(integer[])": DISPATCHER,
    "awslambda._writer()": SUPERUSER,
    "awslambda.arm()": SUPERUSER,
    "awslambda.cloudwatch_logs_events(bytea,boolean)": CALLER,
    f"awslambda.create_event_source_mapping(regclass,text,{MAPPING})": CALLER,
    "awslambda.delete_event_source_mapping(text)": CALLER,
    "awslambda.diagnostics(text)": CALLER,
    "awslambda.dispatch(interval)": DISPATCHER,
    "awslambda.enqueue(text,jsonb,text,interval,text,text,interval)": CALLER,
    "awslambda.grant_dispatch(regrole)": SUPERUSER,
    "awslambda.grant_usage(regrole)": SUPERUSER,
    "awslambda.invoke(text,jsonb,text,text,jsonb,text,text,text)": CALLER,
    "awslambda.kinesis_consume(text,text,regclass,regprocedure,text,timestamp with time zone,numeric,integer,interval,"
    "text,boolean,boolean,boolean,text,text)": CALLER,
    "awslambda.kinesis_copy_consumer(text,text,text)": CALLER,
    "awslambda.kinesis_delete_consumer(text,text)": CALLER,
    "awslambda.kinesis_poll(text,text,text,timestamp with time zone,numeric,bigint,integer,interval,boolean,"
    "text,text)": CALLER,
    "awslambda.kinesis_put_records(text,bytea[],text[],numeric[],text)": CALLER,
    "awslambda.kinesis_read(text,text,timestamp with time zone,numeric,text[],bigint,integer,interval,boolean,"
    "text,text)": CALLER,
    "awslambda.kinesis_reset(text,text,text,timestamp with time zone,numeric,text[])": CALLER,
    "awslambda.map(text,jsonb[],integer,boolean,text,jsonb,text,text,text)": CALLER,
    "awslambda.mysql_audit_event(text,text)": CALLER,
    "awslambda.purge(uuid[])": CALLER,
    "awslambda.redrive(uuid[])": CALLER,
    "awslambda.result(uuid,interval)": CALLER,
    "awslambda.try_jsonb(bytea)": CALLER,
    f"awslambda.update_event_source_mapping(text,{MAPPING})": CALLER,
    "awslambda_fn(text,json)": CALLER,
    "awslambda_fn(text,jsonb)": CALLER,
    "awslambda_fn(text,text)": CALLER,
    "awslambda_fn_async(text,json)": CALLER,
    "awslambda_fn_async(text,jsonb)": CALLER,
    "awslambda_fn_async(text,text)": CALLER,
    "awslambda_fn_on_commit(text,json)": CALLER,
    "awslambda_fn_on_commit(text,jsonb)": CALLER,
    "awslambda_fn_on_commit(text,text)": CALLER,
}
# All privileges on tables, views and sequences; of columns only those that the table's own do not cover.
RELATIONS = {
    "awslambda._kinesis_checkpoint": {CALLER: "DELETE, INSERT, SELECT, UPDATE"},
    "awslambda._kinesis_consumer": {CALLER: "DELETE, INSERT, SELECT, UPDATE"},
    "awslambda._result": {CALLER: "DELETE, SELECT"},
    "awslambda._sending": {},
    "awslambda._state": {},
    "awslambda.dead_letter": {CALLER: "DELETE, SELECT, UPDATE (attempts)"},
    "awslambda.event_source_mapping": {
        CALLER: "DELETE, INSERT (batch_size, bisect_batch_on_function_error, columns, enabled, event_format, filter,"
        " function_name, function_response_types, invocation_type, keep_results, key, maximum_batching_window,"
        " maximum_record_age, maximum_retry_attempts, name, on_failure, operations, parallelization_factor, server,"
        " source), SELECT, UPDATE (batch_size, bisect_batch_on_function_error, columns, enabled, event_format, filter,"
        " function_name, function_response_types, invocation_type, keep_results, key, maximum_batching_window,"
        " maximum_record_age, maximum_retry_attempts, name, on_failure, operations, parallelization_factor,"
        " role, server, source)"
    },
    "awslambda.event_source_mapping_id_seq": {},
    "awslambda.home": {},
    "awslambda.kinesis_consumer": {CALLER: "SELECT"},
    "awslambda.kinesis_dead_letter": {CALLER: "DELETE, INSERT, SELECT"},
    "awslambda.kinesis_dead_letter_id_seq": {},
    "awslambda.outbox": {
        CALLER: "INSERT (due_at, enqueued_at, function_name, invocation_type, keep_results, key, payload, server), "
        "SELECT"
    },
    "awslambda.outbox_id_seq": {},
    "awslambda.status": {CALLER: "SELECT", DISPATCHER: "SELECT"},
}  # fmt: skip
GRANTED = """
SELECT string_agg(said, ', ' ORDER BY said) FROM (
  SELECT a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
   WHERE c.oid = %s::regclass AND a.grantee = %s::oid
  UNION ALL
  SELECT format('%%s (%%s)', x.privilege_type, string_agg(t.attname, ', ' ORDER BY t.attname COLLATE "C"))
    FROM pg_attribute t, aclexplode(t.attacl) x
   WHERE t.attrelid = %s::regclass AND x.grantee = %s::oid GROUP BY x.privilege_type
) AS granted (said)
"""
OF_RDS = [  # callable after GRANT USAGE ON SCHEMA and GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA, as on RDS
    "aws_commons.create_aws_credentials(text,text,text)",
    "aws_commons.create_lambda_function_arn(text,text)",
    "aws_commons.create_s3_uri(text,text,text)",
    "aws_lambda._call(text,text,boolean,text,text,text,text,text)",
    "aws_lambda._invoke(text,text,boolean,text,text,text,text,text,text,text)",
    "aws_lambda._python_call_handler()",
    "aws_lambda._python_inline_handler(internal)",
    "aws_lambda._python_validator(oid)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,json,text,text,json,character varying)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,jsonb,text,text,jsonb,character varying)",
    "aws_lambda.invoke(aws_commons._lambda_function_arn_1,text,text,text,text,character varying)",
    "aws_lambda.invoke(text,json,text,text,text,json,character varying)",
    "aws_lambda.invoke(text,json,text,text,text,text)",
    "aws_lambda.invoke(text,jsonb,text,text,text,jsonb,character varying)",
    "aws_lambda.invoke(text,jsonb,text,text,text,text)",
    "aws_lambda.invoke(text,text,text,text,text,text,character varying)",
]
MEMBERS = """
SELECT array_agg(d.objid::regprocedure::text) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
 WHERE e.extname = ANY (%s) AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
"""


def granted_on(relation: str, role: str, sql: Sql) -> str | None:
    """The privileges that a role has been granted itself, or PUBLIC."""
    grantee = 0 if role == "public" else sql("SELECT %s::regrole::oid::int8", role)
    return sql(GRANTED, *[relation, grantee] * 2)  # type: ignore[no-any-return]


@pytest.fixture
def roles(sql: Sql) -> None:
    sql("CREATE ROLE nobody LOGIN")
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")
    sql("CREATE ROLE dispatcher LOGIN")
    sql("SELECT awslambda.grant_dispatch('dispatcher')")


def test_every_function_is_in_the_matrix(own: Sql) -> None:
    assert sorted(own(MEMBERS, ["awslambda"])) == sorted(FUNCTIONS)


def test_every_function_of_the_extensions_of_rds_is_in_its_list(sql: Sql) -> None:
    sql("CREATE EXTENSION aws_lambda CASCADE")
    assert sorted(sql(MEMBERS, ["aws_commons", "aws_lambda"])) == OF_RDS
    assert sql("SELECT count(*) FROM pg_proc WHERE oid = ANY (%s::regprocedure[]) AND prosecdef", OF_RDS) == 0


def test_nobody_but_a_superuser_can_use_the_language_of_aws_lambda(sql: Sql, connect: Connect) -> None:
    sql("CREATE EXTENSION aws_lambda CASCADE")
    sql("CREATE ROLE caller LOGIN")
    sql("GRANT ALL ON SCHEMA aws_lambda, public TO caller")
    sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA aws_lambda TO caller")
    caller = runner(connect(user="caller"))
    for statement in (
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE aws_lambda_python AS 'return 1'",
        "DO LANGUAGE aws_lambda_python 'import os'",
    ):
        with raises("42501", "permission denied for language aws_lambda_python"):
            caller(statement)
    with raises("42809", 'language "aws_lambda_python" is not trusted'):
        sql("GRANT USAGE ON LANGUAGE aws_lambda_python TO caller")
    with raises("0A000", "cannot return type language_handler"):
        caller("SELECT aws_lambda._python_call_handler()")
    sql("DROP OWNED BY caller")


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
        for role, expected in (("nobody", False), ("caller", who == CALLER), ("dispatcher", who == DISPATCHER)):
            assert sql("SELECT has_function_privilege(%s, %s, 'EXECUTE')", role, function) is expected, (role, function)


@pytest.mark.usefixtures("roles")
def test_nobody_has_usage_of_schema_type_or_wrapper(sql: Sql) -> None:
    for role, expected in (("nobody", False), ("caller", True), ("dispatcher", False)):
        assert sql("SELECT has_schema_privilege(%s, 'awslambda', 'USAGE')", role) is (role != "nobody")
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
    for what in ("FUNCTIONS", "TYPES", "SCHEMAS", "TABLES", "SEQUENCES"):
        sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO app")
    sql("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO app")
    sql("CREATE EXTENSION awslambda")
    sql("CREATE EXTENSION aws_lambda CASCADE")
    app = runner(connect(user="app"))
    with raises("42501", "permission denied for function awslambda_fn"):
        app("SELECT awslambda_fn('lambdaTest', '{}')")
    for schema in ("awslambda", "aws_lambda", "aws_commons"):
        assert app("SELECT has_schema_privilege(%s, 'USAGE, CREATE')", schema) is False
    for relation in RELATIONS:
        assert granted_on(relation, "app", sql) is None, relation
    sql("DROP EXTENSION awslambda, aws_commons CASCADE")
    sql("DROP OWNED BY app")


def test_a_grant_to_null_is_refused(own: Sql) -> None:
    for grant in ("grant_usage", "grant_dispatch"):
        with raises("22004", "role must not be NULL"):
            own(f"SELECT awslambda.{grant}(NULL)")


def test_a_fresh_install_grants_nothing_to_anybody(own: Sql) -> None:
    for function in FUNCTIONS:
        acl = own("SELECT proacl::text FROM pg_proc WHERE oid = %s::regprocedure", function)
        assert acl == "{postgres=X/postgres}", function


def test_every_relation_is_in_the_matrix(own: Sql) -> None:
    relations = own(MEMBERS.replace("regprocedure", "regclass").replace("pg_proc", "pg_class"), ["awslambda"])
    composite = own("SELECT array_agg(oid::regclass::text) FROM pg_class WHERE relkind = 'c'")
    assert sorted(set(relations) - set(composite)) == sorted(RELATIONS)


@pytest.mark.usefixtures("roles")
def test_privileges_on_relations_are_as_in_the_matrix(sql: Sql) -> None:
    roles = {SUPERUSER: "nobody", CALLER: "caller", DISPATCHER: "dispatcher"}
    for relation, granted in RELATIONS.items():
        for who, role in roles.items():
            assert granted_on(relation, role, sql) == granted.get(who), (relation, role)
        assert granted_on(relation, "public", sql) is None


def test_row_security_is_on_wherever_callers_have_privileges(own: Sql) -> None:
    views = ("awslambda.status", "awslambda.kinesis_consumer")
    tables = [relation for relation, granted in RELATIONS.items() if granted and relation not in views]
    assert own("SELECT bool_and(relrowsecurity) FROM pg_class WHERE oid = ANY (%s::regclass[])", tables) is True


@pytest.mark.usefixtures("roles")
def test_a_dispatcher_reads_no_payload_and_sends_nothing_of_its_own(connect: Connect) -> None:
    dispatcher = runner(connect(user="dispatcher"))
    dispatcher("SELECT awslambda._check_home()")
    for statement in (
        "SELECT * FROM awslambda.outbox", "SELECT * FROM awslambda.dead_letter", "SELECT * FROM awslambda._result",
        "SELECT awslambda.enqueue('f', '{}')", "SELECT awslambda_fn('f', '{}')", "SELECT awslambda.arm()",
        "SELECT awslambda._host()", "SELECT awslambda.redrive()", "SELECT awslambda.grant_dispatch('nobody')",
    ):  # fmt: skip
        with raises("42501", "permission denied"):
            dispatcher(statement)


def test_arm_can_be_granted_to_whoever_fails_over(sql: Sql, connect: Connect) -> None:
    sql("CREATE ROLE operator LOGIN")
    sql("GRANT USAGE ON SCHEMA awslambda TO operator")
    sql("GRANT EXECUTE ON FUNCTION awslambda.arm() TO operator")
    sql("DELETE FROM awslambda.home")
    runner(connect(user="operator"))("SELECT awslambda.arm()")
    sql("SELECT awslambda._check_home()")
