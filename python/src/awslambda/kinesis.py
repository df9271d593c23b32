"""Kinesis Data Streams on plain values: the shards of a stream, and their records page by page.

Reading changes nothing, so a read whose answer did not come is asked again. Throttling is waited out for as long as the
request has time. A parent is read to its end before its children, and an iterator that has expired goes on behind the
last record that was read: whoever takes the pages in the order in which they come has each shard's records in order.
https://docs.aws.amazon.com/kinesis/latest/APIReference/Welcome.html
"""

from __future__ import annotations

import json
import math
import time
from base64 import b64encode
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from awslambda import aws, content, errors, resources, signing
from awslambda import request as request_
from awslambda.connection import Answer, BrokenError, ConnectError, Connections
from awslambda.settings import Settings
from awslambda.waits import Wait

POSITIONS = ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")
LARGEST_BATCH = 10_000  # records of one GetRecords
THROTTLED_FOR = 1.0  # seconds, says AWS, after which it is worth to ask again
POLL = 0.25  # seconds between reads of a shard that has nothing new: five a second are allowed to all readers together
TARGET = "Kinesis_20131202"

HARMLESS = (errors.ConnectFailed, errors.StreamConnectionBroke, errors.StreamFailed)  # to ask once more, when reading
MOST_PUT, LARGEST_PUT = 500, 10 * 1024 * 1024  # records, and bytes of data and keys, of one PutRecords

CODES: dict[str, type[errors.LambdaError]] = {
    **request_.CODES,
    "ExpiredIteratorException": errors.IteratorExpired,
    "InvalidArgumentException": errors.InvalidArgument,
    "KMSAccessDeniedException": errors.AccessDenied,
    "KMSThrottlingException": errors.StreamThrottled,
    "LimitExceededException": errors.StreamThrottled,
    "ProvisionedThroughputExceededException": errors.StreamThrottled,
    "ThrottlingException": errors.StreamThrottled,
    "ValidationException": errors.InvalidArgument,
}


@dataclass(frozen=True)
class Position:
    """Where reading a shard begins."""

    kind: str  # one of POSITIONS
    sequence_number: str | None = None  # decimal
    timestamp: float | None = None  # seconds since 1970


@dataclass(frozen=True)
class Shard:
    """A shard as ListShards has it."""

    shard_id: str
    parents: tuple[str, ...]
    closed: bool


class Record(NamedTuple):  # of which there are many
    """One record; `data` as it was put."""

    sequence_number: str
    approximate_arrival_timestamp: float  # seconds since 1970
    partition_key: str | None
    data: bytes


@dataclass(frozen=True)
class Page:
    """One answer of GetRecords."""

    records: Sequence[Record]
    next_iterator: str | None
    millis_behind_latest: int | None
    read_at: float = field(default=0.0, compare=False)  # AWS's clock, in seconds since 1970

    @property
    def is_last(self) -> bool:
        """Whether the shard has been read to its end."""
        return self.next_iterator is None

    @property
    def is_tip(self) -> bool:
        """Whether there is nothing more now: a page may be empty although there is."""
        return not self.records and self.millis_behind_latest == 0


@dataclass(frozen=True)
class Entry:
    """A record to put; without a partition key it goes to any shard."""

    data: bytes
    partition_key: str
    explicit_hash_key: str | None = None

    @property
    def size(self) -> int:
        """As Kinesis counts it, in bytes."""
        return len(self.data) + len(self.partition_key.encode())

    @property
    def parameters(self) -> dict[str, str]:
        given = {"Data": b64encode(self.data).decode(), "PartitionKey": self.partition_key}
        return {**given, "ExplicitHashKey": self.explicit_hash_key} if self.explicit_hash_key else given


@dataclass(frozen=True)
class Put:
    """What became of an Entry: shard and sequence number, or an error."""

    shard_id: str | None
    sequence_number: str | None
    error_code: str | None = None
    error_message: str | None = None

    @classmethod
    def failed(cls, error: errors.LambdaError) -> Put:
        """Of a record whose request had no answer that says what became of it."""
        return cls(None, None, type(error).__name__, str(error))


