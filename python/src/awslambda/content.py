"""What is inside a Kinesis record: user records that the KPL put together, compressed data, events of CloudWatch Logs,
and in those the lines of a MySQL audit log.

Aggregates are those of the Kinesis Producer Library: four bytes of magic, a protobuf message, and its MD5.
https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from hashlib import md5
from typing import Any, NamedTuple

MAGIC = b"\xf3\x89\x9a\xc2"
GZIP = b"\x1f\x8b"
ANY = frozenset([b"", *(bytes([first]) for first in range(256))])
# First bytes of what may be an aggregate, gzip or zlib.
SUSPECT = frozenset([MAGIC[:1], GZIP[:1], *(bytes([16 * size + 8]) for size in range(8))])
DECOMPRESS = ("auto", "gzip", "none")
LARGEST = 256 * 1024 * 1024  # bytes that a record may have when it is inflated, an aggregate in all
_PADDING = re.compile(rb"\0+")


class Broken(Exception):
    """A record says of itself that it is an aggregate or compressed, and is not."""


@dataclass(frozen=True)
class UserRecord:
    """What a producer put; where it did not say something, the record's own counts."""

    sub_sequence_number: int
    partition_key: str | None
    explicit_hash_key: str | None
    data: bytes


def unpack(data: bytes, *, deaggregate: bool, decompress: str) -> list[UserRecord]:
    """The user records of one record; Broken names what is wrong with it."""
    if not (deaggregate and data.startswith(MAGIC)):
        return [UserRecord(0, None, None, inflate(data, decompress))]
    unpacked, room = [], LARGEST
    for record in _aggregate(data):
        inner = _inflate(record.data, decompress, room)
        room = max(0, room - len(inner))
        unpacked.append(replace(record, data=inner))
    return unpacked


def inflate(data: bytes, decompress: str) -> bytes:
    """Of gzip, also of several members, and of zlib with `auto`; anything else as it is. What only begins like zlib is
    plain data; `gzip` wants it to be gzip."""
    return _inflate(data, decompress, LARGEST)


def _inflate(data: bytes, decompress: str, room: int) -> bytes:
    if decompress == "none":
        return data
    if data.startswith(GZIP):
        return _gunzip(data, room)
    if decompress == "gzip":
        raise Broken("it is not gzip")
    if len(data) > 2 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and int.from_bytes(data[:2], "big") % 31 == 0:
        try:
            inflater = zlib.decompressobj()
            whole = inflater.decompress(data, room + 1)  # 0 would be no limit
        except zlib.error:
            return data
        if len(whole) > room:
            raise _too_large()
        return whole if inflater.eof and not inflater.unused_data else data
    return data


def _gunzip(data: bytes, room: int) -> bytes:
    # In pieces: zlib copies what is behind a member, which for many small members would be all of it each time.
    first = len(data) if len(data) <= 65536 else 4096
    parts, at = [], 0
    while at < len(data):
        inflater, size = zlib.decompressobj(wbits=31), first
        while not inflater.eof:
            if at >= len(data):
                raise Broken("its gzip is cut off")
            piece = data[at : at + size]
            try:
                part = inflater.decompress(piece, room + 1)  # 0 would be no limit
            except zlib.error as error:
                raise Broken(f"its gzip is broken ({error})") from None
            if len(part) > room:
                raise _too_large()
            parts.append(part)
            room -= len(part)
            at += len(piece)
            size *= 2
        at = _padded(data, at - len(inflater.unused_data))
    return b"".join(parts)


def _padded(data: bytes, at: int) -> int:
    """Where the padding ends that is allowed behind a member."""
    padding = _PADDING.match(data, at)
    return padding.end() if padding else at


def _too_large() -> Broken:
    return Broken(f"it has more than {LARGEST} bytes when it is inflated")


def _aggregate(data: bytes) -> list[UserRecord]:
    body, digest = data[4:-16], data[-16:]
    if len(data) < 20 or md5(body, usedforsecurity=False).digest() != digest:
        raise Broken("it begins as an aggregate, and its checksum is wrong")
    keys: list[str] = []
    hash_keys: list[str] = []
    records: list[tuple[int, int | None, bytes]] = []
    try:
        for tag, value in _fields(body):
            if tag == 1 and isinstance(value, bytes):
                keys.append(value.decode())
            elif tag == 2 and isinstance(value, bytes):
                hash_keys.append(value.decode())
            elif tag == 3 and isinstance(value, bytes):
                record = dict(_fields(value))
                key, hash_key, inner = record[1], record.get(2), record[3]
                if not isinstance(key, int) or isinstance(hash_key, bytes) or not isinstance(inner, bytes):
                    raise ValueError("types")
                records.append((key, hash_key, inner))
        return [
            UserRecord(number, keys[key], None if hash_key is None else hash_keys[hash_key], inner)
            for number, (key, hash_key, inner) in enumerate(records)
        ]
    except (ValueError, LookupError):
        raise Broken("it is an aggregate whose contents are broken") from None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message; ValueError or IndexError if it is none."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        if key & 7 == 0:
            number, at = _varint(message, at)
            yield key >> 3, number
        elif key & 7 == 2:
            size, at = _varint(message, at)
            if at + size > end:
                raise ValueError("cut off")
            yield key >> 3, message[at : at + size]
            at += size
        elif key & 7 in (1, 5):  # of a later version of the format
            at += 8 if key & 7 == 1 else 4
        else:
            raise ValueError("wire type")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint")


