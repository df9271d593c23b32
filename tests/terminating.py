"""Sessions that are terminated in the middle of what they do, which must not take the server down."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import psycopg
from awslambda_local.cluster import Cluster

ROUNDS, AT_ONCE = 12, 3


def terminate_in_the_middle(cluster: Cluster, statement: str, begins: float) -> None:
    """Terminates sessions that run the statement, from so many seconds on, each at another place of it. There is
    nothing to wait for: the moment is the chance."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        for round_ in range(ROUNDS):
            victims = [psycopg.connect(cluster.dsn(), autocommit=True) for _ in range(AT_ONCE)]
            threads = [threading.Thread(target=_until_terminated, args=(victim, statement)) for victim in victims]
            for thread in threads:
                thread.start()
            time.sleep(begins + 0.02 * round_)
            for victim in victims:
                admin.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))
                time.sleep(0.03)
            for thread in threads:
                thread.join()
    assert "terminated by signal" not in cluster.log.read_text()


def _until_terminated(session: psycopg.Connection[Any], statement: str) -> None:
    with contextlib.suppress(psycopg.OperationalError), session:
        session.execute(statement)  # type: ignore[call-overload]
