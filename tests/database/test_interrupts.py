"""Whatever a call waits for, Postgres can end it; and the session is as good as before."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore
import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.endpoints import Endpoint, answer, black_hole, silence, trickle
from tests.errors import raises
from tests.terminating import terminate_in_the_middle
from tests.waiting import wait_until

Sql = Callable[..., Any]

# Promised are 100 ms; the machine that runs the tests may be busy with something else.
PROMPT = 0.5
WAITS = ["connect", "tls", "answer", "trickle", "sts", "back-off"]
CALL = "SELECT awslambda_fn('f', '1')"


@pytest.fixture
def waiting(
    sql: Sql, endpoint: Callable[..., Endpoint], certificate: Any
) -> Iterator[Callable[[str], Endpoint | None]]:
    """Makes a server whose calls wait for something that never comes."""
    with contextlib.ExitStack() as stack:

        def make(what: str) -> Endpoint | None:
            target = None
            options = {"region": "us-east-1", "connect_timeout": "50s", "request_timeout": "55s"}
            if what == "connect":
                options["endpoint_url"] = f"http://127.0.0.1:{stack.enter_context(black_hole())}"
            elif what == "tls":
                target = endpoint(silence, certificate=certificate, handshake=False)
            elif what in ("answer", "trickle"):
                target = endpoint(silence if what == "answer" else trickle)
            elif what == "sts":
                target = endpoint(silence)
                options["role_arn"] = "arn:aws:iam::123456789012:role/reports"
            elif what == "back-off":
                options["endpoint_url"] = "http://127.0.0.1:1"
                options["max_attempts"] = "10"
            if target is not None:
                options["endpoint_url"] = target.url
            given = ", ".join(f"{key} '{value}'" for key, value in options.items())
            sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({given})")
            return target

        yield make


def check_that_it_still_works(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    sql("DROP SERVER IF EXISTS aws")
    target = endpoint(answer(body="fine"))
    sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', endpoint_url '{target.url}')")
    assert sql(CALL) == '"fine"'


@pytest.mark.parametrize("what", WAITS)
def test_statement_timeout_ends_a_wait(sql: Sql, waiting: Any, endpoint: Any, what: str) -> None:
    sql("SELECT awslambda_fn('echo', '1')")  # the first call's imports are no part of the wait
    target = waiting(what)
    sql("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with raises("57014", "canceling statement due to statement timeout"):
        sql(CALL)
    assert time.monotonic() - started < 0.3 + PROMPT
    sql("RESET statement_timeout")
    if target is not None and what in ("answer", "trickle"):
        assert len(target.requests) == 1
    check_that_it_still_works(sql, endpoint)


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("what", WAITS)
def test_another_session_ends_a_wait(
    connect: Connect, sql: Sql, waiting: Any, endpoint: Any, what: str, how: str
) -> None:
    victim = connect()
    call = runner(victim)
    call("SELECT awslambda_fn('echo', '1')")
    waiting(what)
    pid = victim.info.backend_pid
    ended: list[float] = []

    def end() -> None:
        wait_until(
            lambda: sql("SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s", pid), "the call is running"
        )
        threading.Event().wait(0.2)  # let it get to where it waits
        sql(f"SELECT {how}(%s)", pid)
        ended.append(time.monotonic())

    killer = threading.Thread(target=end)
    killer.start()
    with pytest.raises(psycopg.OperationalError) as caught:
        call(CALL)
    took = time.monotonic()
    killer.join()
    assert took - ended[0] < PROMPT
    if how == "pg_cancel_backend":
        assert caught.value.sqlstate == "57014"
        check_that_it_still_works(call, endpoint)
    else:
        assert caught.value.sqlstate == "57P01"
        wait_until(lambda: not sql("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid), "the backend is gone")


def test_an_interrupt_cannot_be_swallowed_by_an_exception_handler_for_our_errors(sql: Sql, waiting: Any) -> None:
    waiting("answer")
    sql("SET statement_timeout = '300ms'")
    with raises("57014"):
        sql(
            """DO $$ BEGIN PERFORM awslambda_fn('f', '1');
               EXCEPTION WHEN SQLSTATE 'LA005' OR SQLSTATE '08006' THEN NULL; END $$"""
        )
    sql("RESET statement_timeout")


def test_after_a_cancel_the_next_call_does_not_get_the_old_answer(sql: Sql, endpoint: Any) -> None:
    release = threading.Event()

    def late(connection: Any, received: Any) -> bool:
        if received.body == b"1":
            release.wait(10)
        return bool(answer(body=received.body.decode())(connection, received))

    target = endpoint(late)
    sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', endpoint_url '{target.url}')")
    sql("SET statement_timeout = '300ms'")
    with raises("57014"):
        sql(CALL)
    sql("RESET statement_timeout")
    release.set()
    assert sql("SELECT awslambda_fn('f', '2')") == '"2"'


@pytest.fixture
def alone(endpoint: Callable[..., Endpoint]) -> Iterator[Callable[[dict[str, str]], Cluster]]:
    """Clusters of the test's own."""
    with contextlib.ExitStack() as running:

        def start(environment: dict[str, str], **more: Any) -> Cluster:
            cluster = running.enter_context(Cluster(environment, **more))
            with psycopg.connect(cluster.dsn(), autocommit=True) as session:
                session.execute("CREATE EXTENSION awslambda CASCADE")
            return cluster

        yield start