@dataclass(frozen=True)
class LogDocument:
    """What CloudWatch Logs sends at once: events of one log stream.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
    """

    message_type: str  # DATA_MESSAGE, or CONTROL_MESSAGE: a test that the destination can be reached
    owner: str
    log_group: str
    log_stream: str
    subscription_filters: Sequence[str]
    events: Sequence[dict[str, Any]]

    @property
    def head(self) -> tuple[str, str, str, str]:
        return self.message_type, self.owner, self.log_group, self.log_stream


def _event(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError("an event is an object")
    time_of(given.get("timestamp", 0) / 1000)  # raises if it is no time
    return given


def _number(given: str) -> float:
    """What Python takes for a number, and JSON and Postgres do not, is an error: NaN, Infinity, 1e400."""
    number = float(given)
    if not math.isfinite(number):
        raise ValueError(given)
    return number


def log_documents(data: bytes) -> Iterator[LogDocument]:
    """Of one record, gzip or not: mostly one; Firehose puts several one behind the other. Broken if it is none."""
    try:
        text = inflate(data, "auto").decode()
    except UnicodeDecodeError:
        raise Broken("it is not text") from None
    decoder, at = json.JSONDecoder(parse_float=_number, parse_constant=_number), 0
    text = text.strip()
    while at < len(text):
        try:
            document, at = decoder.raw_decode(text, at)
            yield LogDocument(
                str(document["messageType"]), str(document["owner"]), str(document["logGroup"]),
                str(document["logStream"]), [str(name) for name in document["subscriptionFilters"]],
                [_event(event) for event in document["logEvents"]],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise Broken("it is not JSON with messageType, logGroup and logEvents") from None
        while at < len(text) and text[at].isspace():
            at += 1


class AuditEvent(NamedTuple):
    """A line of the audit log of MariaDB, RDS for MySQL, or Aurora MySQL."""

    event_time: str
    server_host: str
    user_name: str
    host: str
    connection_id: int
    query_id: int
    operation: str
    database: str | None
    object: str | None
    return_code: int | None
    connection_type: int | None  # RDS for MySQL says it of CONNECT and DISCONNECT
    truncated: bool  # the closing quote of the statement is missing


_AUDIT = re.compile(
    r"(?P<time>\d{8} (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d|\d{13,17}),(?P<server>[^,]*),(?P<user>[^,]*),(?P<host>[^,]*),"
    r"(?P<connection>\d{1,18}),(?P<query>\d{1,18}),(?P<operation>[A-Z_]+),(?P<database>[^,]*),(?P<rest>.*)",
    re.ASCII | re.DOTALL,
)
_QUOTED = re.compile(r"'(?P<object>(?:[^'\\]|\\.)*)'(?P<end>(?:,\d{0,9})*)", re.ASCII | re.DOTALL)
_PLAIN = re.compile(r"(?P<object>.*?)(?P<end>(?:,\d{0,9}){0,3})", re.ASCII | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": ""}


def audit_event(line: str, time_zone: str) -> AuditEvent | None:
    """None if the line is none. MariaDB and RDS write the time of the server's own `time_zone`, Aurora microseconds.

    The object of QUERY is the statement, in single quotes with backslash escapes; if its end is missing it was cut off.
    """
    match = _AUDIT.fullmatch(line.rstrip("\r\n"))
    at = match and _audit_time(match["time"], time_zone)
    if match is None or at is None:
        return None
    rest = match["rest"]
    quoted = _QUOTED.fullmatch(rest)
    truncated = rest.startswith("'") and not quoted
    found = quoted or _PLAIN.fullmatch(rest)
    if found is None:
        return None
    what = found["object"]
    if quoted or truncated:
        what = _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), what.removeprefix("'"))
    numbers = [int(number) if number else None for number in found["end"].split(",")[1:]]
    return AuditEvent(
        at, match["server"], match["user"], match["host"],
        int(match["connection"]), int(match["query"]), match["operation"], match["database"] or None, what or None,
        numbers[0] if numbers else None,
        numbers[1] if len(numbers) == 2 and match["operation"] != "QUERY" else None,
        truncated,
    )  # fmt: skip


def _audit_time(given: str, time_zone: str) -> str | None:
    """As Postgres reads it; None if there is no such day."""
    if " " not in given:
        return time_of(int(given) / 1_000_000)
    try:
        return f"{date(int(given[:4]), int(given[4:6]), int(given[6:8]))} {given[9:]} {time_zone}"
    except ValueError:
        return None


def time_of(epoch: float) -> str:
    """Seconds since 1970 as Postgres reads them."""
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat()
