"""Judges a run: from what writers committed and what functions saw, every way in which delivery broke its promise.

A pure function over values; all times are seconds of one monotonic clock. What it demands:

- every committed record was acknowledged at least once, or died with a cause that the function really gave;
- nothing was seen that did not commit, nothing that nobody wrote;
- a record keeps its message id, sequence, key and operation over all deliveries, and its attempts are failures it had;
- a record is sent only when all before it in its key are done (acknowledged, dead, or before it in the same batch);
- batches of one key do not overlap, and nothing acknowledged comes again, unless a fault explains just that;
- the changes of a key, in order of sequence, follow from each other and end in what the table holds.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

OK, FUNCTION_ERROR, THROTTLE, FAILED, CUT, GONE = "ok", "function error", "throttle", "failed", "cut", "gone"

# How long after a fault its victim may not know: it pings every 3 s, and one answer may be on its way.
GRACE = {"kill": 0.0, "cancel": 1.0}
LONGEST_GRACE = 6.0


@dataclass(frozen=True)
class Record:
    """What a writer meant to be delivered. `turn`: its place among the direct messages of its key."""

    token: str
    function: str
    operation: str | None = None  # None: a direct message
    key: str | None = None
    turn: int | None = None


@dataclass(frozen=True)
class Sight:
    """One record in one invocation. `old` and `new` are the tokens of the row before and after."""

    token: str
    message_id: str | None = None
    sequence: int | None = None
    attempt: int | None = None
    key: str | None = None
    operation: str | None = None
    old: str | None = None
    new: str | None = None
    failed: bool = False  # named in batchItemFailures


@dataclass(frozen=True)
class Invocation:
    """`end` is when the answer was sent, or the connection went; infinity if neither."""

    client: str  # who called
    function: str
    start: float
    end: float
    outcome: str
    sights: Sequence[Sight]


@dataclass(frozen=True)
class Fault:
    """What was done to a dispatcher (`client`), or to all (None)."""

    kind: str
    start: float
    end: float
    client: str | None = None


@dataclass(frozen=True)
class Dead:
    """A row of awslambda.dead_letter."""

    token: str
    reason: str
    attempts: int


@dataclass(frozen=True)
class History:
    """All that is known of a run after it was drained."""

    committed: Mapping[str, Record]
    aborted: Collection[str]
    invocations: Sequence[Invocation]  # in order of arrival
    faults: Sequence[Fault] = ()
    pending: Collection[str] = ()  # tokens that are still in the outbox
    dead: Sequence[Dead] = ()
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # function -> key -> token of the row
    retries: Mapping[str, int] = field(default_factory=dict)  # function -> maximum_retry_attempts


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, and by what."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    violations: Sequence[Violation]
    counts: Mapping[str, int]

    def kinds(self) -> Counter[str]:
        """How many violations there are of each kind."""
        return Counter(violation.kind for violation in self.violations)


def check(history: History) -> Report:
    """All violations, and what was counted on the way."""
    return _Check(history).run()


@dataclass(frozen=True)
class _Seen:
    invocation: Invocation
    position: int
    sight: Sight

    @property
    def acknowledged(self) -> bool:
        return self.invocation.outcome == OK and not self.sight.failed

    @property
    def counts_as_failure(self) -> bool:
        return not self.acknowledged and self.invocation.outcome != THROTTLE


class _Check:
    def __init__(self, history: History) -> None:
        self.history = history
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.dead = {dead.token: dead for dead in history.dead}
        self.seen: dict[str, list[_Seen]] = defaultdict(list)
        for invocation in history.invocations:
            for position, sight in enumerate(invocation.sights):
                self.seen[sight.token].append(_Seen(invocation, position, sight))
        self.faults: dict[str | None, list[tuple[float, float]]] = defaultdict(list)
        for fault in history.faults:
            self.faults[fault.client].append((fault.start, fault.end + GRACE.get(fault.kind, LONGEST_GRACE)))

    def run(self) -> Report:
        self.nothing_invented()
        self.all_delivered()
        self.dead_for_a_cause()
        self.same_record_each_time()
        self.repeats_explained()
        self.keys_in_order()
        self.one_batch_of_a_key_at_a_time()
        self.changes_follow()
        history = self.history
        self.counts.update(
            {
                "committed": len(history.committed),
                "aborted": len(history.aborted),
                "invocations": len(history.invocations),
                "sights": sum(len(invocation.sights) for invocation in history.invocations),
                "seen": len(self.seen),
                "acknowledged": sum(any(s.acknowledged for s in seen) for seen in self.seen.values()),
                "dead": len(self.dead),
                "pending": len(history.pending),
                "faults": len(history.faults),
            }
        )
        return Report(self.violations, self.counts)

    def found(self, kind: str, detail: str) -> None:
        self.violations.append(Violation(kind, detail))

    def excused(self, clients: Iterable[str], start: float, end: float) -> bool:
        """Whether a fault of one of the clients, or of all, falls between."""
        return any(
            first <= end and last >= start for client in (*clients, None) for first, last in self.faults.get(client, ())
        )

    # --- one record

    def nothing_invented(self) -> None:
        for token in {*self.seen, *self.dead, *self.history.pending}:
            if token in self.history.committed:
                continue
            where = (
                _told(self.seen[token][0].invocation) if token in self.seen
                else "a dead letter" if token in self.dead else "in the outbox"
            )  # fmt: skip
            self.found("ghost" if token in self.history.aborted else "invented", f"{token} never committed: {where}")

    def all_delivered(self) -> None:
        pending = set(self.history.pending)
        for token, record in self.history.committed.items():
            if token in self.dead or any(seen.acknowledged for seen in self.seen.get(token, ())):
                continue
            times = len(self.seen.get(token, ()))
            what = f"{token} of {record.function}, key {record.key}, seen {times} times, never acknowledged"
            if token in pending:
                self.found("stuck", f"{what}; it is still in the outbox")
            else:
                self.found("lost", f"{what}; it is gone")

    def dead_for_a_cause(self) -> None:
        for token, dead in self.dead.items():
            record = self.history.committed.get(token)
            if record is None:
                continue
            failures = sum(seen.counts_as_failure for seen in self.seen.get(token, ()))
            allowed = self.history.retries.get(record.function, math.inf)
            if dead.reason != "RetryAttemptsExhausted" or dead.attempts <= allowed or failures < dead.attempts:
                self.found(
                    "dead without cause",
                    f"{token} of {record.function}: {dead.reason} after {dead.attempts} attempts of {allowed} + 1; "
                    f"the function failed it {failures} times",
                )

    def same_record_each_time(self) -> None:
        owners: dict[str, str] = {}
        for token, all_seen in self.seen.items():
            record = self.history.committed.get(token)
            if record is None:
                continue
            failures = 0
            first = all_seen[0].sight
            for seen in all_seen:
                sight = seen.sight
                if (sight.message_id, sight.sequence) != (first.message_id, first.sequence):
                    self.found(
                        "changed identity",
                        f"{token} came as {first.message_id}/{first.sequence} and {sight.message_id}/{sight.sequence}",
                    )
                if seen.invocation.function != record.function:
                    self.found("misdelivered", f"{token} of {record.function} went to {seen.invocation.function}")
                if record.operation is not None and (sight.operation, sight.key) != (record.operation, record.key):
                    self.found(
                        "misdelivered",
                        f"{token}: {record.operation} of {record.key} came as {sight.operation} of {sight.key}",
                    )
                if sight.attempt is not None and not 1 <= sight.attempt <= 1 + failures:
                    self.found("burnt attempt", f"{token}: attempt {sight.attempt} after {failures} failures")
                failures += seen.counts_as_failure
            if first.message_id is not None and owners.setdefault(first.message_id, token) != token:
                self.found("changed identity", f"{first.message_id} is {owners[first.message_id]} and {token}")

    def repeats_explained(self) -> None:
        for token, all_seen in self.seen.items():
            acknowledged: _Seen | None = None
            for seen in all_seen:
                if acknowledged is not None:
                    self.counts["duplicates"] += 1
                    before, now = acknowledged.invocation, seen.invocation
                    if not self.excused({before.client, now.client}, before.start, now.start):
                        self.found("repeated", f"{token}: {_told(before)}; again: {_told(now)}")
                if seen.acknowledged:
                    acknowledged = seen

    # --- the records of one key

    def keys_in_order(self) -> None:
        keys: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        for token, record in self.history.committed.items():
            if record.key is None:
                continue
            seen = self.seen.get(token)
            place = record.turn if record.turn is not None else seen[0].sight.sequence if seen else None
            if place is not None:
                keys[record.function, record.key].append((place, token))
        for (function, key), records in keys.items():
            records.sort()
            self.key_in_order(function, key, [token for _, token in records])

    def key_in_order(self, function: str, key: str, tokens: Sequence[str]) -> None:
        done = [self.done_at(token) for token in tokens]
        before = [-math.inf]  # when all before this place were done
        for moment in done:
            before.append(max(before[-1], moment))
        for place, token in enumerate(tokens):
            for seen in self.seen.get(token, ()):
                start, position = seen.invocation.start, seen.position
                if before[place] <= start:
                    continue
                # The earliest place from which on not all were done; what lies between must go before it in its batch.
                for other in range(bisect.bisect_right(before, start, 0, place + 1) - 1, place):
                    if done[other] > start and not any(
                        also.invocation is seen.invocation and also.position < position
                        for also in self.seen.get(tokens[other], ())
                    ):
                        self.found(
                            "order",
                            f"{function} {key}: {token} was sent while {tokens[other]} before it was not done: "
                            f"{_told(seen.invocation)}",
                        )
                        break

    def done_at(self, token: str) -> float:
        """When the next of its key may go: at its first acknowledgement, or after its last failure if it died."""
        all_seen = self.seen.get(token, ())
        first = min((seen.invocation.end for seen in all_seen if seen.acknowledged), default=math.inf)
        if token in self.dead and math.isinf(first):
            return max((seen.invocation.end for seen in all_seen), default=-math.inf)
        return first

    def one_batch_of_a_key_at_a_time(self) -> None:
        flying: dict[tuple[str, str], list[Invocation]] = defaultdict(list)
        for invocation in sorted(self.history.invocations, key=lambda one: one.start):
            keys = {
                record.key
                for sight in invocation.sights
                if (record := self.history.committed.get(sight.token)) and record.key is not None
            }
            for key in sorted(keys):
                others = [one for one in flying[invocation.function, key] if one.end > invocation.start]
                for other in others:
                    self.counts["overlaps"] += 1
                    if not self.excused({other.client, invocation.client}, other.start, invocation.start):
                        self.found(
                            "two in flight", f"{invocation.function} {key}: {_told(other)}; and {_told(invocation)}"
                        )
                flying[invocation.function, key] = [*others, invocation]

    def changes_follow(self) -> None:
        """Applies what was seen, in order of sequence, and compares with the tables: nothing is missing or twice."""
        changes: dict[tuple[str, str], list[tuple[int, Sight]]] = defaultdict(list)
        incomplete = set()
        for token, record in self.history.committed.items():
            if record.function not in self.history.rows or record.key is None:
                continue
            if (seen := self.seen.get(token)) and (sequence := seen[0].sight.sequence) is not None:
                changes[record.function, record.key].append((sequence, seen[0].sight))
            else:
                incomplete.add((record.function, record.key))
        for where, sights in changes.items():
            if where in incomplete:
                continue
            state: str | None = None
            for _, sight in sorted(sights, key=lambda pair: pair[0]):
                if sight.old != state:
                    self.found("does not follow", f"{where}: {sight.token} changes {sight.old}, but there was {state}")
                    break
                state = sight.new
            else:
                held = self.history.rows[where[0]].get(where[1])
                if state != held:
                    self.found("does not follow", f"{where}: ends in {state}, not in {held}")


def _told(invocation: Invocation) -> str:
    return (
        f"{invocation.client} called {invocation.function} with {len(invocation.sights)} "
        f"from {invocation.start:.3f} to {invocation.end:.3f} ({invocation.outcome})"
    )
