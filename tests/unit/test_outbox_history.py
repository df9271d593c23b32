"""The engine against a model of the table, with writers, faults and takeovers at random."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest
from awslambda import outbox
from awslambda.outbox import DIRECT, Batch, Mapping, Outbox, Outcome, Result

from .outbox_model import Row, Table, Transaction

SKEW = 1e9
SERIAL, FREE, UNKEYED, TIGHT = 1, 2, 3, 4  # writers of a key of FREE do not wait for each other
FUNCTIONS = [(name, "Event", None, "app", False) for name in ("f", "g", "h")]
BASE = {
    SERIAL: Mapping(SERIAL, "serial", "f", "app", batch_size=7, parallelization_factor=3, maximum_retry_attempts=-1),
    FREE: Mapping(FREE, "free", "f", "app", batch_size=5, parallelization_factor=2, report_failures=True),
    UNKEYED: Mapping(UNKEYED, "unkeyed", "f", "app", batch_size=10, window=0.2, invocation_type="Event"),
    TIGHT: Mapping(
        TIGHT, "tight", "f", "app", batch_size=4, parallelization_factor=2, maximum_retry_attempts=2,
        maximum_record_age=60.0, bisect=False, on_failure="arn",
    ),
}  # fmt: skip
CAPACITY = 60


class Session:
    """A dispatcher's: an engine, its slots, and what it has sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = Outbox()
        self.engine.configure(world.mappings.values(), {}, world.clock)
        self.slots: set[int] = set()
        self.leaving: set[int] = set()
        self.flying: list[Batch] = []
        self.telling: list[outbox.Death] = []

    def claim(self, slots: set[int]) -> None:
        back = self.leaving & slots
        free = slots - set().union(*(one.slots for one in self.world.sessions))
        self.slots |= free
        self.leaving -= back
        self.world.table.promote_behind(free)
        if free or back:
            self.engine.slots_changed()

    def step(self) -> None:
        world, now = self.world, self.world.clock
        left = self.engine.leave(self.leaving)
        self.slots -= left
        self.leaving -= left
        if self.slots:
            look = self.engine.look(now)
            answer = world.table.look(self.slots - self.leaving, look.mappings, look.floors, look.limits)
            self.engine.looked(look, answer, now)
        for death in self.engine.deaths():
            if death.route.mapping.on_failure is None:
                self.engine.died(death, None)
            else:
                self.telling.append(death)
        world.table.settle(self.engine.settlement().as_json())
        self.engine.report(now)
        for batch in self.engine.batches(now, world.random.randint(0, 6)):
            self.engine.vanished(batch, {id for id in batch.ids if id in world.table.rows})
            if batch.records:
                self.flying.append(batch)
        world.check(self)

    def land(self) -> None:
        for death in self.telling:
            self.engine.died(death, None)
        self.telling.clear()
        for batch in [one for one in self.flying if self.world.random.random() < 0.4]:
            self.flying.remove(batch)
            self.engine.finished(batch, self.world.outcome(batch), self.world.clock)

    @property
    def keys_out(self) -> list[tuple[int, int]]:
        return [
            key for batch in self.flying
            for key in {(record_mapping(batch), record.key) for record in batch.records if record.key is not None}
        ]  # fmt: skip


