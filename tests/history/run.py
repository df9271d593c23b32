"""One run: a cluster of its own, writers, dispatchers and a nemesis; then the faults stop, it drains, and is judged.

python -m tests.history.run [SEED] does one with all faults and prints what it did.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from awslambda_local.cluster import Cluster

from tests.history import workload
from tests.history.checker import Dead, Fault, History, Report, check
from tests.history.stub import Behaviour, Stub
from tests.history.workload import Mix, Workload
from tests.waiting import wait_until

PROGRAM = Path("/usr/local/bin/awslambda")
DATABASE = "history"
IN_DATABASE = "database"  # the name of what CALL awslambda.dispatch is in the log
SETTINGS = {
    "fsync": "on", "max_prepared_transactions": "60", "max_connections": "80", "shared_buffers": "'64MB'",
    "max_wal_size": "'96MB'", "min_wal_size": "'32MB'", "checkpoint_timeout": "'30s'", "log_lock_waits": "on",
    "log_checkpoints": "off",
}  # fmt: skip
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}
# As the extension's, but a hundred times shorter.
BACK_OFF = """
CREATE OR REPLACE FUNCTION awslambda._back_off(attempts int) RETURNS interval LANGUAGE sql VOLATILE AS
$$ SELECT random() * least(interval '2 s', interval '10 ms' * 2 ^ least(attempts - 1, 20)) $$
"""
TOKEN = """
CASE WHEN payload ->> 'eventName' IS NULL THEN payload ->> 'token'
     WHEN payload ->> 'eventName' = 'DELETE' THEN 'deleted ' || (payload -> 'old' ->> 'token')
     ELSE payload -> 'new' ->> 'token' END
