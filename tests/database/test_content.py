"""What is inside records, in a backend: try_jsonb, events of CloudWatch Logs, lines of an audit log."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.endpoints import Endpoint, Received, answer
from tests.errors import raises

Sql = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "examples" / "kinesis" / "kinesis.sql"


def record(kind: str = "DATA_MESSAGE", **event: object) -> bytes:
    document = {
        "messageType": kind, "owner": "123456789012", "logGroup": "g", "logStream": "s", "subscriptionFilters": ["f"],
        "logEvents": [{"id": "1", "timestamp": 1432826855000, "message": "m", **event}],
    }  # fmt: skip
    return gzip.compress(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"a": "\xe2\x82\xac"}', '{"a": "€"}'),
        (b"null", "null"),
        *((none, None) for none in (b"", b"x", b'{"a"', b"\xff", b'"a\0"', rb'"\u0000"', b"1e1000000", b"[" * 100_000)),
    ],
    ids=["JSON", "null", "empty", "text", "cut off", "not UTF-8", "NUL", "escaped NUL", "too large", "too deep"],
)
def test_what_is_no_json_is_null(shared: Sql, data: bytes, found: str | None) -> None:
    assert shared("SELECT awslambda.try_jsonb(%s)::text", data) == found
    assert shared("SELECT 1") == 1


def test_log_events_are_rows_with_all_that_is_known_of_them(shared: Sql) -> None:
    data = record(message="Gr\u00fc\u00dfe", extractedFields={"n": "1"})
    assert shared(
        "SELECT message_type, owner, log_group, log_stream, subscription_filters, id,"
        " \"timestamp\" = '2015-05-28 15:27:35+00', message, event #>> '{extractedFields,n}'"
        " FROM awslambda.cloudwatch_logs_events(%s)",
        data,
    ) == ("DATA_MESSAGE", "123456789012", "g", "s", ["f"], "1", True, "Gr\u00fc\u00dfe", "1")


def test_tests_of_the_stream_are_rows_only_if_asked_for(shared: Sql) -> None:
    counted = "SELECT count(*) FROM awslambda.cloudwatch_logs_events(%s, include_control => %s)"
    assert [shared(counted, record("CONTROL_MESSAGE"), asked) for asked in (False, True)] == [0, 1]


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_events_with_any_text_are_rows_in_any_encoding(cluster: Cluster, sql: Sql, encoding: str) -> None:
    odd = "\u65e5\ud800\0"  # Japanese, half of a pair, and what no text of Postgres holds
    data = record(message=odd, extractedFields={odd: [odd]})
    sql(f"CREATE DATABASE encoded ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(cluster.dsn("encoded"), autocommit=True) as session:
            encoded = runner(session)
            encoded("CREATE EXTENSION awslambda CASCADE")
            text = r"\u65e5?" if encoding == "LATIN1" else "\u65e5?"
            assert encoded(
                "SELECT convert_to(message, 'SQL_ASCII'), convert_to(event ->> 'extractedFields', 'SQL_ASCII')"
                " FROM awslambda.cloudwatch_logs_events(%s)"
                if encoding == "SQL_ASCII"
                else "SELECT convert_to(message, 'UTF8'), convert_to(event ->> 'extractedFields', 'UTF8')"
                " FROM awslambda.cloudwatch_logs_events(%s)",
                data,
            ) == (text.encode(), json.dumps({text: [text]}, ensure_ascii=False).encode())
    finally:
        sql("DROP DATABASE encoded WITH (FORCE)")


@pytest.mark.parametrize("data", [b"{}", record(timestamp="x"), record(timestamp=10**30), record(more=float("nan"))])
def test_what_cloudwatch_logs_does_not_send_is_an_error_with_a_hint(shared: Sql, data: bytes) -> None:
    with raises("22P03", "not what CloudWatch Logs sends", "data of one Kinesis record"):
        shared("SELECT * FROM awslambda.cloudwatch_logs_events(%s)", data)


@pytest.mark.parametrize(
    "line",
    [
        None,
        "no line",
        "20261399 03:04:05,h,u,c,7,9,QUERY,app,'SELECT 1',0",
        f"20260102 03:04:05,h,u,c,{'9' * 5000},9,QUERY,app,'SELECT 1',0",
        f"20260102 03:04:05,h,u,c,{'9' * 19},9,QUERY,app,'SELECT 1',0",
    ],
    ids=["NULL", "text", "no such day", "5000 digits", "19 digits"],
)
def test_what_is_no_line_of_an_audit_log_is_all_null(shared: Sql, line: str | None) -> None:
    assert shared("SELECT a IS NULL FROM awslambda.mysql_audit_event(%s) AS a", line)


def test_local_times_of_an_audit_log_are_of_the_time_zone_that_is_said(shared: Sql) -> None:
    line = "20260702 03:04:05,h,u,c,7,9,QUERY,app,'SELECT 1',0"
    assert shared(
        "SELECT (awslambda.mysql_audit_event(%s, 'Europe/Berlin')).event_time = '2026-07-02 01:04:05+00'", line
    )
    with raises("22023", "nowhere"):
        shared("SELECT awslambda.mysql_audit_event(%s, 'Nowhere/Land')", line)
    for none in ("", " "):
        with raises("22023", "time_zone"):
            shared("SELECT awslambda.mysql_audit_event(%s, %s)", line, none)


def test_the_loop_of_2016_ends_behind_the_last_record_of_a_shard_that_was_split(sql: Sql, endpoint: Any) -> None:
    """There is no iterator then: it must not begin anew."""
    last = {"Data": {"time": "2016-02-16 12:00:00", "temp": "99"}, "SequenceNumber": "7", "NextShardIterator": None}
    nothing = {"Data": "", "SequenceNumber": "", "NextShardIterator": None}

    def function(connection: Any, received: Received) -> bool:
        after = json.loads(received.body)["SequenceNumber"]
        return answer(200, nothing if after == "7" else last)(connection, received)

    started: Endpoint = endpoint(function)
    sql(
        "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda"
        f" OPTIONS (region 'us-east-1', endpoint_url_lambda '{started.url}')"
    )
    script = EXAMPLE.read_text()
    sql(script[script.index("CREATE FUNCTION processSensorReadings") : script.index("SELECT processSensorReadings")])
    sql("SET statement_timeout = '10s'")
    assert sql("SELECT processSensorReadings('')") == "7"
