"""Kinesis on plain values: what is asked, what each answer means, and in which order shards are read."""

from __future__ import annotations

import base64
import calendar
import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from awslambda import errors, kinesis
from awslambda.connection import Connections
from awslambda.kinesis import Entry, Page, Position, Read, Record, Shard, ShardReader, Stream, Unpacking, position
from awslambda.settings import Settings

from tests.endpoints import Behaviour, Endpoint, Received, answer, hang_up, in_turn, refusal, silence

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
EMPTY = {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": "next"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(kinesis, "THROTTLED_FOR", 0.01)


@pytest.fixture
def kinesis_at() -> Iterator[Callable[..., tuple[Stream, Endpoint]]]:
    """A stream whose endpoint behaves as the test says."""
    running: list[Endpoint] = []
    connections = Connections()

    def start(behaviour: Behaviour, name: str = "clicks", **options: Any) -> tuple[Stream, Endpoint]:
        running.append(Endpoint(behaviour))
        given = {"request_timeout": 5.0, **options}
        settings = Settings(region="us-east-1", endpoint_urls={"kinesis": running[-1].url}, **given)
        return Stream(name, settings, connections, lambda: None), running[-1]

    yield start
    connections.close()
    for one in running:
        one.close()


def asked(received: Received) -> tuple[str, dict[str, Any]]:
    return received.headers["x-amz-target"], json.loads(received.body)


def test_a_page_is_asked_for_and_read_as_the_api_says(kinesis_at: Any) -> None:
    record = {
        "SequenceNumber": "49", "ApproximateArrivalTimestamp": 1.5e9, "Data": base64.b64encode(b"\0data").decode()
    }  # fmt: skip
    said = {**EMPTY, "Records": [record], "ChildShards": [{"ShardId": "c", "ParentShards": ["s"]}]}
    stream, endpoint = kinesis_at(answer(body=said))
    assert stream.page("s", "it", 7) == Page([Record("49", 1.5e9, None, b"\0data")], "next", 0)
    assert asked(endpoint.requests[0]) == ("Kinesis_20131202.GetRecords", {"ShardIterator": "it", "Limit": 7})
    assert endpoint.requests[0].headers["content-type"] == "application/x-amz-json-1.1"
    assert "/us-east-1/kinesis/aws4_request" in endpoint.requests[0].headers["authorization"]


def test_an_arn_goes_with_every_request_and_to_its_region(kinesis_at: Any) -> None:
    stream, endpoint = kinesis_at(
        in_turn(
            answer(body={"Shards": [shard("a")], "NextToken": "t"}), answer(body={"Shards": [shard("b", "a")]}),
            answer(body={"ShardIterator": "it"}), answer(body=EMPTY),
        ),
        ARN,
    )  # fmt: skip
    assert [one.shard_id for one in stream.shards()] == ["a", "b"]
    stream.page("a", stream.iterator("a", Position("AT_SEQUENCE_NUMBER", "5")), 1)
    bodies = [asked(received)[1] for received in endpoint.requests]
    assert bodies[1] == {"NextToken": "t"}
    assert [body.get("StreamARN") for body in bodies] == [ARN, None, ARN, ARN]
    assert bodies[2]["StartingSequenceNumber"] == "5"
    assert all("/eu-west-1/kinesis/" in received.headers["authorization"] for received in endpoint.requests)


def shard(name: str, *parents: str, closed: bool = False) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": "1", **({"EndingSequenceNumber": "9"} if closed else {})}
    named = dict(zip(("ParentShardId", "AdjacentParentShardId"), parents, strict=False))
    return {"ShardId": name, "SequenceNumberRange": numbers, **named}


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("ResourceNotFoundException", 400, errors.StreamNotFound, "no Kinesis stream 'clicks' in us-east-1"),
        ("AccessDeniedException", 400, errors.AccessDenied, "ListShards"),
        ("KMSAccessDeniedException", 400, errors.AccessDenied, "ListShards"),
        ("KMSDisabledException", 400, errors.StreamFailed, "KMSDisabledException"),
        ("InvalidArgumentException", 400, errors.InvalidArgument, "no"),
        ("ExpiredTokenException", 400, errors.CredentialsRefused, "no"),
        ("InternalFailure", 500, errors.StreamFailed, "InternalFailure, HTTP 500"),
        ("ProvisionedThroughputExceededException", 400, errors.StreamThrottled, "throttled ListShards"),
    ],
)
def test_each_refusal_is_one_error(kinesis_at: Any, code: str, status: int, kind: type[Exception], words: str) -> None:
    stream, _ = kinesis_at(refusal(status, code), request_timeout=0.5, max_attempts=1)
    with pytest.raises(kind, match=words) as caught:
        stream.shards()
    assert "no" in str(caught.value.detail)  # type: ignore[attr-defined]


