"""The first call of a backend: what it imports, and whom it asks when another backend has called before."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.endpoints import Endpoint, Received, answer, refusal, silence
from tests.errors import raises
from tests.unit.services import ROLES, instance, metadata

Sql = Callable[..., Any]
CALL = "SELECT awslambda_fn('f', '1')"
SECRETS = ("secret-of-the-role", "token-of-the-role")

# What the first call must do without, once another backend has found out who we are, and AWS is local.
NEEDLESS = {
    "boto3", "botocore", "urllib3", "s3transfer", "jmespath", "dateutil", "certifi",
    "http", "email", "urllib.request", "logging", "subprocess", "tempfile", "random", "uuid", "decimal", "datetime",
    "inspect", "dataclasses", "ast", "pathlib", "asyncio", "psycopg", "ssl",
}  # fmt: skip


@pytest.fixture
def modules(sql: Sql) -> Callable[[Sql], set[str]]:
    """The modules that a session has imported, and the packages they are in."""
    sql("CREATE FUNCTION modules() RETURNS text[] LANGUAGE plpython3u AS 'import sys; return list(sys.modules)'")

    def read(session: Sql) -> set[str]:
        names = session("SELECT modules()")
        return {*names, *(name.split(".")[0] for name in names)}

    return read


@pytest.mark.parametrize(
    "call",
    [
        "SELECT awslambda_fn('lambdaTest', '{}')",
        "SELECT awslambda_fn_async('lambdaTest', '{}')",
        "SELECT awslambda.invoke('123456789012:function:lambdaTest', '{}')",
    ],
)
def test_a_first_call_imports_nothing_that_it_does_not_need(
    connect: Connect, modules: Callable[[Sql], set[str]], call: str
) -> None:
    runner(connect())(call)
    session = runner(connect())
    before = modules(session)
    session(call)
    imported = modules(session) - before
    assert "awslambda.aws" in imported
    assert imported.isdisjoint(NEEDLESS), imported & NEEDLESS
    ours = {name for name in imported if name.startswith("awslambda.")}
    assert ours == {
        f"awslambda.{name}"
        for name in (
            "aws", "cache", "connection", "database", "errors", "invoke", "plpython", "request", "resources",
            "servers", "settings", "signing", "waits",
        )
    }  # fmt: skip


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[Cluster, Endpoint, Endpoint]]:
    """A cluster on an instance whose metadata service and Lambda the tests see into."""
    with Endpoint(metadata(instance())) as imds, Endpoint(answer(body="ok")) as target:
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url, "AWS_ENDPOINT_URL": target.url}
        with Cluster(environment) as cluster:
            with psycopg.connect(cluster.dsn(), autocommit=True) as session:
                session.execute("CREATE EXTENSION awslambda CASCADE")
            yield cluster, imds, target


@pytest.fixture
def anew(host: tuple[Cluster, Endpoint, Endpoint]) -> tuple[Cluster, Endpoint, Endpoint]:
    """The same, with nothing in the cache and nothing asked."""
    cluster, imds, target = host
    for path in (cluster.folder / "cache").glob("*/*"):
        path.unlink()
    imds.requests.clear()
    target.requests.clear()
    imds.behaviour, target.behaviour = metadata(instance()), answer(body="ok")
    return host


Host = tuple[Cluster, Endpoint, Endpoint]


def call(cluster: Cluster, statement: str = CALL) -> Any:
    """In a new backend."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        return runner(session)(statement)


def access_keys(target: Endpoint) -> list[str]:
    return [received.headers["authorization"].split("=")[1].split("/")[0] for received in target.requests]


def test_many_new_backends_at_once_ask_the_instance_once(anew: Host) -> None:
    cluster, imds, target = anew
    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lambda _: call(cluster), range(30))) == ['"ok"'] * 30
    asked = [received.path for received in imds.requests]
    assert asked.count(ROLES + "reports") == 1, asked
    assert asked.count("/latest/meta-data/placement/region") == 1, asked
    assert access_keys(target) == ["AKIDROLE"] * 30


def test_the_next_backend_does_without_the_instance(anew: Host) -> None:
    cluster, imds, _ = anew
    call(cluster)
    imds.requests.clear()
    imds.behaviour = answer(500, b"")
    assert call(cluster) == '"ok"'
    assert imds.requests == []


def test_credentials_that_aws_refuses_are_replaced_for_all(anew: Host) -> None:
    cluster, imds, target = anew
    call(cluster)
    imds.behaviour = metadata(instance(access_key="AKIDNEW"))

    def only_new(connection: socket.socket, received: Received) -> bool:
        known = "AKIDNEW/" in received.headers["authorization"]
        return (answer(body="ok") if known else refusal(403, "ExpiredTokenException"))(connection, received)

    target.behaviour = only_new
    target.requests.clear()
    assert [call(cluster) for _ in range(2)] == ['"ok"'] * 2
    assert access_keys(target) == ["AKIDROLE", "AKIDNEW", "AKIDNEW"]


def test_each_server_has_its_own(aws: LocalAWS, sql: Sql, connect: Connect, endpoint: Callable[..., Endpoint]) -> None:
    target = endpoint(answer(body="ok"))
    for name in ("one", "two"):
        role = f"arn:aws:iam::123456789012:role/{name}"
        sql(
            f"CREATE SERVER {name} FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', role_arn '{role}', "
            f"endpoint_url_sts '{aws.endpoint_url}', endpoint_url_lambda '{target.url}')"
        )
    for _ in range(2):
        session = runner(connect())
        for name in ("one", "two"):
            session(f"SELECT awslambda.invoke('f', '1', server => '{name}')")
    one, two, one_again, two_again = access_keys(target)
    assert (one, two) == (one_again, two_again) and one != two