"""
TROUBLE = {
    "hot": Behaviour(
        error=0.01, items=0.05, failed=0.01, hang=0.0007, cut=0.005, throttle=0.01, slow=0.02, reports=True
    ),
    "many": Behaviour(error=0.02, failed=0.01, cut=0.01, hang=0.0007, throttle=0.01, slow=0.02, takes=(0, 0.02)),
    "stream": Behaviour(error=0.01, items=0.05, cut=0.005, hang=0.0007, takes=(0, 0.01), reports=True),
    "plain": Behaviour(error=0.02, failed=0.02, throttle=0.02, slow=0.01),
    "direct": Behaviour(failed=0.02, throttle=0.02, cut=0.01, slow=0.01),
    "keyed": Behaviour(error=0.02, throttle=0.01, cut=0.01, hang=0.0007, takes=(0, 0.005)),
}
FAULTS: dict[str, float] = {
    "kill": 4, "terminate": 3, "graceful": 2, "writer": 2, "throttle": 2, "crash": 0.7, "immediate": 0.7,
    "stop": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A fault in the engine: texts that are replaced, of SQL functions by name, or of modules of the package."""

    name: str
    sql: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    python: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a run is to do. Seconds are of writing; `every` is the mean time between faults."""

    seed: int
    records: int = 20_000
    seconds: float = 25.0
    writers: int = 5
    slow: int = 3
    mix: Mix = field(default_factory=Mix)
    dispatchers: int = 3
    in_database: bool = False
    trouble: Mapping[str, Behaviour] = field(default_factory=lambda: TROUBLE)
    faults: Mapping[str, float] = field(default_factory=lambda: FAULTS)
    every: float = 1.2
    stopped: float = 13.0  # longer than idle_session_timeout
    quiet: float = 30.0  # seconds without a call after which what is left is stuck
    settings: Mapping[str, str] = field(default_factory=dict)
    mutation: Mutation | None = None


@dataclass(frozen=True)
class Result:
    """A run that was judged."""

    history: History
    report: Report
    line: str  # its counts


class Dispatcher:
    """A process `awslambda dispatch`, whose calls the stub knows by its name."""

    def __init__(self, name: str, program: Path, dsn: str, port: int, log: Path) -> None:
        self.name = name
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PGAPPNAME": name, **CREDENTIALS,
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{port}", "HOME": "/nonexistent",
        }  # fmt: skip
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(program), "dispatch", "--dsn", dsn],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if there is still somebody to get it."""
        if self.alive():
            self.process.send_signal(number)

    def end(self) -> None:
        """A clean stop; a dispatcher that does not end is a failure."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self.process.wait(30)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


class World:
    """What a run consists of, from start to end; also for tests that do their own faults."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.folder = Path(tempfile.mkdtemp(prefix="awslambda-history-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.log = self.folder / "dispatchers.log"
        self.faults: list[Fault] = []
        self.done: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()  # why CALL ended
        self.dispatchers: list[Dispatcher] = []
        self.number = 0
        self.program = PROGRAM
        self.work: Workload | None = None
        self.sessions: list[psycopg.Connection[Any]] = []  # of CALL, and those in which one was cancelled
        self.calling = False
        self.caller: threading.Thread | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.stub = stack.enter_context(Stub(plan.seed))
            self.in_database = self.stub.listen(IN_DATABASE)
            endpoint = {"AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{self.in_database}"}
            self.cluster = stack.enter_context(Cluster({**CREDENTIALS, **endpoint}, {**SETTINGS, **plan.settings}))
            with psycopg.connect(self.cluster.dsn(), autocommit=True) as session:
                session.execute(f"CREATE DATABASE {DATABASE}")  # type: ignore[call-overload]
            self.dsn = self.cluster.dsn(DATABASE)
            with self.session() as session:
                session.execute("CREATE EXTENSION awslambda CASCADE")
                session.execute("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (request_timeout '8s')")
                session.execute(BACK_OFF)
                if plan.mutation:
                    self.mutate(session, plan.mutation)
            self._stack = stack.pop_all()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.calling = False
        for dispatcher in self.dispatchers:
            dispatcher.kill()
        self._stack.close()
        if self.caller is not None:
            self.caller.join()
        for session in self.sessions:
            session.close()

    def session(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=10)

    def value(self, query: str, *parameters: object) -> Any:
        """The first value of a query, in a session of its own."""
        with self.session() as session:
            row = session.execute(query, parameters or None).fetchone()  # type: ignore[call-overload]
            return row[0] if row else None

    # --- dispatchers

    def dispatch(self, dsn: str | None = None) -> Dispatcher:
        """Starts one more."""
        self.number += 1
        name = f"dispatcher-{self.number}"
        self.dispatchers.append(Dispatcher(name, self.program, dsn or self.dsn, self.stub.listen(name), self.log))
        return self.dispatchers[-1]

    def replace(self, dispatcher: Dispatcher) -> None:
        """Starts another one for one that has gone."""
        self.dispatchers.remove(dispatcher)
        self.dispatch()

    def call(self) -> None:
        """Starts CALL awslambda.dispatch(…), again and again, in a session of its own."""
        self.calling = True
        self.caller = threading.Thread(target=self._call, daemon=True)
        self.caller.start()

    def _call(self) -> None:
        while self.calling:
            try:
                session = psycopg.connect(self.dsn, autocommit=True, application_name=IN_DATABASE, connect_timeout=10)
                self.sessions.append(session)
                while self.calling:
                    session.execute("CALL awslambda.dispatch('3 s')")
                    time.sleep(0.01)
            except psycopg.errors.QueryCanceled:
                pass  # the session lives on, idle, and must not keep what it had
            except psycopg.Error as error:
                self.ended[str(error).splitlines()[0]] += 1
                time.sleep(0.2)

    def backends(self, pattern: str) -> list[int]:
        """Process ids of sessions by application name."""
        with self.session() as session:
            found = session.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s AND datname = current_database()",
                [pattern],
            )
            return [pid for (pid,) in found]

    # --- faults

    def fault(self, kind: str) -> None:
        """Does one of what can go wrong, and notes when, and to whom if it can explain what is delivered twice."""
        for gone in [dispatcher for dispatcher in self.dispatchers if not dispatcher.alive()]:
            self.done["ended by itself"] += 1
            self.replace(gone)
        start = time.monotonic()
        self.done[kind] += 1
        done = getattr(self, f"_{kind}")()
        if done is not None:
            client, longer = done
            self.faults.append(Fault(kind, start, time.monotonic() + longer, client))

    def _kill(self) -> tuple[str, float]:
        victim = self.random.choice(self.dispatchers)
        victim.kill()
        self.replace(victim)
        return victim.name, 0

    def _graceful(self) -> None:
        victim = self.random.choice(self.dispatchers)
        victim.end()
        self.replace(victim)

    def _terminate(self) -> tuple[str, float]:
        victim = self.random.choice(self.dispatchers)
        self.end_sessions(victim.name)
        return victim.name, 0

    def _stop(self) -> tuple[str, float]:
        victim = self.random.choice(self.dispatchers)
        victim.signal(signal.SIGSTOP)
        timer = threading.Timer(self.plan.stopped, victim.signal, [signal.SIGCONT])
        timer.daemon = True
        timer.start()
        return victim.name, self.plan.stopped

    def _cancel(self) -> tuple[str, float]:
        for pid in self.backends(IN_DATABASE):
            self.value("SELECT pg_cancel_backend(%s)", pid)
        return IN_DATABASE, 0

    def _writer(self) -> None:
        self.end_sessions("writer-%", most=1)

    def _throttle(self) -> None:
        self.stub.throttle(self.random.choice(list(workload.MAPPINGS)), self.random.uniform(0.5, 2))

    def _crash(self) -> tuple[None, float]:
        for pid in self.backends("writer-%")[:1]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _answers(self.dsn), "the cluster recovers", 60)
        return None, 0

    def _immediate(self) -> tuple[None, float]:
        self.cluster.stop(signal.SIGQUIT)
        self.cluster.start()
        return None, 0

    def _unflushed(self) -> tuple[None, float]:
        """An immediate stop when nothing but one asynchronous commit was written last, and while it is being sent."""
        assert self.work is not None
        with self.work.paused():
            with contextlib.suppress(AssertionError):
                wait_until(self.drained, "the outbox is empty", 10)
            self.stub.hold("plain")
            before = self.stub.count().get("plain", 0)
            self.work.append_asynchronously(self.dsn)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: self.stub.count().get("plain", 0) > before, "it is seen", 2)
            done = self._immediate()
            self.stub.release("plain")
        return done

    def end_sessions(self, pattern: str, most: int = 100) -> None:
        """Ends sessions from the server's side."""
        for pid in self.random.sample(pids := self.backends(pattern), min(most, len(pids))):
            self.value("SELECT pg_terminate_backend(%s)", pid)

    # --- mutants

    def mutate(self, session: psycopg.Connection[Any], mutation: Mutation) -> None:
        """Puts the fault into this database's functions, and into a copy of the package that only this run uses."""
        for name, changes in mutation.sql.items():
            found = session.execute(
                "SELECT pg_get_functiondef(oid) FROM pg_proc "
                "WHERE pronamespace = 'awslambda'::regnamespace AND proname = %s",
                [name],
            ).fetchone()
            assert found, f"there is no awslambda.{name}"
            session.execute(_patched(found[0], changes, name))  # type: ignore[call-overload]
        if mutation.python:
            self.copy_package(session, mutation)

    def copy_package(self, session: psycopg.Connection[Any], mutation: Mutation) -> None:
        text = PROGRAM.read_text()
        library = Path(text.split('sys.path.insert(0, "')[1].split('"')[0])
        copy = self.folder / "lib"
        copy.mkdir()
        for entry in library.iterdir():
            if entry.name != "awslambda":
                (copy / entry.name).symlink_to(entry)
        shutil.copytree(library / "awslambda", copy / "awslambda", ignore=shutil.ignore_patterns("__pycache__"))
        for module, changes in mutation.python.items():
            file = copy / "awslambda" / module
            file.write_text(_patched(file.read_text(), changes, module))
        self.program = self.folder / "awslambda"
        self.program.write_text(text.replace(str(library), str(copy)))
        self.program.chmod(0o755)
        bodies = session.execute(
            "SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
            "WHERE l.lanname = 'plpython3u' AND p.prosrc LIKE %s",
            [f"%{library}%"],
        ).fetchall()
        for (body,) in bodies:
            session.execute(body.replace(str(library), str(copy)))

    # --- the end

    def drain(self, quiet: float) -> None:
        """Waits until the outbox is empty, or nothing happens any more."""
        calls, since = -1, time.monotonic()
        while not self.drained() and time.monotonic() - since < quiet:
            before, calls = calls, sum(self.stub.count().values())
            if calls != before:
                since = time.monotonic()
            time.sleep(0.1)

    def drained(self) -> bool:
        return not self.value("SELECT EXISTS (SELECT FROM awslambda.outbox)")

    def history(self, committed: Mapping[str, Any], aborted: set[str]) -> History:
        """All that is known now."""
        with self.session() as session:
            pending = [token for (token,) in session.execute(f"SELECT {TOKEN} FROM awslambda.outbox")]  # type: ignore[call-overload]
            dead = [
                Dead(*row)
                for row in session.execute(f"SELECT {TOKEN}, reason, attempts FROM awslambda.dead_letter")  # type: ignore[call-overload]
            ]
            retries = dict(
                session.execute(
                    "SELECT function_name, maximum_retry_attempts FROM awslambda.event_source_mapping"
                ).fetchall()
            )
        return History(
            committed, aborted, self.stub.log(), self.faults, pending, dead, workload.rows(self.dsn), retries
        )