def test_a_clock_that_is_wrong_is_corrected_for_streams_too(kinesis_at: Any) -> None:
    theirs = time.time() + 7200
    said = {"__type": "InvalidSignatureException", "message": "Signature expired"}
    refused = answer(400, said, Date=formatdate(theirs, usegmt=True))
    stream, endpoint = kinesis_at(in_turn(refused, answer(body=EMPTY)))
    stream.page("s", "it", 1)
    _, signed = (received.headers["x-amz-date"] for received in endpoint.requests)
    assert abs(calendar.timegm(time.strptime(signed, "%Y%m%dT%H%M%SZ")) - theirs) < 60


def test_what_is_not_kinesis_is_told_from_it(kinesis_at: Any) -> None:
    for status in (200, 404):
        stream, _ = kinesis_at(answer(status, b"<html>"))
        with pytest.raises(errors.NotKinesis):
            stream.shards()


def test_reading_is_tried_again_after_what_does_no_harm(kinesis_at: Any) -> None:
    busy = refusal(400, "ProvisionedThroughputExceededException")
    faults = [*[busy] * 6, hang_up, refusal(500, "InternalFailure")]
    stream, endpoint = kinesis_at(in_turn(*faults, answer(body=EMPTY)))
    assert stream.page("s", "it", 1).is_tip
    assert len(endpoint.requests) == 9
    stream, endpoint = kinesis_at(hang_up)
    with pytest.raises(errors.StreamConnectionBroke):
        stream.page("s", "it", 1)
    assert len(endpoint.requests) == 3


def test_silence_is_an_error_within_the_timeout(kinesis_at: Any) -> None:
    stream, _ = kinesis_at(silence, request_timeout=0.1)
    with pytest.raises(errors.StreamNoAnswer, match="GetRecords of the stream 'clicks'"):
        stream.page("s", "it", 1)


@pytest.mark.parametrize(("patterns", "name", "allowed"), [
    (("stream/cl*",), "clicks", True), (("function:*",), "clicks", False), (("stream/*",), ARN, False),
    (("arn:aws:kinesis:*:123456789012:stream/*",), ARN, True),
])  # fmt: skip
def test_allowed_resources_are_for_streams_too(
    kinesis_at: Any, patterns: tuple[str, ...], name: str, allowed: bool
) -> None:
    stream, endpoint = kinesis_at(answer(body={"Shards": []}), name, allowed_resources=patterns)
    if allowed:
        assert stream.shards() == []
    else:
        with pytest.raises(errors.ResourceNotAllowed):
            stream.shards()
        assert not endpoint.requests


