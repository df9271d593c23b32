"""A copy must not send: dumps, templates, base backups and standbys, each made for real; and what a dump carries."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]

CHECK = "SELECT awslambda._check_home()"
COPY = ("copy, restored or upgraded", "awslambda.home has", "SELECT awslambda.arm()")
OUTBOX = "SELECT json_agg(o ORDER BY id)::text FROM awslambda.outbox AS o"
DEAD = "SELECT json_agg(d ORDER BY message_id)::text FROM awslambda.dead_letter AS d"
MAPPINGS = """
SELECT json_agg(json_build_array(id, name, source::text, function_name, role::text))::text
  FROM awslambda.event_source_mapping
"""


def at(cluster: Cluster, database: str) -> Sql:
    """Runs each statement in a session of its own, so that the database can be copied and dropped in between."""

    def run(statement: str, *parameters: object) -> Any:
        with psycopg.connect(cluster.dsn(database), autocommit=True) as session:
            return runner(session)(statement, *parameters)

    return run


def program(cluster: Cluster, *command: str) -> str:
    done = subprocess.run(
        [str(cluster.bindir / command[0]), *command[1:]], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def original() -> Iterator[Cluster]:
    """A cluster whose database `app` has pending and dead messages, a mapping, and is at home."""
    with Cluster(settings={"max_prepared_transactions": "4"}) as running:
        at(running, "postgres")("CREATE DATABASE app")
        app = at(running, "app")
        app("CREATE EXTENSION awslambda CASCADE")
        app("CREATE ROLE writer")
        app("SELECT awslambda.grant_usage('writer')")
        app("CREATE TABLE users (id int PRIMARY KEY, name text)")
        app("SELECT awslambda.create_event_source_mapping('users', 'f')")
        app("INSERT INTO users VALUES (1, 'bob')")
        app("SET ROLE writer; SELECT awslambda.enqueue('f', '{\"a\": 1}', key => 'k', delay => '1 day')")
        app("SELECT awslambda_fn_on_commit('f', '{\"b\":   \"\\u0000\"}'::json)")
        app("SELECT awslambda_fn_on_commit('gone', '{}')")
        app(
            "WITH gone AS (DELETE FROM awslambda.outbox WHERE function_name = 'gone' RETURNING *) INSERT INTO"
            " awslambda.dead_letter (message_id, mapping, payload, role, enqueued_at, attempts, function_name, reason)"
            " SELECT message_id, mapping, payload, role, enqueued_at, 20, function_name, 'RetryAttemptsExhausted'"
            " FROM gone"
        )
        app(CHECK)
        yield running


@pytest.fixture
def app(original: Cluster) -> Sql:
    return at(original, "app")


@pytest.fixture
def copied(original: Cluster) -> Iterator[str]:
    """The name of a database that is made in the test and dropped after it."""
    yield "copied"
    at(original, "postgres")("DROP DATABASE IF EXISTS copied")


def test_home_is_written_at_creation(app: Sql, original: Cluster) -> None:
    assert app(
        "SELECT count(*), bool_and(system_identifier = (pg_control_system()).system_identifier),"
        " bool_and(database = (SELECT oid FROM pg_database WHERE datname = 'app')), bool_and(host = awslambda._host())"
        " FROM awslambda.home"
    ) == (1, True, True, True)
    machine = Path("/etc/machine-id")
    if machine.exists() and not Path("/sys/devices/virtual/dmi/id/board_asset_tag").exists():
        assert app("SELECT awslambda._host()") == (machine.read_text().strip() or "unknown")


def test_a_copy_by_template_is_not_armed_until_it_is(original: Cluster, app: Sql, copied: str) -> None:
    at(original, "postgres")(f"CREATE DATABASE {copied} TEMPLATE app")
    copy = at(original, copied)
    with raises("55000", *COPY):
        copy(CHECK)
    copy("SELECT awslambda.arm()")
    copy(CHECK)
    assert copy("SELECT count(*) FROM awslambda.home") == 1
    app(CHECK)


def test_a_dump_restored_beside_it_keeps_everything_and_is_not_armed(original: Cluster, app: Sql, copied: str) -> None:
    dump = program(original, "pg_dump", "-d", original.dsn("app"))
    at(original, "postgres")(f"CREATE DATABASE {copied}")
    done = original.psql("-v", "ON_ERROR_STOP=1", "-q", database=copied, sql=dump)
    assert done.returncode == 0, done.stderr
    copy = at(original, copied)
    for everything in (OUTBOX, DEAD, MAPPINGS):
        assert copy(everything) == app(everything) is not None
    assert copy("SELECT count(*) FROM awslambda.home") == 2
    with raises("55000", *COPY):
        copy(CHECK)
    copy("SELECT awslambda.arm()")
    copy(CHECK)
    # What comes next has later ids, and the restored mapping captures.
    last = copy("SELECT max(id) FROM awslambda.outbox")
    copy("INSERT INTO users VALUES (2, 'ann')")
    copy("SELECT awslambda_fn_on_commit('f', '{}')")
    assert copy("SELECT array_agg(mapping) FROM awslambda.outbox WHERE id > %s", last) == [1, 0]
    assert copy("SELECT awslambda.redrive()") == 1
    # Row security and privileges come along.
    assert copy("SELECT has_function_privilege('writer', 'awslambda.redrive(uuid[])', 'EXECUTE')") is True
    assert copy("SELECT has_any_column_privilege('writer', 'awslambda.outbox', 'INSERT')") is True
    assert copy("SELECT relrowsecurity FROM pg_class WHERE oid = 'awslambda.outbox'::regclass") is True


def test_a_dump_restored_over_it_with_clean_is_at_home(original: Cluster, app: Sql, tmp_path: Path) -> None:
    before = [app(everything) for everything in (OUTBOX, DEAD, MAPPINGS)]
    program(original, "pg_dump", "-Fc", "-f", str(tmp_path / "dump"), "-d", original.dsn("app"))
    app("SELECT awslambda_fn_on_commit('later', '{}')")
    program(
        original,
        "pg_restore",
        "--clean",
        "--if-exists",
        "--exit-on-error",
        "-d",
        original.dsn("app"),
        str(tmp_path / "dump"),
    )
    assert [app(everything) for everything in (OUTBOX, DEAD, MAPPINGS)] == before
    app(CHECK)
    app("INSERT INTO users VALUES (3, 'eve')")
    app("DELETE FROM users WHERE id = 3")


def test_a_dump_restored_in_another_cluster_is_not_armed(original: Cluster, app: Sql) -> None:
    dump = program(original, "pg_dump", "-d", original.dsn("app"))
    with Cluster() as other:
        restored = at(other, "postgres")
        restored("CREATE ROLE writer")
        done = other.psql("-v", "ON_ERROR_STOP=1", "-q", sql=dump)
        assert done.returncode == 0, done.stderr
        assert restored(OUTBOX) == app(OUTBOX)
        with raises("55000", *COPY):
            restored(CHECK)
        restored("SELECT awslambda.arm()")
        restored(CHECK)


def test_without_its_own_row_as_after_pg_upgrade_it_is_not_armed(app: Sql) -> None:
    app("UPDATE awslambda.home SET system_identifier = system_identifier + 1")
    with raises("55000", *COPY):
        app(CHECK)
    app("DELETE FROM awslambda.home")
    with raises("55000", "awslambda.home has: nothing"):
        app(CHECK)
    app("SELECT awslambda.arm()")
    app(CHECK)


# Physical copies.


class Clone(Cluster):
    """A base backup of a cluster, as its standby or a server of its own; on another host if it has a machine id."""

    def __init__(self, of: Cluster, machine_id: Path | None = None, standby: bool = False) -> None:
        run_as = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        other = ["unshare", "-m", "sh", "-c", f'mount --bind {machine_id} /etc/machine-id && exec "$@"', "sh", *run_as]
        self.original, self.standby = of, standby
        super().__init__(wrapper=other if machine_id else ())

    def start(self) -> None:
        if not (self.data / "backup_label").exists() and not (self.data / "backup_label.old").exists():
            shutil.rmtree(self.data)
            program(self, "pg_basebackup", "-D", str(self.data), "-c", "fast", "-d", self.original.dsn())
            with (self.data / "postgresql.conf").open("a") as file:
                file.write(f"unix_socket_directories = '{self.folder}'\nprimary_conninfo = '{self.original.dsn()}'\n")
            if self.standby:
                (self.data / "standby.signal").touch()
            if self._user:
                for path in [self.data, *self.data.rglob("*")]:
                    shutil.chown(path, self._user, self._user)
        super().start()


@pytest.fixture
def machine_id(tmp_path: Path) -> Path:
    """A file to be the /etc/machine-id of another host."""
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if os.getuid() != 0 or probe.returncode or not Path("/etc/machine-id").exists():
        pytest.skip("another host needs root, mount namespaces and a machine id")
    file = tmp_path / "machine-id"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    return file


def test_a_base_backup_on_another_host_is_not_armed(original: Cluster, app: Sql, machine_id: Path) -> None:
    with Clone(original, machine_id) as clone:
        copy = at(clone, "app")
        assert copy("SELECT awslambda._host()") == "0123456789abcdef0123456789abcdef"
        with raises("55000", "host 0123456789abcdef0123456789abcdef is not armed", "SELECT awslambda.arm()"):
            copy(CHECK)
        assert copy(OUTBOX) == app(OUTBOX)
    app(CHECK)


def test_a_base_backup_on_the_same_host_cannot_be_told_from_the_original(original: Cluster) -> None:
    """What the documentation warns of."""
    with Clone(original) as clone:
        at(clone, "app")(CHECK)


def test_a_standby_does_not_dispatch_and_each_host_of_a_pair_is_armed_once(original: Cluster, machine_id: Path) -> None:
    with Clone(original, machine_id, standby=True) as standby:
        here = at(standby, "app")
        with raises("25006", "standby does not dispatch", "primary"):
            here(CHECK)
        with raises("25006"):
            here("SELECT awslambda.arm()")
        with raises("25006", "read-only transaction", "standby"):
            here("SELECT awslambda_fn_on_commit('f', '{}')")
        here("SELECT pg_promote()")
        wait_until(lambda: here("SELECT NOT pg_is_in_recovery()"), "the standby is promoted")
        with raises("55000", "is not armed"):
            here(CHECK)
        here("SELECT awslambda.arm()")
        here(CHECK)
        assert here("SELECT count(*) FROM awslambda.home") == 2
        standby.stop()
        standby._wrapper = ()  # as if it had failed back to the first host
        standby.start()
        here(CHECK)


# What else becomes of what is written.


def test_a_prepared_transaction_sends_when_it_is_committed(original: Cluster, app: Sql) -> None:
    count = "SELECT count(*) FROM awslambda.outbox WHERE function_name = 'prepared'"
    for end, expected in (("ROLLBACK", 0), ("COMMIT", 1)):
        with psycopg.connect(original.dsn("app"), autocommit=True) as session:
            session.execute("BEGIN")
            session.execute("SELECT awslambda_fn_on_commit('prepared', '{}')")
            session.execute("PREPARE TRANSACTION 'one'")
        assert app(count) == 0
        app(f"{end} PREPARED 'one'")
        assert app(count) == expected