def run(plan: Plan) -> Result:
    """Does what the plan says, and judges it."""
    started = time.monotonic()
    with World(plan) as world:
        workload.prepare(world.dsn)
        world.stub.behave(plan.trouble)
        for _ in range(plan.dispatchers):
            world.dispatch()
        if plan.in_database:
            wait_until(lambda: len(world.backends("dispatcher-%")) == plan.dispatchers, "the processes are there")
            world.call()
        work = world.work = Workload(
            world.dsn, plan.seed, plan.mix, plan.writers, plan.slow, plan.records, plan.seconds
        )
        work.start()
        while not work.done():
            if time.monotonic() - work.started > plan.seconds * 4 + 60:
                break
            pause = world.random.expovariate(1 / plan.every) if plan.faults else 0.2
            if pause:
                work.ended.wait(min(pause, 4 * plan.every))
            if plan.faults and not work.done():
                world.fault(world.random.choices(list(plan.faults), list(plan.faults.values()))[0])
        work.finish(world.dsn)
        wrote = time.monotonic()
        world.stub.behave({name: Behaviour(reports=one.reports) for name, one in plan.trouble.items()})
        for gone in [dispatcher for dispatcher in world.dispatchers if not dispatcher.alive()]:
            world.replace(gone)
        world.drain(plan.quiet)
        drained = time.monotonic()
        committed, aborted, broken = work.outcome(world.dsn)
        history = world.history(committed, aborted)
        for dispatcher in world.dispatchers:
            dispatcher.end()
        output = world.log.read_text(errors="replace")
    assert not broken, broken[:3]
    report = check(history)
    line = _line(plan, report, world.done, work, drained - work.started, drained - wrote, time.monotonic() - started)
    if report.violations and plan.mutation is None:
        print(output[-4000:])
    return Result(history, report, line)