@pytest.mark.parametrize("name", ["", "a b", "arn:aws:kinesis:eu-west-1:1:stream/x", "x" * 129, ARN + "/consumer/y"])
def test_what_names_no_stream_is_an_error(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="not the name or ARN"):
        Stream(name, Settings(), Connections(), lambda: None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("OLDEST",), "invalid starting_position"),
        (("LATEST", None, 1.0), "starting_timestamp contradicts"),
        (("TRIM_HORIZON", "1"), "starting_sequence_number contradicts"),
        (("AT_TIMESTAMP",), "needs starting_timestamp"),
        (("AT_TIMESTAMP", None, float("inf")), "infinite"),
        (("AFTER_SEQUENCE_NUMBER",), "needs starting_sequence_number"),
        (("AT_SEQUENCE_NUMBER", "-1"), "not a sequence number"),
        (("AT_SEQUENCE_NUMBER", "1.5"), "not a sequence number"),
        (("AT_SEQUENCE_NUMBER", "1" * 130), "not a sequence number"),
    ],
)
def test_a_position_that_contradicts_itself_is_an_error(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        position(*arguments)


def test_a_position_is_read_in_any_case() -> None:
    assert position("latest") == Position("LATEST")


def test_an_expired_iterator_goes_on_behind_the_last_record_that_was_read(kinesis_at: Any) -> None:
    record = {"SequenceNumber": "5", "ApproximateArrivalTimestamp": 1.0, "Data": ""}
    expired = refusal(400, "ExpiredIteratorException")
    stream, endpoint = kinesis_at(
        in_turn(
            answer(body={"ShardIterator": "1"}), answer(body={**EMPTY, "Records": [record]}), expired,
            answer(body={"ShardIterator": "2"}), answer(body={**EMPTY, "NextShardIterator": None}),
        )
    )  # fmt: skip
    reader = ShardReader(stream, "s", Position("TRIM_HORIZON"))
    reader.page(1)
    assert not reader.ended
    reader.page(1)
    assert reader.ended
    again = asked(endpoint.requests[3])[1]
    assert (again["ShardIteratorType"], again["StartingSequenceNumber"]) == ("AFTER_SEQUENCE_NUMBER", "5")


def test_latest_stays_the_moment_that_it_was(kinesis_at: Any) -> None:
    date = "Wed, 25 Nov 2026 10:00:00 GMT"
    stream, endpoint = kinesis_at(
        in_turn(
            answer(body={"ShardIterator": "1"}, Date=date), refusal(400, "ExpiredIteratorException"),
            answer(body={"ShardIterator": "2"}), answer(body=EMPTY),
        )
    )  # fmt: skip
    ShardReader(stream, "s", Position("LATEST")).page(1)
    again = asked(endpoint.requests[2])[1]
    assert (again["ShardIteratorType"], again["Timestamp"]) == ("AT_TIMESTAMP", 1795600800.0)


class Double:
    """A stream in memory: the shards' records, and children that are listed once a parent has ended."""

    def __init__(self, shards: list[Shard], later: list[Shard], records: dict[str, list[str]]) -> None:
        self._shards, self._later, self._records = shards, later, records
        self.target = kinesis.resources.stream("double")
        self.started: list[tuple[str, str]] = []
        self.slept = 0

    def shards(self) -> list[Shard]:
        return self._shards

    def iterator(self, shard_id: str, at: Position) -> str:
        self.started.append((shard_id, at.kind))
        return "0"

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        numbers = self._records[shard_id][int(iterator) : int(iterator) + limit]
        ended = int(iterator) + limit >= len(self._records[shard_id])
        children = any(shard_id in shard.parents for shard in [*self._shards, *self._later])
        if ended and children and self._later:
            self._shards, self._later = self._shards + self._later, []
        records = [Record(number, 0.0, "k", b"") for number in numbers]
        return Page(records, None if ended and children else str(int(iterator) + len(numbers)), 0)

    def now(self) -> float:
        return time.time()

    def sleep(self, _: float) -> None:
        self.slept += 1


def one(name: str, *parents: str, closed: bool = False) -> Shard:
    return Shard(name, parents, closed)


def read(double: Double, **asked: Any) -> list[tuple[str, str]]:
    found = kinesis.read(double, Read(**{"start": Position("TRIM_HORIZON"), **asked}))  # type: ignore[arg-type]
    return [(shard_id, record.sequence_number) for shard_id, page in found for record in page.records]


def test_parents_come_before_children_over_generations() -> None:
    shards = [one("d", "b", "c"), one("b", "a", closed=True), one("c", "a", closed=True), one("a", closed=True)]
    records = {"a": ["1", "2"], "b": ["3"], "c": ["4", "5", "6"], "d": ["7"]}
    found = read(Double(shards, [], records), batch_size=1)
    assert {shard: "".join(number for of, number in found if of == shard) for shard in "abcd"} == {
        "a": "12", "b": "3", "c": "456", "d": "7",
    }  # fmt: skip
    order = [shard_id for shard_id, _ in found]
    assert order[:2] == ["a", "a"] and order[-1] == "d"


def test_children_that_come_up_while_reading_are_read_from_their_beginning() -> None:
    double = Double([one("a")], [one("b", "a")], {"a": ["1"], "b": ["2"]})
    assert read(double, start=Position("AT_TIMESTAMP", timestamp=1.0)) == [("a", "1"), ("b", "2")]
    assert double.started == [("a", "AT_TIMESTAMP"), ("b", "TRIM_HORIZON")]


def test_a_parent_that_is_gone_is_not_waited_for() -> None:
    assert read(Double([one("b", "gone")], [], {"b": ["1"]})) == [("b", "1")]


def test_only_chosen_shards_are_read() -> None:
    shards = [one("a", closed=True), one("b", "a"), one("c")]
    records = {"a": ["1"], "b": ["2"], "c": ["3"]}
    assert read(Double(shards, [], records), shard_ids=("b",)) == [("b", "2")]
    with pytest.raises(errors.ShardNotFound, match="no shard 'x'"):
        read(Double(shards, [], records), shard_ids=("x",))


def test_a_sequence_number_is_of_one_shard() -> None:
    double = Double([one("a"), one("b")], [], {"a": ["1"], "b": ["2"]})
    start = Position("AT_SEQUENCE_NUMBER", "1")
    with pytest.raises(errors.InvalidArgument, match="of one shard, and 2 are to be read"):
        read(double, start=start)
    assert read(double, start=start, shard_ids=("a",)) == [("a", "1")]


def test_latest_follows_open_shards_until_the_time_is_over() -> None:
    double = Double([one("a", closed=True), one("b")], [], {"a": ["1"], "b": []})
    assert read(double, start=Position("LATEST"), max_duration=0.05) == []
    assert double.slept > 1
    assert double.started == [("b", "LATEST")]


class Trickle(Double):
    """Each read of `busy` brings a record, at the tip or behind it; `quiet` has one only when it is read again."""

    def __init__(self, behind: int) -> None:
        super().__init__([one("busy"), one("quiet")], [], {})
        self.behind = behind
        self.reads: list[str] = []

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        time.sleep(0.001)  # the answer takes its time
        self.reads.append(shard_id)
        if shard_id == "quiet" and self.reads.count(shard_id) == 1:
            return Page([], "1", 0)
        return Page([Record(str(len(self.reads)), 0.0, "k", b"")], "1", self.behind if shard_id == "busy" else 0)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        time.sleep(seconds)


def test_a_busy_shard_does_not_keep_a_quiet_one_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis, "POLL", 0.02)
    found = read(Trickle(behind=1000), start=Position("LATEST"), max_duration=0.3)
    assert {shard_id for shard_id, _ in found} == {"busy", "quiet"}


