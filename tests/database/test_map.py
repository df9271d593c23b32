"""awslambda.map: many calls at once, what becomes of each, and that all of them end with the statement."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import FUNCTIONS, Connect, runner
from tests.docs.markdown import ROOT, Document
from tests.endpoints import Behaviour, Endpoint, answer, break_off, closed_port, in_turn, refusal, silence
from tests.errors import raises
from tests.terminating import terminate_in_the_middle
from tests.waiting import wait_until

Sql = Callable[..., Any]
Start = Callable[..., Endpoint]

PROMPT = 0.5  # promised are 100 ms; the machine that runs the tests may be busy with something else


@pytest.fixture
def through(own: Sql, endpoint: Start) -> Iterator[Callable[..., tuple[Sql, Endpoint]]]:
    """A session whose only server is an endpoint with this behaviour."""

    def start(behaviour: Behaviour, **options: str) -> tuple[Sql, Endpoint]:
        started = endpoint(behaviour)
        make_server(own, "aws", endpoint_url=started.url, **options)
        return own, started

    yield start
    own("DROP SERVER aws")


def make_server(sql: Sql, name: str, **options: str) -> None:
    given = ", ".join(f"{key} '{value}'" for key, value in {"region": "us-east-1", **options}.items())
    sql(f"CREATE SERVER {name} FOREIGN DATA WRAPPER awslambda OPTIONS ({given})")


def by_payload(**behaviours: Behaviour) -> Behaviour:
    """What an endpoint does for the payloads that are these texts; it echoes the others."""

    def behave(connection: Any, received: Any) -> bool:
        said = json.loads(received.body)
        chosen = behaviours.get(said) if isinstance(said, str) else None
        return (chosen or answer(body=said))(connection, received)

    return behave


def mapped(sql: Sql, columns: str, function: str, payloads: list[Any], more: str = "") -> list[tuple[Any, ...]]:
    """The rows, in the order in which they come."""
    given = [json.dumps(one) if one is not None else None for one in payloads]
    rows = sql(
        f"""SELECT coalesce(jsonb_agg(jsonb_build_array({columns})), '[]')
              FROM awslambda.map(%s, %s::text[]::jsonb[]{", " + more if more else ""}) AS m""",
        function,
        given,
    )
    return [tuple(row) for row in rows]


def check_that_threads_end(sql: Sql) -> None:
    """The session's backend has no helper threads: on a busy machine, as soon as they get to run."""
    threads = Path(f"/proc/{sql('SELECT pg_backend_pid()')}/task")

    def ended() -> bool:
        sql("DO LANGUAGE plpython3u 'import time; time.sleep(0.01)'")
        return len(list(threads.iterdir())) == 1

    wait_until(ended, "the helper threads have ended", seconds=2)


# What works.


def test_a_row_for_each_payload_in_their_order(shared: Sql) -> None:
    payloads = [{"n": number} for number in range(100)]
    rows = mapped(shared, "ordinality, payload, sqlstate, error_message", "echo", payloads)
    assert rows == [(at, {"n": at - 1}, None, None) for at in range(1, 101)]


def test_a_row_has_all_that_lambda_answers(shared: Sql) -> None:
    (row,) = mapped(
        shared,
        "status_code, executed_version, function_error, payload, request_id, duration BETWEEN '0' AND '1 min'",
        "behave",
        [{"do": "about"}],
        "client_context => '{\"custom\": {\"tenant\": \"grün\"}}', qualifier => 'prod', region => 'us-east-1'",
    )
    status, version, error, payload, request_id, plausible = row
    assert (status, version, error, plausible) == (200, "1", None, True)
    assert payload["custom"] == {"tenant": "grün"} and payload["request_id"] == request_id


@pytest.mark.parametrize(("kind", "status"), [("Event", 202), ("DryRun", 204)])
def test_event_and_dry_run_have_a_status_and_no_payload(shared: Sql, kind: str, status: int) -> None:
    rows = mapped(shared, "status_code, payload, sqlstate", "echo", [1, 2], f"invocation_type => '{kind}'")
    assert rows == [(status, None, None)] * 2


