"""Streams as rows: kinesis_read and kinesis_put_records in a backend."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from bench.calls import private_memory
from tests.conftest import Connect, runner
from tests.database.test_interrupts import PROMPT
from tests.endpoints import Endpoint, Received, answer, hang_up, in_turn, refusal, silence
from tests.errors import raises
from tests.streams import FaultyStreams, Streams, aggregate

Sql = Callable[..., Any]
RAW = "decompress => 'none', deaggregate => false"


@pytest.fixture(scope="module")
def clicks(aws: LocalAWS) -> str:
    """The ARN of a stream of two shards with twenty records in the local AWS."""
    client = aws.client("kinesis")
    client.create_stream(StreamName="clicks", ShardCount=2)
    for number in range(20):
        client.put_record(
            StreamName="clicks", Data=json.dumps({"n": number}).encode(), PartitionKey=f"key-{number % 5}"
        )
    return str(client.describe_stream_summary(StreamName="clicks")["StreamDescriptionSummary"]["StreamARN"])


@pytest.mark.parametrize("by", ["name", "ARN"])
def test_a_stream_is_rows(shared: Sql, clicks: str, by: str) -> None:
    stream = "clicks" if by == "name" else clicks
    assert shared(
        "SELECT count(*), count(DISTINCT shard_id), sum((awslambda.try_jsonb(data) ->> 'n')::int),"
        " max(millis_behind_latest), bool_and(sub_sequence_number = 0 AND partition_key LIKE 'key-_' AND"
        " approximate_arrival_timestamp BETWEEN now() - interval '1 hour' AND clock_timestamp() + interval '1 s')"
        " FROM awslambda.kinesis_read(%s)",
        stream,
    ) == (20, 2, 190, 0, True)


def test_each_shard_is_in_order(shared: Sql, clicks: str) -> None:
    assert shared(
        "SELECT bool_and(n > before) FROM (SELECT sequence_number AS n,"
        " lag(sequence_number) OVER (PARTITION BY shard_id ORDER BY ordinality) AS before"
        " FROM awslambda.kinesis_read('clicks', batch_size => 3) WITH ORDINALITY) AS r"
    )


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ("max_records => 3", 3),
        ("max_records => 0", 0),
        ("max_records => NULL", 20),
        ("starting_position => 'LATEST', max_duration => '10 ms'", 0),
        ("'AT_TIMESTAMP', now() - interval '1 hour'", 20),
        ("max_duration => '0'", 0),
        ("shard_ids => '{}'", 0),
    ],
)
def test_arguments_bound_what_is_read(shared: Sql, clicks: str, arguments: str, rows: int) -> None:
    assert shared(f"SELECT count(*) FROM awslambda.kinesis_read('clicks', {arguments})") == rows


def test_reading_goes_on_at_and_after_a_sequence_number(shared: Sql, clicks: str) -> None:
    first, number, many = shared(
        "SELECT shard_id, max(sequence_number), count(*) FROM (SELECT * FROM awslambda.kinesis_read('clicks') LIMIT 3)"
        " AS r GROUP BY 1"
    )
    assert many == 3
    for kind, begins in (("AT", True), ("AFTER", False)):
        numbers = shared(
            "SELECT array_agg(sequence_number) FROM awslambda.kinesis_read('clicks', %s,"
            " starting_sequence_number => %s, shard_ids => ARRAY[%s])",
            f"{kind}_SEQUENCE_NUMBER", number, first,
        )  # fmt: skip
        assert (numbers[0] == number) is begins
        assert min(numbers) >= number


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'missing'", "42704", "no Kinesis stream 'missing' in us-east-1"),
        ("'a b'", "22023", "not the name or ARN of a Kinesis stream"),
        ("NULL", "22004", "stream must not be NULL"),
        ("'clicks', shard_ids => '{shardId-9}'", "42704", "has no shard 'shardId-9'"),
        ("'clicks', shard_ids => '{NULL}'", "22004", "shard_ids"),
        ("'clicks', shard_ids => '{{a},{b}}'", "22023", "shard_ids has more than one dimension"),
        ("'clicks', 'LATEST', now()", "22023", "starting_timestamp contradicts starting_position LATEST"),
        ("'clicks', 'OLDEST'", "22023", "TRIM_HORIZON, LATEST, AT_TIMESTAMP"),
        ("'clicks', 'AT_TIMESTAMP'", "22023", "needs starting_timestamp"),
        ("'clicks', 'AT_TIMESTAMP', 'infinity'", "22023", "infinite"),
        ("'clicks', 'AT_SEQUENCE_NUMBER', starting_sequence_number => 1.5", "22023", "not a sequence number: 1.5"),
        ("'clicks', 'AT_SEQUENCE_NUMBER', starting_sequence_number => -1", "22023", "not a sequence number: -1"),
        ("'clicks', 'AT_SEQUENCE_NUMBER', starting_sequence_number => 'NaN'", "22023", "not a sequence number"),
        ("'clicks', 'AT_SEQUENCE_NUMBER', starting_sequence_number => 1", "22023", "of one shard, and 2"),
        ("'clicks', batch_size => 0", "22023", "batch_size"),
        ("'clicks', max_records => -1", "22023", "max_records"),
        ("'clicks', decompress => 'lz4'", "22023", "auto, gzip, none"),
        ("'clicks', server => 'none'", "42704", "no server 'none'"),
    ],
)
def test_bad_input_is_one_clear_error(shared: Sql, clicks: str, arguments: str, sqlstate: str, words: str) -> None:
    with raises(sqlstate, words):
        shared(f"SELECT * FROM awslambda.kinesis_read({arguments})")


def test_who_has_no_grant_reads_nothing_and_a_server_limits_the_others(sql: Sql, connect: Connect, clicks: str) -> None:
    sql("CREATE ROLE reader LOGIN")
    reader = runner(connect("reader"))
    with raises("42501", "permission denied"):
        reader("SELECT * FROM awslambda.kinesis_read('clicks')")
    sql("SELECT awslambda.grant_usage('reader')")
    assert reader("SELECT count(*) FROM awslambda.kinesis_read('clicks')") == 20
    sql("CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (allowed_resources 'stream/other')")
    with raises("42501", "may not use the server"):
        reader("SELECT * FROM awslambda.kinesis_read('clicks')")
    sql("GRANT USAGE ON FOREIGN SERVER aws TO reader")
    with raises("42501", "does not allow 'stream/clicks'"):
        reader("SELECT * FROM awslambda.kinesis_read('clicks')")
    with raises("42501", "does not allow 'stream/clicks'"):
        reader("SELECT * FROM awslambda.kinesis_put_records('clicks', '{a}')")


# Pages that a test makes up.


def page(*records: bytes, key: str = "k", more: bool = False) -> dict[str, Any]:
    made = [
        {
            "SequenceNumber": str(10**55 + number), "ApproximateArrivalTimestamp": 1.5e9, "PartitionKey": key,
            "Data": base64.b64encode(data).decode(),
        }
        for number, data in enumerate(records)
    ]  # fmt: skip
    return {"Records": made, "MillisBehindLatest": 0, "NextShardIterator": "it" if more else None}


@pytest.fixture
def stub(sql: Sql, endpoint: Callable[..., Endpoint]) -> Callable[..., Endpoint]:
    """An endpoint of one shard with the pages that the test says; the last stays."""

    def start(*pages: Any) -> Endpoint:
        shards = {"Shards": [{"ShardId": "shard-1", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}]}
        said = {"ListShards": [answer(body=shards)], "GetShardIterator": [answer(body={"ShardIterator": "it"})]}
        said["GetRecords"] = [one if callable(one) else answer(body=one) for one in pages]

        def behave(connection: Any, received: Received) -> bool:
            left = said[received.headers["x-amz-target"].rpartition(".")[2]]
            return bool((left.pop(0) if len(left) > 1 else left[0])(connection, received))

        running = endpoint(behave)
        sql(
            "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda"
            f" OPTIONS (region 'us-east-1', endpoint_url '{running.url}', request_timeout '50s')"
        )
        return running

    return start


def asked(endpoint: Endpoint) -> list[str]:
    return [received.headers["x-amz-target"].rpartition(".")[2] for received in endpoint.requests]


def test_what_is_packed_is_unpacked_with_its_place(sql: Sql, stub: Any) -> None:
    stub(page(b"plain", gzip.compress(b"zipped"), aggregate(("a", None, b"1"), ("b", "7", gzip.compress(b"2")))))
    found = sql(
        "SELECT array_agg(ARRAY[(sequence_number % 100)::text, sub_sequence_number::text, partition_key,"
        " convert_from(data, 'UTF8')]) FROM awslambda.kinesis_read('s')"
    )
    assert found == [["0", "0", "k", "plain"], ["1", "0", "k", "zipped"], ["2", "0", "a", "1"], ["2", "1", "b", "2"]]
    assert sql(f"SELECT max(length(data)) FROM awslambda.kinesis_read('s', {RAW})") > 20


@pytest.mark.parametrize("data", [b"\x1f\x8bno", b"\xf3\x89\x9a\xc2no"], ids=["gzip", "aggregate"])
def test_a_broken_record_is_an_error_that_names_it(sql: Sql, stub: Any, data: bytes) -> None:
    stub(page(b"fine", data))
    for arguments in ("", ", max_records => 10"):
        with raises(
            "22P03", f"The record {10**55 + 1} of the shard 'shard-1' cannot be unpacked", "decompress => 'none'"
        ):
            sql(f"SELECT * FROM awslambda.kinesis_read('s'{arguments})")


def test_rows_are_made_page_by_page(sql: Sql, stub: Any) -> None:
    endpoint = stub(page(b"1", b"2", more=True))
    assert sql("SELECT (awslambda.kinesis_read('s')).data LIMIT 1") == b"1"
    assert asked(endpoint).count("GetRecords") == 1
    assert sql("SELECT count(*) FROM awslambda.kinesis_read('s', max_records => 5)") == 5
    assert asked(endpoint).count("GetRecords") == 1 + 3


def test_an_empty_page_is_the_end_only_at_the_tip(sql: Sql, stub: Any) -> None:
    behind = {**page(more=True), "MillisBehindLatest": 5000}
    stub(behind, behind, page(b"1", more=True), page(more=True))
    assert sql("SELECT count(*) FROM awslambda.kinesis_read('s')") == 1


def test_a_record_of_ten_mib_is_a_row_and_many_pages_are_not_in_memory_at_once(
    sql: Sql, stub: Any, connect: Connect
) -> None:
    stub(page(b"x" * 10 * 1024 * 1024, more=True))
    session = connect()
    run = runner(session)
    assert run("SELECT length((awslambda.kinesis_read('s')).data) LIMIT 1") == 10 * 1024 * 1024
    before = private_memory(session.info.backend_pid)
    assert run("SELECT count(*) FROM (SELECT (awslambda.kinesis_read('s', max_records => 30)).data) AS r") == 30
    assert private_memory(session.info.backend_pid) - before < 100


@pytest.mark.parametrize("what", ["answer", "back-off", "poll"])
def test_statement_timeout_ends_a_read(sql: Sql, stub: Any, what: str) -> None:
    busy = refusal(400, "ProvisionedThroughputExceededException")
    stub({"answer": silence, "back-off": busy, "poll": page(more=True)}[what])
    position = "LATEST" if what == "poll" else "TRIM_HORIZON"
    sql("SELECT count(*) FROM awslambda.kinesis_read('s', shard_ids => '{}')")  # the imports are no part of the wait
    sql("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with raises("57014", "statement timeout"):
        sql("SELECT * FROM awslambda.kinesis_read('s', %s)", position)
    assert time.monotonic() - started < 0.3 + PROMPT
    sql("RESET statement_timeout")
    assert sql("SELECT count(*) FROM awslambda.kinesis_read('s', shard_ids => '{}')") == 0


def test_a_partition_key_that_the_encoding_lacks_is_escaped(cluster: Cluster, stub: Any, sql: Sql) -> None:
    url = stub(page(b"1", key="ü\u20ac\0")).url
    sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(cluster.dsn("latin"), autocommit=True) as session:
            latin = runner(session)
            latin("CREATE EXTENSION awslambda CASCADE")
            latin(
                f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', endpoint_url '{url}')"
            )
            assert latin("SELECT partition_key FROM awslambda.kinesis_read('s')") == "\\u00fc\\u20ac"
    finally:
        sql("DROP DATABASE latin WITH (FORCE)")


# Putting.


def test_records_are_put_and_each_row_says_where(shared: Sql, aws: LocalAWS) -> None:
    aws.client("kinesis").create_stream(StreamName="put", ShardCount=2)
    assert shared(
        "SELECT array_agg(p.shard_id ORDER BY p.ordinality) FROM awslambda.kinesis_put_records('put', '{a,b}',"
        " explicit_hash_keys => ARRAY[0, 340282366920938463463374607431768211454]) AS p"
    ) == ["shardId-000000000000", "shardId-000000000001"]
    assert shared(
        "SELECT count(*), count(DISTINCT shard_id), count(error_code) FROM awslambda.kinesis_put_records('put',"
        " (SELECT array_agg(convert_to(g::text, 'UTF8')) FROM generate_series(1, 1200) AS g))"
    ) == (1200, 2, 0)
    assert shared("SELECT count(*), sum(convert_from(data, 'UTF8')::int) FROM awslambda.kinesis_read('put')"
                  " WHERE data NOT IN ('a', 'b')") == (1200, 720_600)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'missing', '{a}'", "42704", "no Kinesis stream 'missing'"),
        ("'put', NULL", "22004", "data must not be NULL"),
        ("'put', '{NULL}'", "22004", "an element of data"),
        ("'put', '{a,b}', '{k}'", "22023", "data has 2 elements, and partition_keys has 1"),
        ("'put', '{a,b}', '{k,\"\"}'", "22023", "an element of partition_keys is empty"),
        ("'put', '{{a},{b}}'", "22023", "data has more than one dimension"),
        ("'put', '{a,b}', '{{k},{l}}'", "22023", "partition_keys has more than one dimension"),
        ("'put', '{a,b}', explicit_hash_keys => '{{1},{2}}'", "22023", "explicit_hash_keys has more than one dim"),
        ("'put', '{a}', explicit_hash_keys => '{-1}'", "22023", "not an explicit hash key: -1"),
        ("'put', '{a}', explicit_hash_keys => '{NaN}'", "22023", "not an explicit hash key"),
        ("'put', ARRAY[convert_to(repeat('x', 10485760), 'UTF8')]", "54000", "10485760 are the most"),
    ],
)
def test_bad_records_are_one_clear_error(shared: Sql, arguments: str, sqlstate: str, words: str) -> None:
    with raises(sqlstate, words):
        shared(f"SELECT * FROM awslambda.kinesis_put_records({arguments})")


def test_what_was_not_taken_is_a_row(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    taken = {"ShardId": "s", "SequenceNumber": "7"}
    no = {"ErrorCode": "InternalFailure", "ErrorMessage": "try again"}
    url = endpoint(answer(body={"Records": [taken, no]})).url
    sql(
        "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda"
        f" OPTIONS (region 'us-east-1', endpoint_url '{url}', max_attempts '1')"
    )
    assert sql(
        "SELECT array_agg(p::text ORDER BY p.ordinality) FROM awslambda.kinesis_put_records('s', '{a,b}') AS p"
    ) == ["(1,s,7,,)", '(2,,,InternalFailure,"try again")']


def test_a_row_says_what_was_put_although_putting_the_rest_again_broke(
    sql: Sql, endpoint: Callable[..., Endpoint]
) -> None:
    taken = {"ShardId": "s", "SequenceNumber": "7"}
    no = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"}
    url = endpoint(in_turn(answer(body={"Records": [no, taken]}), hang_up)).url
    sql(f"CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1', endpoint_url '{url}')")
    assert sql(
        "SELECT array_agg(coalesce(sequence_number::text, error_code)) FROM awslambda.kinesis_put_records('s', '{a,b}')"
    ) == ["StreamConnectionBroke", "7"]


# Streams that change while they are read, against a double that does that as AWS does.


def test_shards_are_read_over_splits_and_merges(sql: Sql, streams: Streams) -> None:
    streams.create("generations", 2)
    sql(streams.server)
    streams.put("generations", *(str(n).encode() for n in range(5)))
    first, second = (shard["ShardId"] for shard in streams.shards("generations"))
    streams.split("generations", first)
    streams.put("generations", *(str(n).encode() for n in range(5, 10)))
    third = streams.shards("generations")[-1]["ShardId"]
    streams.merge("generations", third, second)
    streams.put("generations", *(str(n).encode() for n in range(10, 15)))
    found = sql("SELECT array_agg(convert_from(data, 'UTF8')::int) FROM awslambda.kinesis_read('generations')")
    assert found == list(range(15))
    assert sql(
        "SELECT count(*) FROM awslambda.kinesis_read('generations', 'AT_TIMESTAMP', now() - interval '1 hour')"
    ) == 15  # fmt: skip


def test_faults_of_kinesis_lose_and_repeat_nothing(sql: Sql, faulty: FaultyStreams) -> None:
    faulty.create("faults")
    sql(faulty.server)
    faulty.put("faults", *(str(n).encode() for n in range(20)))
    faulty.faults["GetRecords"] = [
        refusal(400, "ProvisionedThroughputExceededException"), refusal(400, "ExpiredIteratorException"),
        refusal(500, "InternalFailure"), lambda *_: False, refusal(400, "ExpiredIteratorException"),
    ]  # fmt: skip
    found = sql(
        "SELECT array_agg(convert_from(data, 'UTF8')::int) FROM awslambda.kinesis_read('faults', batch_size => 6)"
    )
    assert found == list(range(20))
    faulty.faults["GetRecords"] = []
    faulty.changes["GetRecords"] = without_keys
    assert sql("SELECT count(*), count(partition_key) FROM awslambda.kinesis_read('faults')") == (20, 0)


def without_keys(said: dict[str, Any]) -> dict[str, Any]:
    for record in said["Records"]:
        del record["PartitionKey"]
    return said
