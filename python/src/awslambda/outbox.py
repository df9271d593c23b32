"""Delivery, without input or output: what to look at, what to send, and what becomes of it.

The two runners (the process `awslambda dispatch` and CALL awslambda.dispatch) do what this decides. It is told what a
look at the outbox found and how each batch ended; it promises, for the slots that the session holds:

- a record leaves the outbox only when it was delivered, or as a dead letter;
- no two batches with records of one key are out at once, and records of a key go out in the order of their ids;
- a record that fails waits in the table, and so does what is behind it in its key: other keys go on.

Times are seconds; those of records are the database's, all others come from one monotonic clock.
"""

from __future__ import annotations

import random
from bisect import bisect, insort
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter, itemgetter
from typing import Any

DIRECT = 0  # the mapping of records that are messages to a function
LARGEST_BATCH = {"RequestResponse": 6_000_000, "Event": 1_000_000}  # bytes
ADDED = {
    "postgresql": (1.0, 160),
    "sqs": (1.25, 900),
    "kinesis": (1.34, 800),
}  # a record in a batch: factor and bytes more
LOADED = 1000  # records of a mapping that are known at once, at least; two rounds of batches, but no more than 20,000
BACK_OFF, LONGEST_BACK_OFF = 0.2, 60.0  # upper bounds of the jitter after a throttled or unreached call
PAUSE, LONGEST_PAUSE = 15.0, 900.0  # until a paused mapping is tried again
KEPT_OF_A_KEY = 200  # records of a key that stay in memory, at least, when memory is short
MOST_PAGES = 32  # times that, where nearly all of it goes behind a record that waits
FULL_LOOK = 10.0  # then a look begins at 0, whatever the floors say; later if such a look takes long


class Outcome(Enum):
    """How sending a batch ended."""

    DELIVERED = "delivered"  # or partly: see Result.failed
    FAILED = "failed"  # the function failed
    LOST = "lost"  # it may have run: counts as an attempt too
    REJECTED = "rejected"  # too large or malformed: less of it may do
    THROTTLED = "throttled"  # did not run
    UNREACHED = "unreached"  # did not run, or AWS failed
    HALTED = "halted"  # needs a person: no such function, not allowed
    UNSENT = "unsent"  # given up before it was sent


@dataclass(frozen=True)
class Result:
    """What came of a batch. `failed` are positions in it (function_response_types ReportBatchItemFailures)."""

    outcome: Outcome
    error: str = ""
    reason: str = "InvalidRecord"  # of a dead letter, if it is rejected
    failed: frozenset[int] = frozenset()
    payload: str | None = None


@dataclass(frozen=True)
class Mapping:
    """Where records go and how; of direct messages, one for each function, server and role."""

    id: int
    name: str
    function_name: str
    role: str
    version: str = ""  # another one with each update_event_source_mapping, which thus ends a pause
    server: str | None = None
    enabled: bool = True
    event_format: str = "postgresql"
    invocation_type: str = "RequestResponse"
    batch_size: int = 1
    window: float = 0.0
    parallelization_factor: int = 1000
    maximum_retry_attempts: int = 20
    maximum_record_age: float | None = 3 * 86400.0
    bisect: bool = True
    report_failures: bool = False
    on_failure: str | None = None
    keep_results: bool = False


@dataclass(frozen=True)
class Record:
    """A row of the outbox, without its payload. `key` is a hash: keys that share one wait for each other."""

    mapping: int
    id: int
    key: int | None
    slot: int
    size: int
    attempts: int
    enqueued_at: float


@dataclass
class Batch:
    """Records that go out together; `rest` waits for it, in pieces, since it failed as a whole."""

    route: Route
    records: list[Record]
    rest: list[list[Record]] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [record.id for record in self.records]

    @property
    def size(self) -> int:
        return sum(record.size for record in self.records)


@dataclass(frozen=True)
class Death:
    """Records that end as dead letters; `counted` if the last try was an attempt."""

    route: Route
    records: tuple[Record, ...]
    reason: str
    error: str
    counted: bool