def test_rows_come_in_order_or_as_the_calls_end(through: Any) -> None:
    def slowly(connection: Any, received: Any) -> bool:
        threading.Event().wait(0.4)
        return bool(answer(body="slow")(connection, received))

    sql, _ = through(by_payload(slow=slowly))
    assert mapped(sql, "ordinality, payload", "f", ["slow", 2, 3]) == [(1, "slow"), (2, 2), (3, 3)]
    rows = mapped(sql, "ordinality, payload", "f", ["slow", 2, 3], "ordered => false")
    assert rows[-1] == (1, "slow") and sorted(rows[:2]) == [(2, 2), (3, 3)]


def test_as_many_calls_as_wanted_are_under_way_at_once_and_no_more(through: Any) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def behave(connection: Any, received: Any) -> bool:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.1)
        with lock:
            under_way -= 1
        return bool(answer(body="ok")(connection, received))

    sql, endpoint = through(behave)
    assert sql("SELECT count(*) FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[60]), 12)") == 60
    assert (most, len(endpoint.requests)) == (12, 60)
    most = 0
    assert sql("SELECT count(*) FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[40]))") == 40
    assert most == 32


def test_the_next_chunk_uses_the_connections_of_the_one_before(through: Any) -> None:
    sql, endpoint = through(answer(body="ok"))
    chunks = """
        SELECT count(*) FROM generate_series(1, 5) AS chunk
         CROSS JOIN LATERAL awslambda.map('f', array_fill(to_jsonb(chunk), ARRAY[50]), 8) AS m
         WHERE m.sqlstate IS NULL"""
    assert sql(chunks) == 250
    assert len(endpoint.requests) == 250 and endpoint.connections <= 8


def test_chunks_of_a_table_are_scored_with_lateral(sql: Sql) -> None:
    sql("CREATE TABLE lead AS SELECT g AS id, repeat('x', g) AS email FROM generate_series(1, 250) AS g")
    right = sql(
        """WITH chunk AS (
             SELECT array_agg(id ORDER BY id) AS ids, array_agg(to_jsonb(lead) ORDER BY id) AS payloads
               FROM lead GROUP BY id / 100)
           SELECT count(*) FILTER (WHERE m.payload->>'email' = repeat('x', chunk.ids[m.ordinality]))
             FROM chunk CROSS JOIN LATERAL awslambda.map('echo', chunk.payloads, ordered => false) AS m"""
    )
    assert right == 250


def test_no_payloads_are_no_rows_and_no_calls(through: Any) -> None:
    sql, endpoint = through(answer())
    assert mapped(sql, "ordinality", "f", []) == []
    assert endpoint.connections == 0


def test_the_function_of_the_page_is_the_one_that_is_tested() -> None:
    (shown,) = [block.code for block in Document(ROOT / "docs/map.md").blocks if block.language == "python"]
    assert shown == (FUNCTIONS / "score.py").read_text()


# A call that fails is a row, and no other is lost by it.


def test_a_function_that_raises_is_a_row_with_what_it_answered(shared: Sql) -> None:
    columns = "ordinality, status_code, function_error, sqlstate, payload->>'errorMessage', error_message"
    assert mapped(shared, columns, "behave", [{"do": "fail"}, {"do": "nothing"}]) == [
        (1, 200, "Unhandled", "LA001", "too hot",
         "FunctionError: The Lambda function 'behave' raised ValueError: too hot"),
        (2, 200, None, None, None, None),
    ]  # fmt: skip


def test_every_way_a_call_fails_is_a_row_between_those_that_do_not(through: Any) -> None:
    failing = {
        "throttled": (refusal(429, "TooManyRequestsException"), "LA003", "Throttled: AWS throttled"),
        "missing": (refusal(404, "ResourceNotFoundException"), "42704", "FunctionNotFound: There is no"),
        "denied": (refusal(403, "AccessDeniedException"), "42501", "AccessDenied: IAM"),
        "failed": (refusal(500, "ServiceException"), "LA004", "ServiceFailed: AWS could not"),
        "silent": (silence, "LA005", "NoAnswer: The Lambda function 'f' did not answer within 1 s"),
        "broken": (break_off, "08006", "ConnectionBroke: The connection to"),
        "no json": (answer(body=b"hello"), "22032", "ResponseNotJson: "),
        "no text": (answer(body=b'"\xff"'), "22021", "ResponseNotText: "),
    }
    behaviours = {payload: behaviour for payload, (behaviour, _, _) in failing.items()}
    sql, endpoint = through(by_payload(**behaviours), request_timeout="1s", max_attempts="2")
    payloads = [one for payload in failing for one in (payload, 7)]
    rows = mapped(sql, "payload, sqlstate, error_message", "f", payloads)
    assert rows[1::2] == [(7, None, None)] * len(failing)
    for (_, sqlstate, words), row in zip(failing.values(), rows[::2], strict=True):
        assert row[:2] == (None, sqlstate), row
        assert row[2].startswith(words)
    sent = [json.loads(request.body) for request in endpoint.requests]
    assert {payload: sent.count(payload) for payload in failing} == {**dict.fromkeys(failing, 1), "throttled": 2}


