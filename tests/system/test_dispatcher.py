"""`awslambda dispatch` as a process of its own: what it delivers, how it ends, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.endpoints import Behaviour, Endpoint, Received, answer
from tests.errors import raises
from tests.waiting import wait_until

PROGRAM = "/usr/local/bin/awslambda"
SECRET = "the-payload-s-own-secret"

Sql = Callable[..., Any]
Listen = Callable[[Behaviour], Endpoint]
ENQUEUE = """
INSERT INTO awslambda.outbox (payload, role, function_name, invocation_type)
SELECT json_build_object('n', n, 'secret', %s::text), 'postgres', 'f', 'RequestResponse'
  FROM generate_series(1, %s) AS n
"""


class Process:
    """A dispatcher that runs, with its log."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this
        self.popen = subprocess.Popen(
            [PROGRAM, "dispatch", "--log-format=json", *arguments],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip

    @property
    def text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("\n")]

    def said(self, event: str) -> dict[str, Any]:
        """The first line about an event, when it is there."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if line["event"] == event), None)

        wait_until(lambda: found() or self.popen.poll() is not None, f"the log to have {event!r}")
        line = found()
        assert line is not None, self.text
        return line

    def ends(self, seconds: float = 20) -> int:
        return self.popen.wait(seconds)

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.ends()

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._log.close()


Start = Callable[..., Process]


@pytest.fixture
def start(cluster: Cluster, database: str, sql: Sql, aws: LocalAWS) -> Iterator[Start]:
    """Starts dispatchers of the test's database, or of the one that `dsn` names."""
    sql("SELECT awslambda.arm()")  # it was made of a template
    started: list[Process] = []

    def run(*arguments: str, dsn: str | None = None, user: str = "postgres", **environment: str) -> Process:
        given = {"PATH": os.environ["PATH"], **aws.environment, **environment}
        started.append(Process(("--dsn", dsn or cluster.dsn(database, user), *arguments), given))
        return started[-1]

    yield run
    for process in started:
        process.close()


@pytest.fixture
def lambda_(endpoint: Listen, sql: Sql) -> Callable[[Behaviour], Endpoint]:
    """Makes the test's database call functions that behave like that."""

    def listen(behaviour: Behaviour) -> Endpoint:
        listening = endpoint(behaviour)
        options = f"region 'us-east-1', endpoint_url '{listening.url}'"
        sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")
        return listening

    return listen


def slow(seconds: float) -> Behaviour:
    """A function that takes its time."""

    def behave(connection: socket.socket, received: Received) -> bool:
        time.sleep(seconds)
        return answer(200, None)(connection, received)

    return behave


def numbers(listening: Endpoint) -> list[int]:
    """Of the messages that came, in order of number."""
    return sorted(json.loads(request.body)["n"] for request in listening.requests)


def is_empty(sql: Sql) -> Callable[[], bool]:
    return lambda: bool(sql("SELECT NOT EXISTS (SELECT FROM awslambda.outbox)"))


# Delivering and ending.


