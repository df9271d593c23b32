"""Name look-up against a resolver that never answers, in a cluster whose /etc/resolv.conf points at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.endpoints import answer
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
RESOLVER = "127.0.0.77"
IN_A_NAMESPACE = """
mount --make-rprivate / 2>/dev/null || true
mount --bind "$1" /etc/resolv.conf
shift
exec setpriv --reuid postgres --regid postgres --clear-groups "$@"
"""


def can_bind_mount() -> bool:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        return False
    command = "mount --bind /etc/hostname /etc/resolv.conf"
    return subprocess.run(["unshare", "--mount", "sh", "-c", command], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_bind_mount(), reason="needs root and a mount namespace for its resolv.conf")


@pytest.fixture(scope="module")
def questions() -> Iterator[list[bytes]]:
    """A name server that takes questions and does not answer, except that *.gone.example does not exist."""
    seen: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((RESOLVER, 53))

        def serve() -> None:
            while True:
                try:
                    question, client = server.recvfrom(2048)
                except OSError:
                    return
                seen.append(question)
                if b"\x04gone\x07example" in question:
                    server.sendto(question[:2] + b"\x81\x83" + question[4:], client)  # NXDOMAIN

        threading.Thread(target=serve, daemon=True).start()
        yield seen


@pytest.fixture(scope="module")
def cluster(questions: list[bytes], readable_folder: Path) -> Iterator[Cluster]:
    configuration = readable_folder / "resolv.conf"
    configuration.write_text(f"nameserver {RESOLVER}\noptions timeout:20 attempts:3\n")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    wrapper = ["unshare", "--mount", "sh", "-euc", IN_A_NAMESPACE, "sh", str(configuration)]
    with Cluster(keys, wrapper=wrapper) as running:
        yield running


@pytest.fixture(scope="module")
def sql(cluster: Cluster) -> Iterator[Sql]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as session:
        run = runner(session)
        run("CREATE EXTENSION awslambda CASCADE")
        run("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1')")
        yield run


def point_at(sql: Sql, host: str, **options: str) -> None:
    given = {"region": "us-east-1", "endpoint_url": f"https://{host}", **options}
    sql("DROP SERVER aws")
    sql(
        "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS "
        f"({', '.join(f'{key} {value!r}' for key, value in given.items())})"
    )


def test_a_statement_timeout_ends_a_name_lookup(sql: Sql, questions: list[bytes]) -> None:
    point_at(sql, "lambda.silent.example", connect_timeout="50s")
    sql("SET statement_timeout = '1s'")
    started = time.monotonic()
    with raises("57014"):
        sql("SELECT awslambda_fn('f', '1')")
    assert time.monotonic() - started < 1.5
    assert any(b"\x06silent" in question for question in questions), "the look-up had begun"
    sql("RESET statement_timeout")


@pytest.mark.parametrize(("how", "sqlstate"), [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")])
def test_another_session_ends_a_name_lookup(sql: Sql, cluster: Cluster, how: str, sqlstate: str) -> None:
    point_at(sql, "lambda.silent.example", connect_timeout="50s")
    with psycopg.connect(cluster.dsn(), autocommit=True) as victim:
        ended: list[float] = []

        def end() -> None:
            active = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: sql(active, victim.info.backend_pid), "the call is running")
            threading.Event().wait(1)  # let it get through its imports to where it waits
            ended.append(time.monotonic())
            sql(f"SELECT {how}(%s)", victim.info.backend_pid)

        killer = threading.Thread(target=end)
        killer.start()
        with raises(sqlstate):
            victim.execute("SELECT awslambda_fn('f', '1')")
        took = time.monotonic()
        killer.join()
        assert took - ended[0] < 0.5


def test_a_name_lookup_is_bounded_by_the_connect_timeout(sql: Sql) -> None:
    point_at(sql, "lambda.silent.example", connect_timeout="500ms", max_attempts="1")
    started = time.monotonic()
    with raises("08001", "the name look-up did not end in time"):
        sql("SELECT awslambda_fn('f', '1')")
    assert time.monotonic() - started < 2.5


def test_a_name_that_does_not_exist_says_so(sql: Sql) -> None:
    point_at(sql, "lambda.gone.example", max_attempts="1")
    with raises("08001", "lambda.gone.example", "the name look-up failed", "Nothing was sent"):
        sql("SELECT awslambda_fn('f', '1')")


def test_other_calls_work_while_a_lookup_hangs_in_a_thread_left_behind(sql: Sql, endpoint: Any) -> None:
    point_at(sql, "lambda.silent.example", connect_timeout="200ms", max_attempts="1")
    with raises("08001"):
        sql("SELECT awslambda_fn('f', '1')")
    sql(f"ALTER SERVER aws OPTIONS (SET endpoint_url '{endpoint(answer(body='ok')).url}')")
    assert sql("SELECT awslambda_fn('f', '1')") == '"ok"'