def test_what_was_throttled_is_tried_again_and_does_not_fail(through: Any) -> None:
    once = in_turn(refusal(429, "TooManyRequestsException"), answer(body="at last"))
    sql, endpoint = through(by_payload(throttled=once))
    assert mapped(sql, "payload, sqlstate", "f", [1, "throttled"]) == [(1, None), ("at last", None)]
    assert len(endpoint.requests) == 3


def test_nobody_listens(own: Sql) -> None:
    make_server(own, "aws", endpoint_url=f"http://127.0.0.1:{closed_port()}", max_attempts="2")
    try:
        rows = mapped(own, "ordinality, sqlstate, error_message ~ '^ConnectFailed: Cannot connect'", "f", [1, 2, 3])
        assert rows == [(1, "08001", True), (2, "08001", True), (3, "08001", True)]
    finally:
        own("DROP SERVER aws")


def test_null_among_the_payloads_and_what_is_too_large_are_rows(through: Any) -> None:
    sql, endpoint = through(by_payload())
    columns = "ordinality, payload, sqlstate, error_message"
    assert mapped(sql, columns, "f", [1, None]) == [
        (1, 1, None, None), (2, None, "22004", "NullArgument: an element of payloads must not be NULL."),
    ]  # fmt: skip
    rows = sql(
        """SELECT jsonb_agg(jsonb_build_array(ordinality, sqlstate) ORDER BY ordinality)
             FROM awslambda.map('f', ARRAY[to_jsonb(repeat('x', 6 * 1024 * 1024)), 'null'::jsonb])"""
    )
    assert rows == [[1, "54000"], [2, None]]
    assert len(endpoint.requests) == 2


def test_errors_have_no_payload_in_them(through: Any) -> None:
    sql, _ = through(refusal(400, "InvalidRequestContentException", "cannot parse hunter2"))
    ((sqlstate, message),) = mapped(sql, "sqlstate, error_message", "f", [{"password": "hunter2"}])
    assert sqlstate == "22P02" and "hunter2" not in message


# What keeps all calls from being sent is an error.


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("NULL, '{1}'", "22004", "function_name must not be NULL"),
        ("'f', NULL", "22004", "payloads must not be NULL"),
        ("'f', '{1}', NULL", "22004", "max_concurrency must not be NULL"),
        ("'f', '{1}', 0", "22023", "invalid max_concurrency: 0"),
        ("'f', '{1}', 257", "22023", "invalid max_concurrency: 257"),
        ("'f', '{1}', ordered => NULL", "22004", "ordered must not be NULL"),
        ("'f', '{1}', invocation_type => NULL", "22004", "invocation_type must not be NULL"),
        ("'f', '{1}', invocation_type => 'event'", "22023", "invalid invocation type: 'event'"),
        ("'f', '{1}', client_context => '1'", "22023", "not a JSON object"),
        ("'f', '{1}', region => 'x'", "22023", "not the name of a region"),
        ("'f:a', '{1}', qualifier => 'b'", "22023", "contradicts"),
        ("'a b', '{1}'", "22023", "not the name or ARN"),
        ("'f', '{{1},{2}}'", "22023", "payloads has more than one dimension"),
        ("'f', '{1}', server => 'nowhere'", "42704", "There is no server 'nowhere'"),
        ("'g', '{1}'", "42501", "does not allow 'function:g'"),
        ("'arn:aws:lambda:us-east-1:123456789012:function:f', '{1}'", "42501", "does not allow 'arn:aws"),
    ],
)
def test_a_wrong_argument_is_an_error_and_nothing_is_sent(
    through: Any, arguments: str, sqlstate: str, words: str
) -> None:
    sql, endpoint = through(answer(), allowed_resources="function:f")
    with raises(sqlstate, words):
        sql(f"SELECT * FROM awslambda.map({arguments})")
    assert endpoint.connections == 0


