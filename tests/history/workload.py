"""Writers that do to tables and to the outbox what applications do, and note what they meant.

Every record that a transaction is to cause has a token of its own, in the row or in the payload: a change of a row
writes a new token into it, a DELETE is known by the token that the row had. A transaction writes its number into a
ledger; whether it committed is read there afterwards, so that a lost connection leaves no doubt.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.history.checker import Record

Connection = psycopg.Connection[Any]

SCHEMA = """
CREATE SCHEMA app;
CREATE TABLE app.ledger (transaction bigint PRIMARY KEY);
CREATE TABLE app.hot (id int PRIMARY KEY, n int NOT NULL, token text NOT NULL);
CREATE TABLE app.many (id bigint PRIMARY KEY, n int NOT NULL, token text NOT NULL, note text);
CREATE TABLE app.stream (device int, reading int, token text NOT NULL, PRIMARY KEY (device, reading))
  PARTITION BY HASH (device);
CREATE TABLE app.stream_0 PARTITION OF app.stream FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE app.stream_1 PARTITION OF app.stream FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE app.plain (token text NOT NULL);
CREATE TABLE app.turn (key text PRIMARY KEY, turn int NOT NULL);
INSERT INTO app.turn SELECT 'key ' || i, 0 FROM generate_series(1, 20) i;
"""
HOT, KEYS, DEVICES = 25, 20, 40

# What reads which table. The functions `direct` and `keyed` get messages.
MAPPINGS: dict[str, dict[str, Any]] = {
    "hot": {"function_response_types": ["ReportBatchItemFailures"], "batch_size": 20, "maximum_retry_attempts": 8},
    "many": {"batch_size": 100, "maximum_retry_attempts": 5},
    "stream": {
        "key": ["device"],
        "event_format": "kinesis",
        "function_response_types": ["ReportBatchItemFailures"],
        "batch_size": 50,
    },
    "plain": {"event_format": "sqs", "batch_size": 10},
}
ROW_KEYED = ("hot", "many")  # whose key is that of the row


def prepare(dsn: str) -> None:
    """Tables and mappings, in a database that has the extension."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(SCHEMA)
        for name, options in MAPPINGS.items():
            more = "".join(f", {option} => %({option})s" for option in options)
            session.execute(
                f"SELECT awslambda.create_event_source_mapping('app.{name}', '{name}'{more})",  # type: ignore[arg-type]
                options,
            )


def rows(dsn: str) -> dict[str, dict[str, str]]:
    """What the tables hold in the end: the token of each row, by function and key."""
    with psycopg.connect(dsn, autocommit=True) as session:
        return {
            name: dict(session.execute(f"""SELECT '{{"id":' || id || '}}', token FROM app.{name}""").fetchall())  # type: ignore[arg-type]
            for name in ROW_KEYED
        }


@dataclass
class Transaction:
    """What one transaction meant. `undone`: tokens of savepoints that it rolled back itself."""

    number: int
    records: list[Record] = field(default_factory=list)
    undone: list[Record] = field(default_factory=list)
    acknowledged: bool = False  # the server said COMMIT
    durable: bool = True  # and that counts: synchronous_commit was on
    prepared: str | None = None


@dataclass(frozen=True)
class Mix:
    """How often what happens; weights of steps and chances of transactions."""

    steps: dict[str, float] = field(
        default_factory=lambda: {
            "insert": 3, "change_many": 3, "change_hot": 3, "upsert_hot": 2, "delete_hot": 1, "delete_many": 1,
            "append": 2, "plain": 2, "direct": 2, "keyed": 2, "delayed": 0.3, "savepoint": 2,
        }
    )  # fmt: skip
    rollback: float = 0.08
    prepare: float = 0.05
    asynchronous: float = 0.2  # synchronous_commit = off
    serializable: float = 0.05
    poison: float = 0.0005  # of the rows of app.many and app.hot
    bulk: int = 60  # rows of the largest statement
    slowest: float = 2.0  # seconds that a slow writer stays in a transaction