def position(kind: str, sequence_number: str | None = None, timestamp: float | None = None) -> Position:
    """InvalidArgument unless the position has what it needs and nothing that contradicts it."""
    kind = kind.upper()
    if kind not in POSITIONS:
        raise errors.InvalidArgument(
            reason=f"invalid starting_position: {kind[:100]!r}", hint=f"One of {', '.join(POSITIONS)}."
        )
    for name, value, wanted in (
        ("starting_timestamp", timestamp, kind == "AT_TIMESTAMP"),
        ("starting_sequence_number", sequence_number, kind.endswith("SEQUENCE_NUMBER")),
    ):
        if wanted and value is None:
            raise errors.InvalidArgument(reason=f"starting_position {kind} needs {name}", hint="Nothing was read.")
        if value is not None and not wanted:
            raise errors.InvalidArgument(
                reason=f"{name} contradicts starting_position {kind}", hint="Give one of them. Nothing was read."
            )
    if timestamp is not None and not math.isfinite(timestamp):
        raise errors.InvalidArgument(reason="starting_timestamp is infinite", hint="TRIM_HORIZON is all there is.")
    if sequence_number is not None and not (sequence_number.isdecimal() and len(sequence_number) <= 129):
        raise errors.InvalidArgument(
            reason=f"not a sequence number: {sequence_number[:150]}",
            hint="It is a whole number of up to 129 digits, as the column sequence_number has it. Nothing was read.",
        )
    return Position(kind, sequence_number, timestamp)


