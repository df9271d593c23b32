"""The table awslambda.outbox and its writers, without Postgres: what sql/awslambda/60_delivery.sql does, row by row.

Transactions have an id before they draw ids of records, commit late or roll back; a look reads the sequence, the
running
transactions and the rows in this order, and others may get in between.
"""

from __future__ import annotations

import math
import random
import zlib
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

INFINITY = math.inf


@dataclass
class Row:
    mapping: int
    id: int
    key: str | None
    size: int
    enqueued_at: float
    due_at: float | None = None
    attempts: int = 0
    direct: tuple[str, str, str | None, str, bool] | None = None

    @property
    def hash(self) -> int | None:
        return None if self.key is None else zlib.crc32(self.key.encode())

    @property
    def slot(self) -> int:
        return (self.id * 7 if self.hash is None else self.hash) & 63


@dataclass
class Transaction:
    xid: int
    subtransactions: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def numbers(array: str) -> list[int]:
    return [int(number) for number in array.strip("{}").split(",") if number]


class Table:
    """Time is the database's."""

    def __init__(self, seed: int = 0, first_xid: int = 1000, now: float = 1e9) -> None:
        self.random = random.Random(seed)
        self.now = now
        self.last = 0
        self.next_xid = first_xid
        self.rows: dict[int, Row] = {}
        self.running: dict[int, Transaction] = {}
        self.waits: dict[tuple[int, str], list[int]] = defaultdict(list)  # by key: ids with due_at
        self.dead: dict[int, tuple[Row, str]] = {}
        self.done: list[int] = []
        self.back_off: Callable[[int], float] = lambda attempts: (
            self.random.random() * min(900.0, 2.0 ** min(attempts - 1, 20))
        )
        self.in_between: Callable[[], None] = lambda: None
        self.on_death: Callable[[Row, str, bool], None] = lambda row, reason, counted: None

    # Writers

    def begin(self) -> Transaction:
        transaction = Transaction(self._xid())
        self.running[transaction.xid] = transaction
        return transaction

    def savepoint(self, transaction: Transaction) -> None:
        transaction.subtransactions.append(self._xid())

    def insert(
        self, transaction: Transaction, mapping: int, key: str | None = None, *, size: int = 100, delay: float = 0.0,
        direct: tuple[str, str, str | None, str, bool] | None = None,
    ) -> int:  # fmt: skip
        self.last += 1
        due_at = self.now + delay if delay else None
        transaction.rows.append(Row(mapping, self.last, key, size, self.now, due_at, direct=direct))
        return self.last

    def commit(self, transaction: Transaction) -> list[int]:
        del self.running[transaction.xid]
        for row in transaction.rows:
            self.rows[row.id] = row
            if row.key is not None and row.due_at is not None:
                insort(self.waits[row.mapping, row.key], row.id)
        return [row.id for row in transaction.rows]

    def roll_back(self, transaction: Transaction) -> None:
        del self.running[transaction.xid]

    def add(self, mapping: int, *keys: str | None, **options: Any) -> list[int]:
        """Rows of one transaction, committed."""
        transaction = self.begin()
        for key in keys:
            self.insert(transaction, mapping, key, **options)
        return self.commit(transaction)

    def delete(self, id: int) -> Row | None:
        row = self.rows.pop(id, None)
        if row is not None and row.key is not None and row.due_at is not None:
            self.waits[row.mapping, row.key].remove(id)
        return row

    def _xid(self) -> int:
        self.next_xid += 1
        return self.next_xid

    # What a dispatcher asks for

    def look(self, slots: Iterable[int], mappings: list[int], floors: list[int], limits: list[int]) -> dict[str, Any]:
        held = set(slots)
        last = self.last
        self.in_between()
        xids = [xid for one in self.running.values() for xid in (one.xid, *one.subtransactions)]
        running = [xid & 0xFFFFFFFF for xid in xids]
        moment = self.now
        self.in_between()
        xmax = self.next_xid + 1
        while self.random.random() < 0.5 and xmax - 1 in self.running:
            xmax -= 1  # it is the one after the latest that has ended
        snapshot = (
            f"{min(self.running, default=xmax)}:{xmax}:{','.join(str(x) for x in sorted(self.running) if x < xmax)}"
        )
        rows = []
        for mapping, floor, limit in zip(mappings, floors, limits, strict=True):
            mine = [row for row in self.rows.values() if row.mapping == mapping and row.slot in held]
            ready = sorted((row for row in mine if row.due_at is None and row.id > floor), key=lambda row: row.id)
            due = sorted(
                (row for row in mine if row.due_at is not None and row.due_at <= moment),
                key=lambda row: (row.due_at, row.id),
            )
            rows += [(row, False, any(id < row.id for id in self._waits(row))) for row in ready[:limit]]
            rows += [
                (row, True, any(id < row.id and self._due(id) > self._due(row.id) for id in self._waits(row)))
                for row in due[:limit]
            ]
        records = [
            [row.mapping, row.id, row.hash, row.slot, row.size, row.attempts, row.enqueued_at, int(due), int(behind),
             row.direct and list(row.direct)]
            for row, due, behind in sorted(rows, key=lambda one: one[0].id)
        ]  # fmt: skip
        for row, _, behind in rows:
            if behind:
                self._set_due(row, INFINITY)
        for row, was_due, behind in rows:
            if behind and was_due:
                self._promote(row.mapping, [row.key])
        return {
            "last": last, "running": running, "snapshot": snapshot, "now": self.now, "flushed": True,
            "records": records,
        }  # fmt: skip

    def settle(self, settlement: dict[str, Any]) -> None:
        for one in settlement["done"]:
            self._promote(one["mapping"], self._delivered(one))
        for one in settlement["dead"]:
            self._promote(one["mapping"], self._buried(one))
        for one in settlement["retry"]:
            until = self.now + self.back_off(one["attempts"])
            for row in self._existing(one):
                self._set_due(row, until)
                row.attempts += one["counted"]
        for one in settlement["behind"]:
            for row in self._existing(one):
                self._set_due(row, INFINITY)

    def promote_behind(self, slots: Iterable[int]) -> None:
        """What _claim does for the slots that it got."""
        held = set(slots)
        for mapping, key in [at for at, ids in self.waits.items() if ids and self.rows[ids[0]].slot in held]:
            self._promote(mapping, [key])

    def _existing(self, one: dict[str, Any]) -> list[Row]:
        return [self.rows[id] for id in numbers(one["ids"]) if id in self.rows]

    def _delivered(self, one: dict[str, Any]) -> list[str | None]:
        rows = self._existing(one)
        for row in rows:
            self.delete(row.id)
            self.done.append(row.id)
        return [row.key for row in rows]

    def _buried(self, one: dict[str, Any]) -> list[str | None]:
        rows = self._existing(one)
        for row in rows:
            self.delete(row.id)
            self.on_death(row, one["reason"], one["counted"])
            self.dead[row.id] = row, one["reason"]
        return [row.key for row in rows]

    def _promote(self, mapping: int, keys: Iterable[str | None]) -> None:
        for key in {key for key in keys if key is not None}:
            ids = self.waits[mapping, key]
            if all(self._due(id) == INFINITY for id in ids):
                for id in ids[:200]:
                    self.rows[id].due_at = self.now

    def _waits(self, row: Row) -> list[int]:
        return [] if row.key is None else self.waits[row.mapping, row.key]

    def _due(self, id: int) -> float:
        due_at = self.rows[id].due_at
        assert due_at is not None
        return due_at

    def _set_due(self, row: Row, due_at: float) -> None:
        if row.key is not None and row.due_at is None:
            insort(self.waits[row.mapping, row.key], row.id)
        row.due_at = due_at
