"""Delivery after commit: what a mapping costs the writers, and how fast one dispatcher process is."""

from __future__ import annotations

import itertools
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from awslambda_local.cluster import Cluster

from bench.rows import Connection, Row

CLIENTS, SECONDS = 4, 4
EBS_FLUSH = 500  # µs: the fastest volumes, io2 Block Express, are designed for an average below it
BULK = 100_000
BATCHED, SINGLE = 100_000, 10_000
PROGRAM = "/usr/local/bin/awslambda"

TABLES = """
CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), value numeric);
CREATE TABLE mapped (LIKE plain INCLUDING ALL);
ALTER TABLE mapped ALTER id SET DEFAULT nextval('plain_id_seq');
SELECT awslambda.create_event_source_mapping('mapped', 'f');
"""


def enqueueing(cluster: Cluster, connect: Callable[[], Connection], rounds: int) -> list[Row]:
    """INSERTs into a table with a mapping beside one without, in turn."""
    with connect() as session:
        session.execute(TABLES)
        flush = flush_time(cluster.folder)
        rows = [
            one_row(cluster, session, rounds, "x without", 0.8, flush, max(EBS_FLUSH - flush, 0)),
            one_row(cluster, session, rounds, "on this disk", 0.5, flush),
        ]
        took: dict[str, list[float]] = {"plain": [], "mapped": []}
        for _ in range(rounds):
            for table, times in took.items():
                started = time.perf_counter()
                session.execute(f"INSERT INTO {table} (value) SELECT g FROM generate_series(1, {BULK}) AS g")  # type: ignore[call-overload]
                times.append(time.perf_counter() - started)
            session.execute("TRUNCATE plain, mapped, awslambda.outbox")
        session.execute("DROP TABLE plain, mapped CASCADE")
        session.execute("TRUNCATE awslambda.outbox, awslambda.dead_letter")
    slow, fast = statistics.median(took["mapped"]), statistics.median(took["plain"])
    return [
        *rows,
        Row(f"INSERT of {BULK:,} rows with a mapping, x without", slow / fast, 4, f"{slow:.2f} s / {fast:.2f} s"),
    ]


def one_row(
    cluster: Cluster, session: Connection, rounds: int, how: str, bar: float, flush: float, delay: float = 0
) -> Row:
    """Transactions of one row each, where a flush takes longer than the disk's by a delay; both in µs."""
    for setting in (f"commit_delay = {delay:.0f}", "commit_siblings = 0"):
        session.execute(f"ALTER SYSTEM SET {setting}")  # type: ignore[call-overload]
    session.execute("SELECT pg_reload_conf()")
    tps: dict[str, list[float]] = {"plain": [], "mapped": []}
    for _ in range(rounds):
        for table, rates in tps.items():
            rates.append(pgbench(cluster, f"INSERT INTO {table} (value) VALUES (21.5);"))
    session.execute("TRUNCATE awslambda.outbox")
    session.execute("ALTER SYSTEM RESET ALL")
    session.execute("SELECT pg_reload_conf()")
    with_, without = statistics.median(tps["mapped"]), statistics.median(tps["plain"])
    return Row(
        f"one-row INSERT with a mapping, {CLIENTS} clients, {how}", with_ / without, bar,
        f"{with_:.0f} / {without:.0f} tps, a flush of {(flush + delay) / 1000:.2f} ms", at_least=True,
    )  # fmt: skip


def flush_time(folder: Path) -> float:
    """µs that a page takes to the disk, median."""
    times = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(300):
            file.seek(0)
            file.write(bytes(8192))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def pgbench(cluster: Cluster, statement: str) -> float:
    """Transactions a second."""
    script = cluster.folder / "script.sql"
    script.write_text(statement)
    done = subprocess.run(
        [str(cluster.bindir / "pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(SECONDS),
         "-f", str(script), "-h", str(cluster.folder), "-p", str(cluster.port), "-U", "postgres", "postgres"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert found is not None
    return float(found[1])


def delivery(
    cluster: Cluster, connect: Callable[[], Connection], environment: dict[str, str], arrivals: Path, rounds: int
) -> list[Row]:
    """One dispatcher: records in batches and one by one, how late, and beside a transaction that stays open."""
    with connect() as session, connect() as holder:
        session.execute("CREATE TABLE source (id bigserial PRIMARY KEY, value numeric)")
        session.execute("SELECT awslambda.create_event_source_mapping('source', 'f')")
        with dispatcher(cluster, environment):
            lateness = late(session, arrivals)
            batched = [drained(session, "source") for _ in range(rounds + 1)]
            single = [drained(session, None) for _ in range(rounds)]
            with holder.transaction():
                holder.execute("SELECT pg_current_xact_id()")
                held = [drained(session, "source") for _ in range(rounds + 1)]
    free, beside = statistics.median(batched[1:]), statistics.median(held[1:])
    alone = statistics.median(single)
    return [
        Row("records a second in batches of 100, one dispatcher", free, 20_000, "", at_least=True),
        Row("single invocations a second, one dispatcher", alone, 2_000, "", at_least=True),
        Row("commit to call while busy, median ms", lateness, 10, "a commit every 5 ms"),
        Row(
            "delivery beside a transaction held open, x without", beside / free, 0.8,
            f"{beside:.0f} / {free:.0f} records/s", at_least=True,
        ),
    ]  # fmt: skip


@contextmanager
def dispatcher(cluster: Cluster, environment: dict[str, str]) -> Iterator[None]:
    """`awslambda dispatch`, as installed."""
    with subprocess.Popen(
        [PROGRAM, "dispatch", "--dsn", cluster.dsn()],
        env={"PATH": os.environ["PATH"], **environment}, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        yield
        process.send_signal(signal.SIGTERM)


def drained(session: Connection, table: str | None) -> float:
    """Records a second, from the commit of many until the outbox is empty."""
    if table is None:
        many = SINGLE
        session.execute(
            "SELECT count(awslambda_fn_on_commit('f', '{\"a\": 1}'::json)) FROM generate_series(1, %s)", (many,)
        )
    else:
        many = BATCHED
        session.execute("INSERT INTO source (value) SELECT g FROM generate_series(1, %s) AS g", (many,))
    started = time.perf_counter()
    mapping = "0" if table is None else "(SELECT max(id) FROM awslambda.event_source_mapping)"
    last = "(SELECT last_value FROM awslambda.outbox_id_seq)"  # one row to look at, as long as there is one
    for left in (
        f"SELECT 1 FROM awslambda.outbox WHERE mapping = {mapping} AND id = {last}",
        "TABLE awslambda.outbox LIMIT 1",
    ):
        while session.execute(left).fetchone():  # type: ignore[call-overload]
            time.sleep(0.02)
    return many / (time.perf_counter() - started)


def late(session: Connection, arrivals: Path) -> float:
    """Milliseconds from the return of a COMMIT to the arrival of the call, median."""
    committed: dict[str, float] = {}
    for number in itertools.count():
        if number == 600:
            break
        session.execute("SELECT awslambda_fn_on_commit('f', %s::json)", (f'{{"late":{number}}}',))
        committed[str(number)] = time.monotonic()
        time.sleep(0.005)
    time.sleep(1)
    came = dict(
        (found[2], float(found[1]))
        for found in re.finditer(r'^(\S+) .*"late":\s*(\d+)', arrivals.read_text(), re.MULTILINE)
    )
    return statistics.median((came[number] - at) * 1000 for number, at in committed.items() if int(number) > 100)
