"""awslambda_fn, awslambda_fn_async and awslambda.invoke against real handlers, and every way a call can end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.endpoints import (
    Behaviour,
    Endpoint,
    answer,
    black_hole,
    break_off,
    closed_port,
    hang_up,
    in_turn,
    refusal,
    silence,
    trickle,
    tunnel,
)
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
Start = Callable[..., Endpoint]


@pytest.fixture
def through(own: Sql, endpoint: Start) -> Iterator[Callable[..., tuple[Sql, Endpoint]]]:
    """A session whose only server is an endpoint with this behaviour."""

    def start(behaviour: Behaviour, **options: str) -> tuple[Sql, Endpoint]:
        started = endpoint(behaviour)
        make_server(own, endpoint_url=started.url, **options)
        return own, started

    yield start
    own("DROP SERVER aws")


def make_server(sql: Sql, name: str = "aws", **options: str) -> None:
    given = ", ".join(f"{key} '{value}'" for key, value in {"region": "us-east-1", **options}.items())
    sql(f"CREATE SERVER {name} FOREIGN DATA WRAPPER awslambda OPTIONS ({given})")


# What works.


def test_two_untyped_literals_call_the_text_form(shared: Sql) -> None:
    result = shared("SELECT awslambda_fn('lambdaTest', '{\"name\":\"bob\"}')")
    assert result == '{"name": "bob", "Status": "OK"}'


@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
def test_the_result_has_the_type_of_the_argument(shared: Sql, kind: str) -> None:
    assert shared(f"SELECT pg_typeof(awslambda_fn('echo', '{{\"a\": [1, null]}}'::{kind}))") == kind
    assert shared(f"SELECT awslambda_fn('echo', '{{\"a\": [1, null]}}'::{kind})::jsonb") == {"a": [1, None]}


@pytest.mark.parametrize("payload", ['"a text"', "7", "[]", "true", '{"ü": "\\u00e4 😀 \\" \\\\"}', '"\\u0000"'])
def test_any_json_comes_back_as_it_was_sent(shared: Sql, payload: str) -> None:
    assert json.loads(shared("SELECT awslambda_fn('echo', %s::text)", payload)) == json.loads(payload)


def test_null_of_the_function_is_json_null_not_sql_null(shared: Sql) -> None:
    payload = '{"do": "nothing"}'
    assert shared("SELECT awslambda_fn('behave', %s::text)", payload) == "null"
    assert shared("SELECT awslambda_fn('behave', %s::jsonb) = 'null'::jsonb", payload) is True
    assert shared("SELECT (awslambda.invoke('behave', %s)).payload = 'null'::jsonb", payload) is True


@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
def test_async_returns_the_request_id_that_the_function_sees(shared: Sql, aws: LocalAWS, kind: str) -> None:
    request_id = shared(f"SELECT awslambda_fn_async('behave', '{{\"do\": \"about\"}}'::{kind})")
    assert re.fullmatch(r"[0-9a-f-]{36}", request_id)
    logs = aws.client("logs")

    def seen() -> bool:
        events = logs.filter_log_events(logGroupName="/aws/lambda/behave", limit=1000)["events"]
        return any(request_id in event["message"] for event in events)

    wait_until(seen, "the function's log has the request id")


def test_async_does_not_wait_for_the_function_and_does_not_see_it_fail(shared: Sql) -> None:
    shared("SET statement_timeout = '1s'")
    assert shared('SELECT awslambda_fn_async(\'behave\', \'{"do": "sleep", "seconds": 1.8}\')')
    assert shared("SELECT awslambda_fn_async('behave', '{\"do\": \"fail\"}')")
    shared("RESET statement_timeout")


def test_invoke_returns_everything_that_lambda_answers(shared: Sql) -> None:
    row = shared(
        """SELECT i.status_code, i.payload, i.executed_version, i.log_result, i.function_error, i.request_id,
                  i.duration BETWEEN '0' AND '1 min'
             FROM awslambda.invoke('behave', '{"do": "about"}', log_type => 'Tail',
                                   client_context => '{"custom": {"tenant": "grün"}}') AS i"""
    )
    status, payload, version, log, error, request_id, plausible = row
    assert (status, version, error, plausible) == (200, "$LATEST", None, True)
    assert payload["custom"] == {"tenant": "grün"} and payload["request_id"] == request_id
    assert "a line in the log: grüß Gott" in log and f"START RequestId: {request_id}" in log


@pytest.mark.parametrize(("kind", "status"), [("Event", 202), ("DryRun", 204)])
def test_event_and_dry_run_have_a_status_and_no_payload(shared: Sql, kind: str, status: int) -> None:
    row = shared("SELECT status_code, payload IS NULL, log_result FROM awslambda.invoke('echo', '{}', %s)", kind)
    assert row == (status, True, None)


def test_invoke_returns_a_function_error_as_a_row(shared: Sql) -> None:
    status, error, kind = shared(
        """SELECT status_code, function_error, payload->>'errorType'
             FROM awslambda.invoke('behave', '{"do": "fail"}')"""
    )
    assert (status, error, kind) == (200, "Unhandled", "ValueError")


@pytest.mark.parametrize(
    ("name", "qualifier", "version"),
    [
        ("behave", None, "$LATEST"),
        ("behave:1", None, "1"),
        ("behave:prod", None, "1"),
        ("behave", "prod", "1"),
        ("behave", "$LATEST", "$LATEST"),
        ("behave:prod", "prod", "1"),
        ("123456789012:function:behave", None, "$LATEST"),
        ("123456789012:function:behave:prod", None, "1"),
        ("arn:aws:lambda:us-east-1:123456789012:function:behave", "1", "1"),
        ("arn:aws:lambda:us-east-1:123456789012:function:behave:prod", None, "1"),
    ],
)
def test_every_way_to_name_a_function_finds_its_version(
    shared: Sql, name: str, qualifier: str | None, version: str
) -> None:
    row = shared(
        """SELECT executed_version, payload->>'version'
             FROM awslambda.invoke(%s, '{"do": "about"}', qualifier => %s)""",
        name,
        qualifier,
    )
    assert row == (version, version)


def test_a_response_of_6_mb_comes_back_whole(shared: Sql) -> None:
    size = 6 * 1024 * 1024 - 100
    assert shared("SELECT length(awslambda_fn('behave', %s::text))", f'{{"do": "large", "bytes": {size}}}') == size + 2


def test_a_payload_of_6_mb_gets_there(shared: Sql) -> None:
    size = 6 * 1024 * 1024
    assert shared("SELECT length(awslambda_fn('echo', to_json(repeat('x', %s))::text))", size - 2) == size


def test_it_can_be_called_from_a_trigger_a_do_block_a_cursor_and_a_subtransaction(sql: Sql) -> None:
    sql("CREATE TABLE reading (value int, answer jsonb)")
    sql(
        """CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW.answer := awslambda_fn('echo', to_jsonb(NEW)); RETURN NEW; END $$"""
    )
    sql("CREATE TRIGGER ask BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION ask()")
    assert sql("INSERT INTO reading VALUES (7) RETURNING answer->>'value'") == "7"
    sql(
        """DO $$ BEGIN
             PERFORM awslambda_fn('behave', '{"do": "fail"}');
             RAISE 'not reached';
           EXCEPTION WHEN SQLSTATE 'LA001' THEN
             INSERT INTO reading VALUES (8);
           END $$"""
    )
    sql(
        """DO $$ DECLARE c CURSOR FOR SELECT awslambda_fn('echo', to_json(g)) FROM generate_series(1, 3) g; got json;
           BEGIN OPEN c; FETCH c INTO got; FETCH c INTO got; CLOSE c;
             INSERT INTO reading VALUES (got::text::int); END $$"""
    )
    assert sql("SELECT array_agg(value ORDER BY value) FROM reading") == [2, 7, 8]


def test_many_calls_of_one_session_use_one_connection(through: Any) -> None:
    sql, endpoint = through(answer(body="ok"))
    assert sql("SELECT count(awslambda_fn('f', '1')) FROM generate_series(1, 20)") == 20
    assert (len(endpoint.requests), endpoint.connections) == (20, 1)


def test_a_connection_closed_while_idle_is_noticed_before_sending(through: Any) -> None:
    sql, endpoint = through(answer(body="ok"))
    for calls in (1, 2, 3):
        assert sql("SELECT awslambda_fn('f', '1')") == '"ok"'
        endpoint.close_connections()
        assert (len(endpoint.requests), endpoint.connections) == (calls, calls)


# Bad input: an error that says so, and nothing sent.


@pytest.mark.parametrize("function", ["awslambda_fn", "awslambda_fn_async"])
@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
def test_null_is_refused_before_sending(through: Any, function: str, kind: str) -> None:
    sql, endpoint = through(answer())
    with raises("22004", "fn_name must not be NULL", "Nothing was sent"):
        sql(f"SELECT {function}(NULL, '{{}}'::{kind})")
    with raises("22004", "fn_args must not be NULL"):
        sql(f"SELECT {function}('f', NULL::{kind})")
    assert endpoint.connections == 0


@pytest.mark.parametrize("argument", ["function_name", "payload", "invocation_type", "log_type"])
def test_null_arguments_of_invoke_are_refused(shared: Sql, argument: str) -> None:
    arguments = {"function_name": "'f'", "payload": "'{}'", argument: "NULL"}
    with raises("22004", f"{argument} must not be NULL"):
        shared(f"SELECT awslambda.invoke({', '.join(f'{k} => {v}' for k, v in arguments.items())})")


BAD_NAMES = [
    "", " ", "a b", "a/b", "../x", "a%2Fb", "a'b", 'a"b', "a\nb", "é", "f:", ":f", "f:a:b", "f?x", "x" * 65, "x" * 200,
    "arn:aws:lambda", "arn:aws:lambda:us-east-1:123456789012:function", "arn:aws:s3:us-east-1:123456789012:function:f",
    "arn:aws:lambda::123456789012:function:f", "arn:aws:lambda:us-east-1:12345:function:f",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_function_name_is_refused_before_sending(through: Any, name: str) -> None:
    sql, endpoint = through(answer())
    with raises("22023", "not the name or ARN of a Lambda function", "Nothing was sent"):
        sql("SELECT awslambda_fn(%s, '{}'::text)", name)
    assert endpoint.connections == 0


def test_contradictions_are_refused_before_sending(through: Any) -> None:
    sql, endpoint = through(answer())
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f"
    with raises("22023", "'us-east-1' contradicts", arn):
        sql("SELECT awslambda.invoke(%s, '{}', region => 'us-east-1')", arn)
    with raises("22023", "'a' contradicts"):
        sql("SELECT awslambda.invoke('f:b', '{}', qualifier => 'a')")
    with raises("22023", "not a qualifier"):
        sql("SELECT awslambda.invoke('f', '{}', qualifier => 'a b')")
    with raises("22023", "not the name of a region"):
        sql("SELECT awslambda.invoke('f', '{}', region => 'evil.example/')")
    assert endpoint.connections == 0


@pytest.mark.parametrize("kind", ["requestresponse", "EVENT", "", "Sync"])
def test_invocation_and_log_types_are_case_sensitive(shared: Sql, kind: str) -> None:
    with raises("22023", "invalid invocation type", "RequestResponse, Event, DryRun"):
        shared("SELECT awslambda.invoke('echo', '{}', %s)", kind)
    with raises("22023", "invalid log type", "None, Tail"):
        shared("SELECT awslambda.invoke('echo', '{}', log_type => %s)", kind)


@pytest.mark.parametrize("text", ["", " ", "{", "{'a': 1}", "NaN", "[Infinity]", "[1,]", "01", '"\t"', "{} {}", "bob"])
def test_what_is_not_json_is_refused_before_sending(through: Any, text: str) -> None:
    sql, endpoint = through(answer())
    with raises("22P02", "'f' is not JSON", "Nothing ran"):
        sql("SELECT awslambda_fn('f', %s::text)", text)
    assert endpoint.connections == 0


def test_json_nested_deeper_than_python_reads_is_sent(through: Any) -> None:
    sql, endpoint = through(answer())
    assert sql("SELECT awslambda_fn('f', repeat('[', 5000) || repeat(']', 5000))") == "null"
    assert endpoint.requests[0].body == b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(("function", "limit"), [("awslambda_fn", 6291456), ("awslambda_fn_async", 1048576)])
def test_a_payload_over_the_limit_is_refused_before_sending(through: Any, function: str, limit: int) -> None:
    sql, endpoint = through(answer())
    with raises("54000", str(limit + 1), str(limit)):
        sql(f"SELECT {function}('f', to_json(repeat('x', %s)))", limit - 1)
    with raises("54000"):
        sql(f"SELECT {function}('f', to_jsonb(repeat('ü', %s)))", limit // 2)
    assert endpoint.connections == 0


def test_a_client_context_over_the_limit_is_refused_before_sending(through: Any) -> None:
    sql, endpoint = through(answer())
    with raises("22023", "client context", "3583"):
        sql("SELECT awslambda.invoke('f', '{}', client_context => jsonb_build_object('a', repeat('x', 3000)))")
    with raises("22023", "client context is not a JSON object"):
        sql("SELECT awslambda.invoke('f', '{}', client_context => '[1]')")
    assert endpoint.connections == 0


# Each SQLSTATE, provoked for real.


def test_a_function_that_raises(shared: Sql) -> None:
    with raises("LA001", "'behave' raised ValueError: too hot", "Request id: ", "behave.py", "in fail"):
        shared("SELECT awslambda_fn('behave', '{\"do\": \"fail\"}')")


def test_a_function_that_exits(shared: Sql) -> None:
    with raises("LA001", "Runtime.ExitError", "exit status 7"):
        shared("SELECT awslambda_fn('behave', '{\"do\": \"leave\"}')")


def test_a_function_that_runs_into_its_timeout(shared: Sql) -> None:
    with raises("LA002", "'behave' ran into its own timeout", "Task timed out after 2.00 seconds"):
        shared('SELECT awslambda_fn(\'behave\', \'{"do": "sleep", "seconds": 20}\')')


def test_a_function_that_returns_too_much(shared: Sql) -> None:
    with raises("LA001", "Function.ResponseSizeTooLarge"):
        shared('SELECT awslambda_fn(\'behave\', \'{"do": "large", "bytes": 6400000}\')')


def test_a_throttled_function_is_tried_again_and_then_reported(shared: Sql) -> None:
    with raises("LA003", "'reserved'", "ReservedFunctionConcurrentInvocationLimitExceeded", "did not run"):
        shared("SELECT awslambda_fn('reserved', '{}')")


def test_a_429_is_retried_because_nothing_ran(through: Any) -> None:
    throttled = refusal(429, "TooManyRequestsException", "Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded")
    sql, endpoint = through(in_turn(throttled, throttled, answer(body="ok")), max_attempts="3")
    assert sql("SELECT awslambda_fn('f', '1')") == '"ok"'
    endpoint.behaviour = throttled
    with raises("LA003", "ConcurrentInvocationLimitExceeded"):
        sql("SELECT awslambda_fn('f', '1')")
    assert len(endpoint.requests) == 6


REFUSALS = [
    (refusal(500, "ServiceException", "internal"), "LA004", "ServiceException (HTTP 500)"),
    (refusal(503, "ServiceUnavailableException"), "LA004", "HTTP 503"),
    (answer(504, b"<html>gateway</html>"), "LA004", "HTTP 504"),
    (refusal(409, "ResourceConflictException", "is being updated"), "LA004", "is being updated"),
    (refusal(502, "EFSIOException"), "LA004", "EFSIOException"),
    (refusal(403, "AccessDeniedException", "x is not authorized to perform: y"), "42501", "not authorized"),
    (refusal(403, "ExpiredTokenException", "The security token is expired"), "28000", "expired"),
    (refusal(403, "UnrecognizedClientException", "invalid token"), "28000", "invalid token"),
    (refusal(403, "InvalidSignatureException", "Signature expired"), "28000", "Signature expired"),
    (refusal(404, "ResourceNotFoundException", "Function not found"), "42704", "'f' in us-east-1"),
    (refusal(400, "InvalidRequestContentException", "Unrecognized token"), "22P02", "could not parse it"),
    (refusal(400, "InvalidParameterValueException", "bad"), "22023", "bad"),
    (refusal(413, "RequestTooLargeException"), "54000", "6291456"),
    (break_off, "08006", "8 bytes"),
    (hang_up, "08006", "closed without an answer"),
    (lambda sock, _: bool(sock.sendall(b"nonsense\r\n\r\n")), "08006", "not HTTP"),
    (silence, "LA005", "did not answer within 1 s"),
    (trickle, "LA005", "did not answer within 1 s"),
]  # fmt: skip


@pytest.mark.parametrize(("behaviour", "sqlstate", "words"), REFUSALS)
def test_what_may_have_run_or_was_refused_is_sent_once(
    through: Any, behaviour: Behaviour, sqlstate: str, words: str
) -> None:
    sql, endpoint = through(behaviour, request_timeout="1s", max_attempts="5")
    with raises(sqlstate, words):
        sql("SELECT awslambda_fn('f', '1')")
    assert len(endpoint.requests) == (2 if sqlstate == "28000" else 1)  # refused credentials are looked for anew, once
    endpoint.behaviour = answer(body="again")
    assert sql("SELECT awslambda_fn('f', '1')") == '"again"'


def test_a_port_that_refuses(sql: Sql) -> None:
    make_server(sql, endpoint_url=f"http://127.0.0.1:{closed_port()}")
    with raises("08001", "Cannot connect to http://127.0.0.1:", "Connection refused", "Nothing was sent"):
        sql("SELECT awslambda_fn('f', '1')")


def test_a_port_that_does_not_answer(sql: Sql) -> None:
    with black_hole() as port:
        make_server(sql, endpoint_url=f"http://127.0.0.1:{port}", connect_timeout="200ms", max_attempts="1")
        with raises("08001", "did not answer in time"):
            sql("SELECT awslambda_fn('f', '1')")


def test_a_certificate_that_nobody_signed(sql: Sql, endpoint: Start, certificate: Any) -> None:
    secure = endpoint(answer(body="ok"), certificate=certificate)
    make_server(sql, endpoint_url=secure.url)
    with raises("08001", "TLS failed", "certificate"):
        sql("SELECT awslambda_fn('f', '1')")
    assert secure.requests == []
    sql(f"ALTER SERVER aws OPTIONS (ADD ca_bundle '{certificate}')")
    assert sql("SELECT awslambda_fn('f', '1')") == '"ok"'


def test_a_proxy_of_the_environment_tunnels_tls(aws: LocalAWS, endpoint: Start, certificate: Any) -> None:
    secure, proxy = endpoint(answer(body="ok"), certificate=certificate), endpoint(tunnel)
    environment = {**aws.environment, "HTTPS_PROXY": proxy.url.replace("://", "://user:hunter2@"), "NO_PROXY": "other"}
    with Cluster(environment) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as session:
        sql = runner(session)
        sql("CREATE EXTENSION awslambda CASCADE")
        make_server(sql, endpoint_url_lambda=secure.url, ca_bundle=str(certificate), max_attempts="1")
        assert sql("SELECT awslambda_fn('f', '1')") == sql("SELECT awslambda_fn('f', '1')") == '"ok"'
        assert [request.path for request in proxy.requests] == [f"127.0.0.1:{secure.port}"]
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpodW50ZXIy"
        proxy.behaviour = answer(407)
        proxy.close_connections()
        with raises("08001", "the proxy 127.0.0.1: it refused: 407", "Nothing was sent") as caught:
            sql("SELECT awslambda_fn('f', '1')")
        assert "hunter2" not in str(caught.value)
        proxy.behaviour = silence
        sql("SET statement_timeout = '300ms'")
        with raises("57014"):
            sql("SELECT awslambda_fn('f', '1')")
        assert len(secure.requests) == 2


def test_a_response_that_is_not_text(through: Any) -> None:
    sql, _ = through(answer(body=b'"\xff"'))
    with raises("22021", "not UTF-8", "It ran"):
        sql("SELECT awslambda_fn('f', '1')")


def test_errors_have_neither_payload_nor_key(through: Any) -> None:
    sql, _ = through(refusal(500, "ServiceException"))
    with raises("LA004") as caught:
        sql("SELECT awslambda_fn('f', '{\"password\": \"hunter2\"}')")
    everything = str(vars(caught.value)) + str(caught.value.diag.context) + str(caught.value)
    assert "hunter2" not in everything and "ASIA" not in everything


def test_characters_that_no_text_can_hold_do_not_hide_an_error(shared: Sql) -> None:
    with raises("LA001", "ValueError: ab"):
        shared("SELECT awslambda_fn('behave', %s::text)", '{"do": "fail", "message": "a\\u0000b"}')


def test_the_message_begins_with_the_class_of_the_error(shared: Sql) -> None:
    with pytest.raises(
        psycopg.Error, match=r"^awslambda\.FunctionNotFound: There is no Lambda function 'nope' in us-east-1\."
    ):
        shared("SELECT awslambda_fn('nope', '{}')")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_databases_of_other_encodings(cluster: Any, connect: Connect, encoding: str) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        name = f"in_{encoding.lower()}"
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            sql = runner(connect(name=name))
            sql("CREATE EXTENSION awslambda CASCADE")
            assert json.loads(sql("SELECT awslambda_fn('echo', %s::text)", '"plain"')) == "plain"
            payload = '{"do": "text", "text": "\\u00e4\\u20ac\\ud83d\\ude00"}'
            sql("SET client_encoding = 'SQL_ASCII'")
            text = sql("SELECT awslambda_fn('behave', %s::text)", payload)
            assert json.loads(text) == "ä€😀"
            log = sql("SELECT log_result FROM awslambda.invoke('behave', '{\"do\": \"about\"}', log_type => 'Tail')")
            assert "a line in the log" in (log if isinstance(log, str) else log.decode())
            with raises("LA001", "ValueError"):
                sql("SELECT awslambda_fn('behave', %s::text)", '{"do": "fail", "message": "\\u20ac\\ud83d\\ude00"}')
        finally:
            connect(name="postgres").execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_answer_that_the_type_cannot_hold_is_told_from_a_bad_payload(shared: Sql) -> None:
    nul = '{"do": "nul"}'
    assert json.loads(shared("SELECT awslambda_fn('behave', %s::text)", nul)) == "a\0b"
    for call in ("awslambda_fn('behave', %s::jsonb)", "awslambda.invoke('behave', %s)"):
        with raises("22032", "'behave' answered what is no jsonb", "unsupported Unicode escape sequence", "It ran"):
            shared(f"SELECT {call}", nul)


@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_an_answer_that_is_no_json_or_empty(through: Any, kind: str) -> None:
    sql, endpoint = through(answer(body=b"hello"))
    assert sql("SELECT awslambda_fn('f', '1'::text)") == "hello"
    with raises("22032", f"no {kind}", "It ran") as caught:
        sql(f"SELECT awslambda_fn('f', '1'::{kind})")
    assert "hello" not in str(caught.value)
    endpoint.behaviour = answer(body=b"")
    assert sql(f"SELECT awslambda_fn('f', '1'::{kind}) IS NULL AND awslambda_fn('f', '1'::text) IS NULL") is True


def test_a_row_that_is_expanded_in_the_select_list_calls_for_each_column(through: Any) -> None:
    sql, endpoint = through(answer(body="ok"))
    sql("SELECT * FROM awslambda.invoke('f', '1')")
    assert len(endpoint.requests) == 1
    sql("SELECT (awslambda.invoke('f', '1')).*")  # as Postgres does it, and as the documentation says
    assert len(endpoint.requests) == 8


def test_the_size_is_checked_before_the_text_is_parsed(through: Any) -> None:
    sql, endpoint = through(answer())
    with raises("54000"):
        sql("SELECT awslambda_fn('f', repeat('[],', 3000000))")
    assert endpoint.connections == 0


def test_a_number_of_any_length_is_json(through: Any) -> None:
    sql, endpoint = through(answer())
    assert sql("SELECT awslambda_fn('f', repeat('1', 5000))") == "null"
    assert endpoint.requests[0].body == b"1" * 5000


def test_what_is_not_lambda_is_told_so(through: Any) -> None:
    sql, endpoint = through(answer(404, b"<html>no such page</html>"))
    for status in (404, 302):
        endpoint.behaviour = answer(status, b"<html>no such page</html>")
        with raises("08P01", "is not Lambda", f"HTTP {status}", "endpoint_url"):
            sql("SELECT awslambda_fn('f', '1')")