@dataclass
class Settlement:
    """What awslambda._settle is to write, all in one transaction."""

    done: dict[int, list[int]] = field(default_factory=dict)
    behind: dict[int, list[int]] = field(default_factory=dict)
    retry: list[dict[str, Any]] = field(default_factory=list)
    dead: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.done or self.behind or self.retry or self.dead)

    def as_json(self) -> dict[str, Any]:
        """Its form in SQL."""
        return {
            "done": [{"mapping": mapping, "ids": sql_array(ids)} for mapping, ids in self.done.items()],
            "behind": [{"mapping": mapping, "ids": sql_array(ids)} for mapping, ids in self.behind.items()],
            "retry": self.retry,
            "dead": self.dead,
            "results": self.results,
        }


def sql_array(values: Iterable[int]) -> str:
    """An array as Postgres reads it."""
    return "{" + ",".join(map(str, values)) + "}"


class Snapshot:
    """Which transactions had ended, of pg_current_snapshot()'s text; transaction ids are compared by 32 bits."""

    def __init__(self, text: str) -> None:
        _, xmax, running = text.split(":")
        self._xmax = int(xmax)
        self._running = {int(xid) & 0xFFFFFFFF for xid in running.split(",") if xid}

    def has_ended(self, xid: int) -> bool:
        return (xid - self._xmax) & 0x80000000 != 0 and xid not in self._running