def _line(
    plan: Plan, report: Report, done: Counter[str], work: Workload, delivery: float, drain: float, total: float
) -> str:
    counts = report.counts
    return (
        f"seed {plan.seed}{f', mutant {plan.mutation.name}' if plan.mutation else ''}: "
        f"{counts['committed']} committed, {counts['aborted']} rolled back, "
        f"{len(work.transactions)} transactions, "
        f"{counts['acknowledged']} acknowledged, {counts['sights']} sights in "
        f"{counts['invocations']} invocations, {counts['duplicates']} duplicates, {counts['overlaps']} overlaps, "
        f"{counts['dead']} dead, {counts['pending']} pending; "
        f"faults: {_numbers(done)}; errors of writers: {_numbers(work.errors)}; "
        f"{counts['committed'] / max(delivery, 0.001):.0f} records/s, drained after {drain:.1f} s, "
        f"{total:.0f} s in all; "
        f"violations: {_numbers(report.kinds())}"
    )


def _numbers(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counter.items())) or "none"


def _patched(text: str, changes: Sequence[tuple[str, str]], where: str) -> str:
    for old, new in changes:
        assert text.count(old) == 1, f"{where} has {text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


def _answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2) as session:
            session.execute("SELECT")
            return True
    except psycopg.OperationalError:
        return False


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10**6)
    result = run(Plan(seed=chosen, in_database=True, faults={**FAULTS, "cancel": 2}))
    print(result.line)
    for violation in result.report.violations[:20]:
        print(violation)
