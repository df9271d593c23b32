"""Consumers: each record exactly once, whatever becomes of transactions, sessions and shards."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.database.test_interrupts import PROMPT
from tests.endpoints import refusal, silence
from tests.errors import raises
from tests.streams import FaultyStreams, Streams, aggregate
from tests.waiting import wait_until

Sql = Callable[..., Any]
NUMBER = "convert_from(data, 'UTF8')::int"
_names = itertools.count(1)


@pytest.fixture
def stream(sql: Sql, faulty: FaultyStreams) -> str:
    """The name of a new stream of one shard, which the server of the test's database reaches."""
    name = f"consumed-{next(_names)}"
    faulty.create(name)
    sql(faulty.server)
    return name


def put(streams: Streams, stream: str, numbers: range) -> None:
    streams.put(stream, *(str(number).encode() for number in numbers))


def polled(run: Sql, stream: str, arguments: str = "", limit: str = "") -> list[int]:
    rows = f"SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', %s{arguments}) {limit}"
    found = run(f"SELECT array_agg(n) FROM ({rows}) AS r", stream)
    return list(found or [])


# kinesis_poll: the checkpoint is where the caller's transaction left it.


def test_rows_and_checkpoint_are_one_commit(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE readings (shard_id text, sequence_number numeric PRIMARY KEY, n int)")
    insert = f"INSERT INTO readings SELECT shard_id, sequence_number, {NUMBER} FROM awslambda.kinesis_poll('app', %s)"
    for upto in (5, 5, 12):
        put(faulty, stream, range(sql("SELECT count(*) FROM readings"), upto))
        sql(insert, stream)
        assert sql("SELECT array_agg(n ORDER BY sequence_number) FROM readings") == list(range(upto))
    assert (
        sql("SELECT (state, records, millis_behind_latest)::text FROM awslambda.kinesis_consumer") == "(READING,12,0)"
    )
    assert sql("SELECT sequence_number FROM awslambda.kinesis_consumer") == sql(
        "SELECT max(sequence_number) FROM readings"
    )


def test_a_rollback_rewinds_and_so_does_a_savepoint(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(6))
    sql("BEGIN")
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    sql("SAVEPOINT s")
    assert polled(sql, stream, ", max_records => 2") == [2, 3]
    sql("ROLLBACK TO s")
    assert polled(sql, stream, ", max_records => 2") == [2, 3]
    sql("ROLLBACK")
    assert polled(sql, stream) == [0, 1, 2, 3, 4, 5]
    assert polled(sql, stream) == []


def test_a_savepoint_that_is_rolled_back_last_leaves_what_was_before_it(
    sql: Sql, faulty: FaultyStreams, stream: str
) -> None:
    put(faulty, stream, range(6))
    sql("BEGIN")
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    sql("SAVEPOINT s")
    assert polled(sql, stream, ", max_records => 2") == [2, 3]
    sql("ROLLBACK TO s")
    sql("COMMIT")
    assert polled(sql, stream) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', $1) LIMIT 3",
        f"SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', $1, max_records => 3)",
        f"SELECT {NUMBER} AS n FROM (SELECT (awslambda.kinesis_poll('app', $1)).data LIMIT 3) AS r",
        f"SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', $1) AS r, generate_series(1, 1) LIMIT 3",
        f"SELECT max({NUMBER}) AS n FROM (SELECT * FROM awslambda.kinesis_poll('app', $1) LIMIT 3) AS r",
        f"WITH r AS MATERIALIZED (SELECT * FROM awslambda.kinesis_poll('app', $1)) SELECT {NUMBER} AS n FROM r LIMIT 3",
    ],
)  # fmt: skip
def test_a_limit_is_where_the_checkpoint_stays(sql: Sql, faulty: FaultyStreams, stream: str, statement: str) -> None:
    put(faulty, stream, range(8))
    sql(statement.replace("$1", "%s"), stream)
    assert polled(sql, stream) == [3, 4, 5, 6, 7]


def test_a_cursor_that_is_closed_early_leaves_the_rest(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(8))
    sql("BEGIN")
    sql(f"DECLARE c CURSOR FOR SELECT {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}')")
    sql("FETCH 2 FROM c")
    assert sql("FETCH 1 FROM c") == 2
    sql("CLOSE c")
    sql("COMMIT")
    assert polled(sql, stream) == [3, 4, 5, 6, 7]


def test_a_cursor_with_hold_has_received_all_of_it_at_commit(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(8))
    sql("BEGIN")
    sql(f"DECLARE c CURSOR WITH HOLD FOR SELECT {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}')")
    assert sql("FETCH 1 FROM c") == 0
    sql("COMMIT")
    assert polled(sql, stream) == []
    assert sql("FETCH 1 FROM c") == 1