def record_mapping(batch: Batch) -> int:
    return batch.route.mapping.id


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = 100.0
        self.table = Table(seed, first_xid=self.random.choice([1000, 2**32 - 200, 2**31 - 150]), now=SKEW + self.clock)
        self.table.in_between = self.others_write
        self.table.on_death = self.died
        self.mappings = dict(BASE)
        self.faults = 0.0
        self.writing = True
        self.writers: list[Transaction] = []
        self.locked: dict[int, set[tuple[int, str]]] = defaultdict(set)  # by transaction
        self.committed: set[int] = set()
        self.deleted: set[int] = set()
        self.poison: set[int] = set()
        self.seen: dict[tuple[int, int], list[int]] = defaultdict(list)  # by key: first sights
        self.runs: Counter[int] = Counter()
        self.bad_runs: Counter[int] = Counter()
        self.sessions: list[Session] = []

    # Writers

    def others_write(self) -> None:
        if self.writing and self.random.random() < 0.3:
            self.write()

    def write(self) -> None:
        chance = self.random.random()
        if len(self.writers) < 5 and (chance < 0.3 or not self.writers):
            self.writers.append(self.table.begin())
            return
        transaction = self.random.choice(self.writers)
        if chance < 0.7:
            for _ in range(self.random.choice([1, 1, 3, 30])):
                self.insert(transaction)
            if self.random.random() < 0.2:
                self.table.savepoint(transaction)
        elif transaction is not self.writers[0] or self.random.random() < 0.1:  # the first one stays long
            self.end(transaction, self.random.random() < 0.85)

    def insert(self, transaction: Transaction) -> None:
        mapping = self.random.choice([DIRECT, SERIAL, SERIAL, FREE, UNKEYED, TIGHT])
        key: str | None = self.random.choice("aaabcdefgh")
        if mapping == UNKEYED or (mapping == DIRECT and self.random.random() < 0.5):
            key = None
        if key is not None and mapping != FREE:
            mine = self.locked[transaction.xid]
            if any((mapping, key) in held for xid, held in self.locked.items() if xid != transaction.xid):
                return
            mine.add((mapping, key))
        id = self.table.insert(
            transaction, mapping, key,
            size=self.random.choice([100, 100, 100, 900_000]),
            delay=self.random.choice([0, 0, 0, 0.1, 3.0]) if mapping == DIRECT else 0.0,
            direct=self.random.choice(FUNCTIONS) if mapping == DIRECT else None,
        )  # fmt: skip
        if self.random.random() < 0.01:
            self.poison.add(id)

    def end(self, transaction: Transaction, well: bool) -> None:
        self.writers.remove(transaction)
        self.locked.pop(transaction.xid, None)
        if well:
            self.committed.update(self.table.commit(transaction))
        else:
            self.table.roll_back(transaction)

    # Functions

    def outcome(self, batch: Batch) -> Result:
        chance = self.random.random()
        if self.poison.intersection(batch.ids):
            return Result(Outcome.REJECTED, "too large")
        if chance < self.faults:
            outcome = self.random.choice([one for one in Outcome if one is not Outcome.REJECTED])
        else:
            outcome = Outcome.DELIVERED
        failed: frozenset[int] = frozenset()
        if outcome is Outcome.DELIVERED and batch.route.mapping.report_failures and self.random.random() < self.faults:
            failed = frozenset(at for at in range(len(batch.records)) if self.random.random() < 0.3)
        if outcome in (Outcome.DELIVERED, Outcome.FAILED, Outcome.LOST):
            for at, record in enumerate(batch.records):
                self.runs[record.id] += 1
                if outcome is not Outcome.DELIVERED or at in failed:
                    self.bad_runs[record.id] += 1
                if record.key is not None and self.runs[record.id] == 1:
                    self.seen[record_mapping(batch), record.key].append(record.id)
        return Result(outcome, "said so", failed=failed)

    # What must hold

    def check(self, session: Session) -> None:
        out = [key for one in self.sessions for key in one.keys_out]
        assert len(out) == len(set(out)), "two batches of one key are out"
        for id, scan in session.engine._scans.items():
            route = session.engine._routes.get(id)
            assert len(scan.known) <= 3 * Outbox._capacity(route)
            assert scan.out <= set(scan.known)
            waiting = {number for ids in scan.waiting.values() for number in ids}
            assert waiting == {r.id for r in scan.known.values() if r.key is not None} - scan.out
            assert scan.busy == Counter(scan.known[one].key for one in scan.out if scan.known[one].key is not None)
            assert len(scan.floor._marks) < 20
        for row in self.table.rows.values():
            assert row.attempts <= self.bad_runs[row.id]
        for (mapping, _), ids in self.seen.items():
            assert mapping == FREE or ids == sorted(ids), "out of order"

    def died(self, row: Row, reason: str, counted: bool) -> None:
        mapping = self.mappings.get(row.mapping)
        most = 20 if mapping is None else BASE[mapping.id].maximum_retry_attempts
        if reason == "RetryAttemptsExhausted":
            assert counted and 0 <= most <= row.attempts and self.bad_runs[row.id] > most
        elif reason == "RecordAgeExceeded":
            assert mapping is not None and mapping.maximum_record_age is not None
            assert self.table.now - row.enqueued_at > mapping.maximum_record_age
        else:
            assert row.id in self.poison

    # A history

    def advance(self, seconds: float) -> None:
        self.clock += seconds
        self.table.now += seconds

    def dispatchers(self) -> None:
        """Some come, one is killed, slots go to and fro."""
        chance = self.random.random()
        slots = set(self.random.sample(range(64), 32))
        if len(self.sessions) < 3 and chance < 0.02:
            self.sessions.append(Session(self))
        elif chance < 0.03 and self.sessions:
            self.sessions.remove(self.random.choice(self.sessions))
        elif chance < 0.08 and self.sessions:
            self.random.choice(self.sessions).claim(slots)
        elif chance < 0.12 and self.sessions:
            one = self.random.choice(self.sessions)
            one.leaving |= one.slots & slots

    def reconfigure(self) -> None:
        if self.random.random() < 0.01:
            mapping = self.mappings[self.random.choice(list(BASE))]
            self.mappings[mapping.id] = replace(
                mapping, enabled=self.random.random() < 0.7, batch_size=self.random.randint(1, 12),
                bisect=self.random.random() < 0.5,
            )  # fmt: skip
        self.configure()

    def configure(self) -> None:
        for session in self.sessions:
            session.engine.configure(self.mappings.values(), {}, self.clock)

    def run(self, steps: int, faults: float) -> None:
        self.faults = faults
        for _ in range(steps):
            self.write()
            self.dispatchers()
            self.reconfigure()
            for session in self.sessions:
                session.step()
                session.land()
            self.advance(self.random.choice([0.005, 0.05, 0.05, 1.0, 20.0 if self.random.random() < 0.05 else 0.1]))

    def finish(self) -> None:
        """Faults stop, all transactions end, one dispatcher has all slots: now everything is delivered."""
        self.faults, self.writing, self.mappings = 0.0, False, dict(BASE)
        for transaction in list(self.writers):
            self.end(transaction, well=True)
        if not self.sessions:
            self.sessions.append(Session(self))
        for other in self.sessions[1:]:
            other.leaving |= other.slots
        one = self.sessions[0]
        for _ in range(4000):
            self.configure()
            one.claim(set(range(64)))
            for session in self.sessions:
                session.step()
                session.land()
            self.advance(0.5)
            if not self.table.rows and not any(session.flying for session in self.sessions):
                break
        self.advance(outbox.LONGEST_PAUSE)
        for _ in range(20):
            self.sessions[0].step()
        gone = set(self.table.done) | set(self.table.dead) | self.deleted
        assert not self.table.rows, f"{len(self.table.rows)} are stuck: {list(self.table.rows.values())[:5]}"
        assert gone == self.committed
        assert len(self.table.done) == len(set(self.table.done))
        assert all(self.runs[id] for id in self.table.done)
        for session in self.sessions:
            for scan in session.engine._scans.values():
                assert not scan.known and not scan.out and not scan.busy and not scan.waiting
        assert self.sessions[0].engine.is_idle(self.clock)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that truncated looks and full memories are common."""
    monkeypatch.setattr(outbox, "LOADED", CAPACITY)
    monkeypatch.setattr(outbox, "KEPT_OF_A_KEY", 10)
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("faults", [0.0, 0.3, 0.9])
def test_any_history_ends_with_everything_delivered_in_order(seed: int, faults: float) -> None:
    random.seed(seed)
    world = World(seed)
    world.run(600, faults)
    world.finish()
