"""One fault at a chosen step, or one extreme, each with a history that is checked as a whole."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.history import workload
from tests.history.checker import THROTTLE, Fault, Record, Report, check
from tests.history.run import Mutation, Plan, World
from tests.history.stub import Behaviour
from tests.waiting import wait_until

GATE = 77
PLAN = Plan(seed=1, faults={})


class Steps(World):
    """A world whose writer is the test."""

    def __init__(self, plan: Plan = PLAN, gates: dict[str, tuple[str, str]] | None = None) -> None:
        super().__init__(plan)
        workload.prepare(self.dsn)
        self.committed: dict[str, Record] = {}
        with self.session() as session:
            if gates:
                self.mutate(session, Mutation("gates", sql={name: [change] for name, change in gates.items()}))

    def insert(self, *ids: int, poison: bool = False) -> None:
        """Rows of app.many, which go to the function `many`."""
        rows = [(id, f"{id}{' poison' if poison else ''}") for id in ids]
        with (
            self.session() as session,
            session.cursor() as cursor,
            cursor.copy("COPY app.many (id, n, token) FROM STDIN") as copy,
        ):
            for id, token in rows:
                copy.write_row((id, 1, token))
        self.committed |= {token: Record(token, "many", "INSERT", f'{{"id":{id}}}') for id, token in rows}

    def update(self, id: int, token: str) -> None:
        self.value("UPDATE app.many SET token = %s WHERE id = %s RETURNING id", token, id)
        self.committed[token] = Record(token, "many", "UPDATE", f'{{"id":{id}}}')

    def calls(self, number: int, function: str = "many", seconds: float = 30) -> None:
        """Waits until a function was called so often."""
        wait_until(
            lambda: self.stub.count().get(function, 0) >= number, f"{function} was called {number} times", seconds
        )

    def drain(self, quiet: float = 60) -> None:
        wait_until(self.drained, "the outbox is empty", quiet)

    def noted(self, kind: str, client: str, start: float) -> None:
        self.faults.append(Fault(kind, start, time.monotonic(), client))

    def judged(self) -> Report:
        """Without violation."""
        report = check(self.history(self.committed, set()))
        assert not report.violations, "\n".join(map(str, report.violations[:20]))
        return report

    @contextlib.contextmanager
    def closed_gate(self) -> Iterator[Callable[[], None]]:
        """While this is open, sessions stop at their gate; gives a function that waits until one does."""
        with self.session() as keeper:
            keeper.execute("SELECT pg_advisory_lock(%s)", [GATE])
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            yield lambda: wait_until(lambda: self.value(waiting, GATE), "a dispatcher stands at the gate")
            keeper.execute("SELECT pg_advisory_unlock(%s)", [GATE])


ENTER = f"PERFORM pg_advisory_xact_lock_shared({GATE}); "
AT = {
    "after the look": {"_batch": ("BEGIN\n", f"BEGIN {ENTER}\n")},
    "after the answer": {
        "_settle": (
            "  -- Kept results first",
            f"  IF (settlement -> 'done')::text <> '[]' THEN {ENTER} END IF;\n  -- Kept",
        )
    },
    "while settling": {
        "_settle": (
            "  -- Those of one batch wait equally long",
            f"  IF (settlement -> 'done')::text <> '[]' THEN {ENTER} END IF;\n  -- Those of one batch",
        )
    },
}


@pytest.mark.parametrize("step", [*AT, "while the function runs"])
def test_a_dispatcher_that_is_killed_at_any_step_loses_nothing_and_is_replaced_at_once(step: str) -> None:
    with Steps(gates=AT.get(step)) as world:  # type: ignore[arg-type]
        first = world.dispatch()
        if step == "while the function runs":
            world.stub.hold("many")
            world.insert(*range(10))
            world.calls(1)
            second = world.dispatch()
            wait_until(lambda: world.backends(second.name), "the second one is there")
            killed = time.monotonic()
            first.kill()
            wait_until(lambda: any(one.client == second.name for one in world.stub.log()), "the second one calls")
            world.stub.release("many")
        else:
            with world.closed_gate() as somebody_waits:
                world.insert(*range(10))
                somebody_waits()
                killed = time.monotonic()
                first.kill()
                wait_until(lambda: not world.backends(first.name), "PostgreSQL has noticed")
            world.dispatch()
        world.noted("kill", first.name, killed)
        world.drain()
        report = world.judged()
        assert report.counts["duplicates"] == (10 if step in {"after the answer", "while settling"} else 0)


def test_take_over_after_a_kill_is_quick() -> None:
    with Steps() as world:
        first, second = world.dispatch(), world.dispatch()
        batches = itertools.count(10_000, 100)

        def both() -> bool:
            """One of them may have delivered everything before the other had its share."""
            start = next(batches)
            world.insert(*range(start, start + 100))
            world.drain()
            return {one.client for one in world.stub.log()} == {first.name, second.name}

        wait_until(both, "both deliver")
        killed = time.monotonic()
        first.kill()
        world.insert(*range(1000, 2000))
        world.drain()
        world.noted("kill", first.name, killed)
        world.judged()
        longest = max(one.start for one in world.stub.log()) - killed
        print(f"the last of 1000 records was sent {longest:.2f} s after the kill")
        assert longest < 10, "within a second on a machine that does nothing else"


def test_a_dispatcher_that_was_stopped_for_long_has_no_say_any_more() -> None:
    with Steps() as world:
        first = world.dispatch()
        world.stub.hold("many")
        world.insert(1)
        world.calls(1)
        world.update(1, "changed")
        stopped = time.monotonic()
        first.signal(signal.SIGSTOP)
        second = world.dispatch()
        world.calls(2)  # PostgreSQL has ended the session of the first
        took = time.monotonic() - stopped
        world.stub.release("many")
        wait_until(
            lambda: any(s.token == "changed" for one in world.stub.log() for s in one.sights), "the next is sent"
        )
        world.drain()
        first.signal(signal.SIGCONT)
        world.noted("stop", first.name, stopped)
        wait_until(lambda: world.backends(first.name), "the first one is back")
        world.insert(*range(10, 500))
        world.drain()
        world.judged()
        print(f"taken over {took:.1f} s after the stop")
        assert [one.client for one in world.stub.log()[:3]] == [first.name, second.name, second.name]


class Proxy:
    """TCP in front of the cluster's socket. When it is `dead`, nothing passes and nobody is told."""

    def __init__(self, path: str) -> None:
        self.dead = threading.Event()
        self._path = path
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._open += [client, server]
                if not self.dead.is_set():
                    server.connect(self._path)
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.dead.is_set():
                    target.sendall(data)

    def cut(self) -> None:
        """The connections end after all."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def test_a_connection_that_is_dead_without_an_end_is_replaced() -> None:
    with Steps() as world, contextlib.closing(Proxy(f"{world.cluster.folder}/.s.PGSQL.{world.cluster.port}")) as proxy:
        behind = replace_host(world.dsn, proxy.port)
        first = world.dispatch(behind)
        world.insert(*range(100))
        world.drain()
        died = time.monotonic()
        proxy.dead.set()
        second = world.dispatch()
        world.insert(*range(100, 200))
        world.drain()
        took = time.monotonic() - died
        proxy.dead.clear()
        proxy.cut()
        world.noted("half open", first.name, died)
        second.end()
        world.insert(*range(200, 300))
        world.drain()
        world.judged()
        print(f"taken over {took:.1f} s after the connection died")


def replace_host(dsn: str, port: int) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return psycopg.conninfo.make_conninfo("", **{**parts, "host": "127.0.0.1", "port": port})


def test_a_poison_record_dies_alone() -> None:
    with Steps() as world:
        world.insert(*range(50))
        world.insert(50, poison=True)
        world.insert(*range(51, 400))
        world.dispatch()
        world.drain()
        report = world.judged()
        assert report.counts["dead"] == 1
        assert report.counts["acknowledged"] == 399


def test_an_hour_of_throttling_costs_no_attempt() -> None:
    """Fast forward: waits that grow to 60 s grow to 60 ms here, and are as many as in an hour."""
    faster = Mutation(
        "fast forward",
        python={"outbox.py": [("BACK_OFF, LONGEST_BACK_OFF = 0.2, 60.0", "BACK_OFF, LONGEST_BACK_OFF = 0.0002, 0.06")]},
    )
    with Steps(replace(PLAN, mutation=faster)) as world:
        world.stub.behave({"many": Behaviour(throttle=1)})
        world.insert(*range(1000))
        world.dispatch()
        world.calls(150)
        world.stub.behave({})
        world.drain()
        report = world.judged()
        log = world.stub.log()
        throttled = sum(one.outcome == THROTTLE for one in log)
        assert {sight.attempt for one in log for sight in one.sights} == {1}
        print(f"{throttled} throttled calls, {report.counts['invocations'] - throttled} others")


def test_a_million_rows_of_one_transaction_go_through_bounded_memory() -> None:
    rows = 1_000_000
    with Steps() as world:
        world.stub.forget("plain")
        world.value(
            "UPDATE awslambda.event_source_mapping SET batch_size = 1000 WHERE function_name = 'plain' RETURNING 1"
        )
        one = world.dispatch()
        wait_until(lambda: world.backends(one.name), "it is there")
        before = peak(one.process.pid)
        started = time.monotonic()
        world.value("INSERT INTO app.plain SELECT 'a token ' || i FROM generate_series(1, %s) i RETURNING 1", rows)
        written = time.monotonic()
        wait_until(world.drained, "the outbox is empty", 300)
        delivered = time.monotonic()
        after = peak(one.process.pid)
        print(
            f"{rows} rows written in {written - started:.0f} s, delivered in {delivered - written:.0f} s; "
            f"the dispatcher's memory rose from {before:.0f} MB to {after:.0f} MB at most"
        )
        assert world.stub.forgotten("plain") == rows
        assert after - before < 150


def peak(pid: int) -> float:
    """The most memory that a process had, in MB."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_half_a_million_rows_behind_a_failed_one_do_not_keep_others() -> None:
    rows = 500_000
    with Steps() as world:
        world.stub.behave({"keyed": Behaviour(error=1)})
        with world.session() as session:
            session.execute(
                "CREATE OR REPLACE FUNCTION awslambda._back_off(attempts int) RETURNS interval LANGUAGE sql AS "
                "$$ SELECT interval '10 s' $$"  # it must not die meanwhile
            )
            session.execute(
                "SELECT awslambda.enqueue('keyed', jsonb_build_object('token', 'first'), key => 'k', "
                "invocation_type => 'RequestResponse')"
            )
            session.execute(
                "INSERT INTO awslambda.outbox (function_name, payload, key, invocation_type) "
                "SELECT 'keyed', json_build_object('token', i), 'k', 'RequestResponse' FROM generate_series(1, %s) i",
                [rows],
            )
            one = world.dispatch()
            world.calls(1, "keyed")
            started = time.monotonic()
            for number in range(200):
                token = f"beside {number}"
                session.execute("SELECT awslambda_fn_on_commit('beside', %s::json)", [f'{{"token": "{token}"}}'])
                world.committed[token] = Record(token, "beside")
            wait_until(lambda: world.stub.count().get("beside", 0) == 200, "the others are delivered", 60)
            took = time.monotonic() - started
            assert all(
                sight.token == "first" for call in world.stub.log() if call.function == "keyed" for sight in call.sights
            )
            print(f"200 beside {rows} that wait: {took:.1f} s, {peak(one.process.pid):.0f} MB")