@pytest.mark.parametrize(("where", "received"), [("DO", 4), ("function", 10)])
def test_a_loop_that_ends_early_has_received_what_it_fetched(
    sql: Sql, faulty: FaultyStreams, stream: str, where: str, received: int
) -> None:
    put(faulty, stream, range(30))
    loop = (
        f"DECLARE r record; BEGIN FOR r IN SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', '{stream}')"
        " LOOP EXIT WHEN r.n = 3; END LOOP; END"
    )
    if where == "DO":
        sql(f"DO $$ {loop} $$")
    else:  # PL/pgSQL fetches 10 rows first, then 50 at a time, where no COMMIT can come in between
        sql(f"CREATE FUNCTION looped() RETURNS void LANGUAGE plpgsql AS $$ {loop} $$")
        sql("SELECT looped()")
    assert polled(sql, stream)[0] == received


def test_polls_of_one_transaction_go_on_behind_each_other(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(9))
    sql("BEGIN")
    assert polled(sql, stream, limit="LIMIT 2") == [0, 1]
    assert polled(sql, stream, limit="LIMIT 2") == [2, 3]
    two = f"(SELECT array_agg(n) FROM (SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', %s) LIMIT 2) AS r)"
    first, second = sql(f"SELECT {two}, {two}", stream, stream)
    assert sorted(first + second) == [4, 5, 6, 7]
    sql("COMMIT")
    assert polled(sql, stream) == [8]


def test_a_rescan_hands_out_what_comes_next(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(6))
    found = sql(
        "SELECT array_agg(n ORDER BY n) FROM generate_series(1, 3) AS g(i) CROSS JOIN LATERAL ("
        f"SELECT {NUMBER} AS n FROM awslambda.kinesis_poll('app', %s, max_records => 2 * g.i / g.i)) AS r",
        stream,
    )
    assert found == [0, 1, 2, 3, 4, 5]
    assert polled(sql, stream) == []


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_constraints_may_be_immediate(sql: Sql, faulty: FaultyStreams, stream: str, when: str) -> None:
    put(faulty, stream, range(6))
    sql("BEGIN")
    if when == "before":
        sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql(f"DECLARE c CURSOR FOR SELECT {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}')")
    sql("FETCH 2 FROM c")
    if when == "between":
        sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql("FETCH 2 FROM c")
    if when == "after":
        sql("SET CONSTRAINTS ALL IMMEDIATE")
    sql("COMMIT")
    assert sql("SELECT records FROM awslambda.kinesis_consumer") == 4
    assert polled(sql, stream) == [4, 5]