def test_a_role_without_a_right_to_the_server_does_not_get_at_what_is_kept(sql: Sql, connect: Connect) -> None:
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda")
    assert sql("SELECT awslambda_fn('lambdaTest', '{}')")
    sql("CREATE ROLE caller LOGIN; SELECT awslambda.grant_usage('caller')")
    with raises("42501", "may not use"):
        runner(connect(user="caller"))("SELECT awslambda_fn('lambdaTest', '{}')")


def test_only_the_servers_user_can_read_what_is_kept_and_it_is_not_in_the_data_directory(anew: Host) -> None:
    cluster, _, _ = anew
    call(cluster)
    owner = cluster.data.stat().st_uid
    paths = [cluster.folder / "cache", *(cluster.folder / "cache").rglob("*")]
    assert len([path for path in paths if path.is_file() and path.suffix == ""]) == 3
    for path in paths:
        found = path.stat()
        assert found.st_uid == owner and not found.st_mode & 0o077, path


def test_no_secret_is_in_an_error_or_in_the_log(anew: Host) -> None:
    cluster, _, target = anew
    call(cluster)
    target.behaviour = refusal(403, "InvalidSignatureException")
    with raises("28000") as caught:
        call(cluster)
    said = repr(caught.value) + str(caught.value.diag.message_detail) + cluster.log.read_text()
    assert not any(secret in said for secret in SECRETS)


def test_who_may_read_files_does_not_find_those_of_the_cache(anew: Host) -> None:
    cluster, _, _ = anew
    call(cluster)
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute("CREATE ROLE reader LOGIN; GRANT pg_read_server_files TO reader; CREATE TABLE t (line text)")
        session.execute("GRANT ALL ON t TO reader")
    with psycopg.connect(cluster.dsn(user="reader"), autocommit=True) as reader:
        for statement in ("COPY t FROM '{}'", "SELECT pg_ls_dir('{}')"):
            with pytest.raises(psycopg.Error):
                reader.execute(statement.format(cluster.folder / "cache"))  # type: ignore[call-overload]
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        session.execute("DROP TABLE t; DROP ROLE reader")


@pytest.mark.parametrize("end", ["statement_timeout", "cancel"])
def test_waiting_for_the_backend_that_asks_ends_at_an_interrupt(anew: Host, end: str) -> None:
    cluster, imds, _ = anew
    call(cluster)
    with contextlib.ExitStack() as held:
        for path in (cluster.folder / "cache").glob("*/*"):
            if path.suffix == ".lock":
                fcntl.flock(held.enter_context(path.open("rb")), fcntl.LOCK_EX)
            else:
                path.unlink()
        imds.requests.clear()
        with psycopg.connect(cluster.dsn(), autocommit=True) as session:
            cancel = threading.Timer(0.4, session.cancel)
            if end == "cancel":
                cancel.start()
            else:
                session.execute("SET statement_timeout = '400ms'")
            started = time.monotonic()
            with raises("57014"):
                session.execute(CALL)
            assert time.monotonic() - started < 0.9
            cancel.cancel()
        assert imds.requests == []


def test_terminating_a_backend_that_finds_out_who_it_is_does_not_take_the_server_down(anew: Host) -> None:
    cluster, _, target = anew
    target.behaviour = silence
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        for delay in range(50, 450, 40):  # ms: while botocore is imported, TLS prepared, the instance asked
            for path in (cluster.folder / "cache").glob("*/*"):
                path.unlink()
            with psycopg.connect(cluster.dsn(), autocommit=True) as session:
                statement = f"SELECT pg_terminate_backend({session.info.backend_pid})"
                threading.Timer(delay / 1000, lambda statement=statement: admin.execute(statement)).start()
                with pytest.raises(psycopg.OperationalError):
                    session.execute(CALL)
        assert admin.execute("SELECT 1").fetchone() == (1,)
    assert "terminated by signal" not in cluster.log.read_text()


@pytest.mark.parametrize("seconds", [7200, -7200])
def test_a_clock_that_is_hours_off_is_corrected_by_what_aws_says(anew: Host, seconds: int) -> None:
    cluster, _, target = anew

    def there(connection: socket.socket, received: Received) -> bool:
        now = time.time() + seconds
        signed = datetime.datetime.strptime(received.headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        if abs(now - signed) < 300:
            return answer(body="ok")(connection, received)
        return answer(
            403,
            {"message": "Signature expired"},
            x_amzn_ErrorType="InvalidSignatureException",
            Date=formatdate(now, usegmt=True),
        )(connection, received)

    target.behaviour = there
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        sql = runner(session)
        assert [sql(CALL) for _ in range(3)] == ['"ok"'] * 3
    assert len(target.requests) == 4


def test_a_server_without_a_place_for_the_cache_calls_all_the_same(tmp_path: Path) -> None:
    with Endpoint(metadata(instance())) as imds, Endpoint(answer(body="ok")) as target:
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url, "AWS_ENDPOINT_URL": target.url}
        with Cluster({**environment, "AWSLAMBDA_CACHE": "/dev/null/nowhere"}) as cluster:
            call(cluster, "CREATE EXTENSION awslambda CASCADE")
            assert [call(cluster) for _ in range(2)] == ['"ok"'] * 2
        assert [received.path for received in imds.requests].count(ROLES + "reports") == 2