def test_a_transaction_can_be_prepared_beside_an_idle_dispatcher() -> None:
    with Steps() as world:
        one = world.dispatch()
        world.insert(1)
        world.drain()
        with world.session() as session:
            session.execute("BEGIN")
            session.execute("INSERT INTO app.many VALUES (2, 1, 'prepared')")
            session.execute("PREPARE TRANSACTION 'later'")
            world.insert(*range(10, 60))
            wait_until(lambda: world.value("SELECT count(*) FROM awslambda.outbox") == 0, "others go by")
            idle = (
                "SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL) FROM pg_stat_activity "
                "WHERE application_name = %s"
            )
            wait_until(lambda: world.value(idle, one.name), "the dispatcher holds no snapshot")
            session.execute("COMMIT PREPARED 'later'")
        world.committed["prepared"] = Record("prepared", "many", "INSERT", '{"id":2}')
        world.drain()
        world.judged()


def test_a_function_that_only_throttles_does_not_keep_another() -> None:
    with Steps() as world:
        world.stub.behave({"plain": Behaviour(throttle=1)})
        world.value("INSERT INTO app.plain SELECT 'plain ' || i FROM generate_series(1, 5000) i RETURNING 1")
        world.dispatch()
        world.calls(1, "plain")
        world.insert(*range(5000))
        many = "SELECT pending FROM awslambda.status WHERE function_name = 'many'"
        wait_until(lambda: world.value(many) == 0, "the other function got everything", 60)
        throttled = [one for one in world.stub.log() if one.function == "plain"]
        assert all(one.outcome == THROTTLE for one in throttled)
        print(f"5000 beside {len(throttled)} throttled calls")


def test_what_is_in_an_open_transaction_comes_when_it_commits_and_keeps_nobody() -> None:
    with Steps() as world:
        world.dispatch()
        with world.session() as slow:
            slow.execute("BEGIN")
            slow.execute("INSERT INTO app.many VALUES (1, 1, 'slow')")
            for round in range(20):
                world.insert(*range(100 + 500 * round, 600 + 500 * round))
            wait_until(world.drained, "all others are delivered", 60)
            assert "slow" not in {sight.token for one in world.stub.log() for sight in one.sights}
            slow.execute("COMMIT")
        world.committed["slow"] = Record("slow", "many", "INSERT", '{"id":1}')
        wait_until(lambda: "slow" in {s.token for one in world.stub.log()[-5:] for s in one.sights}, "it comes too")
        world.drain()
        world.judged()
