"""The promise of consumers under kill -9: each record in the table exactly once, in order per key."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import runner
from tests.waiting import wait_until

RECORDS, KEYS, SHARDS, KILLS, SESSIONS = 20_000, 50, 4, 6, 3

pytestmark = pytest.mark.slow

CONSUME = "CALL awslambda.kinesis_consume('app', 'killed', 'readings', batch_size => 300, max_duration => '2 s')"
POLL = (
    "INSERT INTO readings SELECT shard_id, sequence_number, partition_key, convert_from(data, 'UTF8')::int"
    " FROM awslambda.kinesis_poll('app', 'killed', max_records => 300, batch_size => 1000)"
)


@pytest.fixture
def crashing(aws: LocalAWS) -> Iterator[Cluster]:
    """A cluster that is crashed, and so syncs its files."""
    with Cluster(aws.environment, settings={"fsync": "on"}) as cluster:
        with psycopg.connect(cluster.dsn(), autocommit=True) as session:
            session.execute("CREATE EXTENSION awslambda CASCADE")
            session.execute(
                "CREATE TABLE readings (shard_id text, sequence_number numeric, partition_key text, data int,"
                " id bigserial)"
            )
        yield cluster


def test_each_record_is_stored_exactly_once_whatever_is_killed(crashing: Cluster, aws: LocalAWS) -> None:
    client = aws.client("kinesis")
    client.create_stream(StreamName="killed", ShardCount=SHARDS)
    for start in range(0, RECORDS, 500):
        entries = [{"PartitionKey": f"key-{n % KEYS}", "Data": str(n).encode()} for n in range(start, start + 500)]
        assert client.put_records(StreamName="killed", Records=entries)["FailedRecordCount"] == 0
    stopping = threading.Event()
    pids: dict[int, int] = {}
    workers = [threading.Thread(target=work, args=(crashing, pids, number, stopping)) for number in range(SESSIONS)]
    for worker in workers:
        worker.start()
    chance = random.Random(5)
    killed = 0
    while killed < KILLS:
        wait_until(lambda: pids, "a session is connected")
        time.sleep(chance.uniform(0.1, 0.8))  # the moment is the chance
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(list(pids.values())), signal.SIGKILL)
            killed += 1
        wait_until(lambda: stored(crashing) is not None, "the cluster has recovered")
        if stored(crashing) == RECORDS:
            break
    try:
        wait_until(lambda: stored(crashing) == RECORDS, f"{RECORDS} records are stored", seconds=120)
    finally:
        stopping.set()
        for worker in workers:
            worker.join()
    assert killed >= 3
    with psycopg.connect(crashing.dsn(), autocommit=True) as session:
        run = runner(session)
        run(CONSUME)
        assert run("SELECT count(*), count(DISTINCT data), min(data), max(data) FROM readings") == (
            RECORDS, RECORDS, 0, RECORDS - 1,
        )  # fmt: skip
        assert run(
            "SELECT count(*) FROM (SELECT data, lag(data) OVER (PARTITION BY partition_key ORDER BY id) AS before"
            " FROM readings) AS r WHERE data < before"
        ) == 0  # fmt: skip
        assert run("SELECT sum(records) FROM awslambda.kinesis_consumer") == RECORDS


def work(cluster: Cluster, pids: dict[int, int], number: int, stopping: threading.Event) -> None:
    """A session that consumes, by itself or by polling, and connects again whenever it is thrown out."""
    while not stopping.is_set():
        try:
            with psycopg.connect(cluster.dsn(), autocommit=True) as session:
                pids[number] = session.info.backend_pid
                while not stopping.is_set():
                    session.execute(POLL if number == 0 else CONSUME)
        except psycopg.Error:
            pids.pop(number, None)
            time.sleep(0.05)  # until the cluster has recovered
        finally:
            pids.pop(number, None)


def stored(cluster: Cluster) -> Any:
    """How many records are in the table; None while the cluster recovers."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(cluster.dsn(), autocommit=True) as session:
        return runner(session)("SELECT count(*) FROM readings")
    return None