def test_a_cursor_that_is_read_on_after_a_rollback_hands_out_nothing_twice(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    assert polled(sql, stream) == []
    put(faulty, stream, range(8))
    begin = f"DECLARE c CURSOR FOR SELECT {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}')"
    for statement in ("BEGIN", begin, "SAVEPOINT s", "FETCH 2 FROM c", "ROLLBACK TO s"):
        sql(statement)
    assert sql("FETCH 1 FROM c") == 2
    sql("COMMIT")
    assert polled(sql, stream, ", max_records => 1") == [3]
    for statement in ("BEGIN", begin, "SAVEPOINT s", "FETCH 1 FROM c", "ROLLBACK TO s"):
        sql(statement)
    assert polled(runner(connect()), stream, ", max_records => 1") == [4]  # nobody holds the shard
    with raises("40001", "was moved while a cursor read on"):
        sql("FETCH 1 FROM c")
    sql("ROLLBACK")
    assert polled(sql, stream) == [5, 6, 7]


def test_a_function_that_fails_and_is_caught_takes_its_poll_back(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(4))
    sql(
        f"DO $$ BEGIN PERFORM {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}'); RAISE 'no';"
        " EXCEPTION WHEN raise_exception THEN NULL; END $$"
    )
    assert polled(sql, stream) == [0, 1, 2, 3]


def test_a_read_only_transaction_cannot_poll(sql: Sql, stream: str) -> None:
    sql("BEGIN READ ONLY")
    with raises("25006", "read-only"):
        polled(sql, stream)
    sql("ROLLBACK")


def test_a_prepared_transaction_takes_its_records_when_it_is_committed(aws: LocalAWS, faulty: FaultyStreams) -> None:
    faulty.create("prepared")
    put(faulty, "prepared", range(5))
    with (
        Cluster(aws.environment, {"max_prepared_transactions": "2"}) as cluster,
        psycopg.connect(cluster.dsn(), autocommit=True) as one,
        psycopg.connect(cluster.dsn(), autocommit=True) as two,
    ):
        sql, other = runner(one), runner(two)
        sql("CREATE EXTENSION awslambda CASCADE")
        sql(faulty.server)
        assert polled(sql, "prepared", ", max_records => 1") == [0]
        for end in ("ROLLBACK", "COMMIT"):
            sql("BEGIN")
            assert polled(sql, "prepared", ", max_records => 2") == [1, 2]
            sql("PREPARE TRANSACTION 'polled'")
            assert polled(other, "prepared") == []  # the shard is taken
            sql(f"{end} PREPARED 'polled'")
        assert polled(other, "prepared") == [3, 4]


def test_an_older_snapshot_stores_nothing_twice(sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(4))
    assert polled(sql, stream, ", max_records => 1") == [0]
    older = runner(connect())
    older("BEGIN ISOLATION LEVEL REPEATABLE READ")
    older("SELECT count(*) FROM awslambda.kinesis_consumer")
    assert polled(sql, stream) == [1, 2, 3]
    with raises("40001", "could not serialize"):
        polled(older, stream)
    older("ROLLBACK")


def test_a_shard_is_read_by_one_session_at_a_time(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    assert polled(sql, stream) == []  # which makes the consumer: others wait for the commit of that
    put(faulty, stream, range(4))
    sql("CREATE TABLE t (data text)")
    other = runner(connect())
    sql("BEGIN")
    assert polled(sql, stream, limit="LIMIT 1") == [0]
    assert polled(other, stream) == []
    other("CALL awslambda.kinesis_consume('app', %s, target => 't')", stream)
    assert other("SELECT count(*) FROM t") == 0
    with raises("55006", "is being read for the consumer 'app'"):
        other("SELECT awslambda.kinesis_reset('app', %s)", stream)
    sql("COMMIT")
    assert polled(other, stream) == [1, 2, 3]


def test_a_limit_inside_an_aggregate_goes_on_inside_it(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    faulty.put(stream, b"0", aggregate(*(("k", None, str(n).encode()) for n in range(1, 6))), b"6")
    assert polled(sql, stream, limit="LIMIT 3") == [0, 1, 2]
    assert sql("SELECT sub_sequence_number FROM awslambda.kinesis_consumer") == 1
    assert polled(sql, stream, ", max_records => 1") == [3]
    assert polled(sql, stream) == [4, 5, 6]
    assert sql("SELECT sub_sequence_number IS NULL AND records = 7 FROM awslambda.kinesis_consumer")


def test_latest_is_the_moment_of_the_first_call(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(3))
    later = "SELECT clock_timestamp() > max(approximate_arrival_timestamp) + interval '1.1 s'"
    clock = f"{later} FROM awslambda.kinesis_read(%s)"
    wait_until(lambda: sql(clock, stream), "the clock of Kinesis, in seconds, has gone on")
    assert polled(sql, stream, ", 'LATEST'") == []
    put(faulty, stream, range(3, 6))
    assert polled(sql, stream, ", 'LATEST'") == [3, 4, 5]


def test_parents_end_before_children_begin(sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(4))
    faulty.split(stream, faulty.shards(stream)[0]["ShardId"])
    put(faulty, stream, range(4, 8))
    assert polled(sql, stream, limit="LIMIT 1") == [0]
    states = "SELECT array_agg(state ORDER BY shard_id) FROM awslambda.kinesis_consumer"
    assert sql(states) == ["READING", "WAITING_FOR_PARENT", "WAITING_FOR_PARENT"]
    other = runner(connect())
    sql("BEGIN")
    assert polled(sql, stream, limit="LIMIT 1") == [1]
    assert polled(other, stream) == []
    sql("COMMIT")
    assert polled(other, stream) == [2, 3, 4, 5, 6, 7]
    assert sql(states) == ["SHARD_END", "READING", "READING"]
    assert polled(sql, stream) == []


# kinesis_consume.


@pytest.mark.parametrize("kind", ["bytea", "text", "json", "jsonb"])
def test_a_table_is_filled_by_the_names_of_its_columns(sql: Sql, faulty: FaultyStreams, stream: str, kind: str) -> None:
    sql(
        f'CREATE TABLE target (id bigint GENERATED ALWAYS AS IDENTITY, data {kind}, "partition_key" varchar(256),'
        " sequence_number numeric, at timestamptz DEFAULT now(), approximate_arrival_timestamp timestamptz)"
    )
    put(faulty, stream, range(5))
    sql("CALL awslambda.kinesis_consume('app', %s, target => 'target', batch_size => 2)", stream)
    text = "convert_from(data, 'UTF8')" if kind == "bytea" else "data::text"
    assert sql(f"SELECT array_agg({text} ORDER BY id) FROM target") == list("01234")
    assert sql("SELECT bool_and(partition_key = 'key' AND approximate_arrival_timestamp IS NOT NULL) FROM target")
    sql("CALL awslambda.kinesis_consume('app', %s, 'target')", stream)
    assert sql("SELECT count(*) FROM target") == 5


def test_a_handler_gets_each_batch_once(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE batches (id serial, numbers int[])")
    sql(
        "CREATE FUNCTION handle(records awslambda.kinesis_record[]) RETURNS void LANGUAGE sql AS"
        f" $$ INSERT INTO batches (numbers) SELECT array_agg({NUMBER}) FROM unnest(records) $$"
    )
    put(faulty, stream, range(5))
    sql(
        "CALL awslambda.kinesis_consume('app', %s, handler => 'handle(awslambda.kinesis_record[])', batch_size => 2)",
        stream,
    )
    assert sql("SELECT array_agg(numbers::text ORDER BY id) FROM batches") == ["{0,1}", "{2,3}", "{4}"]


@pytest.mark.parametrize("sqlstate", ["LA003", "LA004", "LA005", "28000", "42804", "3F000"])
def test_an_aws_that_is_away_or_a_broken_handler_is_no_records_fault(
    sql: Sql, faulty: FaultyStreams, stream: str, sqlstate: str
) -> None:
    sql(
        "CREATE FUNCTION handle(records awslambda.kinesis_record[]) RETURNS void LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'away' USING ERRCODE = '{sqlstate}'; END $$"
    )
    put(faulty, stream, range(3))
    for on_error in ("skip", "dead_letter"):
        with raises(sqlstate, "away"):
            sql(
                f"CALL awslambda.kinesis_consume('app', '{stream}', on_error => '{on_error}',"
                " handler => 'handle(awslambda.kinesis_record[])')"
            )
    assert sql("SELECT count(*) FROM awslambda.kinesis_dead_letter") == 0
    assert polled(sql, stream) == [0, 1, 2]


def test_names_are_those_of_the_caller(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql('CREATE SCHEMA "My Schema"')
    sql('CREATE TABLE "My Schema"."Target" (data text)')
    sql('SET search_path = "My Schema", public')
    put(faulty, stream, range(2))
    sql("""CALL awslambda.kinesis_consume('app', %s, '"Target"')""", stream)
    assert sql('SELECT count(*) FROM "Target"') == 2
    sql("RESET search_path")


BAD = b"5a"  # where a number is wanted
BROKEN = gzip.compress(b"9")[:-3]


@pytest.fixture
def mixed(sql: Sql, faulty: FaultyStreams, stream: str) -> str:
    """A stream of numbers in which one is none, and one is broken gzip; a table of numbers."""
    faulty.put(stream, *(str(n).encode() for n in range(5)), BAD, *(str(n).encode() for n in range(6, 9)))
    faulty.put(stream, BROKEN, b"10")
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    return stream


def consume(sql: Sql, stream: str, arguments: str = "") -> None:
    sql(f"CALL awslambda.kinesis_consume('app', %s, 'numbers'{arguments})", stream)


def numbers(sql: Sql) -> list[int]:
    return list(sql("SELECT array_agg(data ORDER BY sequence_number) FROM numbers") or [])


def test_stop_stores_what_was_before_and_stays_there(sql: Sql, mixed: str) -> None:
    for _ in range(2):
        with raises("22P02", "cannot be stored: invalid input syntax for type integer", "shard 'shardId-000000000000'"):
            consume(sql, mixed)
        assert numbers(sql) == [0, 1, 2, 3, 4]
    assert sql("SELECT count(*) FROM awslambda.kinesis_dead_letter") == 0


def test_stop_without_bisecting_stores_nothing_of_the_batch(sql: Sql, mixed: str) -> None:
    with raises("22P02", "cannot be stored"):
        consume(sql, mixed, ", bisect_batch_on_error => false, batch_size => 3")
    assert numbers(sql) == [0, 1, 2]


def test_skip_leaves_out_what_cannot_be_stored_and_no_more(sql: Sql, mixed: str) -> None:
    consume(sql, mixed, ", on_error => 'skip'")
    assert numbers(sql) == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    assert sql("SELECT count(*) FROM awslambda.kinesis_dead_letter") == 0


def test_dead_letters_keep_the_bytes_and_the_reason(sql: Sql, mixed: str) -> None:
    consume(sql, mixed, ", on_error => 'dead_letter', batch_size => 4")
    assert numbers(sql) == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    kept = "SELECT array_agg(data ORDER BY id), array_agg(sub_sequence_number ORDER BY id)"
    assert sql(f"{kept} FROM awslambda.kinesis_dead_letter") == ([BAD, BROKEN], [0, None])
    assert sql("SELECT array_agg(sqlstate ORDER BY id) FROM awslambda.kinesis_dead_letter") == ["22P02", "22P03"]
    assert "gzip" in sql("SELECT error FROM awslambda.kinesis_dead_letter ORDER BY id DESC LIMIT 1")
    consume(sql, mixed, ", on_error => 'dead_letter'")
    assert sql("SELECT count(*) FROM awslambda.kinesis_dead_letter") == 2


def test_without_bisecting_the_whole_batch_is_a_dead_letter(sql: Sql, mixed: str) -> None:
    consume(sql, mixed, ", on_error => 'dead_letter', batch_size => 3, bisect_batch_on_error => false")
    assert numbers(sql) == [0, 1, 2, 6, 7, 8, 10]


def test_a_broken_record_stops_with_its_name(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    faulty.put(stream, b"1", gzip.compress(b"2")[:-3])
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    for _ in range(2):
        with raises("22P03", "of the shard 'shardId-000000000000' cannot be unpacked: its gzip is cut off"):
            consume(sql, stream)
        assert numbers(sql) == [1]


def test_a_deferred_constraint_is_about_the_record_that_breaks_it(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(4))
    sql("CREATE TABLE known (n int PRIMARY KEY)")
    sql("INSERT INTO known VALUES (0), (1), (3)")
    sql("CREATE TABLE numbers (data int REFERENCES known DEFERRABLE INITIALLY DEFERRED, sequence_number numeric)")
    consume(sql, stream, ", on_error => 'dead_letter'")
    assert numbers(sql) == [0, 1, 3]
    assert sql("SELECT convert_from(data, 'UTF8') || sqlstate FROM awslambda.kinesis_dead_letter") == "223503"


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("", "22023", "needs a target or a handler"),
        ("'numbers', 'handle(awslambda.kinesis_record[])'", "22023", "needs a target or a handler, and not both"),
        ("'other'", "42703", "has no column of a record"),
        ("'strict'", "23502", "No record fills these columns of public.strict"),
        ("handler => 'lower(text)'", "22023", "lower(text) cannot be a handler"),
        ("'numbers', on_error => 'ignore'", "22023", "stop, skip, dead_letter"),
        ("'numbers', batch_size => 0", "22023", "batch_size"),
        ("'numbers', starting_position => 'LATEST', starting_timestamp => now()", "22023", "contradicts"),
        ("'numbers', on_error => NULL", "22004", "on_error"),
        ("'nothing'", "42P01", "nothing"),
    ],
)
def test_bad_arguments_are_errors_before_anything_is_read(
    sql: Sql, faulty: FaultyStreams, stream: str, arguments: str, sqlstate: str, words: str
) -> None:
    sql("CREATE TABLE numbers (data int)")
    sql("CREATE TABLE other (a int)")
    sql("CREATE TABLE strict (data text, tenant int NOT NULL)")
    sql("CREATE FUNCTION handle(awslambda.kinesis_record[]) RETURNS void LANGUAGE sql AS ''")
    faulty.asked.clear()
    with raises(sqlstate, words):
        sql(f"CALL awslambda.kinesis_consume('app', '{stream}'{', ' if arguments else ''}{arguments})")
    assert not faulty.asked
    assert sql("SELECT count(*) FROM awslambda.kinesis_consumer") == 0


def test_a_missing_stream_is_an_error(sql: Sql, stream: str) -> None:
    sql("CREATE TABLE numbers (data int)")
    with raises("42704", "no Kinesis stream 'missing'"):
        sql("CALL awslambda.kinesis_consume('app', 'missing', 'numbers')")
    with raises("42704", "no Kinesis stream 'missing'"):
        sql("SELECT * FROM awslambda.kinesis_poll('app', 'missing')")


def test_it_is_refused_in_a_transaction_block(sql: Sql, stream: str) -> None:
    sql("CREATE TABLE numbers (data int)")
    sql("BEGIN")
    with raises("2D000", "kinesis_consume cannot be in a transaction block"):
        sql(f"CALL awslambda.kinesis_consume('app', '{stream}', 'numbers')")
    sql("ROLLBACK")


def test_what_the_target_itself_lacks_is_no_records_fault(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    put(faulty, stream, range(3))
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    sql("CREATE ROLE app LOGIN")
    sql("SELECT awslambda.grant_usage('app')")
    sql("GRANT USAGE ON FOREIGN SERVER aws TO app")
    app = runner(connect("app"))
    with raises("42501", "permission denied for table numbers"):
        consume(app, stream, ", on_error => 'skip'")
    sql("GRANT INSERT ON numbers TO app")
    consume(app, stream, ", on_error => 'skip'")
    assert numbers(sql) == [0, 1, 2]


@pytest.mark.parametrize("what", ["answer", "back-off", "follow"])
def test_statement_timeout_ends_it_and_frees_the_shard(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str, what: str
) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    consume(sql, stream)
    busy = refusal(400, "ProvisionedThroughputExceededException")
    faulty.faults["GetRecords"] = {"answer": [silence], "back-off": [busy] * 9, "follow": []}[what]
    sql("SET statement_timeout = '300ms'")
    started = time.monotonic()
    with raises("57014", "statement timeout"):
        consume(sql, stream, ", follow => true")
    assert time.monotonic() - started < 0.3 + PROMPT
    sql("RESET statement_timeout")
    faulty.faults["GetRecords"] = []
    put(faulty, stream, range(3))
    consume(runner(connect()), stream)  # another session: the lock is free
    assert numbers(sql) == [0, 1, 2]


def test_a_page_is_fetched_while_no_snapshot_is_held(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    faulty.faults["GetRecords"] = [silence]
    session = connect()
    with in_background(lambda: consume(runner(session), stream)):
        wait_until(lambda: any(of == "GetRecords" for of, _ in faulty.asked), "a page is asked for")
        wait_until(
            lambda: sql("SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = %s",
                        session.info.backend_pid), "the session holds no snapshot",
        )  # fmt: skip
        session.cancel()


@contextlib.contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    def quiet() -> None:
        with contextlib.suppress(psycopg.Error):
            work()

    thread = threading.Thread(target=quiet)
    thread.start()
    yield
    thread.join()


def test_following_stores_what_comes(sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    session = connect()
    with in_background(lambda: consume(runner(session), stream, ", follow => true")):
        for upto in (2, 4):
            put(faulty, stream, range(upto - 2, upto))
            wait_until(lambda: numbers(sql) == list(range(upto)), f"{upto} numbers are stored")  # noqa: B023
        session.cancel()


def test_max_duration_ends_it(sql: Sql, stream: str) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    started = time.monotonic()
    consume(sql, stream, ", follow => true, max_duration => '200 ms'")
    assert 0.2 <= time.monotonic() - started < 10


def test_faults_lose_and_repeat_nothing(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    put(faulty, stream, range(10))
    faulty.faults["GetRecords"] = [
        refusal(400, "ProvisionedThroughputExceededException"), refusal(400, "ExpiredIteratorException"),
        refusal(500, "InternalFailure"), lambda *_: False,
    ]  # fmt: skip
    consume(sql, stream)
    assert numbers(sql) == list(range(10))


def test_generations_of_shards_are_consumed_in_order(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE numbers (id serial, data int, sequence_number numeric)")
    put(faulty, stream, range(3))
    consume(sql, stream)
    first = faulty.shards(stream)[0]["ShardId"]
    faulty.split(stream, first)
    put(faulty, stream, range(3, 6))
    left, right = (shard["ShardId"] for shard in faulty.shards(stream)[1:])
    faulty.merge(stream, left, right)
    put(faulty, stream, range(6, 9))
    faulty.split(stream, faulty.shards(stream)[-1]["ShardId"])
    put(faulty, stream, range(9, 12))
    consume(sql, stream)
    assert sql("SELECT array_agg(data ORDER BY id) FROM numbers") == list(range(12))
    states = sql("SELECT array_agg(state ORDER BY shard_id) FROM awslambda.kinesis_consumer")
    assert states == ["SHARD_END"] * 4 + ["READING"] * 2


# What Kinesis has deleted.


def test_a_shard_that_is_gone_is_reported(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    put(faulty, stream, range(3))
    consume(sql, stream)
    faulty.split(stream, faulty.shards(stream)[0]["ShardId"])
    faulty.changes["ListShards"] = lambda said: {**said, "Shards": said["Shards"][1:]}
    put(faulty, stream, range(3, 6))
    for statement in (
        "SELECT * FROM awslambda.kinesis_poll('app', %s)",
        "CALL awslambda.kinesis_consume('app', %s, 'numbers')",
    ):
        with raises("LA006", "shard 'shardId-000000000000' after 4", "Kinesis has deleted the shard", "kinesis_reset"):
            sql(statement, stream)
    consume(sql, stream, ", on_error => 'skip'")
    assert numbers(sql) == list(range(6))
    state, lost = sql("SELECT state, lost FROM awslambda.kinesis_consumer ORDER BY shard_id LIMIT 1")
    assert state == "EXPIRED" and "Kinesis has deleted the shard" in lost


def test_records_that_were_trimmed_are_reported(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    put(faulty, stream, range(6))
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    pass_time(sql)
    assert polled(sql, stream, ", max_records => 1") == [2]  # the record is still there: nothing is lost
    pass_time(sql)
    trim(faulty)
    number = sql("SELECT sequence_number FROM awslambda.kinesis_consumer")
    for statement in (
        "SELECT * FROM awslambda.kinesis_poll('app', %s)",
        "CALL awslambda.kinesis_consume('app', %s, 'numbers')",
    ):
        with raises("LA006", f"shardId-000000000000' after {number}: Kinesis has deleted all that arrived between"):
            sql(statement, stream)
    consume(sql, stream, ", on_error => 'skip'")
    assert numbers(sql) == [4, 5]
    assert "Kinesis has deleted all that arrived" in sql("SELECT lost FROM awslambda.kinesis_consumer")
    pass_time(sql, "1 hour")
    assert polled(sql, stream) == []


def pass_time(sql: Sql, time: str = "25 hours") -> None:
    """As if the consumers had not come for so long; the streams keep records for 24 hours."""
    sql("UPDATE awslambda._kinesis_consumer SET starting_at = starting_at - %s::interval", time)
    sql(
        "UPDATE awslambda._kinesis_checkpoint SET updated_at = updated_at - %s::interval,"
        " done_until = done_until - %s::interval, timestamp = timestamp - %s::interval",
        time, time, time,
    )  # fmt: skip


def lag_behind_a_split(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    """The consumer knows the children, and has one record of their parent left to read."""
    put(faulty, stream, range(3))
    assert polled(sql, stream, ", max_records => 1") == [0]
    faulty.split(stream, faulty.shards(stream)[0]["ShardId"])
    assert polled(sql, stream, ", max_records => 1") == [1]


def trim(faulty: FaultyStreams) -> None:
    """As if Kinesis had only the records 4 and 5."""
    faulty.changes["GetRecords"] = lambda said: {
        **said, "Records": [one for one in said["Records"] if one["Data"] in ("NA==", "NQ==")]
    }  # fmt: skip


@pytest.mark.parametrize("position", ["LATEST", "TRIM_HORIZON"])
def test_what_was_trimmed_of_a_shard_that_was_never_read_is_reported(
    sql: Sql, faulty: FaultyStreams, stream: str, position: str
) -> None:
    assert polled(sql, stream, f", '{position}', max_duration => '0'") == []
    pass_time(sql)
    put(faulty, stream, range(6))
    trim(faulty)
    with raises("LA006", "shard 'shardId-000000000000' from its beginning"):
        polled(sql, stream)


def test_a_moment_before_all_that_there_is_begins_with_what_there_is(
    sql: Sql, faulty: FaultyStreams, stream: str
) -> None:
    put(faulty, stream, range(3))
    assert polled(sql, stream, ", 'AT_TIMESTAMP', now() - interval '3 days', max_records => 1") == [0]
    sql("SELECT awslambda.kinesis_reset('app', %s, 'AT_TIMESTAMP', now() - interval '3 days')", stream)
    assert polled(sql, stream) == [0, 1, 2]


def test_a_number_whose_record_is_gone_is_reported(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(6))
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    number = sql("SELECT sequence_number FROM awslambda.kinesis_consumer")
    trim(faulty)
    sql(
        "SELECT awslambda.kinesis_reset('app', %s, 'AFTER_SEQUENCE_NUMBER', NULL, %s, '{shardId-000000000000}')",
        stream, number,
    )  # fmt: skip
    with raises("LA006", f"after {number}: Kinesis no longer has that one"):
        polled(sql, stream)


def test_what_was_trimmed_of_a_child_while_its_parent_was_read_is_reported(
    sql: Sql, faulty: FaultyStreams, stream: str
) -> None:
    lag_behind_a_split(sql, faulty, stream)
    pass_time(sql)  # the parent's records are all there
    put(faulty, stream, range(3, 6))
    faulty.changes["GetRecords"] = lambda said: {**said, "Records": [
        {**one, "ApproximateArrivalTimestamp": one["ApproximateArrivalTimestamp"] - 25 * 3600 * (one["Data"] == "Mg==")}
        for one in said["Records"]
    ]}  # fmt: skip
    with raises("LA006", "from its beginning: Kinesis has deleted all that arrived between"):
        polled(sql, stream)


def test_a_child_lost_nothing_that_arrived_before_its_parents_last_record(
    sql: Sql, faulty: FaultyStreams, stream: str
) -> None:
    lag_behind_a_split(sql, faulty, stream)
    pass_time(sql)  # since the child was found; the rest of the parent is younger
    put(faulty, stream, range(3, 6))
    assert polled(sql, stream) == [2, 3, 4, 5]


def test_a_parents_end_says_nothing_of_when_its_children_were_read(
    sql: Sql, faulty: FaultyStreams, stream: str
) -> None:
    put(faulty, stream, range(3))
    faulty.split(stream, faulty.shards(stream)[0]["ShardId"])
    sql("CREATE TABLE numbers (data int, sequence_number numeric)")
    consume(sql, stream)
    last = "SELECT (max(done_until) - max(approximate_arrival_timestamp))::text FROM awslambda._kinesis_checkpoint"
    assert sql(f"{last} WHERE position = 'SHARD_END'") == "00:00:00"


def test_a_consumer_is_of_one_region(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(2))
    assert polled(sql, stream, ", max_records => 1") == [0]
    Streams(faulty.url, "eu-west-1").create(stream)
    sql("ALTER SERVER aws OPTIONS (SET region 'eu-west-1')")
    with raises("22023", "of us-east-1, and not of eu-west-1"):
        polled(sql, stream)


def test_a_reset_is_followed_by_a_run_that_waits(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    sql("CREATE TABLE numbers (id serial, data int)")
    put(faulty, stream, range(2))
    session = connect()
    with in_background(lambda: consume(runner(session), stream, ", follow => true, max_duration => '1 min'")):
        count = "SELECT count(*) FROM numbers"
        wait_until(lambda: sql(count) == 2, "the records are stored")

        def reset() -> bool:
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                sql("SELECT awslambda.kinesis_reset('app', %s)", stream)
                return True
            return False

        wait_until(reset, "the shard is free for a moment")
        wait_until(lambda: sql(count) == 4, "they are stored again")
        session.cancel()


# Moving, copying, and whose they are.


def test_a_consumer_is_put_anywhere(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(6))
    assert polled(sql, stream, ", max_records => 4") == [0, 1, 2, 3]
    number = sql("SELECT sequence_number FROM awslambda.kinesis_consumer")
    sql("SELECT awslambda.kinesis_reset('app', %s)", stream)
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    shard = "shard_ids => '{shardId-000000000000}'"
    sql(f"SELECT awslambda.kinesis_reset('app', %s, 'AT_SEQUENCE_NUMBER', NULL, %s, {shard})", stream, number)
    assert polled(sql, stream) == [3, 4, 5]
    sql(f"SELECT awslambda.kinesis_reset('app', %s, 'AFTER_SEQUENCE_NUMBER', NULL, %s, {shard})", stream, number)
    assert polled(sql, stream) == [4, 5]
    sql("SELECT awslambda.kinesis_reset('app', %s, 'AT_TIMESTAMP', now() - interval '1 hour')", stream)
    assert polled(sql, stream) == [0, 1, 2, 3, 4, 5]
    sql("BEGIN")
    sql("SELECT awslambda.kinesis_reset('app', %s)", stream)
    sql("ROLLBACK")
    assert polled(sql, stream) == []


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'none'", "42704", "no consumer 'none'"),
        ("'app', starting => 1", "42883", "kinesis_reset"),
        ("'app', 'OLDEST'", "22023", "invalid starting_position"),
        ("'app', NULL", "22023", "invalid starting_position"),
        ("'app', 'LATEST', now()", "22023", "contradict"),
        ("'app', 'AT_TIMESTAMP'", "22023", "contradict"),
        ("'app', 'AT_TIMESTAMP', 'infinity'", "22023", "contradict"),
        ("'app', 'AT_SEQUENCE_NUMBER', NULL, 1", "22023", "of one shard"),
        ("'app', 'AT_SEQUENCE_NUMBER', NULL, 1.5, '{x}'", "22023", "not a sequence number"),
        ("'app', 'TRIM_HORIZON', shard_ids => '{x}'", "42704", "no checkpoint of a shard 'x'"),
    ],
)
def test_a_place_that_is_none_is_an_error(sql: Sql, stream: str, arguments: str, sqlstate: str, words: str) -> None:
    polled(sql, stream)
    consumer, _, rest = arguments.partition(", ")
    with raises(sqlstate, words):
        sql(f"SELECT awslambda.kinesis_reset({consumer}, '{stream}'{', ' if rest else ''}{rest})")


def test_a_copy_stands_where_the_consumer_stands(sql: Sql, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(4))
    assert polled(sql, stream, ", max_records => 2") == [0, 1]
    sql("SELECT awslambda.kinesis_copy_consumer('app', %s, 'copy')", stream)
    assert polled(sql, stream) == [2, 3]
    assert sql(f"SELECT array_agg({NUMBER}) FROM awslambda.kinesis_poll('copy', %s)", stream) == [2, 3]
    with raises("42710", "a consumer 'copy'"):
        sql("SELECT awslambda.kinesis_copy_consumer('app', %s, 'copy')", stream)
    sql("SELECT awslambda.kinesis_delete_consumer('copy', %s)", stream)
    assert sql("SELECT count(*) FROM awslambda.kinesis_consumer") == 1
    with raises("42704", "no consumer 'copy'"):
        sql("SELECT awslambda.kinesis_delete_consumer('copy', %s)", stream)


def test_a_consumer_is_for_the_members_of_its_role(
    sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str
) -> None:
    put(faulty, stream, range(4))
    for role in ("app", "member", "stranger"):
        sql(f"CREATE ROLE {role} LOGIN")
        sql(f"SELECT awslambda.grant_usage('{role}')")
        sql(f"GRANT USAGE ON FOREIGN SERVER aws TO {role}")
    sql("GRANT app TO member")
    app, member, stranger = (runner(connect(role)) for role in ("app", "member", "stranger"))
    assert polled(app, stream, ", max_records => 1") == [0]
    assert polled(member, stream, ", max_records => 1") == [1]
    with raises("42501", f"The consumer 'app' of the stream '{stream}' is not yours"):
        polled(stranger, stream)
    for statement in (
        "SELECT awslambda.kinesis_reset('app', %s)", "SELECT awslambda.kinesis_delete_consumer('app', %s)",
        "SELECT awslambda.kinesis_copy_consumer('app', %s, 'mine')",
    ):  # fmt: skip
        with raises("42704", "no consumer 'app'"):
            stranger(statement, stream)
    assert stranger("SELECT count(*) FROM awslambda.kinesis_consumer") == 0
    assert stranger("SELECT count(*) FROM awslambda._kinesis_checkpoint") == 0
    assert (
        stranger("WITH c AS (UPDATE awslambda._kinesis_checkpoint SET records = 0 RETURNING 1) SELECT count(*) FROM c")
        == 0
    )
    assert member("SELECT count(*) FROM awslambda.kinesis_consumer") == 1


def test_a_definer_may_poll_for_others(sql: Sql, connect: Connect, faulty: FaultyStreams, stream: str) -> None:
    put(faulty, stream, range(3))
    sql("CREATE ROLE caller LOGIN")
    sql(
        "CREATE FUNCTION next() RETURNS SETOF int LANGUAGE sql SECURITY DEFINER AS"
        f" $$ SELECT {NUMBER} FROM awslambda.kinesis_poll('app', '{stream}') $$"
    )
    caller = runner(connect("caller"))
    assert caller("SELECT array_agg(n) FROM next() AS n") == [0, 1, 2]
    assert caller("SELECT array_agg(n) FROM next() AS n") is None


def test_checkpoints_and_dead_letters_are_in_a_dump(
    sql: Sql, cluster: Cluster, database: str, faulty: FaultyStreams, mixed: str
) -> None:
    consume(sql, mixed, ", on_error => 'dead_letter'")
    dump = subprocess.run(
        [str(cluster.bindir / "pg_dump"), "-d", cluster.dsn(database)], capture_output=True, text=True, check=True
    ).stdout
    sql("CREATE DATABASE restored TEMPLATE template0")
    try:
        assert cluster.psql("-v", "ON_ERROR_STOP=1", database="restored", sql=dump).returncode == 0
        with psycopg.connect(cluster.dsn("restored"), autocommit=True) as session:
            restored = runner(session)
            same = "SELECT array_agg(c::text ORDER BY shard_id) FROM awslambda._kinesis_checkpoint AS c"
            assert restored(same) == sql(same)
            assert restored("SELECT count(*) FROM awslambda.kinesis_dead_letter") == 2
            faulty.put(mixed, b"11")
            consume(restored, mixed, ", on_error => 'dead_letter'")
            assert numbers(restored)[-2:] == [10, 11]
    finally:
        sql("DROP DATABASE restored WITH (FORCE)")
