"""Consumers of Kinesis streams: whose checkpoints are rows, and move in the transaction that has the records.

`Polling` hands out rows one by one and remembers, for the transaction's end, which was the last; `Consuming` reads a
page while no transaction is open, and stores it and moves the checkpoint in one. A shard is read by one session at a
time, by an advisory lock. Which shards may be read, and what becomes of a batch, is decided in SQL.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from awslambda import content, errors, kinesis
from awslambda.kinesis import Position, ShardReader, Stream, Unpacking

FOLLOW = (
    "SELECT shard_id, sequence_number::pg_catalog.text FROM awslambda._kinesis_follow($1, $2, $3, $4::pg_catalog.json,"
    " $5, pg_catalog.to_timestamp($6::pg_catalog.float8), $7::pg_catalog.numeric)"
)
READY = "SELECT * FROM awslambda._kinesis_ready($1, $2, $3)"
LOSE = (
    "SELECT awslambda._kinesis_advance($1, $2, $3, NULL, NULL, NULL, NULL, NULL, $6::pg_catalog.timestamptz, 0,"
    " $5::pg_catalog.bool, $4)"
)
BEGIN = "SELECT awslambda._kinesis_begin($1, $2, $3, $4::pg_catalog.int8) AS begun"
TRANSACTION = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text AS id"
WRITE_POLLED = "SET CONSTRAINTS awslambda.kinesis_polled IMMEDIATE"
DEFER = "SET CONSTRAINTS awslambda.kinesis_polled DEFERRED"
CLAIM = (
    "SELECT polling, pg_catalog.concat_ws(' ', position, sequence_number, sub_sequence_number) AS position"
    " FROM awslambda._kinesis_checkpoint WHERE consumer = $1 AND stream = $2 AND shard_id = $3"
)
LOCK = "SELECT pg_catalog.pg_try_advisory_lock(awslambda._kinesis_lock($1, $2, $3)) AS locked"
UNLOCK = "SELECT awslambda._kinesis_unlock($1, $2)"
ON_ERROR = ("stop", "skip", "dead_letter")
# Seconds between two rows, after which SQL may have run in between, and rolled back to a savepoint. None is so quick.
INTERLUDE = 10e-6
SHORTEST_RETENTION = 24 * 3600.0  # seconds that every stream keeps its records at least
ASK_RETENTION = 60.0  # seconds, before a stream is asked again how long it keeps them


class Database(Protocol):
    """What a consumer needs of the session that it runs in."""

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]: ...

    def warn(self, message: str, hint: str) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """From where a shard is to be read, as _kinesis_ready has it."""

    shard_id: str
    position: str
    sequence_number: str | None
    sub_sequence_number: int | None  # the last that is done of an aggregate
    timestamp: float | None
    updated_at: float  # seconds since 1970, as the others
    done_until: float | None  # what arrived before is done; None: it stands at a number that somebody gave

    @property
    def expected(self) -> str:
        """What _kinesis_advance compares."""
        parts = (self.position, self.sequence_number, self.sub_sequence_number)
        return " ".join(str(part) for part in parts if part is not None)

    @property
    def start(self) -> Position:
        """Of the iterator: an aggregate that is half done is read again."""
        if self.position == "AFTER_SEQUENCE_NUMBER" and self.sub_sequence_number is not None:
            return Position("AT_SEQUENCE_NUMBER", self.sequence_number)
        if self.position == "AT_TIMESTAMP":
            return Position(self.position, timestamp=self.timestamp)
        if self.position == "TRIM_HORIZON":
            return Position(self.position)
        return Position(self.position, self.sequence_number)

    def is_done(self, number: str, sub_sequence_number: int) -> bool:
        """Whether a user record of the first record that is read again was handed out before."""
        done = self.sub_sequence_number
        return done is not None and number == self.sequence_number and sub_sequence_number <= done


class Consumer:
    """One consumer of one stream. `tolerant`: what Kinesis deleted before it was read is a warning, not an error."""

    def __init__(self, database: Database, name: str, stream: Stream, start: Position, tolerant: bool) -> None:
        self.stream = stream
        self.name = name
        self._database = database
        self._start = start
        self._tolerant = tolerant
        self._key = (name, stream.target.given)
        self._retention = (0.0, -math.inf)  # and until when, by time.monotonic(), that is so

    def follow(self) -> None:
        """Makes the consumer and checkpoints for shards that are new; tells of those that Kinesis no longer has."""
        listed = [{"shard_id": shard.shard_id, "parents": shard.parents} for shard in self.stream.shards()]
        start = self._start
        if start.kind == "LATEST":  # an idle shard gives no record to come back to: the moment counts
            start = Position("AT_TIMESTAMP", timestamp=self.stream.now())
        gone = self._database.fetch(
            FOLLOW, *self._key, self.stream.region, json.dumps(listed), start.kind,
            None if start.timestamp is None else repr(start.timestamp), start.sequence_number,
        )  # fmt: skip
        for row in gone:
            self._lose(row["shard_id"], row["sequence_number"], "Kinesis has deleted the shard", None)

    def ready(self, shard_id: str | None = None) -> list[Checkpoint]:
        """The shards that can be read now, those first that were not for the longest time."""
        return [Checkpoint(**row) for row in self._database.fetch(READY, *self._key, shard_id)]

    def check_trimmed(self, checkpoint: Checkpoint) -> None:
        """Tells of records that were deleted before this consumer came to them. Kinesis does not say whether there were
        any: what it has deleted of the time that this consumer waits for, counts."""
        since = checkpoint.done_until
        if since is not None and self.stream.now() - since <= SHORTEST_RETENTION:
            return
        if time.monotonic() >= self._retention[1]:
            self._retention = (self.stream.retention(), time.monotonic() + ASK_RETENTION)
        retention = self._retention[0]
        horizon = self.stream.now() - retention
        if since is not None and checkpoint.position == "AT_TIMESTAMP" and checkpoint.updated_at - since > retention:
            since = checkpoint.updated_at  # what was deleted when it was asked for, nobody waits for
        if since is not None and since >= horizon:
            return
        first = self._first(checkpoint.shard_id)
        if first is not None and (
            int(first.sequence_number) <= int(checkpoint.sequence_number or -1)
            or (since is not None and first.approximate_arrival_timestamp <= since)
        ):
            return
        reason = "Kinesis no longer has that one"
        if since is not None:
            until = content.time_of(horizon)
            reason = f"Kinesis has deleted all that arrived between {content.time_of(since)} and {until}"
        self._lose(checkpoint.shard_id, checkpoint.sequence_number, reason, horizon)

    def _first(self, shard_id: str) -> kinesis.Record | None:
        """The oldest record of a shard that Kinesis has."""
        reader = ShardReader(self.stream, shard_id, Position("TRIM_HORIZON"))
        while True:
            page = reader.page(1)
            if page.records or page.is_tip or reader.ended:
                return page.records[0] if page.records else None
            self.stream.sleep(kinesis.POLL)

    def _lose(self, shard_id: str, number: str | None, reason: str, goes_on: float | None) -> None:
        """`goes_on`: from when the shard still has records, in seconds since 1970; None: it is gone."""
        after = f"after {number}" if number else "from its beginning"
        lost = errors.RecordsLost(consumer=self.name, shard=shard_id, after=after, reason=reason)
        if not self._tolerant:
            raise lost
        self._database.fetch(
            LOSE, *self._key, shard_id, f"{after}: {reason}", str(goes_on is None),
            None if goes_on is None else content.time_of(goes_on),
        )  # fmt: skip
        self._database.warn(str(lost), lost.hint)

    def begin(self, shard_id: str, poll: int) -> bool:
        """Takes a shard for this transaction; false if another session has it."""
        return bool(self._database.fetch(BEGIN, *self._key, shard_id, str(poll))[0]["begun"])

    def claim(self, shard_id: str) -> tuple[int | None, str]:
        """The poll that a checkpoint belongs to as this transaction sees it, and where it stands."""
        for row in self._database.fetch(CLAIM, *self._key, shard_id):
            return row["polling"], row["position"]
        return None, ""

    def lock(self, shard_id: str) -> bool:
        """Takes a shard for this session; false if another has it."""
        return bool(self._database.fetch(LOCK, *self._key, shard_id)[0]["locked"])

    def unlock(self) -> None:
        """Gives back what this session has taken."""
        self._database.fetch(UNLOCK, *self._key)


@dataclass
class Received:
    """What a poll has handed out of one shard."""

    sequence_number: str | None = None
    sub_sequence_number: int | None = None
    arrival: str | None = None
    millis_behind_latest: int | None = None
    done_until: str | None = None
    records: int = 0
    before: int | None = None  # what the checkpoint had counted when it was written first; a savepoint may rewind that
    ended: bool = False
    written: bool = False  # it may have been: then what comes later has to be written again
    places: set[str] = field(default_factory=set)  # where the checkpoint was, and where it was written to

    @property
    def place(self) -> str:
        """Where the checkpoint is to stand."""
        parts = ("AFTER_SEQUENCE_NUMBER", self.sequence_number, self.sub_sequence_number)
        return " ".join(str(part) for part in parts if part is not None)


@dataclass
class Polls:
    """Of one session: what is handed out and not yet committed. An entry is useless once its transaction has ended."""

    number: int = 0
    transaction: str = ""
    received: dict[tuple[int, str], Received] = field(default_factory=dict)

    def begin(self, transaction: str) -> int:
        """The number of a new poll in a transaction."""
        if transaction != self.transaction:
            self.received.clear()
            self.transaction = transaction
        self.number += 1
        return self.number

    def take(self, poll: int, shard_id: str, counted: int) -> Received | None:
        """For the trigger that writes it to a checkpoint that has counted so many records."""
        found = self.received.get((poll, shard_id))
        if found is not None:
            found.before = counted if found.before is None else found.before
            found.written = True
            found.places.add(found.place)
        return found


class Polling:
    """A call of kinesis_poll."""

    def __init__(  # noqa: PLR0917
        self, consumer: Consumer, database: Database, polls: Polls, asked: kinesis.Read, unpacking: Unpacking,
        text: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._consumer = consumer
        self._database = database
        self._polls = polls
        self._asked = asked
        self._unpacking = unpacking
        self._text = text
        self._end = time.monotonic() + asked.max_duration

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Of all shards that are free, each up to now, and then of the children of those that have ended."""
        tried: set[str] = set()
        ended = True
        number: int | None = None
        while ended:
            ended = False
            self._settle()
            number = number or self._polls.begin(self._database.fetch(TRANSACTION)[0]["id"])
            for checkpoint in self._consumer.ready():
                if checkpoint.shard_id not in tried and time.monotonic() < self._end:
                    tried.add(checkpoint.shard_id)
                    state = yield from self._shard(checkpoint.shard_id, number)
                    ended = ended or state.ended

    def _settle(self) -> None:
        """Writes what this transaction's polls have handed out so far: reading goes on behind it."""
        self._database.fetch(WRITE_POLLED)
        self._database.fetch(DEFER)
        self._consumer.follow()

    def _shard(self, shard_id: str, number: int) -> Generator[tuple[object, ...], None, Received]:
        state = Received()
        if not self._consumer.begin(shard_id, number):
            return state
        for checkpoint in self._consumer.ready(shard_id):  # as it is now that it is ours
            self._consumer.check_trimmed(checkpoint)
            self._polls.received[number, shard_id] = state
            state.places.add(checkpoint.expected)
            for row in self._records(checkpoint, state):
                if state.written:
                    self._hold(shard_id, number, state)
                before = time.perf_counter()
                yield row
                if time.perf_counter() - before > INTERLUDE and self._consumer.claim(shard_id)[0] != number:
                    self._hold(shard_id, number, state)
            if state.written:
                self._hold(shard_id, number, state)
        return state

    def _hold(self, shard_id: str, number: int, state: Received) -> None:
        """Takes the shard anew: what was handed out has been written, or a savepoint was rolled back under a cursor,
        which no more rewinds ours than any other."""
        state.written = False  # and true again at once, if the session's constraints are immediate
        begun = self._consumer.claim(shard_id)[1] in state.places and self._consumer.begin(shard_id, number)
        if not begun:
            raise errors.CheckpointMoved(consumer=self._consumer.name, shard=shard_id)

    def _records(self, checkpoint: Checkpoint, state: Received) -> Iterator[tuple[object, ...]]:
        """Of one shard up to now; `state` says what the row that comes next, or the end, means for the checkpoint."""
        reader = ShardReader(self._consumer.stream, checkpoint.shard_id, checkpoint.start)
        while not reader.ended and time.monotonic() < self._end:
            page = reader.page(self._asked.limit)
            for row, number, inside in _of_page(checkpoint, page, self._unpacking, self._text):
                state.sequence_number, state.sub_sequence_number, state.arrival = number, inside, str(row[3])
                state.done_until = state.arrival
                state.records += 1
                yield row
            state.millis_behind_latest = page.millis_behind_latest
            state.done_until = _done_until(page) or state.done_until
            state.ended = reader.ended
            if page.is_tip:
                return
            if not page.records:
                self._consumer.stream.sleep(kinesis.POLL)


