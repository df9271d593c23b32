"""What is inside Kinesis records, on bytes alone."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from hashlib import md5

import pytest
from awslambda import content
from awslambda.content import Broken, UserRecord, audit_event, log_documents, unpack
from hypothesis import given
from hypothesis import strategies as st

from tests.streams import aggregate


def plain(data: bytes, number: int = 0) -> UserRecord:
    return UserRecord(number, None, None, data)


def whole(data: bytes) -> list[UserRecord]:
    return unpack(data, deaggregate=True, decompress="auto")


@pytest.mark.parametrize("data", [b"", b"{}", b"x", b"x\x9c", b"hello", b"\xf3", b"\x78\x01 not zlib", b"\x1f"])
def test_what_is_not_packed_is_as_it_is(data: bytes) -> None:
    assert whole(data) == [plain(data)]


@given(st.binary(max_size=200))
def test_gzip_and_zlib_become_what_was_in_them(data: bytes) -> None:
    assert whole(gzip.compress(data)) == [plain(data)]
    assert whole(gzip.compress(data) + gzip.compress(b"more")) == [plain(data + b"more")]
    assert whole(zlib.compress(data)) == [plain(data)]
    assert unpack(gzip.compress(data), deaggregate=True, decompress="none") == [plain(gzip.compress(data))]


@given(st.binary(max_size=200))
def test_the_first_byte_of_what_is_packed_is_suspect(data: bytes) -> None:
    zipped = [zlib.compress(data, level) for level in (0, 1, 6, 9)]
    for packed in (gzip.compress(data), aggregate(("k", None, data)), *zipped):
        assert packed[:1] in content.SUSPECT


@pytest.mark.parametrize("cut", [2, 5, 12, -1])
def test_a_broken_gzip_is_an_error(cut: int) -> None:
    with pytest.raises(Broken, match="gzip"):
        whole(gzip.compress(b"some text")[:cut])


def test_zlib_that_does_not_inflate_to_its_end_is_plain_data() -> None:
    cut = zlib.compress(b"some text")[:-2]
    assert whole(cut) == [plain(cut)]
    more = zlib.compress(b"some text") + b"!"
    assert whole(more) == [plain(more)]


def test_what_must_be_gzip_and_is_not_is_an_error() -> None:
    with pytest.raises(Broken, match="not gzip"):
        unpack(b"{}", deaggregate=True, decompress="gzip")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_bomb_is_an_error(compress: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LARGEST", 1000)
    assert whole(compress(b"0" * 999)) == [plain(b"0" * 999)]  # type: ignore[operator]
    with pytest.raises(Broken, match="more than 1000 bytes"):
        whole(compress(b"0" * 100_000))  # type: ignore[operator]


@pytest.mark.parametrize("first", [999, 1000])
def test_a_bomb_in_a_later_member_is_an_error(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LARGEST", 1000)
    bomb = gzip.compress(b"0" * first) + gzip.compress(b"0" * 100_000)
    with pytest.raises(Broken, match="more than 1000 bytes"):
        whole(bomb)


def test_an_aggregate_of_bombs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "LARGEST", 1000)
    bomb = gzip.compress(b"0" * 500)
    assert len(whole(aggregate(("a", None, bomb), ("a", None, bomb)))) == 2
    for one_more in (gzip.compress(b"0"), zlib.compress(b"0" * 3)):
        with pytest.raises(Broken, match="more than 1000 bytes"):
            whole(aggregate(("a", None, bomb), ("a", None, bomb), ("a", None, one_more)))


def test_many_members_take_a_time_that_grows_as_they_do() -> None:
    def took(members: int) -> float:
        packed = gzip.compress(b"") * members
        started = time.process_time()
        assert whole(packed) == [plain(b"")]
        return time.process_time() - started

    took(1000)
    assert took(80_000) < 10 * took(20_000)  # 4 times; 16 and more if each member costs as much as all behind it


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(0, 5))
def test_members_that_do_not_fit_the_pieces_are_whole(parts: list[bytes], padding: int) -> None:
    large = [part * 5000 for part in parts]
    packed = b"".join(gzip.compress(part, 0) + bytes(padding) for part in large)
    assert whole(packed) == [plain(b"".join(large))]


def test_an_aggregate_becomes_its_user_records() -> None:
    packed = aggregate(("a", None, b"1"), ("b", "12345", b"2"), ("a", None, gzip.compress(b"3")))
    assert whole(packed) == [
        UserRecord(0, "a", None, b"1"), UserRecord(1, "b", "12345", b"2"), UserRecord(2, "a", None, b"3")
    ]  # fmt: skip
    assert unpack(packed, deaggregate=False, decompress="auto") == [plain(packed)]


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.binary(max_size=300)), min_size=1, max_size=20))
def test_any_aggregate_is_read_as_it_was_made(records: list[tuple[str, bytes]]) -> None:
    found = unpack(aggregate(*((key, None, data) for key, data in records)), deaggregate=True, decompress="none")
    assert [(one.partition_key, one.data) for one in found] == records
    assert [one.sub_sequence_number for one in found] == list(range(len(records)))


def test_an_aggregate_with_a_wrong_checksum_is_an_error() -> None:
    with pytest.raises(Broken, match="checksum"):
        whole(aggregate(("a", None, b"1"))[:-1])


@given(st.binary(max_size=60))
def test_an_aggregate_of_nonsense_is_an_error_and_no_crash(body: bytes) -> None:
    data = content.MAGIC + body + md5(body, usedforsecurity=False).digest()
    try:
        unpack(data, deaggregate=True, decompress="none")
    except Broken as error:
        assert "aggregate" in str(error)


DOCUMENT = {
    "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/aws/rds/audit", "logStream": "db.1",
    "subscriptionFilters": ["all"], "logEvents": [{"id": "1", "timestamp": 1432826855000, "message": "Grüße"}],
}  # fmt: skip


def test_log_documents_are_read_with_their_characters() -> None:
    packed = gzip.compress(json.dumps(DOCUMENT, ensure_ascii=False).encode())
    [document] = log_documents(packed)
    assert document.head == ("DATA_MESSAGE", "123456789012", "/aws/rds/audit", "db.1")
    assert [event["message"] for event in document.events] == ["Grüße"]
    assert len(list(log_documents(gzip.decompress(packed) * 2 + b"\n" + gzip.decompress(packed)))) == 3


@pytest.mark.parametrize(
    "data",
    [
        *(
            json.dumps({**DOCUMENT, "logEvents": events}).encode()
            for events in (
                "abc",
                [["ab"]],
                [{"timestamp": "x"}],
                [{"timestamp": None}],
                [{"timestamp": 10**30}],
                [{"more": float("nan")}],
            )
        ),
        json.dumps(DOCUMENT).replace("1432826855000", "1e400").encode(),
        b"x",
        b"[]",
        b"1",
        b"{}",
        b"\xff",
        b'{"messageType": 1}',
        gzip.compress(b"no"),
        b'{"a":' * 50_000,
    ],
)
def test_what_is_no_log_document_is_an_error(data: bytes) -> None:
    with pytest.raises(Broken):
        list(log_documents(data))


@pytest.mark.parametrize(
    ("line", "time", "rest"),
    [
        (
            "20260102 03:04:05,ip-10-1,root,10.0.0.1,7,99,QUERY,app,'INSERT INTO t VALUES (\\'a, b\\', \"ä\")\\n',0",
            "2026-01-02 03:04:05 CET",
            ("QUERY", "app", "INSERT INTO t VALUES ('a, b', \"ä\")\n", 0, None, False),
        ),
        (
            "20260102 03:04:05,h,u,c,7,99,QUERY,app,'SELECT 1',0,,",
            "2026-01-02 03:04:05 CET",
            ("QUERY", "app", "SELECT 1", 0, None, False),
        ),
        (
            "20260102 03:04:05,h,u,c,7,0,CONNECT,,,1045,2",
            "2026-01-02 03:04:05 CET",
            ("CONNECT", None, None, 1045, 2, False),
        ),
        (
            "1432826855000123,h,u,c,7,99,WRITE,app,readings,",
            "2015-05-28T15:27:35.000123+00:00",
            ("WRITE", "app", "readings", None, None, False),
        ),
        (
            "1432826855000000,h,u,c,7,99,QUERY,app,'SELECT \\'long, 1",
            "2015-05-28T15:27:35+00:00",
            ("QUERY", "app", "SELECT 'long, 1", None, None, True),
        ),
        (
            "1432826855000000,h,u,c,7,99,QUERY,app,'a\\\\',0",
            "2015-05-28T15:27:35+00:00",
            ("QUERY", "app", "a\\", 0, None, False),
        ),
    ],
    ids=["MariaDB", "RDS", "RDS CONNECT", "Aurora", "cut off", "backslash at the end"],
)
def test_the_dialects_of_audit_lines(line: str, time: str, rest: tuple[object, ...]) -> None:
    event = audit_event(line, "CET")
    assert event is not None
    assert (event.event_time, event.connection_id, *event[6:]) == (time, 7, *rest)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "20260102 03:04:05,h,u,c,x,99,QUERY,app,'SELECT 1',0",
        "1,2,3,4,5,6,QUERY,,",
        "20261399 03:04:05,h,u,c,7,99,QUERY,app,'SELECT 1',0",
        "20260102 24:04:05,h,u,c,7,99,QUERY,app,'SELECT 1',0",
        "20260102 03:04:05,h,u,c,%s,99,QUERY,app,'SELECT 1',0" % ("9" * 25),
    ],
)
def test_a_line_that_is_none_is_nothing(line: str) -> None:
    assert audit_event(line, "UTC") is None