class Workload:
    """Writers in threads. All that they meant is in `transactions`."""

    def __init__(self, dsn: str, seed: int, mix: Mix, writers: int, slow: int, records: int, seconds: float) -> None:
        self.dsn, self.mix, self.records, self.seconds = dsn, mix, records, seconds
        self.transactions: list[Transaction] = []
        self.prepared: list[Transaction] = []
        self.written = 0  # records of transactions that said they committed
        self.errors: Counter[str] = Counter()
        self.numbers = itertools.count(1)
        self.ended = threading.Event()
        self.pause = threading.Event()
        self.started = 0.0
        self.writers = [_Writer(self, number, random.Random(f"{seed} {number}")) for number in range(writers + slow)]
        for writer in self.writers[writers:]:
            writer.slow = True
        self.failures: list[BaseException] = []

    def start(self) -> None:
        """Starts writing; over a while of `seconds`, at an even pace."""
        self.started = time.monotonic()
        for writer in self.writers:
            writer.start()

    def done(self) -> bool:
        """Whether all that was asked for is written."""
        if self.failures:
            raise self.failures[0]
        return self.written >= self.records and time.monotonic() >= self.started + self.seconds

    def finish(self, dsn: str) -> None:
        """Ends the writers and decides what is prepared."""
        self.ended.set()
        for writer in self.writers:
            writer.join()
        if self.failures:
            raise self.failures[0]
        with psycopg.connect(dsn, autocommit=True) as session:
            for (name,) in session.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid").fetchall():
                verb = "COMMIT" if zlib.crc32(name.encode()) % 2 else "ROLLBACK"
                session.execute(f"{verb} PREPARED '{name}'")  # type: ignore[call-overload]

    def outcome(self, dsn: str) -> tuple[dict[str, Record], set[str], list[str]]:
        """Committed records by token, tokens that must not be seen, and commits that the server lost."""
        with psycopg.connect(dsn, autocommit=True) as session:
            ledger = {number for (number,) in session.execute("SELECT transaction FROM app.ledger")}
        committed, aborted, broken = {}, set(), []
        for one in self.transactions:
            aborted.update(record.token for record in one.undone)
            if one.number in ledger:
                committed.update((record.token, record) for record in one.records)
            else:
                aborted.update(record.token for record in one.records)
                if one.acknowledged and one.durable:
                    broken.append(f"transaction {one.number} was acknowledged and is gone")
        return committed, aborted, broken

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is written meanwhile, once the transactions that are under way have ended."""
        self.pause.set()
        try:
            deadline = time.monotonic() + self.mix.slowest * 4 + 2
            while any(writer.busy for writer in self.writers) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield
        finally:
            self.pause.clear()

    def append_asynchronously(self, dsn: str) -> None:
        """One small transaction that does not wait for its WAL."""
        one = Transaction(next(self.numbers), durable=False)
        one.records.append(Record(f"asynchronous.{one.number}", "plain", "INSERT"))
        self.transactions.append(one)
        with psycopg.connect(dsn, options="-c synchronous_commit=off") as session:
            session.execute("INSERT INTO app.ledger VALUES (%s)", [one.number])
            session.execute("INSERT INTO app.plain VALUES (%s)", [one.records[0].token])
        one.acknowledged = True

    def too_fast(self) -> bool:
        """Whether writers are ahead of their even pace."""
        share = (time.monotonic() - self.started) / self.seconds if self.seconds else 1.0
        return share < 1 and self.written > self.records * share + 500


class _Writer(threading.Thread):
    def __init__(self, workload: Workload, number: int, chance: random.Random) -> None:
        super().__init__(daemon=True, name=f"writer-{number}")
        self.workload, self.number, self.random = workload, number, chance
        self.slow = self.busy = False
        self.session: Connection | None = None
        self.own: list[int] = []  # rows of app.many that this writer made
        self.rows = itertools.count(number * 10_000_000)
        self.prepared: list[Transaction] = []
        self.current = Transaction(0)
        self.tokens = itertools.count(1)

    def run(self) -> None:
        try:
            while not self.workload.ended.is_set():
                self.busy = False
                if self.workload.pause.is_set() or self.workload.too_fast():
                    time.sleep(0.02)
                    continue
                self.busy = True
                try:
                    self.transaction()
                except psycopg.Error as error:
                    self.workload.errors[error.sqlstate or type(error).__name__] += 1
                    self.recover()
        except BaseException as error:
            self.workload.failures.append(error)
        finally:
            if self.session is not None:
                self.session.close()

    def recover(self) -> None:
        """Rolls back, or gets a new session when there is none."""
        if self.session is None:
            time.sleep(0.1)
            return
        try:
            self.session.execute("ROLLBACK")
        except psycopg.Error:
            self.session.close()
            self.session = None

    def execute(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        assert self.session is not None
        cursor = self.session.execute(statement, values or None)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def transaction(self) -> None:
        mix = self.workload.mix
        if self.session is None:
            self.session = psycopg.connect(
                self.workload.dsn, autocommit=True, application_name=self.name, connect_timeout=5,
                options="-c lock_timeout=300ms -c deadlock_timeout=100ms",
            )  # fmt: skip
        if self.prepared and self.random.random() < 0.3:
            self.decide()
        one = self.current = Transaction(next(self.workload.numbers))
        self.workload.transactions.append(one)
        serializable = self.random.random() < mix.serializable
        self.execute("BEGIN ISOLATION LEVEL SERIALIZABLE" if serializable else "BEGIN")
        if self.random.random() < mix.asynchronous:
            self.execute("SET LOCAL synchronous_commit = off")
            one.durable = False
        first = self.random.random() < 0.5  # else the first statement gives the transaction its id
        if first:
            self.ledger()
        for _ in range(self.random.randint(1, 4)):
            self.step()
            if self.slow:
                self.linger()
        if not first:
            self.ledger()
        luck = self.random.random()
        if luck < mix.rollback:
            self.execute("ROLLBACK")
        elif luck < mix.rollback + mix.prepare:
            one.prepared = f"{self.name} {one.number}"
            self.execute(f"PREPARE TRANSACTION '{one.prepared}'")
            self.prepared.append(one)
        else:
            self.execute("COMMIT")
            self.committed(one)

    def ledger(self) -> None:
        self.execute("INSERT INTO app.ledger VALUES (%(number)s)", number=self.current.number)

    def linger(self) -> None:
        """Stays in the transaction, mostly shortly."""
        self.workload.ended.wait(self.workload.mix.slowest * self.random.random() ** 3)

    def decide(self) -> None:
        one = self.prepared.pop(self.random.randrange(len(self.prepared)))
        if self.random.random() < 0.3:
            self.execute(f"ROLLBACK PREPARED '{one.prepared}'")
        else:
            self.execute(f"COMMIT PREPARED '{one.prepared}'")
            self.committed(one)

    def committed(self, one: Transaction) -> None:
        one.acknowledged = True
        self.workload.written += len(one.records)
        self.own += [
            int(r.key[6:-1]) for r in one.records if r.function == "many" and r.operation == "INSERT" and r.key
        ]

    # --- what a transaction does

    def step(self, depth: int = 0) -> None:
        steps = {name: weight for name, weight in self.workload.mix.steps.items() if depth < 2 or name != "savepoint"}
        if self.slow:  # what others wait for stays short
            steps = {name: weight for name, weight in steps.items() if "hot" not in name and name != "keyed"}
        name = self.random.choices(list(steps), list(steps.values()))[0]
        if name == "savepoint":
            self.savepoint(depth)
        else:
            step: Callable[[], None] = getattr(self, name)
            step()

    def savepoint(self, depth: int) -> None:
        name, meant = f"s{depth}", len(self.current.records)
        self.execute(f"SAVEPOINT {name}")
        for _ in range(self.random.randint(1, 2)):
            self.step(depth + 1)
        if self.random.random() < 0.5:
            self.execute(f"RELEASE {name}")
            return
        if self.random.random() < 0.3:  # the way PL/pgSQL's EXCEPTION goes
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                self.execute("SELECT 1 / 0")
        self.execute(f"ROLLBACK TO {name}")
        self.current.undone += self.current.records[meant:]
        del self.current.records[meant:]

    def token(self, poisonous: bool = False) -> str:
        poison = " poison" if poisonous and self.random.random() < self.workload.mix.poison else ""
        return f"{self.number}.{self.current.number}.{next(self.tokens)}{poison}"

    def size(self) -> int:
        """Rows of a statement: mostly one, sometimes many."""
        return 1 if self.random.random() < 0.4 else self.random.randint(1, self.workload.mix.bulk)

    def meant(self, function: str, operation: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """`rows`: token and key, JSON as Postgres writes it without blanks; or no key."""
        self.current.records += [
            Record(token if operation != "DELETE" else f"deleted {token}", function, operation, key)
            for token, key in rows
        ]

    def insert(self) -> None:
        ids = [next(self.rows) for _ in range(self.size())]
        rows = self.execute(
            "INSERT INTO app.many SELECT t.id, 1, t.token, repeat('x', 40) "
            "FROM unnest(%(ids)s::bigint[], %(tokens)s::text[]) t(id, token) "
            """RETURNING token, '{"id":' || id || '}'""",
            ids=ids,
            tokens=[self.token(poisonous=True) for _ in ids],
        )
        self.meant("many", "INSERT", rows)

    def change_many(self) -> None:
        self.change("many", self.some_own())

    def delete_many(self) -> None:
        self.delete("many", self.some_own())

    def change_hot(self) -> None:
        self.change("hot", self.some_hot())

    def delete_hot(self) -> None:
        self.delete("hot", self.some_hot())

    def upsert_hot(self) -> None:
        ids = self.some_hot()
        rows = self.execute(
            "INSERT INTO app.hot SELECT t.id, 1, t.token FROM unnest(%(ids)s::int[], %(tokens)s::text[]) t(id, token) "
            "ON CONFLICT (id) DO UPDATE SET n = hot.n + 1, token = excluded.token "
            """RETURNING token, '{"id":' || id || '}', xmax = 0""",
            ids=ids,
            tokens=[self.token(poisonous=True) for _ in ids],
        )
        self.meant("hot", "INSERT", [row[:2] for row in rows if row[2]])
        self.meant("hot", "UPDATE", [row[:2] for row in rows if not row[2]])

    def append(self) -> None:
        """Rows whose key is not that of the table: writers of a key take turns by a lock of their own."""
        device = self.random.randint(1, DEVICES)
        self.execute("SELECT pg_advisory_xact_lock(1, %(device)s)", device=device)
        rows = self.execute(
            "INSERT INTO app.stream SELECT %(device)s, t.reading, t.token "
            "FROM unnest(%(readings)s::int[], %(tokens)s::text[]) WITH ORDINALITY t(reading, token, n) ORDER BY n "
            """RETURNING token, '{"device":' || device || '}'""",
            device=device,
            readings=(readings := [next(self.rows) for _ in range(self.size() // 3 + 1)]),
            tokens=[self.token() for _ in readings],
        )
        self.meant("stream", "INSERT", rows)

    def plain(self) -> None:
        rows = self.execute(
            "INSERT INTO app.plain SELECT unnest(%(tokens)s::text[]) RETURNING token, NULL",
            tokens=[self.token() for _ in range(self.size())],
        )
        self.meant("plain", "INSERT", rows)

    def direct(self) -> None:
        token = self.token()
        self.execute("SELECT awslambda_fn_on_commit('direct', %(payload)s::json)", payload=json.dumps({"token": token}))
        self.current.records.append(Record(token, "direct"))

    def delayed(self) -> None:
        token = self.token()
        self.execute(
            "SELECT awslambda.enqueue('direct', %(payload)s::jsonb, delay => '500 ms')",
            payload=json.dumps({"token": token}),
        )
        self.current.records.append(Record(token, "direct"))

    def keyed(self) -> None:
        token, key = self.token(), f"key {self.random.randint(1, KEYS)}"
        [(turn,)] = self.execute("UPDATE app.turn SET turn = turn + 1 WHERE key = %(key)s RETURNING turn", key=key)
        self.execute(
            "SELECT awslambda.enqueue('keyed', %(payload)s::jsonb, key => %(key)s, "
            "invocation_type => 'RequestResponse')",
            payload=json.dumps({"token": token}),
            key=key,
        )
        self.current.records.append(Record(token, "keyed", None, key, turn))

    def some_own(self) -> list[int]:
        return self.random.sample(self.own, min(len(self.own), self.size()))

    def some_hot(self) -> list[int]:
        return self.random.sample(range(1, HOT + 1), self.random.choice((1, 1, 2, 5)))

    def change(self, table: str, ids: Sequence[int]) -> list[int]:
        rows = self.execute(
            f"UPDATE app.{table} o SET n = n + 1, token = t.token "
            "FROM unnest(%(ids)s::bigint[], %(tokens)s::text[]) t(id, token) WHERE o.id = t.id "
            """RETURNING o.token, '{"id":' || o.id || '}', o.id""",
            ids=ids,
            tokens=[self.token(poisonous=True) for _ in ids],
        )
        self.meant(table, "UPDATE", [row[:2] for row in rows])
        return [row[2] for row in rows]

    def delete(self, table: str, ids: Sequence[int]) -> None:
        """Changes the rows first: so that what deletes them has a token that is its own."""
        rows = self.execute(
            f"DELETE FROM app.{table} WHERE id = ANY(%(ids)s) "
            """RETURNING token, '{"id":' || id || '}'""",
            ids=self.change(table, ids),
        )
        self.meant(table, "DELETE", rows)