def _of_page(
    checkpoint: Checkpoint, page: kinesis.Page, unpacking: Unpacking, text: Callable[[str], str]
) -> Iterator[tuple[tuple[object, ...], str, int | None]]:
    """Each row that was not handed out before, its sequence number, and its place in an aggregate that goes on."""
    for record in page.records:
        for row, last in _of_record(checkpoint, record, page, unpacking, text):
            inside = None if last else int(str(row[2]))
            yield row, record.sequence_number, inside


def _of_record(
    checkpoint: Checkpoint, record: kinesis.Record, page: kinesis.Page, unpacking: Unpacking, text: Callable[[str], str]
) -> Iterator[tuple[tuple[object, ...], bool]]:
    """The rows of one record, and whether each is its last."""
    if record.data[:1] in unpacking.suspect:
        users = unpacking.records(checkpoint.shard_id, record)
    else:
        users = [content.UserRecord(0, None, None, record.data)]
    for one in users:
        if checkpoint.is_done(record.sequence_number, one.sub_sequence_number):
            continue
        key = record.partition_key if one.partition_key is None else one.partition_key
        row = (
            checkpoint.shard_id, record.sequence_number, str(one.sub_sequence_number),
            content.time_of(record.approximate_arrival_timestamp), None if key is None else text(key), one.data,
            page.millis_behind_latest,
        )  # fmt: skip
        yield row, one is users[-1]