class Stream:
    """One stream through one server's options. `check` is called at least every 20 ms while this waits."""

    def __init__(self, given: str, settings: Settings, connections: Connections, check: Callable[[], None]) -> None:
        self.target = resources.stream(given)
        self._settings = settings
        self._connections = connections
        self._check = check
        self._date = ""
        self.region = ""  # of the last request

    def shards(self) -> list[Shard]:
        """All that still hold records, and those that will."""
        found: list[Shard] = []
        parameters = self._named({})
        while True:
            said = self._call("ListShards", parameters, "")
            found += [_shard(one) for one in said.get("Shards", ())]
            token = said.get("NextToken")
            if not token:
                return found
            parameters = {"NextToken": token}  # which names the stream too

    def iterator(self, shard_id: str, at: Position) -> str:
        """From which `page` reads; it is good for five minutes."""
        parameters: dict[str, Any] = {"ShardId": shard_id, "ShardIteratorType": at.kind}
        if at.sequence_number is not None:
            parameters["StartingSequenceNumber"] = at.sequence_number
        if at.timestamp is not None:
            parameters["Timestamp"] = at.timestamp
        return str(self._call("GetShardIterator", self._named(parameters), shard_id)["ShardIterator"])

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        """At most so many records, and at most 10 MiB."""
        parameters: dict[str, Any] = {"ShardIterator": iterator, "Limit": limit}
        if self.target.arn:
            parameters["StreamARN"] = self.target.arn
        said = self._call("GetRecords", parameters, shard_id)
        return Page(
            [
                Record(
                    r["SequenceNumber"], r["ApproximateArrivalTimestamp"], r.get("PartitionKey"), a2b_base64(r["Data"])
                )
                for r in said["Records"]
            ],
            said.get("NextShardIterator") or None,
            said.get("MillisBehindLatest"),
            self.now(),
        )

    def put(self, entries: Sequence[Entry]) -> list[Put]:
        """What became of each record of one PutRecords, which has at most 500 and 10 MiB. Those that Kinesis did not
        take are put again with the others of their kind, so their order is lost; what may have arrived is not put
        again. An error of putting again is one of those records: the others are in the stream."""
        outcomes: list[Put | None] = [None] * len(entries)
        left = list(range(len(entries)))
        wait, tried = Wait(self._check, self._settings.request_timeout), 0
        while left:
            tried += 1
            parameters = self._named({"Records": [entries[at].parameters for at in left]})
            try:
                said = self._call("PutRecords", parameters, "", (errors.ConnectFailed,))
            except errors.LambdaError as error:
                if tried == 1:
                    raise
                for at in left:
                    outcomes[at] = Put.failed(error)
                break
            for at, one in zip(left, said["Records"], strict=True):
                number = one.get("SequenceNumber")
                outcomes[at] = Put(one.get("ShardId"), number, one.get("ErrorCode"), one.get("ErrorMessage"))
            left = [at for at in left if (found := outcomes[at]) is not None and found.error_code]
            if not left or tried >= self._settings.max_attempts or time.monotonic() + THROTTLED_FOR >= wait.deadline:
                break
            wait.sleep(THROTTLED_FOR * tried)
        return [outcome for outcome in outcomes if outcome is not None]

    def retention(self) -> float:
        """Seconds for which records are kept."""
        said = self._call("DescribeStreamSummary", self._named({}), "")
        return float(said["StreamDescriptionSummary"]["RetentionPeriodHours"]) * 3600

    def now(self) -> float:
        """AWS's clock, in seconds since 1970: the time of its last answer."""
        return signing.time_of(self._date) or time.time()

    def sleep(self, seconds: float) -> None:
        """Waits, as for an answer."""
        Wait(self._check, seconds + 60).sleep(seconds)

    def _named(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        name = {"StreamARN": self.target.arn} if self.target.arn else {"StreamName": self.target.name}
        return {**name, **parameters}

    def _call(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        shard_id: str,
        again: tuple[type[errors.LambdaError], ...] = HARMLESS,
    ) -> dict[str, Any]:
        body = json.dumps(parameters).encode()
        wait = Wait(self._check, self._settings.request_timeout)
        return request_.retried(
            lambda: self._attempt(operation, body, shard_id, wait),
            self._settings,
            wait,
            again,
            {errors.StreamThrottled: THROTTLED_FOR},
        )

    def _attempt(self, operation: str, body: bytes, shard_id: str, wait: Wait) -> dict[str, Any]:
        stream, settings = self.target, self._settings
        settings.check_allowed(stream.resource, stream.arn)
        identity = aws.identity(settings)
        region = self.region = stream.region or identity.region(wait)[0]
        url = identity.url("kinesis", region, wait)
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{TARGET}.{operation}"}
        unsigned = signing.Request("kinesis", region, "POST", url.host, url.path or "/", headers, body)
        message = request_.message(unsigned, identity.sign(unsigned, wait))
        try:
            answer = self._connections.exchange(url.endpoint, message, settings.connect_timeout, wait)
        except ConnectError as error:
            raise errors.ConnectFailed(endpoint=url.text, reason=error) from None
        except BrokenError as error:
            raise errors.StreamConnectionBroke(
                endpoint=url.text, operation=operation, stream=stream.given, reason=error
            ) from None
        except TimeoutError:
            raise errors.StreamNoAnswer(
                operation=operation, stream=stream.given, seconds=settings.request_timeout
            ) from None
        self._date = answer.headers.get("date", "")
        if answer.status == 200:
            try:
                return dict(json.loads(answer.body))
            except ValueError:
                raise errors.NotKinesis(endpoint=url.text, stream=stream.given, status=200) from None
        raise self._refusal(operation, answer, shard_id, region, url)

    def _refusal(self, operation: str, answer: Answer, shard_id: str, region: str, url: aws.Url) -> errors.LambdaError:
        said = request_.document(answer.body)
        code, message = request_.refusal(answer, said)
        if not code and answer.status < 500:
            return errors.NotKinesis(endpoint=url.text, stream=self.target.given, status=answer.status)
        kind = CODES.get(code, errors.StreamFailed)
        if code == "ResourceNotFoundException":
            kind = errors.ShardNotFound if shard_id else errors.StreamNotFound
        reason = f"{operation} of the Kinesis stream {self.target.given!r}: {message}"
        if kind in (errors.StreamThrottled, errors.StreamFailed):
            reason = f"{code or 'no code'}, HTTP {answer.status}"
        return kind(
            operation=operation,
            stream=self.target.given,
            shard=shard_id,
            region=region,
            code=code,
            date=answer.headers.get("date"),
            reason=reason,
            detail=f"AWS said: {message}\nRequest id: {answer.headers.get('x-amzn-requestid', 'none')}",
        )


def _shard(said: Mapping[str, Any]) -> Shard:
    numbers = said["SequenceNumberRange"]
    parents = (said.get("ParentShardId"), said.get("AdjacentParentShardId"))
    return Shard(
        said["ShardId"],
        tuple(parent for parent in parents if parent),
        "EndingSequenceNumber" in numbers,
    )


class ShardReader:
    """Reads one shard from a position on, whatever becomes of its iterators."""

    def __init__(self, stream: Stream, shard_id: str, at: Position) -> None:
        self.shard_id = shard_id
        self.ended = False
        self._stream = stream
        self._at = at  # from where a new iterator goes on
        self._iterator: str | None = None

    def page(self, limit: int) -> Page:
        """The next records, which may be none; after the last page `ended` is true."""
        while True:
            if self._iterator is None:
                self._iterator = self._stream.iterator(self.shard_id, self._at)
                if self._at.kind == "LATEST":  # which would be a later place the next time
                    self._at = Position("AT_TIMESTAMP", timestamp=self._stream.now())
            try:
                page = self._stream.page(self.shard_id, self._iterator, limit)
                break
            except errors.IteratorExpired:
                self._iterator = None
        if page.records:
            self._at = Position("AFTER_SEQUENCE_NUMBER", page.records[-1].sequence_number)
        self._iterator = page.next_iterator
        self.ended = page.is_last
        return page


@dataclass(frozen=True)
class Read:
    """What kinesis_read is asked for."""

    start: Position
    shard_ids: tuple[str, ...] | None = None  # None: all
    batch_size: int = LARGEST_BATCH
    max_records: int | None = None  # that will be taken
    max_duration: float = 30.0  # seconds, looked at between requests

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise errors.InvalidArgument(
                reason=f"invalid batch_size: {self.batch_size}", hint=f"It must be from 1 to {LARGEST_BATCH}."
            )
        if self.max_records is not None and self.max_records < 0:
            raise errors.InvalidArgument(
                reason=f"invalid max_records: {self.max_records}", hint="It must be positive, or NULL for no limit."
            )

    @property
    def limit(self) -> int:
        """Records of one request."""
        return max(1, self.batch_size if self.max_records is None else min(self.batch_size, self.max_records))

    @property
    def follows(self) -> bool:
        """Whether it waits for what is yet to come."""
        return self.start.kind == "LATEST"


class Lineage:
    """Which shards may be read: those whose parents have been read to their end, or are not read here at all."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._waiting = {shard.shard_id: shard for shard in shards}
        self.known = dict(self._waiting)

    def add_children(self, shards: Iterable[Shard]) -> None:
        """Of shards that are known."""
        for shard in shards:
            if shard.shard_id not in self.known and not self.known.keys().isdisjoint(shard.parents):
                self.known[shard.shard_id] = self._waiting[shard.shard_id] = shard

    def begin(self, ended: Set[str]) -> list[str]:
        """The shards that may be read now and that this has not named before."""
        ready = [
            name
            for name, shard in self._waiting.items()
            if all(parent in ended or parent not in self.known for parent in shard.parents)
        ]
        for name in ready:
            del self._waiting[name]
        return ready


def read(stream: Stream, asked: Read) -> Iterator[tuple[str, Page]]:
    """Pages of all shards in turn, with the shard of each, until each was read up to now; what begins at LATEST goes on
    until `max_duration`. Whoever wants no more closes the iterator."""
    end = time.monotonic() + asked.max_duration
    listed = _chosen(stream, asked)
    lineage, ended = Lineage(listed.values()), set[str]()
    turns: deque[ShardReader] = deque()
    resting: deque[tuple[float, ShardReader]] = deque()  # they had nothing new, and when to ask them again
    while True:
        for name in lineage.begin(ended):
            turns.append(ShardReader(stream, name, asked.start if name in listed else Position("TRIM_HORIZON")))
        reader = _turn(stream, turns, resting)
        if reader is None or time.monotonic() >= end:
            return
        page = reader.page(asked.limit)
        if page.records:
            yield reader.shard_id, page
        if reader.ended or (page.is_tip and lineage.known[reader.shard_id].closed):
            ended.add(reader.shard_id)
            if asked.shard_ids is None:
                lineage.add_children(stream.shards())
        elif page.records and not (asked.follows and page.millis_behind_latest == 0):
            turns.append(reader)
        elif asked.follows or not page.is_tip:  # at the tip, what comes is no reason to use up all five reads a second
            resting.append((time.monotonic() + POLL, reader))


def _turn(stream: Stream, turns: deque[ShardReader], resting: deque[tuple[float, ShardReader]]) -> ShardReader | None:
    """Whose turn it is. Who has rested comes back, however much the others have to read."""
    now = time.monotonic()
    if not turns and resting:
        stream.sleep(max(0.0, resting[0][0] - now))
        now = max(now, resting[0][0])
    while resting and resting[0][0] <= now:
        turns.append(resting.popleft()[1])
    return turns.popleft() if turns else None


def _chosen(stream: Stream, asked: Read) -> dict[str, Shard]:
    listed = {shard.shard_id: shard for shard in stream.shards()}
    for name in asked.shard_ids or ():
        if name not in listed:
            raise errors.ShardNotFound(stream=stream.target.given, shard=name)
    chosen = {name: listed[name] for name in (listed if asked.shard_ids is None else asked.shard_ids)}
    if asked.start.sequence_number is not None and len(chosen) != 1:
        raise errors.InvalidArgument(
            reason=f"a sequence number is of one shard, and {len(chosen)} are to be read",
            hint="Name its shard: shard_ids => ARRAY['shardId-...']. Nothing was read.",
        )
    if asked.follows:
        return {name: shard for name, shard in chosen.items() if not shard.closed}
    return chosen


@dataclass(frozen=True)
class Unpacking:
    """What is done to each record's data."""

    deaggregate: bool = True
    decompress: str = "auto"

    def __post_init__(self) -> None:
        if self.decompress not in content.DECOMPRESS:
            raise errors.InvalidArgument(
                reason=f"invalid decompress: {self.decompress[:100]!r}", hint=f"One of {', '.join(content.DECOMPRESS)}."
            )

    def records(self, shard_id: str, record: Record) -> list[content.UserRecord]:
        """The user records in one record; BrokenRecord says which it is."""
        try:
            return content.unpack(record.data, deaggregate=self.deaggregate, decompress=self.decompress)
        except content.Broken as error:
            raise errors.BrokenRecord(shard=shard_id, sequence_number=record.sequence_number, reason=error) from None

    @property
    def suspect(self) -> frozenset[bytes]:
        """The beginnings, of one byte, of data in which there may be something to unpack."""
        return content.SUSPECT if self.decompress != "gzip" else content.ANY


def rows(
    pages: Iterable[tuple[str, Page]], unpacking: Unpacking, text: Callable[[str], str]
) -> Iterator[tuple[object, ...]]:
    """Rows of kinesis_read. Numbers are texts already, which Postgres reads sooner than Python's numbers; `text` makes
    a partition key one that the database can hold."""
    suspect = unpacking.suspect
    last, arrival = math.nan, ""
    for shard_id, page in pages:
        behind = None if page.millis_behind_latest is None else str(page.millis_behind_latest)
        for record in page.records:
            number, arrived, key, data = record
            if arrived != last:
                last, arrival = arrived, content.time_of(arrived)
            if key is not None and not (key.isascii() and key.isprintable()):
                key = text(key)
            if data[:1] not in suspect:
                yield shard_id, number, "0", arrival, key, data, behind
                continue
            for one in unpacking.records(shard_id, record):
                own = key if one.partition_key is None else text(one.partition_key)
                yield shard_id, number, str(one.sub_sequence_number), arrival, own, one.data, behind


def put(stream: Stream, entries: Sequence[Entry]) -> Iterator[Put]:
    """What became of each record, in their order. Once something has been put, a batch that fails as a whole is an
    error of its records, and those behind it are not tried."""
    failed: errors.LambdaError | None = None
    for number, batch in enumerate(_batches(entries)):
        if failed is None:
            try:
                yield from stream.put(batch)
                continue
            except errors.LambdaError as error:
                if number == 0:
                    raise
                failed = error
        for _ in batch:
            yield Put.failed(failed)


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if entry.size > LARGEST_PUT:
            raise errors.RecordTooLarge(size=entry.size, limit=LARGEST_PUT)
        if len(batch) == MOST_PUT or size + entry.size > LARGEST_PUT:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