class Floor:
    """Where a look at the ready records of a mapping may begin: ids up to there have been seen.

    Rows that are gone leave index entries, which a long transaction anywhere keeps for as long as it runs: a look from
    the beginning would walk over all of them. But ids are drawn before commit: a record may appear far below the last
    one. So with each id that was reached goes the set of transactions that were running: they may have drawn smaller
    ones. A look from a mark is good while all of its transactions still run; when one has ended, a look from a lower
    mark has to see what it left, after which it is struck from all marks above.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[int, frozenset[int]]] = [(0, frozenset())]
        self._running: frozenset[int] = frozenset()  # at the last look
        self._lasting: frozenset[int] = frozenset()  # and at the one before

    def start(self) -> int:
        """The id above which the next look begins: the highest mark that is likely to hold."""
        return next(id for id, running in reversed(self._marks) if running <= self._lasting)

    def looked(self, start: int, snapshot: Snapshot, running: Collection[int], reached: int, whole: bool) -> bool:
        """Takes in a look from `start` that saw all up to `reached`, and, if `whole`, all there was.

        `running` was asked before the look's own `snapshot`. False if the look was not good: what it found must not be
        used, and the next one begins lower.
        """
        still = frozenset(xid for xid in running if not snapshot.has_ended(xid))
        self._running, self._lasting = still, self._running & still
        if any(snapshot.has_ended(xid) for id, before in self._marks if id == start for xid in before):
            return False
        marks = [mark for mark in self._marks if mark[0] <= start]
        for id, before in self._marks[len(marks) :]:
            seen = whole or id <= reached
            marks.append((id, frozenset(x for x in before if not snapshot.has_ended(x)) if seen else before))
        if all(id != reached for id, _ in marks) and reached > start:
            insort(marks, (reached, still), key=itemgetter(0))
        self._marks = _needed(marks)
        return True


def _needed(marks: list[tuple[int, frozenset[int]]]) -> list[tuple[int, frozenset[int]]]:
    """Without those that a higher one makes superfluous, as it holds whenever they do."""
    kept: list[tuple[int, frozenset[int]]] = []
    for mark in reversed(marks):
        if not any(running <= mark[1] for _, running in kept):
            kept.append(mark)
    return kept[::-1]


@dataclass
class Scan:
    """What is known of the records of one mapping."""

    floor: Floor = field(default_factory=Floor)
    known: dict[int, Record] = field(default_factory=dict)  # all that were loaded and are not settled
    waiting: dict[int, list[int]] = field(default_factory=dict)  # by key: ids that are not out, in order
    out: set[int] = field(default_factory=set)  # ids that were sent and are not settled
    busy: Counter[int] = field(default_factory=Counter)  # how many of them, by key
    full_look_at: float = 0.0
    start: int = 0  # of the look that is under way
    limit: int = 0
    room: int = 0  # for so many more
    pages: int = 1  # times which a look may find, to put it aside
    exhausted: bool = False  # the last look found nothing that was not known

    def take(self, record: Record) -> None:
        """The record goes out: its key is busy from now on."""
        self.out.add(record.id)
        if record.key is not None:
            self.no_longer_waiting(record)
            self.busy[record.key] += 1

    def no_longer_waiting(self, record: Record) -> None:
        """Out of the order of its key."""
        if record.key is not None:
            waiting = self.waiting[record.key]
            waiting.remove(record.id)
            if not waiting:
                del self.waiting[record.key]

    def free(self, record: Record) -> None:
        """The record is not out any more; its key is not, if none of it is."""
        self.out.discard(record.id)
        if record.key is not None:
            self.busy[record.key] -= 1
            if not self.busy[record.key]:
                del self.busy[record.key]


def _fresh(scan: Scan, rows: list[list[Any]]) -> list[list[Any]]:
    """Rows of a look that are not known yet, and can go. A due record must not overtake one of its key that was ready
    until this look put it behind."""
    behind: dict[int, int] = {}  # by key, the first
    for row in reversed(rows):
        if row[8]:
            behind[row[2]] = row[1]
    return [
        row for row in rows
        if row[1] not in scan.known and (row[2] is None or row[1] < behind.get(row[2], row[1] + 1))
    ]  # fmt: skip


class Route:
    """Where batches go: one mapping, or direct messages to one function; and how fast."""

    def __init__(self, mapping: Mapping, scan: Scan) -> None:
        self.mapping = mapping
        self.scan = scan
        self.queue: list[Record] = []
        self.out = 0  # batches
        self.limit = float(mapping.parallelization_factor)
        self.resume_at = 0.0  # nothing goes out before
        self.refusal = ""  # why, the last time
        self.failures = 0  # throttled, unreached or halted, one after the other
        self.paused_reason: str | None = None
        self.delivered = self.failed = self.dead = 0  # since they were last written
        self.error: str | None = None
        self.is_reported = True

    def is_open(self, now: float) -> bool:
        return self.mapping.enabled and now >= self.resume_at and self.out < max(1, int(self.limit))

    @property
    def is_superfluous(self) -> bool:
        """Of a route whose mapping is gone, or of direct messages: nothing is known that would have to be kept."""
        return self.mapping.id != DIRECT or (not (self.queue or self.out or self.failures) and self.is_reported)

    def put(self, record: Record) -> None:
        insort(self.queue, record, key=attrgetter("id"))
        if record.key is not None:
            insort(self.scan.waiting.setdefault(record.key, []), record.id)


@dataclass(frozen=True)
class Look:
    """Arguments of awslambda._look."""

    mappings: list[int]
    floors: list[int]
    limits: list[int]


class Outbox:
    """The state of one session's delivery."""

    def __init__(self) -> None:
        self._scans: dict[int, Scan] = {}
        self._routes: dict[object, Route] = {}
        self._turn: deque[object] = deque()  # of routes: who is next
        self._pieces: deque[Batch] = deque()
        self._delivered: list[tuple[Route, list[Record], Result]] = []
        self._retries: list[tuple[Route, list[Record], bool, str]] = []
        self._deaths: list[Death] = []
        self._died: list[tuple[Death, str | None]] = []
        self._skew = 0.0  # the database's clock minus ours
        self.counters: Counter[str] = Counter()

    # What the database says

    def configure(self, mappings: Iterable[Mapping], paused: dict[int, tuple[str, float]], now: float) -> None:
        """Takes in the mappings as they are now. A mapping that has changed is not paused any more."""
        current = {mapping.id: mapping for mapping in mappings}
        self._scans.setdefault(DIRECT, Scan())
        for key in [key for key, route in self._routes.items() if key not in current and route.is_superfluous]:
            del self._routes[key]
            self._turn.remove(key)
        for id in [id for id in self._scans if id != DIRECT and id not in current]:
            del self._scans[id]
        for id, mapping in current.items():
            route = self._routes.get(id)
            if route is None:
                route = self._route(id, mapping, self._scans.setdefault(id, Scan()))
                if id in paused:
                    route.paused_reason, seconds = paused[id]
                    route.resume_at = now + seconds
            elif route.mapping != mapping:
                route.mapping, route.limit = mapping, float(mapping.parallelization_factor)
                self._resume(route)
                route.resume_at = 0.0

    def slots_changed(self) -> None:
        """The session has got other slots: what is below a floor may be new to it."""
        for scan in self._scans.values():
            scan.floor = Floor()

    def leave(self, slots: Collection[int]) -> set[int]:
        """Forgets what has not gone out of slots to be given back; those of which nothing is known any more."""
        held: set[int] = set()
        for scan in self._scans.values() if slots else ():
            for record in [record for record in scan.known.values() if record.slot in slots]:
                if record.id in scan.out:
                    held.add(record.slot)
                else:
                    del scan.known[record.id]
                    scan.no_longer_waiting(record)
        return set(slots) - held

    def look(self, now: float) -> Look:
        """Where to look next: at mappings that could send more than is known."""
        look = Look([], [], [])
        for id, scan in self._scans.items():
            route = self._routes.get(id)
            room = self._capacity(route) - len(scan.known)
            if room * 2 < self._capacity(route) or (route is not None and not self._may_send(route, now)):
                continue
            scan.start = scan.floor.start() if now < scan.full_look_at else 0
            scan.room, scan.limit = room, len(scan.known) + room * scan.pages
            for values, value in zip(
                (look.mappings, look.floors, look.limits), (id, scan.start, scan.limit), strict=True
            ):
                values.append(value)
        return look

    def looked(self, look: Look, answer: dict[str, Any], now: float, took: float = 0.0) -> int:
        """Takes in what a look, which took so long, found; how many records are new."""
        self._skew = answer["now"] - now
        snapshot = Snapshot(answer["snapshot"])
        found: dict[int, list[list[Any]]] = {id: [] for id in look.mappings}
        for row in answer["records"]:
            found[row[0]].append(row)
        new = 0
        for id, rows in found.items():
            scan = self._scans[id]
            ready = [row[1] for row in rows if not row[7]]
            whole = len(ready) < scan.limit
            reached = answer["last"] if whole else min(ready[-1], answer["last"])
            fresh = _fresh(scan, rows)
            if len(fresh) > scan.room:
                del fresh[scan.room :]
                reached, whole = min(reached, fresh[-1][1]), False
            if not scan.floor.looked(scan.start, snapshot, answer["running"], reached, whole):
                scan.exhausted = False
                continue
            # Above what the look reached there may be ready records of the same key, which come before a due one.
            fresh = [row for row in fresh if row[2] is None or whole or row[1] <= reached]
            for row in fresh:
                self._load(scan, row)
            behind = sum(row[8] for row in rows)
            scan.exhausted = whole and not fresh and not behind
            # Many that wait behind one have been in the way of others: the more of them are put aside at once.
            scan.pages = min(4 * scan.pages, MOST_PAGES) if behind * 2 > len(rows) else 1
            if scan.start == 0:
                scan.full_look_at = now + max(FULL_LOOK, 20 * took)
            new += len(fresh)
        for route in self._routes.values():
            if route.mapping.id == DIRECT and route.queue and not self._may_send(route, now):
                self._set_aside(route, [])
        return new

    def _load(self, scan: Scan, row: list[Any]) -> None:
        id, number, key, slot, size, attempts, enqueued_at, _, _, direct = row
        record = Record(id, number, key, slot, size, attempts, enqueued_at)
        scan.known[number] = record
        if direct is None:
            self._routes[id].put(record)
            return
        function, invocation_type, server, role, keep = direct
        at = (function, invocation_type, server, role, keep)
        if at not in self._routes:
            mapping = Mapping(
                DIRECT,
                function,
                function,
                role,
                server,
                invocation_type=invocation_type,
                keep_results=keep,
                bisect=False,
            )
            self._route(at, mapping, scan)
        self._routes[at].put(record)

    def _route(self, key: object, mapping: Mapping, scan: Scan) -> Route:
        self._routes[key] = Route(mapping, scan)
        self._turn.append(key)
        return self._routes[key]

    # What to send

    def batches(self, now: float, room: int) -> Iterator[Batch]:
        """At most `room` batches that may go out now; mappings take turns."""
        while room > 0 and self._pieces:
            room -= 1
            yield self._pieces.popleft()
        idle = 0
        while room > 0 and idle < len(self._turn):
            key = self._turn[0]
            self._turn.rotate(-1)
            batch = self._batch(self._routes[key], now)
            if batch is None:
                idle += 1
                continue
            idle = 0
            room -= 1
            yield batch

    def _batch(self, route: Route, now: float) -> Batch | None:
        if not route.queue or not route.is_open(now):
            return None
        mapping, scan = route.mapping, route.scan
        if mapping.window and len(route.queue) < mapping.batch_size:
            oldest = min(record.enqueued_at for record in route.queue)
            if now + self._skew - oldest < mapping.window:
                return None
        picked: list[Record] = []
        keys: set[int] = set()
        skipped: list[Record] = []
        size = 0.0
        factor, added = ADDED[mapping.event_format]
        largest = LARGEST_BATCH[mapping.invocation_type]
        rest: list[Record] = []
        for at, record in enumerate(route.queue):
            if self._passes_over(route, record, now):
                continue
            if record.key is not None and (
                (record.key in scan.busy and record.key not in keys) or scan.waiting[record.key][0] != record.id
            ):
                skipped.append(record)
                continue
            weight = factor * record.size + added
            if picked and (size + weight > largest or len(picked) == mapping.batch_size):
                rest = route.queue[at:]
                break
            scan.take(record)
            if record.key is not None:
                keys.add(record.key)
            picked.append(record)
            size += weight
        route.queue = skipped + rest
        if not picked:
            return None
        route.out += 1
        return Batch(route, picked)

    def _passes_over(self, route: Route, record: Record, now: float) -> bool:
        """A record that is not there any more, since it went behind another one; or one that is too old to go."""
        if route.scan.known.get(record.id) is not record:
            return True
        if self._is_too_old(route, record, now):
            route.scan.take(record)
            self._die(route, [record], "RecordAgeExceeded", "older than maximum_record_age", counted=False)
            return True
        return False

    def _is_too_old(self, route: Route, record: Record, now: float) -> bool:
        age = route.mapping.maximum_record_age
        return age is not None and now + self._skew - record.enqueued_at > age

    # What became of it

    def finished(self, batch: Batch, result: Result, now: float) -> None:
        """Takes in how a batch ended."""
        route, outcome = batch.route, result.outcome
        if outcome is Outcome.DELIVERED:
            self._resume(route)
            route.is_reported = False
            failed = [record for at, record in enumerate(batch.records) if at in result.failed]
            self._delivered.append(
                (route, [r for at, r in enumerate(batch.records) if at not in result.failed], result)
            )
            if failed:
                self._fail(route, failed, result.error)
        elif outcome in (Outcome.FAILED, Outcome.LOST, Outcome.REJECTED):
            self._resume(route)
            may_split = outcome is Outcome.REJECTED or (outcome is Outcome.FAILED and route.mapping.bisect)
            if len(batch.records) > 1 and may_split:
                half = len(batch.records) // 2
                batch.rest[:0] = [batch.records[:half], batch.records[half:]]
                self._note(route, result.error)
            elif outcome is Outcome.REJECTED:
                self._die(route, batch.records, result.reason, result.error, counted=True)
            else:
                self._fail(route, batch.records, result.error)
        else:
            self._return(batch, result, now)
        self._next_piece(batch)

    def _next_piece(self, batch: Batch) -> None:
        """What of a batch that failed as a whole is still to go out, without keys of which a record has failed."""
        route = batch.route
        failed = {
            record.key for other, records, _, _ in self._retries if other.scan is route.scan for record in records
        }
        for piece in batch.rest:  # all, and now: they go behind the failed one in the settlement that writes of it
            for record in piece:
                if record.key is not None and record.key in failed:
                    self._release(route, record)
            piece[:] = [record for record in piece if record.key is None or record.key not in failed]
        while batch.rest:
            piece = batch.rest.pop(0)
            if piece:
                self._pieces.append(Batch(route, piece, batch.rest))
                return
        route.out -= 1

    def _return(self, batch: Batch, result: Result, now: float) -> None:
        """Nothing ran: back to what waits, and slower."""
        route = batch.route
        records = [record for piece in (batch.records, *batch.rest) for record in piece]
        batch.rest = []
        if result.outcome is not Outcome.UNSENT:
            self._slow_down(route, result, now)
            if route.mapping.id == DIRECT:
                self._set_aside(route, records)
                return
        for record in records:
            self._release(route, record)

    def _set_aside(self, route: Route, records: list[Record]) -> None:
        """What one function cannot take waits in the table, and leaves room for messages to others."""
        queued = [record for record in route.queue if route.scan.known.get(record.id) is record]
        for record in queued:
            route.scan.take(record)
        route.queue = []
        self._retries.append((route, records + queued, False, route.refusal))

    def _slow_down(self, route: Route, result: Result, now: float) -> None:
        self._note(route, result.error)
        route.refusal = result.error
        if now < route.resume_at:
            return  # another batch, which was out at the same time, has said so
        route.failures += 1
        if result.outcome is Outcome.THROTTLED:
            route.limit = max(1.0, route.limit / 2)
        first, longest = (PAUSE, LONGEST_PAUSE) if result.outcome is Outcome.HALTED else (BACK_OFF, LONGEST_BACK_OFF)
        upper = min(longest, first * 2 ** min(route.failures - 1, 30))
        if result.outcome is Outcome.HALTED:
            route.paused_reason = result.error
            route.resume_at = now + upper
        else:
            route.resume_at = now + random.uniform(0, upper)  # noqa: S311 - no secret

    def _resume(self, route: Route) -> None:
        """It works, or works again."""
        if route.paused_reason is not None:
            route.paused_reason, route.is_reported = None, False
        route.failures = 0
        route.limit = min(route.limit + 1 / max(route.limit, 1.0), float(route.mapping.parallelization_factor))

    def _fail(self, route: Route, records: list[Record], error: str) -> None:
        """An attempt of each that did not succeed."""
        most = route.mapping.maximum_retry_attempts
        spent = [record for record in records if 0 <= most <= record.attempts]
        if spent:
            self._die(route, spent, "RetryAttemptsExhausted", error, counted=True)
        again = [record for record in records if record not in spent]
        if again:
            self._retries.append((route, again, True, error))
        route.failed += len(records)
        self.counters["failed"] += len(records)
        self._note(route, error)

    def _die(self, route: Route, records: list[Record], reason: str, error: str, counted: bool) -> None:
        self._deaths.append(Death(route, tuple(records), reason, error, counted))
        self._note(route, error)

    def _note(self, route: Route, error: str) -> None:
        route.error, route.is_reported = error, False

    def _release(self, route: Route, record: Record) -> None:
        """Back among what waits."""
        route.scan.free(record)
        route.put(record)

    # What to write

    def deaths(self) -> list[Death]:
        """Records that are to end as dead letters; each comes back through `died`."""
        deaths, self._deaths = self._deaths, []
        return deaths

    def died(self, death: Death, destination_error: str | None) -> None:
        """The destination for failures was told, or could not be."""
        self._died.append((death, destination_error))

    def vanished(self, batch: Batch, existing: Collection[int]) -> None:
        """Records of the batch are not in the table any more: somebody deleted them."""
        gone = [record for record in batch.records if record.id not in existing]
        batch.records = [record for record in batch.records if record.id in existing]
        self._forget(batch.route, gone)
        if not batch.records:
            self._next_piece(batch)

    def settlement(self) -> Settlement:
        """What is to be written now; then its records are forgotten. A session in which writing fails is lost."""
        settlement = Settlement()
        for route, records, result in self._delivered:
            ids = self._forget(route, records)
            settlement.done.setdefault(route.mapping.id, []).extend(ids)
            if route.mapping.keep_results:
                settlement.results.append(
                    {"mapping": route.mapping.id, "ids": sql_array(ids), "payload": result.payload}
                )
            route.delivered += len(ids)
            self.counters["delivered"] += len(ids)
            route.is_reported = False
        for death, destination_error in self._died:
            ids = self._forget(death.route, death.records)
            settlement.dead.append({
                "mapping": death.route.mapping.id, "ids": sql_array(ids), "counted": death.counted,
                "reason": death.reason, "error": death.error, "destination_error": destination_error,
            })  # fmt: skip
            death.route.dead += len(ids)
            self.counters["dead"] += len(ids)
            death.route.is_reported = False
        for route, records, counted, error in self._retries:
            ids = self._forget(route, records)
            settlement.retry.append({
                "mapping": route.mapping.id, "ids": sql_array(ids), "counted": counted, "error": error,
                "attempts": max(record.attempts for record in records) + 1 if counted else route.failures,
            })  # fmt: skip
            first: dict[int, int] = {}  # by key
            for record in records:
                if record.key is not None:
                    first[record.key] = min(record.id, first.get(record.key, record.id))
            for key, id in first.items():
                self._put_behind(
                    route.mapping.id, route.scan, key, bisect(route.scan.waiting.get(key, []), id), settlement
                )
        self._delivered, self._died, self._retries = [], [], []
        for id, scan in self._scans.items():
            self._make_room(id, scan, settlement)
        return settlement

    def _make_room(self, id: int, scan: Scan, settlement: Settlement) -> None:
        """Where many records of few keys fill the memory, most of them wait in the table, for others to be seen."""
        if len(scan.known) * 4 < self._capacity(self._routes.get(id)) * 3:
            return
        most = max(KEPT_OF_A_KEY, self._capacity(self._routes.get(id)) // 10)
        for key in list(scan.waiting):
            self._put_behind(id, scan, key, most, settlement)

    @staticmethod
    def _put_behind(id: int, scan: Scan, key: int, kept: int, settlement: Settlement) -> None:
        """What waits in a key, but for the first so many, is to wait in the table."""
        ids = scan.waiting.get(key, [])
        behind = ids[kept:]
        if not behind:
            return
        settlement.behind.setdefault(id, []).extend(behind)
        for number in behind:
            del scan.known[number]
        del ids[kept:]
        if not ids:
            del scan.waiting[key]

    def report(self, now: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows for awslambda._state, where there is news, and for awslambda._sending."""
        state: dict[int, dict[str, Any]] = {}
        sending: Counter[int] = Counter()
        for route in self._routes.values():
            sending[route.mapping.id] += route.out
            if route.is_reported:
                continue
            row = state.setdefault(route.mapping.id, {
                "mapping": route.mapping.id, "delivered": 0, "failed": 0, "dead": 0, "error": None,
                "paused_reason": None, "paused_for": None,
            })  # fmt: skip
            row["delivered"] += route.delivered
            row["failed"] += route.failed
            row["dead"] += route.dead
            row["error"] = route.error or row["error"]
            if route.mapping.id != DIRECT and route.paused_reason is not None:
                row["paused_reason"], row["paused_for"] = route.paused_reason, max(0.0, route.resume_at - now)
            route.delivered = route.failed = route.dead = 0
            route.error, route.is_reported = None, True
        return list(state.values()), [{"mapping": id, "batches": out} for id, out in sending.items() if out]

    def is_idle(self, now: float) -> bool:
        """Nothing is out, nothing is left to settle, and nothing was found that could go out now."""
        return (
            not (self._pieces or self._delivered or self._retries or self._deaths or self._died)
            and all(
                not route.out and not (route.queue and self._may_send(route, now)) for route in self._routes.values()
            )
            and all(
                scan.exhausted
                for id, scan in self._scans.items()
                if id not in self._routes or self._may_send(self._routes[id], now)
            )
        )

    @staticmethod
    def _may_send(route: Route, now: float) -> bool:
        return route.mapping.enabled and now >= route.resume_at

    @staticmethod
    def _capacity(route: Route | None) -> int:
        """Records of a mapping that are known at once."""
        if route is None:
            return LOADED
        mapping = route.mapping
        return max(
            LOADED, mapping.batch_size, min(2 * mapping.batch_size * mapping.parallelization_factor, 20 * LOADED)
        )

    def _forget(self, route: Route, records: Iterable[Record]) -> list[int]:
        for record in records:
            route.scan.known.pop(record.id, None)
            route.scan.free(record)
        return [record.id for record in records]