def test_at_the_tip_not_all_the_reads_of_a_shard_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis, "POLL", 0.02)
    double = Trickle(behind=0)
    read(double, start=Position("LATEST"), max_duration=0.3)
    assert 2 <= double.reads.count("busy") <= 0.3 / 0.02 + 1


@pytest.mark.parametrize("asked", [{"batch_size": 0}, {"batch_size": 10_001}, {"max_records": -1}])
def test_a_read_out_of_bounds_is_an_error(asked: dict[str, int]) -> None:
    with pytest.raises(errors.InvalidArgument):
        Read(Position("LATEST"), **asked)  # type: ignore[arg-type]


def test_a_record_that_cannot_be_unpacked_is_named() -> None:
    page = Page([Record("77", 0.0, "k", b"\x1f\x8bbroken")], None, 0)
    with pytest.raises(errors.BrokenRecord, match="The record 77 of the shard 'shard-1' cannot be unpacked: its gzip"):
        list(kinesis.rows([("shard-1", page)], Unpacking(), str))
    assert [row[5] for row in kinesis.rows([("s", page)], Unpacking(decompress="none"), str)] == [b"\x1f\x8bbroken"]


def put(double: Any, count: int, size: int = 1) -> list[kinesis.Put]:
    return list(kinesis.put(double, [Entry(b"x" * size, "k") for _ in range(count)]))