def _done_until(page: kinesis.Page) -> str | None:
    """Until when a shard is read with this page, unless that is when its last record arrived. Of a shard that has
    ended it is: those of its children go by it, and have had records since then."""
    is_open = page.millis_behind_latest == 0 and not page.is_last
    return content.time_of(page.read_at) if is_open else None


def _raw(shard_id: str, record: kinesis.Record, text: Callable[[str], str]) -> tuple[object, ...]:
    """A record that cannot be unpacked."""
    arrival, key = content.time_of(record.approximate_arrival_timestamp), record.partition_key
    return shard_id, record.sequence_number, None, arrival, None if key is None else text(key), record.data, None


@dataclass(frozen=True)
class Consumption:
    """What kinesis_consume is asked for."""

    target: str | None  # an oid, as the handler is
    handler: str | None
    batch_size: int
    max_duration: float
    on_error: str
    bisect: bool
    follow: bool
    search_path: str  # for what the target's triggers and the handler name

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise errors.InvalidArgument(
                reason=f"invalid on_error: {self.on_error[:100]!r}", hint=f"One of {', '.join(ON_ERROR)}."
            )


class StepDatabase(Database, Protocol):
    """What consuming needs besides: each query is a transaction."""

    def call(self, query: str, types: Sequence[str], *arguments: object) -> list[dict[str, Any]]: ...