def test_what_is_enqueued_is_delivered_and_sigterm_ends_it_well(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(answer(200, None))
    process = start()
    process.said("connected")
    sql(ENQUEUE, SECRET, 50)
    wait_until(is_empty(sql), "everything to be delivered")
    assert process.terminate() == 0
    assert numbers(listening) == list(range(1, 51))
    stopped = process.said("stopped")
    assert (stopped["exit_code"], stopped["delivered"], stopped["failed"], stopped["dead"]) == (0, 50, 0, 0)
    assert sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def test_sigterm_finishes_what_is_in_flight_and_starts_nothing(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(slow(1.0))
    process = start("--concurrency=2")
    process.said("connected")
    sql(ENQUEUE, SECRET, 6)
    wait_until(lambda: len(listening.requests) == 2, "two to be in flight")
    assert process.terminate() == 0
    assert len(listening.requests) == 2
    assert sql("SELECT count(*) FROM awslambda.outbox") == 4
    assert process.said("stopped")["delivered"] == 2


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(slow(20.0))
    process = start()
    process.said("connected")
    sql(ENQUEUE, SECRET, 1)
    wait_until(lambda: listening.requests, "it to be in flight")
    process.popen.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    assert process.ends(2) == 128 + signal.SIGTERM
    assert sql("SELECT count(*) FROM awslambda.outbox") == 1
    wait_until(lambda: sql("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"), "the slots to be free")


def test_drain_ends_when_nothing_is_left_and_once_after_one_look(start: Start, sql: Sql, lambda_: Listen) -> None:
    lambda_(answer(200, None))
    sql(ENQUEUE, SECRET, 300)
    process = start("--once", "--concurrency=4")
    assert process.ends() == 0
    assert 1 <= process.said("stopped")["delivered"] <= 4
    process = start("--drain")
    assert process.ends() == 0
    assert is_empty(sql)()
    assert start("--drain").ends() == start("--once").ends() == 0


def test_drain_shows_a_bar_on_a_terminal_and_none_elsewhere(
    cluster: Cluster, database: str, aws: LocalAWS, sql: Sql, lambda_: Listen
) -> None:
    lambda_(slow(0.05))
    sql("SELECT awslambda.arm()")
    sql(ENQUEUE, SECRET, 200)
    terminal, ours = pty.openpty()
    command = [PROGRAM, "dispatch", "--drain", "--concurrency=8", "--dsn", cluster.dsn(database)]
    environment = {"PATH": os.environ["PATH"], **aws.environment}
    with subprocess.Popen(command, env=environment, stderr=ours) as process:
        os.close(ours)
        shown = b""
        with contextlib.suppress(OSError):
            while read := os.read(terminal, 65536):
                shown += read
    os.close(terminal)
    assert process.returncode == 0
    assert b"[###" in shown and b" of 200 " in shown
    sql(ENQUEUE, SECRET, 200)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "[#" not in done.stderr and "\r" not in done.stderr and "delivered=200" in done.stderr


def cpu_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_waiting_for_the_last_calls_or_for_slots_takes_no_cpu(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(slow(3.0))
    sql("SELECT pg_advisory_lock(1635218284, slot) FROM generate_series(0, 63) AS slot")
    process = start()
    process.said("connected")
    before = cpu_seconds(process)
    time.sleep(1.0)
    assert cpu_seconds(process) - before < 0.3, "without a slot"
    sql("SELECT pg_advisory_unlock_all()")
    sql(ENQUEUE, SECRET, 1)
    wait_until(lambda: listening.requests, "it to be in flight")
    process.popen.send_signal(signal.SIGTERM)
    before = cpu_seconds(process)
    time.sleep(1.0)
    assert cpu_seconds(process) - before < 0.3, "while it stops"
    assert process.ends() == 0


def test_grant_dispatch_is_all_that_its_role_needs(
    start: Start, sql: Sql, lambda_: Listen, cluster: Cluster, database: str
) -> None:
    listening = lambda_(answer(200, None))
    sql("CREATE ROLE deliverer LOGIN")
    sql("SELECT awslambda.grant_dispatch('deliverer')")
    sql(ENQUEUE, SECRET, 20)
    process = start("--drain", user="deliverer")
    assert process.ends() == 0, process.text
    assert numbers(listening) == list(range(1, 21))
    assert status(cluster.dsn(database, "deliverer")).returncode == 0
    for refused_ in ("SELECT FROM awslambda.outbox", "SELECT awslambda.arm()"):
        assert sql("SELECT current_user") == "postgres"
        sql("SET ROLE deliverer")
        with raises("42501"):
            sql(refused_)
        sql("RESET ROLE")


# What happens to its session.


def test_it_goes_on_when_its_backend_is_ended_or_killed(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(answer(200, None))
    process = start()
    process.said("connected")
    for round_, statement in enumerate(("SELECT pg_terminate_backend(%s)",) * 3, 1):
        sql(ENQUEUE, SECRET, 5)
        sql(statement, sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'awslambda dispatch'"))
        wait_until(is_empty(sql), "delivery to go on")
        wait_until(
            lambda wanted=round_ + 1: sum(line["event"] == "connected" for line in process.lines) == wanted,
            "a new session",
        )
    assert process.terminate() == 0
    assert set(numbers(listening)) == {1, 2, 3, 4, 5}
    assert process.said("unavailable")["level"] == "warning"
    assert process.said("stopped")["delivered"] == 15


def test_what_was_in_flight_when_the_session_ended_is_delivered_again(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(slow(1.0))
    process = start()
    process.said("connected")
    sql(ENQUEUE, SECRET, 1)
    wait_until(lambda: listening.requests, "it to be in flight")
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'awslambda dispatch'")
    wait_until(is_empty(sql), "it to be delivered")
    assert numbers(listening) == [1, 1]
    assert process.terminate() == 0
    assert process.said("stopped")["delivered"] == 1


@pytest.fixture
def other(aws: LocalAWS) -> Iterator[Cluster]:
    """A cluster that the test may stop."""
    with Cluster(aws.environment) as running:
        running.psql("-c", "CREATE EXTENSION awslambda CASCADE")
        yield running


def test_it_waits_for_a_server_that_restarts(other: Cluster, start: Start) -> None:
    process = start(dsn=other.dsn())
    process.said("connected")
    other.stop()
    unavailable = process.said("unavailable")
    assert unavailable["level"] == "warning" and "trying again" in unavailable["message"]
    other.start()
    wait_until(lambda: sum(line["event"] == "connected" for line in process.lines) == 2, "a new session")
    other.psql("-c", ENQUEUE.replace("%s::text", "'x'").replace("%s", "3").replace("'f'", "'echo'"))
    wait_until(
        lambda: other.psql("-Atc", "SELECT count(*) FROM awslambda.outbox").stdout == "0\n", "delivery after a restart"
    )
    assert process.terminate() == 0
    assert start("--once", dsn="host=/nowhere").ends() == 3


def test_a_standby_waits_and_delivers_once_it_is_promoted(other: Cluster, start: Start) -> None:
    with standby_of(other) as standby:
        process = start(dsn=standby.dsn())
        said = process.said("standby")
        assert "promoted" in said["message"] and "host=one,two" in said["hint"]
        assert start("--once", dsn=standby.dsn()).ends() == 3
        assert start("--drain", dsn=f"host={standby.folder},{other.folder} user=postgres dbname=postgres").ends() == 0
        other.psql("-c", ENQUEUE.replace("%s::text", "'x'").replace("%s", "3").replace("'f'", "'echo'"))
        wait_until(lambda: standby.psql("-Atc", "SELECT count(*) FROM awslambda.outbox").stdout == "3\n", "replication")
        other.stop()
        standby.psql("-c", "SELECT pg_promote()")
        process.said("connected")
        wait_until(
            lambda: standby.psql("-Atc", "SELECT count(*) FROM awslambda.outbox").stdout == "0\n", "its own delivery"
        )
        assert process.terminate() == 0
        assert sum(line["event"] == "standby" for line in process.lines) == 1, "it says so once, not each time"


@contextlib.contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A streaming standby."""
    with Cluster(primary.environment) as standby:
        standby.stop()
        shutil.rmtree(standby.data)
        standby._run("pg_basebackup", "-d", primary.dsn(), "-D", str(standby.data), "-R", "-c", "fast")
        with (standby.data / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{standby.folder}'\n")
        standby.start()
        yield standby


# Several.


def test_two_share_the_slots_and_the_other_takes_over_from_one_that_is_killed(
    start: Start, sql: Sql, lambda_: Listen
) -> None:
    listening = lambda_(answer(200, None))
    first, second = start(), start()
    shares = """
        SELECT array_agg(n ORDER BY n)
          FROM (SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND objid < 64 GROUP BY pid) AS s
    """
    wait_until(lambda: sql(shares) == [32, 32], "each to have half of the slots")
    sql(ENQUEUE, SECRET, 100)
    wait_until(is_empty(sql), "everything to be delivered")
    assert numbers(listening) == list(range(1, 101)), "none twice"
    first.popen.kill()
    first.popen.wait()
    killed = time.monotonic()
    sql(ENQUEUE, SECRET, 100)
    wait_until(is_empty(sql), "the other to take over")
    assert time.monotonic() - killed < 3
    assert len(listening.requests) == 200
    assert second.terminate() == 0


def test_three_that_drain_at_once_deliver_each_record_once(start: Start, sql: Sql, lambda_: Listen) -> None:
    listening = lambda_(answer(200, None))
    sql(ENQUEUE, SECRET, 200)
    assert [process.ends() for process in [start("--drain") for _ in range(3)]] == [0, 0, 0]
    assert numbers(listening) == list(range(1, 201))


@pytest.mark.slow
def test_one_that_was_stopped_for_long_sends_nothing_of_what_is_no_longer_its_own(
    start: Start, sql: Sql, lambda_: Listen
) -> None:
    listening = lambda_(answer(200, None))
    first = start()
    first.said("connected")
    owners = "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objid < 64"
    wait_until(lambda: sql(owners) == 1, "it to have the slots")
    first.popen.send_signal(signal.SIGSTOP)
    sql(ENQUEUE, SECRET, 50)
    second = start()
    wait_until(is_empty(sql), "the other to have its slots, once PostgreSQL has ended the session")
    first.popen.send_signal(signal.SIGCONT)
    wait_until(lambda: sum(line["event"] == "connected" for line in first.lines) == 2, "it to connect anew")
    assert numbers(listening) == list(range(1, 51)), "none twice"
    assert first.terminate() == second.terminate() == 0
    assert first.said("stopped")["delivered"] == 0


# When it cannot.


def refused(process: Process, *words: str) -> None:
    """It ends with 1, and its line says these words."""
    assert process.ends() == 1, process.text
    line = process.said("refused")
    for word in words:
        assert word in line["message"] + " " + line["hint"], line
    assert "\n" not in line["message"] and "Traceback" not in process.text


def test_a_role_without_grants_is_told_which_one_it_needs(start: Start, sql: Sql) -> None:
    sql("CREATE ROLE deliverer LOGIN")
    refused(
        start(user="deliverer"), "the role deliverer may not deliver", "SELECT awslambda.grant_dispatch('deliverer')"
    )


def test_a_database_without_the_extension_is_told(start: Start, cluster: Cluster) -> None:
    refused(start(dsn=cluster.dsn("template1")), "'template1'", "CREATE EXTENSION awslambda CASCADE")


def test_another_version_of_the_extension_is_told(start: Start, sql: Sql) -> None:
    sql("UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'awslambda'")
    refused(start(), "version 99.0", "ALTER EXTENSION awslambda UPDATE")


def test_an_unarmed_home_is_told_in_its_own_words(start: Start, sql: Sql) -> None:
    sql("""
        CREATE OR REPLACE FUNCTION awslambda._check_home() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            RAISE object_not_in_prerequisite_state
              USING MESSAGE = 'this is a copy', HINT = 'SELECT awslambda.arm() here.';
        END
        $$
    """)
    refused(start(), "this is a copy", "SELECT awslambda.arm() here.")


def test_the_extension_dropped_under_a_dispatcher_ends_it_with_a_word(start: Start, sql: Sql) -> None:
    process = start()
    process.said("connected")
    sql("DROP EXTENSION awslambda CASCADE")
    refused(process, "no extension awslambda")


def test_a_wrong_connection_string_is_refused_without_being_shown(start: Start) -> None:
    process = start(dsn="host=x password=open sesame")
    refused(process, "--dsn")
    assert "sesame" not in process.text


def test_a_port_that_is_taken_is_refused(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(start(f"--health={taken.getsockname()[1]}"), "cannot listen at 127.0.0.1", "in use")


def test_too_many_connections_are_waited_out(start: Start, sql: Sql) -> None:
    sql("CREATE ROLE deliverer LOGIN SUPERUSER CONNECTION LIMIT 0")
    sql("ALTER ROLE deliverer NOSUPERUSER")
    process = start(user="deliverer")
    line = process.said("unavailable")
    assert "too many connections" in line["message"] and "limit" in line["hint"]
    assert process.terminate() == 0


def test_pgbouncer_is_refused(start: Start, cluster: Cluster, database: str) -> None:
    with pgbouncer(cluster) as port:
        refused(start(dsn=f"host=127.0.0.1 port={port} dbname={database} user=postgres"), "pooler", "directly")


@contextlib.contextmanager
def pgbouncer(cluster: Cluster) -> Iterator[int]:
    """A pgbouncer that pools transactions."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("needs pgbouncer: apt-get install pgbouncer")
    port = free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={cluster.folder} port={cluster.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {folder / 'users'}\n"
            "pool_mode = transaction\n"
        )
        config = (folder / "pgbouncer.ini").read_text().replace("* = ", "* = user=postgres ")
        (folder / "pgbouncer.ini").write_text(config)
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        process = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **as_user,  # type: ignore[call-overload]
        )  # fmt: skip
        try:
            wait_until(lambda: can_connect(port), "pgbouncer to listen")
            yield port
        finally:
            process.terminate()
            process.wait()


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# What it tells.


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_health_and_metrics_are_served(start: Start, sql: Sql, lambda_: Listen) -> None:
    lambda_(answer(200, None))
    port = free_port()
    process = start(f"--health={port}")
    process.said("connected")
    sql(ENQUEUE, SECRET, 7)
    wait_until(is_empty(sql), "everything to be delivered")
    status, body = get(port, "/health")
    assert status == 200 and json.loads(body)["status"] == "ok"
    wait_until(
        lambda: '\nawslambda_delivered_total{mapping=""} 7\n' in get(port, "/metrics")[1], "the counter of the database"
    )
    text = get(port, "/metrics")[1]
    assert "\nawslambda_dispatcher_up 1\n" in text
    assert "\nawslambda_dispatcher_delivered_total 7\n" in text
    assert '\nawslambda_pending{mapping=""} 0\n' in text
    assert get(port, "/")[0] == 404
    assert process.terminate() == 0


def test_a_dispatcher_without_a_server_is_not_healthy(start: Start) -> None:
    port = free_port()
    process = start(f"--health={port}", dsn="host=/nowhere")
    process.said("unavailable")
    status, body = get(port, "/health")
    assert status == 503 and "/nowhere" in json.loads(body)["state"]
    assert "awslambda_dispatcher_up 0\n" in get(port, "/metrics")[1]
    assert process.terminate() == 0


def test_a_standby_that_waits_is_healthy(other: Cluster, start: Start) -> None:
    with standby_of(other) as standby:
        port = free_port()
        process = start(f"--health={port}", dsn=standby.dsn())
        process.said("standby")
        status, body = get(port, "/health")
        assert status == 200 and "standby" in json.loads(body)["state"]


def test_the_log_is_json_and_has_no_payload_and_no_password(
    start: Start, sql: Sql, lambda_: Listen, cluster: Cluster, database: str
) -> None:
    lambda_(answer(200, {"errorType": "ValueError", "errorMessage": "no"}, X_Amz_Function_Error="Unhandled"))
    process = start("--drain", dsn=cluster.dsn(database) + " password=sesame")
    sql(ENQUEUE, SECRET, 3)
    process.ends()
    assert [set(line) >= {"time", "level", "event", "message"} for line in process.lines] == [True] * len(process.lines)
    assert SECRET not in process.text and "sesame" not in process.text


def status(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "status", "--dsn", dsn, *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def test_status_prints_the_view(cluster: Cluster, database: str, sql: Sql) -> None:
    sql(ENQUEUE, SECRET, 3)
    done = status(cluster.dsn(database))
    assert done.returncode == 0, done.stderr
    heads, row, *_ = done.stdout.splitlines()
    assert heads.split()[:3] == ["mapping", "source", "function"] and "pending" in heads
    assert " 3 " in row
    [line] = status(cluster.dsn(database), "--json").stdout.splitlines()
    assert json.loads(line)["pending"] == 3


def test_status_of_no_server_is_an_error_of_one_line() -> None:
    done = status("host=/nowhere")
    assert done.returncode == 1 and done.stdout == ""
    assert "/nowhere" in done.stderr and "Traceback" not in done.stderr
    assert "sesame" not in status("host=x password=open sesame").stderr


def test_status_watches_until_it_is_interrupted(cluster: Cluster, database: str) -> None:
    with subprocess.Popen(
        [PROGRAM, "status", "--dsn", cluster.dsn(database), "--watch", "0.1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert [process.stdout.readline().split()[0] for _ in range(4)].count("mapping") >= 1
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0