@pytest.mark.parametrize("what", ["answer", "imds"])
def test_a_fast_shutdown_ends_a_wait(alone: Any, endpoint: Callable[..., Endpoint], what: str) -> None:
    target = endpoint(silence)
    if what == "imds":
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": target.url, "AWS_METADATA_SERVICE_TIMEOUT": "50"}
    else:
        environment = {"AWS_ENDPOINT_URL": target.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    cluster = alone({**environment, "AWS_DEFAULT_REGION": "us-east-1"})
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        failed: list[float] = []

        def call() -> None:
            with pytest.raises(psycopg.OperationalError):
                session.execute(CALL)
            failed.append(time.monotonic())

        caller = threading.Thread(target=call)
        caller.start()
        wait_until(lambda: target.requests, "the call waits")
        started = time.monotonic()
        cluster.stop(signal.SIGINT)
        assert time.monotonic() - started < 10, "a fast shutdown waits for nobody"
        caller.join(10)
        assert failed[0] - started < PROMPT


def test_a_silent_instance_metadata_service_can_be_interrupted(alone: Any, endpoint: Any) -> None:
    silent = endpoint(silence)
    environment = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": silent.url, "AWS_METADATA_SERVICE_TIMEOUT": "50",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "3",
    }  # fmt: skip
    cluster = alone(environment)
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        sql = runner(session)
        for options in ("region 'us-east-1'", "max_attempts '1'"):  # asked for credentials; for the region too
            sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")
            sql("SET statement_timeout = '700ms'")
            started = time.monotonic()
            with raises("57014"):
                sql(CALL)
            assert time.monotonic() - started < 0.7 + PROMPT
            sql("RESET statement_timeout")
            sql("DROP SERVER aws")


def test_the_whole_of_a_call_ends_at_its_request_timeout_credentials_included(sql: Sql, endpoint: Any) -> None:
    silent = endpoint(silence)
    sql(
        f"""CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', endpoint_url '{silent.url}',
            role_arn 'arn:aws:iam::123456789012:role/reports', request_timeout '1s', max_attempts '10')"""
    )
    started = time.monotonic()
    with raises("08001", "no answer in time"):
        sql(CALL)
    assert time.monotonic() - started < 1 + 2


def test_sessions_that_are_terminated_while_sts_is_asked_do_not_take_the_server_down(
    endpoint: Callable[..., Endpoint], certificate: Path, readable_folder: Path
) -> None:
    """The end of a session ends OpenSSL, which botocore uses in a helper thread."""
    bundle = readable_folder / "bundle.pem"
    bundle.write_bytes(certificate.read_bytes() + Path(botocore.__file__).with_name("cacert.pem").read_bytes())
    bundle.chmod(0o644)
    target = endpoint(answer(503), certificate=certificate)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWSLAMBDA_CACHE": ""}
    with Cluster(keys) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        sql = runner(admin)
        sql("CREATE EXTENSION awslambda CASCADE")
        sql(
            "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', max_attempts '1',"
            f" role_arn 'arn:aws:iam::123456789012:role/r', endpoint_url '{target.url}', ca_bundle '{bundle}')"
        )
        terminate_in_the_middle(
            cluster,
            "DO $$ BEGIN LOOP BEGIN PERFORM awslambda_fn('f', '1'); EXCEPTION WHEN connection_exception THEN NULL;"
            " END; END LOOP; END $$",
            begins=1,
        )
        assert target.requests