STEP = (
    "SELECT * FROM awslambda._kinesis_step($1, $2, $3, $4, $5, $6::pg_catalog.oid, $7::pg_catalog.oid, $8, $9, $10,"
    " $11, $12, $13, $14)"
)
STEP_TYPES = (
    "text", "text", "text", "text", "awslambda.kinesis_record[]", "text", "text", "text", "bool", "bigint",
    "timestamptz", "bool", "text", "text",
)  # fmt: skip
STATEMENT = "SELECT awslambda._kinesis_statement($1::pg_catalog.oid, $2::pg_catalog.oid)"
NOTED_FOR = 10.0  # seconds, after which it is written again that there is nothing new


class Consuming:
    """A run of kinesis_consume."""

    def __init__(
        self, consumer: Consumer, database: StepDatabase, asked: Consumption, unpacking: Unpacking,
        text: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._consumer = consumer
        self._database = database
        self._asked = asked
        self._unpacking = unpacking
        self._text = text
        self._end = time.monotonic() + asked.max_duration
        # With the checkpoint that each has come to, and the moment from which it reads: a reset may put in another one.
        self._readers: dict[str, tuple[tuple[str, float | None], ShardReader]] = {}
        self._checked: dict[str, str] = {}  # the checkpoint behind which all that there was is there, or was reported
        self._noted: dict[str, float] = {}

    def run(self) -> None:
        """Until all is read up to now, or the time has passed."""
        asked = self._asked
        self._database.fetch(STATEMENT, asked.target, asked.handler)
        self._consumer.follow()
        while time.monotonic() < self._end:
            moved = [self._turn(checkpoint.shard_id) for checkpoint in self._consumer.ready()]
            if not any(moved):
                if not asked.follow:
                    return
                if not moved:  # the consumer was reset
                    self._consumer.follow()
                self._consumer.stream.sleep(kinesis.POLL)

    def _turn(self, shard_id: str) -> bool:
        """A page of one shard; whether there may be more of it, or of its children."""
        consumer = self._consumer
        if time.monotonic() >= self._end:
            return False
        try:  # from here on: an interrupt may come between the lock and our knowing of it
            if consumer.lock(shard_id):
                for checkpoint in consumer.ready(shard_id):
                    return self._page(checkpoint)
            return False
        finally:
            consumer.unlock()

    def _page(self, checkpoint: Checkpoint) -> bool:
        shard_id = checkpoint.shard_id
        place, reader = self._readers.pop(shard_id, (None, None))
        if place != (checkpoint.expected, checkpoint.timestamp):
            reader = None
        if reader is None or self._checked[shard_id] != checkpoint.expected:
            self._checked[shard_id] = checkpoint.expected
            self._consumer.check_trimmed(checkpoint)  # an iterator passes over what is deleted ahead of it
        reader = reader or ShardReader(self._consumer.stream, shard_id, checkpoint.start)
        page = reader.page(kinesis.LARGEST_BATCH)
        expected = self._store(checkpoint, page)
        if reader.ended:
            self._consumer.follow()
            return True
        self._readers[shard_id] = ((expected, checkpoint.timestamp), reader)
        return not page.is_tip

    def _store(self, checkpoint: Checkpoint, page: kinesis.Page) -> str:
        """All of a page, in batches; what the checkpoint is then."""
        expected, left = checkpoint.expected, len(page.records)
        batch: list[tuple[object, ...]] = []
        count = 0
        for record in page.records:
            left -= 1
            broken, rows = None, list[tuple[object, ...]]()
            try:
                rows = [row for row, _ in _of_record(checkpoint, record, page, self._unpacking, self._text)]
            except errors.BrokenRecord as error:
                broken = error
            if broken is not None:
                expected = self._step(checkpoint, expected, batch, page)
                if self._asked.on_error == "stop":
                    raise broken
                raw = _raw(checkpoint.shard_id, record, self._text)
                expected = self._step(checkpoint, expected, [raw], page, whole=not left, broken=str(broken))
                batch, count = [], 0
                continue
            batch += rows
            count += 1
            if count >= self._asked.batch_size and left:
                expected = self._step(checkpoint, expected, batch, page)
                batch, count = [], 0
        if (
            batch
            or (page.is_last and not expected.startswith("SHARD_END"))
            or self._is_to_note(checkpoint.shard_id, page)
        ):
            expected = self._step(checkpoint, expected, batch, page, whole=True)
        return expected

    def _is_to_note(self, shard_id: str, page: kinesis.Page) -> bool:
        """Whether it is worth a write that there was nothing."""
        now = time.monotonic()
        if not page.is_tip or now < self._noted.get(shard_id, 0):
            return False
        self._noted[shard_id] = now + NOTED_FOR
        return True

    def _step(
        self, checkpoint: Checkpoint, expected: str, rows: list[tuple[object, ...]], page: kinesis.Page, *,
        whole: bool = False, broken: str | None = None,
    ) -> str:  # fmt: skip
        """Stores a batch, or the rest of a page, and the checkpoint in one transaction; what the checkpoint is then."""
        ended = whole and page.is_last
        if not rows and not ended and not page.is_tip:
            return expected
        asked, shard_id = self._asked, checkpoint.shard_id
        done = self._database.call(
            STEP, STEP_TYPES, self._consumer.name, self._consumer.stream.target.given, shard_id, expected, rows,
            asked.target, asked.handler, asked.on_error, asked.bisect, page.millis_behind_latest,
            _done_until(page) if whole else None, ended, broken, asked.search_path,
        )[0]  # fmt: skip
        if done["problem"] is not None:
            refused = rows[done["done"]]
            raise errors.RecordNotStored(
                sequence_number=refused[1], shard=shard_id, reason=done["message"], sqlstate=done["problem"]
            )
        if ended:
            return "SHARD_END"
        return f"AFTER_SEQUENCE_NUMBER {rows[-1][1]}" if rows else expected