def test_without_usage_on_the_server_nothing_is_sent(sql: Sql, connect: Connect, endpoint: Start) -> None:
    target = endpoint(answer(body="ok"))
    make_server(sql, "aws", endpoint_url=target.url)
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")
    caller = runner(connect(user="caller"))
    with raises("42501", "The role 'caller' may not use the server 'aws'"):
        caller("SELECT * FROM awslambda.map('f', '{1,2}')")
    assert target.connections == 0
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    assert caller("SELECT count(*) FROM awslambda.map('f', '{1,2}')") == 2


def test_without_credentials_nothing_is_sent(through: Any) -> None:
    sql, endpoint = through(answer(), profile="nobody")
    with raises("28000", "No AWS credentials"):
        sql("SELECT * FROM awslambda.map('f', '{1,2}')")
    assert endpoint.connections == 0


# It ends when it must, and the session is as good as before.


def check_that_it_still_works(sql: Sql, target: Endpoint) -> None:
    target.behaviour = by_payload()
    assert mapped(sql, "payload", "f", [1, 2, 3]) == [(1,), (2,), (3,)]
    assert sql("SELECT awslambda_fn('f', '\"again\"')") == '"again"'


@pytest.mark.parametrize("ordered", [True, False])
def test_statement_timeout_ends_it_and_its_threads_and_nothing_more_is_sent(through: Any, ordered: bool) -> None:
    sql, endpoint = through(silence)
    sql("SELECT count(*) FROM awslambda.map('f', '{}')")  # the first call's imports are no part of the wait
    sql("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with raises("57014", "canceling statement due to statement timeout"):
        sql("SELECT * FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[200]), 16, %s)", ordered)
    assert time.monotonic() - started < 0.3 + PROMPT
    sql("RESET statement_timeout")
    check_that_threads_end(sql)
    assert len(endpoint.requests) == 16
    check_that_it_still_works(sql, endpoint)
    assert len(endpoint.requests) == 16 + 4


def test_statement_timeout_ends_the_wait_for_credentials(through: Any) -> None:
    sql, endpoint = through(silence, role_arn="arn:aws:iam::123456789012:role/reports")
    sql("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with raises("57014"):
        sql("SELECT * FROM awslambda.map('f', '{1,2,3}')")
    assert time.monotonic() - started < 0.3 + PROMPT
    sql("RESET statement_timeout")
    assert not [request for request in endpoint.requests if "/functions/" in request.path]


def test_it_ends_while_rows_come_all_the_time(through: Any) -> None:
    sql, endpoint = through(by_payload())
    sql("SET statement_timeout = '500ms'")
    started = time.monotonic()
    with raises("57014"):
        sql("SELECT count(*) FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[100000]))")
    assert time.monotonic() - started < 0.5 + PROMPT
    sql("RESET statement_timeout")
    check_that_threads_end(sql)
    check_that_it_still_works(sql, endpoint)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_another_session_ends_it_before_the_first_row_and_after(
    cluster: Any, connect: Connect, sql: Sql, endpoint: Start, how: str, rows: int
) -> None:
    target = endpoint(in_turn(*[answer(body="ok")] * rows, silence))
    make_server(sql, "aws", endpoint_url=target.url)
    victim = connect()
    ended: list[float] = []

    def end() -> None:
        wait_until(lambda: len(target.requests) == 32 + rows, "the calls wait")
        sql(f"SELECT {how}(%s)", victim.info.backend_pid)
        ended.append(time.monotonic())

    killer = threading.Thread(target=end)
    killer.start()
    with pytest.raises(psycopg.OperationalError) as caught:
        victim.execute("SELECT * FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[100]), ordered => false)")
    took = time.monotonic()
    killer.join()
    assert took - ended[0] < PROMPT
    if how == "pg_cancel_backend":
        assert caught.value.sqlstate == "57014"
        check_that_it_still_works(runner(victim), target)
    else:
        assert caught.value.sqlstate == "57P01"
        pid = victim.info.backend_pid
        wait_until(lambda: not sql("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid), "the backend is gone")
        assert "Exception ignored" not in cluster.log.read_text()


def test_after_a_cancel_no_call_gets_an_answer_of_before(through: Any) -> None:
    release = threading.Event()

    def late(connection: Any, received: Any) -> bool:
        if received.body != b"1":
            release.wait(10)
        return bool(answer(body=json.loads(received.body))(connection, received))

    sql, _ = through(late)
    mapped(sql, "payload", "f", [1] * 8, "max_concurrency => 8")
    sql("SET statement_timeout = '300ms'")
    with raises("57014"):
        mapped(sql, "payload", "f", [2] * 8, "max_concurrency => 8")
    sql("RESET statement_timeout")
    release.set()
    assert mapped(sql, "payload", "f", [3] * 16, "max_concurrency => 8") == [(3,)] * 16


def test_an_error_of_the_statement_around_it_ends_the_threads(through: Any) -> None:
    sql, endpoint = through(by_payload(slow=silence))
    with raises("22012", "division by zero"):
        sql("SELECT 1 / ((awslambda.map('f', ARRAY['1', '\"slow\"', '\"slow\"']::jsonb[])).ordinality - 1)")
    check_that_threads_end(sql)
    check_that_it_still_works(sql, endpoint)


def test_limit_in_the_select_list_ends_the_calls_that_nobody_waits_for(through: Any) -> None:
    sql, endpoint = through(by_payload(slow=silence))
    statement = "SELECT (awslambda.map('f', ARRAY['1', '\"slow\"', '\"slow\"']::jsonb[])).payload LIMIT 1"
    started = time.monotonic()
    assert sql(statement) == 1
    assert time.monotonic() - started < PROMPT
    check_that_threads_end(sql)
    check_that_it_still_works(sql, endpoint)


def test_a_cursor_that_is_closed_in_the_middle_ends_the_threads(through: Any) -> None:
    sql, endpoint = through(by_payload())
    sql("BEGIN")
    sql("DECLARE c CURSOR FOR SELECT (awslambda.map('f', array_fill('1'::jsonb, ARRAY[500]))).payload")
    with contextlib.suppress(psycopg.Error):
        assert sql("FETCH c") == 1
    sql("CLOSE c")
    check_that_threads_end(sql)
    sql("COMMIT")
    assert len(endpoint.requests) <= 64 + 1
    check_that_it_still_works(sql, endpoint)


def test_it_works_in_a_subtransaction_a_trigger_and_a_database_of_another_encoding(cluster: Any, sql: Sql) -> None:
    sql("CREATE TABLE reading (value int, answers jsonb)")
    sql(
        """CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             NEW.answers := (SELECT jsonb_agg(payload) FROM awslambda.map('echo', ARRAY[to_jsonb(NEW.value), '2']));
             RETURN NEW;
           EXCEPTION WHEN OTHERS THEN RAISE;
           END $$"""
    )
    sql("CREATE TRIGGER ask BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION ask()")
    assert sql("INSERT INTO reading VALUES (7) RETURNING answers") == [7, 2]
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE map_in_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            with psycopg.connect(cluster.dsn("map_in_latin1"), autocommit=True) as session:
                latin = runner(session)
                latin("CREATE EXTENSION awslambda CASCADE")
                latin("SET client_encoding = 'UTF8'")
                assert mapped(latin, "payload", "echo", ["ä", "grün"]) == [("ä",), ("grün",)]
        finally:
            admin.execute("DROP DATABASE map_in_latin1 WITH (FORCE)")


@pytest.mark.slow
def test_sessions_that_are_terminated_in_the_middle_of_tls_do_not_take_the_server_down(
    endpoint: Start, certificate: Path
) -> None:
    """The end of a session ends OpenSSL, which its helper threads are using all the time."""
    target = endpoint(answer(body="ok"), certificate=certificate)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with Cluster(keys) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        sql = runner(admin)
        sql("CREATE EXTENSION awslambda CASCADE")
        make_server(sql, "aws", endpoint_url=target.url, ca_bundle=str(certificate))
        statement = "SELECT count(*) FROM awslambda.map('f', array_fill('1'::jsonb, ARRAY[100000]))"
        terminate_in_the_middle(cluster, statement, begins=0.15)  # while it connects, and while it calls
