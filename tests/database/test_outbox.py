"""The outbox: what may be written into it and when, who sees it, dead letters and results."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Connect, Connection, runner
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
PENDING = "SELECT count(*) FROM awslambda.outbox"


@pytest.fixture
def caller(sql: Sql, connect: Connect) -> Sql:
    """A session of an ordinary role that may call functions."""
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")
    return runner(connect(user="caller"))


@pytest.fixture
def session(caller: Sql, connect: Connect) -> Connection:
    """Another session of that role, for transactions."""
    del caller
    return connect(user="caller")


def bury(sql: Sql, message_id: object, reason: str = "RetryAttemptsExhausted") -> None:
    """What a dispatcher does with a message that cannot be delivered."""
    sql(
        "WITH gone AS (DELETE FROM awslambda.outbox WHERE message_id = %s RETURNING *) "
        "INSERT INTO awslambda.dead_letter (message_id, mapping, key, payload, role, enqueued_at, attempts,"
        " function_name, invocation_type, server, keep_results, reason, last_error) SELECT message_id, mapping, key,"
        " payload, role, enqueued_at, 3, function_name, invocation_type, server, keep_results, %s,"
        " 'it failed' FROM gone",
        message_id, reason,
    )  # fmt: skip


def settle(sql: Sql, message_id: object, payload: str | None, function_error: str | None = None) -> None:
    """What a dispatcher does with a message whose result is kept."""
    sql(
        "WITH gone AS (DELETE FROM awslambda.outbox WHERE message_id = %s RETURNING *) "
        "INSERT INTO awslambda._result (message_id, role, payload, function_error, expires_at) "
        "SELECT message_id, role, %s, %s, clock_timestamp() + keep_results FROM gone",
        message_id, payload, function_error,
    )  # fmt: skip


# Enqueue.


@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
def test_the_short_form_writes_one_message_and_returns_its_id(caller: Sql, kind: str) -> None:
    sent = caller(f"SELECT awslambda_fn_on_commit('f:prod', '{{\"a\":  1}}'::{kind})")
    text = '{"a": 1}' if kind == "jsonb" else '{"a":  1}'
    assert caller(
        "SELECT payload::text, function_name, invocation_type, key, due_at, attempts, mapping, role::text, server,"
        " keep_results FROM awslambda.outbox WHERE message_id = %s",
        sent,
    ) == (text, "f:prod", "Event", None, None, 0, 0, "caller", None, None)


def test_two_untyped_literals_are_text(caller: Sql) -> None:
    assert isinstance(caller("SELECT awslambda_fn_on_commit('f', '{}')"), uuid.UUID)


def test_the_long_form_takes_everything(caller: Sql, sql: Sql) -> None:
    sql("CREATE SERVER reports FOREIGN DATA WRAPPER awslambda")
    sql("GRANT USAGE ON FOREIGN SERVER reports TO caller")
    caller(
        "SELECT awslambda.enqueue('f', '{}', key => 'k', delay => '1 h', invocation_type => 'RequestResponse',"
        " server => 'reports', keep_results => '1 day')"
    )
    assert caller(
        "SELECT key, due_at - now() BETWEEN '59 min' AND '1 h' AND due_at - enqueued_at < '1 s',"
        " invocation_type, server, keep_results::text"
        " FROM awslambda.outbox"
    ) == ("k", True, "RequestResponse", "reports", "1 day")


@pytest.mark.parametrize(
    ("sqlstate", "statement", "words"),
    [
        ("22004", "awslambda_fn_on_commit(NULL, '{}')", ["fn_name must not be NULL"]),
        ("22004", "awslambda_fn_on_commit('f', NULL::text)", ["fn_args must not be NULL", "jsonb_build_object"]),
        ("22004", "awslambda_fn_on_commit('f', NULL::json)", ["fn_args must not be NULL"]),
        ("22004", "awslambda_fn_on_commit('f', NULL::jsonb)", ["fn_args must not be NULL"]),
        ("22004", "awslambda.enqueue(NULL, '{}')", ["function_name must not be NULL"]),
        ("22004", "awslambda.enqueue('f', NULL)", ["payload must not be NULL"]),
        ("22004", "awslambda.enqueue('f', '{}', delay => NULL)", ["delay must not be NULL"]),
        ("22004", "awslambda.enqueue('f', '{}', invocation_type => NULL)", ["invocation_type must not be NULL"]),
        ("22P02", "awslambda_fn_on_commit('f', '{\"secret\":')", ["'f' is not JSON", "jsonb_build_object"]),
        ("22P02", "awslambda_fn_on_commit('f', '')", ["is not JSON"]),
        ("22023", "awslambda_fn_on_commit('no such/name', '{}')", ["not the name or ARN", "'no such/name'"]),
        ("22023", "awslambda.enqueue('f', '{}', invocation_type => 'DryRun')", ["'DryRun'", "RequestResponse, Event"]),
        ("22023", "awslambda.enqueue('f', '{}', delay => '-1 s')", ["invalid delay", "from 0"]),
        ("22023", "awslambda.enqueue('f', '{}', delay => '1000 years')", ["invalid delay"]),
        ("22023", "awslambda.enqueue('f', '{}', keep_results => '1 s')", ["Event has no result", "RequestResponse"]),
        (
            "22023",
            "awslambda.enqueue('f', '{}', invocation_type => 'RequestResponse', keep_results => '-1 s')",
            ["keep_results"],
        ),
        ("42704", "awslambda.enqueue('f', '{}', server => 'nowhere')", ["no server 'nowhere'"]),
        ("54000", "awslambda_fn_on_commit('f', to_json(repeat('x', 1048575)))", ["1048577 bytes", "1048576"]),
        ("54000", "awslambda_fn_on_commit('f', to_json(repeat('é', 524288))::text)", ["1048578 bytes"]),
        (
            "54000",
            "awslambda.enqueue('f', to_jsonb(repeat('x', 6291455)), invocation_type => 'RequestResponse')",
            ["6291457 bytes", "RequestResponse takes 6291456"],
        ),
    ],
)
def test_bad_input_is_refused_at_once_and_leaves_nothing(
    own: Sql, sqlstate: str, statement: str, words: list[str]
) -> None:
    with raises(sqlstate, *words) as caught:
        own(f"SELECT {statement}")
    assert "secret" not in str(caught.value) + str(caught.value.diag.context)
    assert own(PENDING) == 0


def test_the_largest_payloads_fit(sql: Sql) -> None:
    assert sql("SELECT awslambda_fn_on_commit('f', to_json(repeat('x', 1048574)))")
    assert sql("SELECT awslambda.enqueue('f', to_jsonb(repeat('x', 6291454)), invocation_type => 'RequestResponse')")


def test_usage_and_allowed_resources_count_at_enqueue_for_callers_and_superusers(caller: Sql, sql: Sql) -> None:
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (allowed_resources 'function:report-*')")
    with raises("42501", "'caller' may not use the server 'aws'", "GRANT USAGE"):
        caller("SELECT awslambda_fn_on_commit('report-1', '{}')")
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    for session in (caller, sql):
        assert session("SELECT awslambda_fn_on_commit('report-1', '{}')")
        with raises("42501", "'aws' does not allow 'function:other'", "allowed_resources"):
            session("SELECT awslambda_fn_on_commit('other', '{}')")


def test_a_rollback_takes_the_message_back_and_a_savepoint_only_its_own(session: Connection, sql: Sql) -> None:
    with session.transaction():
        session.execute("SELECT awslambda_fn_on_commit('kept', '{}')")
        with session.transaction(force_rollback=True):
            session.execute("SELECT awslambda_fn_on_commit('undone', '{}')")
        assert sql(PENDING) == 0  # not yet for others
    with session.transaction(force_rollback=True):
        session.execute("SELECT awslambda_fn_on_commit('undone', '{}')")
    assert sql("SELECT array_agg(function_name) FROM awslambda.outbox") == ["kept"]


def test_it_works_in_triggers_do_blocks_definers_and_serializable_transactions(
    sql: Sql, caller: Sql, session: Connection
) -> None:
    sql("CREATE TABLE users (name text)")
    sql("GRANT INSERT ON users TO caller")
    sql(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " PERFORM awslambda_fn_on_commit('trigger', to_jsonb(NEW)); RETURN NULL; END$$"
    )
    sql("CREATE TRIGGER tell AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION tell()")
    caller("INSERT INTO users VALUES ('bob'), ('ann')")
    caller(
        "DO $$BEGIN BEGIN PERFORM awslambda_fn_on_commit('lost', '{}'); RAISE 'x'; EXCEPTION WHEN raise_exception THEN"
        " PERFORM awslambda_fn_on_commit('do', '{}'); END; END$$"
    )
    sql("CREATE ROLE nobody LOGIN")
    sql(
        "CREATE FUNCTION wrapper() RETURNS uuid LANGUAGE sql SECURITY DEFINER"
        " AS $$SELECT awslambda_fn_on_commit('definer', '{}')$$"
    )
    sql("ALTER FUNCTION wrapper() OWNER TO caller")
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        session.execute("SELECT awslambda_fn_on_commit('serializable', '{}')")
    session.execute("SELECT wrapper()")
    sql("SET ROLE nobody")
    assert sql("SELECT wrapper()")
    sql("RESET ROLE")
    assert sql("SELECT array_agg(concat(role, ' ', function_name) ORDER BY id) FROM awslambda.outbox") == [
        "caller trigger", "caller trigger", "caller do", "caller serializable", "caller definer", "caller definer",
    ]  # fmt: skip


def test_a_read_only_transaction_says_what_it_cannot_do(session: Connection) -> None:
    with raises("25006", "outbox cannot be written in a read-only transaction", "READ WRITE"), session.transaction():
        session.execute("SET TRANSACTION READ ONLY")
        session.execute("SELECT awslambda_fn_on_commit('f', '{}')")


def test_an_id_is_drawn_by_transactions_that_have_theirs(sql: Sql, caller: Sql) -> None:
    """By enqueue and by whoever writes directly: else a dispatcher could take an id for one that is past."""
    sql("CREATE TABLE drawn (assigned boolean)")
    sql("GRANT INSERT, SELECT ON drawn TO caller")
    sql(
        "CREATE FUNCTION drawing() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN"
        " IF pg_current_xact_id_if_assigned() IS NULL THEN RAISE 'too early'; END IF; RETURN 0; END$$"
    )
    sql("GRANT EXECUTE ON FUNCTION drawing TO caller")
    sql("ALTER TABLE awslambda.outbox ALTER attempts SET DEFAULT drawing()")  # drawn as id is
    for statement in (
        "SELECT awslambda_fn_on_commit('f', '{}')",
        "INSERT INTO awslambda.outbox (function_name, payload, invocation_type) VALUES ('f', '{}', 'Event')",
        "INSERT INTO awslambda.outbox (function_name, payload, invocation_type) SELECT 'f', '{}', 'Event'",
    ):
        caller(statement)
    sql("SET session_replication_role = replica")
    sql("INSERT INTO awslambda.outbox (function_name, payload, invocation_type) VALUES ('f', '{}', 'Event')")
    assert sql(PENDING) == 4


# Row security.


def test_you_see_what_you_and_your_roles_sent(sql: Sql, caller: Sql, connect: Connect) -> None:
    sql("CREATE ROLE other LOGIN")
    sql("CREATE ROLE boss LOGIN")
    sql("GRANT caller TO boss")
    for role in ("other", "boss"):
        sql(f"SELECT awslambda.grant_usage('{role}')")
    other, boss = runner(connect(user="other")), runner(connect(user="boss"))
    sent = caller("SELECT awslambda_fn_on_commit('f', '{}')")
    assert (caller(PENDING), other(PENDING), boss(PENDING), sql(PENDING)) == (1, 0, 1, 1)
    bury(sql, sent)
    dead = "SELECT count(*) FROM awslambda.dead_letter"
    assert (caller(dead), other(dead), boss(dead), sql(dead)) == (1, 0, 1, 1)
    assert other("SELECT awslambda.redrive()") == other("SELECT awslambda.purge()") == 0
    assert other("SELECT status FROM awslambda.result(%s)", sent) == "unknown"
    assert boss("SELECT awslambda.redrive(ARRAY[%s])", sent) == 1
    assert caller(PENDING) == 1


def test_a_role_with_a_quoted_name_can_send(sql: Sql, connect: Connect) -> None:
    sql('CREATE ROLE "Ann O\'Neil" LOGIN')
    sql("SELECT awslambda.grant_usage('\"Ann O''Neil\"')")
    ann = runner(connect(user="'Ann O\\'Neil'"))
    assert ann("SELECT awslambda_fn_on_commit('f', '{}')")
    assert ann("SELECT role::text FROM awslambda.outbox") == '"Ann O\'Neil"'


@pytest.mark.parametrize("column", ["id", "message_id", "mapping", "role", "attempts", "last_error"])
def test_nobody_forges_what_enqueue_does_not_take(caller: Sql, column: str) -> None:
    with raises("42501", "permission denied for table outbox"):
        caller(
            f"INSERT INTO awslambda.outbox (function_name, payload, invocation_type, {column})"
            " VALUES ('f', '{}', 'Event', NULL)"
        )


def test_writing_directly_is_tested_as_enqueue_is(caller: Sql, sql: Sql) -> None:
    insert = (
        "INSERT INTO awslambda.outbox (function_name, payload, invocation_type, due_at) VALUES (%s, '{}', 'Event', %s)"
    )
    caller(insert, "f", None)
    with raises("42501", "row-level security"):
        caller(insert, "f", "infinity")
    for column, value in (("keep_results", "11 years"), ("enqueued_at", "-infinity")):
        with raises("42501", "row-level security"):
            caller(insert.replace("due_at", column), "f", value)
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (allowed_resources 'function:f')")
    with raises("42501", "may not use"):
        caller(insert, "f", None)
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    with raises("42501", "does not allow"):
        caller(insert, "g", None)


def test_even_with_insert_on_all_columns_a_forged_row_is_refused(caller: Sql, sql: Sql) -> None:
    sql("GRANT INSERT ON awslambda.outbox TO caller")
    for column, value in (("mapping", "1"), ("role", "'postgres'"), ("attempts", "-5"), ("last_error", "'x'")):
        with raises("42501", "row-level security"):
            caller(
                f"INSERT INTO awslambda.outbox (function_name, payload, invocation_type, {column})"
                f" VALUES ('f', '{{}}', 'Event', {value})"
            )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE awslambda.outbox SET payload = '{}'",
        "DELETE FROM awslambda.outbox",
        "TRUNCATE awslambda.outbox",
        "UPDATE awslambda.dead_letter SET function_name = 'g'",
        "INSERT INTO awslambda.dead_letter (message_id) VALUES (NULL)",
        "INSERT INTO awslambda._result (message_id) VALUES (NULL)",
        "UPDATE awslambda._result SET payload = '1'",
        "SELECT * FROM awslambda.home",
        "SELECT setval('awslambda.outbox_id_seq', 1)",
    ],
)
def test_a_caller_cannot_change_what_is_sent_or_kept(caller: Sql, statement: str) -> None:
    with raises("42501", "permission denied"):
        caller(statement)


def test_row_security_switched_off_is_an_error_not_a_way_in(caller: Sql) -> None:
    caller("SET row_security = off")
    with raises("42501", "row-level security policy"):
        caller("SELECT awslambda_fn_on_commit('f', '{}')")
    with raises("42501", "row-level security policy"):
        caller("SELECT * FROM awslambda.outbox")


# Dead letters.


def test_redriven_messages_are_the_same_messages_begun_anew_in_their_order(caller: Sql, sql: Sql) -> None:
    sent = [
        caller("SELECT awslambda.enqueue('f', to_jsonb(%s), key => 'k', delay => '1 h')", number) for number in range(5)
    ]
    sql("UPDATE awslambda.outbox SET enqueued_at = enqueued_at - interval '4 days'")
    for one in reversed(sent):
        bury(sql, one)
    assert caller("SELECT awslambda.redrive(%s)", [sent[0]]) == 1
    assert caller("SELECT awslambda.redrive(%s)", [sent[0], uuid.uuid4()]) == 0
    assert caller("SELECT awslambda.redrive('{}')") == 0
    assert caller("SELECT awslambda.redrive()") == 4
    assert caller("SELECT count(*) FROM awslambda.dead_letter") == 0
    assert caller("SELECT array_agg(message_id ORDER BY id) FROM awslambda.outbox") == sent
    assert caller(
        "SELECT DISTINCT function_name, key, role::text, attempts, due_at, last_error,"
        " enqueued_at > now() - interval '1 day' FROM awslambda.outbox"
    ) == ("f", "k", "caller", 0, None, None, True)


def test_two_redrives_at_once_put_a_message_back_once(
    caller: Sql, sql: Sql, session: Connection, connect: Connect
) -> None:
    bury(sql, caller("SELECT awslambda_fn_on_commit('f', '{}')"))
    with session.transaction():
        assert runner(session)("SELECT awslambda.redrive()") == 1
        second = connect(user="caller")
        second.execute("SET lock_timeout = '300 ms'")
        with raises("55P03"):
            second.execute("SELECT awslambda.redrive()")
    assert runner(second)("SELECT awslambda.redrive()") == 0
    assert caller(PENDING) == 1


def test_records_of_a_deleted_mapping_stay_dead_with_a_warning(sql: Sql, connect: Connect) -> None:
    bury(sql, sql("SELECT awslambda_fn_on_commit('f', '{}')"), "MappingDeleted")
    sql("UPDATE awslambda.dead_letter SET mapping = 77")
    session, said = connect(), list[str]()
    session.add_notice_handler(lambda notice: said.append(f"{notice.message_primary} {notice.message_hint}"))
    assert runner(session)("SELECT awslambda.redrive()") == 0
    assert said and "mapping is gone: 1" in said[0] and "purge()" in said[0]
    assert sql("SELECT count(*) FROM awslambda.dead_letter") == 1


def test_a_mark_of_ones_own_is_all_that_can_be_written_into_a_dead_letter(caller: Sql, sql: Sql) -> None:
    bury(sql, caller("SELECT awslambda_fn_on_commit('f', '{}')"))
    with raises("42501", "row-level security"):
        caller("UPDATE awslambda.dead_letter SET attempts = 0")
    assert caller("SELECT attempts FROM awslambda.dead_letter") == 3


def test_purge_removes_dead_letters_and_expired_results(caller: Sql, sql: Sql) -> None:
    sent = [caller("SELECT awslambda_fn_on_commit('f', '{}')") for _ in range(3)]
    for one in sent:
        bury(sql, one)
    sql(
        "INSERT INTO awslambda._result (message_id, role, expires_at)"
        " VALUES (gen_random_uuid(), 'caller', now()), (gen_random_uuid(), 'caller', now() + '1 h'),"
        " (gen_random_uuid(), 'postgres', now())"
    )
    assert caller("SELECT awslambda.purge(%s)", [sent[0], uuid.uuid4()]) == 1
    assert sql("SELECT count(*) FROM awslambda._result") == 2
    assert caller("SELECT awslambda.purge()") == 2
    assert sql("SELECT awslambda.purge()") == 0
    assert sql("SELECT count(*) FROM awslambda._result") == 1


# Results.

SEND = "SELECT awslambda.enqueue('f', '{}', invocation_type => 'RequestResponse', keep_results => '1 h')"
ASK = "SELECT status, payload, error FROM awslambda.result(%s, %s)"


def test_what_has_become_of_a_message_is_told_apart(caller: Sql, sql: Sql) -> None:
    sent = {name: caller(SEND) for name in ("pending", "delivered", "failed", "dead", "odd", "expired")}
    sent |= {"not kept": caller("SELECT awslambda_fn_on_commit('f', '{}')"), "unknown": uuid.uuid4()}
    settle(sql, sent["delivered"], '{"a": "\\u0000"}')
    settle(sql, sent["failed"], '{"errorType": "X"}', "Unhandled")
    settle(sql, sent["odd"], "not JSON")
    settle(sql, sent["expired"], "1")
    sql("UPDATE awslambda._result SET expires_at = now() WHERE message_id = %s", sent["expired"])
    bury(sql, sent["dead"])
    found = {name: caller("SELECT status, payload::text, error FROM awslambda.result(%s)", sent[name]) for name in sent}
    assert found == {
        "pending": ("pending", None, None),
        "delivered": ("delivered", '{"a": "\\u0000"}', None),
        "failed": ("failed", '{"errorType": "X"}', "Unhandled"),
        "dead": ("dead", None, "it failed"),
        "odd": ("delivered", '"not JSON"', None),
        "expired": ("unknown", None, None),
        "not kept": ("not kept", None, None),
        "unknown": ("unknown", None, None),
    }


def test_waiting_ends_with_the_result_or_with_the_time(caller: Sql, sql: Sql, session: Connection) -> None:
    sent = caller(SEND)
    started = time.monotonic()
    assert caller(ASK, sent, "0.3 s") == ("pending", None, None)
    assert 0.3 <= time.monotonic() - started < 5
    session.pgconn.send_query_params(
        ASK.replace("%s", "$1::uuid", 1).replace("%s", "'30 s'").encode(), [str(sent).encode()]
    )
    wait_until(
        lambda: sql("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", session.pgconn.backend_pid) == "PgSleep",
        "the other session waits",
    )
    settle(sql, sent, '"done"')
    result = session.pgconn.get_result()
    assert result and (result.get_value(0, 0), result.get_value(0, 1)) == (b"delivered", b'"done"')
    while session.pgconn.get_result():
        pass


def test_waiting_can_be_cancelled(caller: Sql) -> None:
    sent = caller(SEND)
    caller("SET statement_timeout = '200 ms'")
    with raises("57014"):
        caller(ASK, sent, "1 h")


def test_the_transaction_that_sends_is_told_to_commit_first(session: Connection, sql: Sql) -> None:
    run = runner(session)
    with session.transaction(force_rollback=True):
        with session.transaction():  # a subtransaction that has ended
            sent = run(SEND)
        with raises("55000", "this very transaction", "COMMIT first"), session.transaction():
            run(ASK, sent, "10 s")
        with raises("55000", "this very transaction"), session.transaction():
            run(ASK, sent, "0")
        other = sql(SEND)  # of another transaction, since this one began
        sql("GRANT postgres TO caller")
        assert run(ASK, other, "0") == ("pending", None, None)
    sql("REVOKE postgres FROM caller")


def test_a_snapshot_that_stays_cannot_wait(caller: Sql, session: Connection) -> None:
    sent = caller(SEND)
    with raises("55000", "REPEATABLE READ cannot wait", "READ COMMITTED"), session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute(ASK, [sent, "1 s"])
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert session.execute(ASK, [sent, "0"]).fetchone() == ("pending", None, None)


def test_results_need_an_id_and_a_time(own: Sql) -> None:
    with raises("22004", "message_id must not be NULL"):
        own("SELECT awslambda.result(NULL)")
    with raises("22004", "wait must not be NULL"):
        own("SELECT awslambda.result(gen_random_uuid(), NULL)")


def test_dispatch_in_a_transaction_block_is_refused_in_words(connect: Connect) -> None:
    session = connect()
    session.execute("BEGIN")
    with raises("2D000", "CALL awslambda.dispatch cannot be in a transaction block"):
        session.execute("CALL awslambda.dispatch()")
    session.execute("ROLLBACK")
    session.execute("CALL awslambda.dispatch()")


def test_dispatch_holds_no_transaction_and_no_snapshot_while_a_function_runs(connect: Connect, sql: Sql) -> None:
    sleep = '{"do": "sleep", "seconds": 3}'
    sql("SELECT awslambda.enqueue('behave', %s::jsonb, invocation_type => 'RequestResponse')", sleep)
    session = connect()
    call = threading.Thread(target=session.execute, args=("CALL awslambda.dispatch()",))
    call.start()
    running = "SELECT sum(batches) FROM awslambda._sending"
    wait_until(lambda: sql(running) == 1, "the function runs")
    free = (
        "SELECT backend_xmin IS NULL AND backend_xid IS NULL, now() - xact_start < '1 s'"
        " FROM pg_stat_activity WHERE pid = %s"
    )
    seen = []
    for _ in range(40):
        seen.append(sql(free, session.info.backend_pid))
        time.sleep(0.02)
    assert sql(running) == 1, "it runs still"
    call.join()
    assert sum(at_rest for at_rest, _ in seen) > len(seen) / 2, "it looks at the outbox now and then"
    assert all(new for _, new in seen)