def taken(records: int) -> dict[str, Any]:
    return {"Records": [{"ShardId": "s", "SequenceNumber": str(number)} for number in range(records)]}


def test_records_are_put_in_batches_of_500_and_10_mib(kinesis_at: Any) -> None:
    stream, endpoint = kinesis_at(in_turn(answer(body=taken(500)), answer(body=taken(1))))
    assert len(put(stream, 501)) == 501
    assert [len(asked(received)[1]["Records"]) for received in endpoint.requests] == [500, 1]
    stream, endpoint = kinesis_at(in_turn(answer(body=taken(2)), answer(body=taken(1))))
    assert len(put(stream, 3, 4 * 1024 * 1024)) == 3
    with pytest.raises(errors.RecordTooLarge):
        put(stream, 1, kinesis.LARGEST_PUT)


def test_only_records_that_were_not_taken_are_put_again(kinesis_at: Any) -> None:
    no = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"}
    first = {"Records": [{"ShardId": "s", "SequenceNumber": "1"}, no, no]}
    second = {"Records": [{"ShardId": "s", "SequenceNumber": "2"}, no]}
    stream, endpoint = kinesis_at(in_turn(answer(body=first), answer(body=second), answer(body={"Records": [no]})))
    found = put(stream, 3)
    assert [one.sequence_number for one in found] == ["1", "2", None]
    assert found[2].error_code == "ProvisionedThroughputExceededException"
    assert [len(asked(received)[1]["Records"]) for received in endpoint.requests] == [3, 2, 1]


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (hang_up, "StreamConnectionBroke"),
        (refusal(500, "InternalFailure"), "StreamFailed"),
        (refusal(400, "AccessDeniedException"), "AccessDenied"),
    ],
)
def test_what_was_taken_is_known_when_putting_the_others_again_fails(
    kinesis_at: Any, then: Behaviour, code: str
) -> None:
    no = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"}
    first = {"Records": [no, {"ShardId": "s", "SequenceNumber": "1"}, no]}
    stream, endpoint = kinesis_at(in_turn(answer(body=first), then))
    found = put(stream, 3)
    assert [(one.sequence_number, one.error_code) for one in found] == [(None, code), ("1", None), (None, code)]
    assert len(endpoint.requests) == 2


def test_what_may_have_arrived_is_not_put_twice(kinesis_at: Any) -> None:
    stream, endpoint = kinesis_at(hang_up)
    with pytest.raises(errors.StreamConnectionBroke):
        put(stream, 1)
    assert len(endpoint.requests) == 1


def test_a_batch_that_fails_behind_another_is_an_error_of_its_records(kinesis_at: Any) -> None:
    stream, endpoint = kinesis_at(in_turn(answer(body=taken(500)), hang_up))
    found = put(stream, 1200)
    assert [one.error_code for one in found] == [None] * 500 + ["StreamConnectionBroke"] * 700
    assert len(endpoint.requests) == 2
