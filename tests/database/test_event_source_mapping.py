"""Event source mappings: which changes of a table become records, what the records say, and who may make a mapping."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from awslambda_local.cluster import Cluster

from tests.conftest import Connect, runner
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
Records = Callable[..., list[Any]]
CREATE = "SELECT awslambda.create_event_source_mapping"
UPDATE = "SELECT awslambda.update_event_source_mapping"
DELETE = "SELECT awslambda.delete_event_source_mapping"
FIELDS = [
    "eventName", "database", "schema", "table", "key", "new", "old", "changed", "occurredAt", "transactionId",
]  # fmt: skip


@pytest.fixture
def records(sql: Sql) -> Records:
    """The records in the outbox in their order, which are taken out; of one mapping, or of all."""

    def taken(name: str | None = None) -> list[Any]:
        return (
            sql(
                """WITH taken AS (
                     DELETE FROM awslambda.outbox AS o
                      WHERE %s::text IS NULL
                         OR mapping = (SELECT id FROM awslambda.event_source_mapping WHERE name = %s)
                     RETURNING id, payload)
                   SELECT json_agg(payload ORDER BY id) FROM taken""",
                name, name,
            )
            or []
        )  # fmt: skip

    return taken


def brief(records: list[Any]) -> list[tuple[str, Any, Any]]:
    """Of each record, what happened and the old and new row."""
    return [(record["eventName"], record["old"], record["new"]) for record in records]


@pytest.fixture
def sensor(sql: Sql) -> str:
    """A table with a mapping of the same name."""
    sql("CREATE TABLE sensor (id bigint PRIMARY KEY, v numeric, note text)")
    sql(f"{CREATE}('sensor', 'f', name => 'sensor')")
    return "sensor"


@pytest.fixture
def owner(sql: Sql, connect: Connect) -> Sql:
    """A session of an ordinary role that may call functions and make tables."""
    for role in ("owner", "other"):
        sql(f"CREATE ROLE {role} LOGIN")
        sql(f"SELECT awslambda.grant_usage('{role}')")
        sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    return runner(connect(user="owner"))


# Records.


@pytest.mark.usefixtures("sensor")
def test_a_record_has_its_fields_in_order(sql: Sql, database: str) -> None:
    sql("BEGIN")
    sql("INSERT INTO sensor VALUES (7, 1.50, 'a')")
    transaction = sql("SELECT pg_current_xact_id()::text")
    sql("COMMIT")
    key, payload, role = sql("SELECT key, payload::text, role::text FROM awslambda.outbox")
    record = json.loads(payload)
    assert list(record) == FIELDS
    assert (key, role) == ('{"id":7}', "postgres")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("occurredAt"))
    assert record == {
        "eventName": "INSERT", "database": database, "schema": "public", "table": "sensor", "key": {"id": 7},
        "new": {"id": 7, "v": 1.5, "note": "a"}, "old": None, "changed": [], "transactionId": transaction,
    }  # fmt: skip
    assert '"v":1.50' in payload


@pytest.mark.usefixtures("sensor")
def test_every_operation_is_captured(sql: Sql, records: Records) -> None:
    sql("INSERT INTO sensor VALUES (1, 1), (2, 2)")
    sql("UPDATE sensor SET v = 3 WHERE id = 2")
    sql("DELETE FROM sensor WHERE id = 1")
    sql("TRUNCATE sensor")
    found = records()
    assert brief(found) == [
        ("INSERT", None, {"id": 1, "v": 1, "note": None}),
        ("INSERT", None, {"id": 2, "v": 2, "note": None}),
        ("UPDATE", {"id": 2, "v": 2, "note": None}, {"id": 2, "v": 3, "note": None}),
        ("DELETE", {"id": 1, "v": 1, "note": None}, None),
        ("TRUNCATE", None, None),
    ]
    assert [record["changed"] for record in found] == [[], [], ["v"], [], []]
    assert [record["key"] for record in found] == [{"id": 1}, {"id": 2}, {"id": 2}, {"id": 1}, None]
    assert all(list(record) == FIELDS for record in found)


@pytest.mark.usefixtures("sensor")
def test_a_statement_that_changes_nothing_leaves_nothing_and_takes_no_transaction_id(
    sql: Sql, records: Records
) -> None:
    sql("BEGIN")
    sql("UPDATE sensor SET v = 1")
    sql("DELETE FROM sensor")
    sql("INSERT INTO sensor SELECT 1 WHERE false")
    assert sql("SELECT pg_current_xact_id_if_assigned()::text") is None
    sql("COMMIT")
    assert records() == []


@pytest.mark.usefixtures("sensor")
def test_what_is_rolled_back_leaves_no_record(sql: Sql, records: Records) -> None:
    sql("BEGIN")
    sql("INSERT INTO sensor VALUES (1)")
    sql("ROLLBACK")
    sql("BEGIN")
    sql("INSERT INTO sensor VALUES (2)")
    sql("SAVEPOINT here")
    sql("INSERT INTO sensor VALUES (3)")
    sql("ROLLBACK TO here")
    sql("COMMIT")
    assert [record["key"] for record in records()] == [{"id": 2}]


def test_values_are_as_row_to_json_writes_them_whatever_the_session_has_set(sql: Sql, records: Records) -> None:
    sql("CREATE TYPE mood AS ENUM ('fine', 'Über')")
    sql("CREATE DOMAIN short AS text CHECK (length(value) < 10)")
    sql("CREATE TYPE place AS (x int, name text)")
    sql(
        """CREATE TABLE public.every (
             id int PRIMARY KEY, a int[], b bytea, t timestamptz, n numeric, i interval, f float8, m mood, s short,
             p place, j json, jb jsonb, d date, u uuid, g int GENERATED ALWAYS AS (id * 2) STORED, big text)"""
    )
    sql(f"{CREATE}('public.every', 'f')")
    for setting in (
        "TimeZone = 'Asia/Tokyo'", "DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'", "extra_float_digits = -10", "search_path = ''",
    ):  # fmt: skip
        sql(f"SET {setting}")
    sql(
        """INSERT INTO public.every VALUES (
             1, '{1,null}', '\\x00ff', '2026-11-21 18:21:00.5+01', 'NaN', '1 day 2 hours', 0.1, 'Über', 'short',
             '(1,"a b")', '{"b": 1, "b": "\\u0000"}', '{"z": [1.0]}', '2026-11-21',
             '00000000-0000-0000-0000-000000000001', DEFAULT, repeat('ä', 1000000))"""
    )
    sql("UPDATE public.every SET id = 1, p = '(1,c)'")
    inserted, updated = records()
    new = inserted["new"]
    assert new.pop("big") == "ä" * 1_000_000
    assert new == {
        "id": 1, "a": [1, None], "b": "\\x00ff", "t": "2026-11-21T17:21:00.5+00:00", "n": "NaN", "i": "1 day 02:00:00",
        "f": 0.1, "m": "Über", "s": "short", "p": {"x": 1, "name": "a b"}, "j": {"b": "\0"}, "jb": {"z": [1.0]},
        "d": "2026-11-21", "u": "00000000-0000-0000-0000-000000000001", "g": 2,
    }  # fmt: skip
    assert updated["changed"] == ["p"]


def test_names_that_need_quotes_or_are_not_ascii(sql: Sql, records: Records) -> None:
    sql('CREATE SCHEMA "My ""Schema"')
    sql('CREATE TABLE "My ""Schema"."Tür%s" ("Id ""x" int, "ключ" text, PRIMARY KEY ("ключ", "Id ""x"))')
    assert sql(f"""{CREATE}('"My ""Schema"."Tür%s"', 'f')""") == "Tür%s_f"
    sql("""INSERT INTO "My ""Schema"."Tür%s" VALUES (1, 'a')""")
    sql("""UPDATE "My ""Schema"."Tür%s" SET "Id ""x" = 2""")
    inserted, deleted, inserted_again = records()
    assert (inserted["schema"], inserted["table"]) == ('My "Schema', "Tür%s")
    assert inserted["key"] == {"ключ": "a", 'Id "x': 1}
    assert list(inserted["key"]) == ["ключ", 'Id "x']
    assert (deleted["eventName"], inserted_again["eventName"]) == ("DELETE", "INSERT")


@pytest.mark.usefixtures("sensor")
def test_a_changed_primary_key_is_a_delete_and_an_insert_by_key(sql: Sql, records: Records) -> None:
    sql("INSERT INTO sensor VALUES (1, 10), (2, 20), (30, 30)")
    records()
    sql("ALTER TABLE sensor DROP CONSTRAINT sensor_pkey")
    sql("ALTER TABLE sensor ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED")
    sql("UPDATE sensor SET id = id + 1")
    found = {
        (r["eventName"], r["key"]["id"]): ((r["old"] or {}).get("v"), (r["new"] or {}).get("v")) for r in records()
    }
    assert found == {
        ("DELETE", 1): (10, None), ("UPDATE", 2): (20, 10), ("INSERT", 3): (None, 20),
        ("DELETE", 30): (30, None), ("INSERT", 31): (None, 30),
    }  # fmt: skip


@pytest.mark.parametrize("keyed", [True, False])
def test_all_rows_of_a_large_update_are_paired(sql: Sql, keyed: bool) -> None:
    sql(f"CREATE TABLE many (id int {'PRIMARY KEY' if keyed else ''}, v int)")
    sql(f"{CREATE}('many', 'f', operations => '{{update}}')")
    sql("INSERT INTO many VALUES (0, 0)")
    sql("UPDATE many SET v = 0")  # its plan was made for one row
    sql("DELETE FROM many")
    sql("TRUNCATE awslambda.outbox")
    sql("INSERT INTO many SELECT i, 0 FROM generate_series(1, 20000) AS i")
    sql("UPDATE many SET v = id")
    assert sql(
        """SELECT count(*), count(DISTINCT message_id), count(DISTINCT payload -> 'new' ->> 'id')
             FROM awslambda.outbox
            WHERE payload -> 'new' ->> 'id' = payload -> 'old' ->> 'id' AND payload ->> 'changed' = '["v"]'
              AND payload ->> 'eventName' = 'UPDATE'"""
    ) == (20000, 20000, 20000)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {} SELECT * FROM row_of_it WHERE {}",
        "UPDATE {} SET v = v + 1 WHERE {}",
        "UPDATE {} SET v = v WHERE {}",
        "UPDATE {} SET k = k || 'x' WHERE {}",
        "UPDATE {} SET k = k || 'x', d = '[\"\\u0000\"]' WHERE {}",
        "DELETE FROM {} WHERE {}",
    ],
)
def test_a_row_alone_is_captured_as_it_is_among_others(sql: Sql, records: Records, statement: str) -> None:
    sql("CREATE TABLE row_of_it (k text, v int, d json)")
    sql(
        r"""INSERT INTO row_of_it VALUES ('a', 1, NULL), ('\u', 2, '"\\u"'), (E'\u0001"', 3, '"\u0000"'),
                                     ('ü', NULL, '1.0')"""
    )
    for table in ("alone", "among"):
        sql(f"CREATE TABLE {table} (k text PRIMARY KEY, v int, d json)")
        if not statement.startswith("INSERT"):
            sql(f"INSERT INTO {table} SELECT * FROM row_of_it")
        sql(f"{CREATE}('{table}', 'f', name => '{table}')")
    sql(statement.format("among", "true"))
    for key in sql("SELECT array_agg(k) FROM row_of_it"):
        sql(statement.format("alone", "k = %s"), key)
    found = {table: records(table) for table in ("alone", "among")}
    assert len(found["alone"]) >= 4
    for one, other in zip(found["alone"], found["among"], strict=True):
        assert {**one, "table": "", "occurredAt": "", "transactionId": ""} == {
            **other, "table": "", "occurredAt": "", "transactionId": "",
        }  # fmt: skip


@pytest.mark.usefixtures("sensor")
def test_message_ids_are_uuids_and_no_two_the_same(sql: Sql) -> None:
    for first in range(1, 400, 20):
        sql("INSERT INTO sensor SELECT generate_series(%s::int, %s + 19)", first, first)
    ids = sql("SELECT array_agg(message_id) FROM awslambda.outbox")
    assert len(set(ids)) == 400
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}


def test_without_a_primary_key_records_are_unkeyed_and_rows_are_paired_in_place(sql: Sql, records: Records) -> None:
    sql("CREATE TABLE log (a int, b text)")
    sql(f"{CREATE}('log', 'f')")
    sql("INSERT INTO log VALUES (1, 'x'), (1, 'x'), (2, 'y')")
    sql("UPDATE log SET a = a + 1")
    found = records()
    assert [record["key"] for record in found] == [None] * 6
    assert brief(found[3:]) == [
        ("UPDATE", {"a": a, "b": b}, {"a": a + 1, "b": b}) for a, b in ((1, "x"), (1, "x"), (2, "y"))
    ]


@pytest.mark.usefixtures("sensor")
def test_copy_upsert_merge_and_writable_ctes_are_captured(sql: Sql, connect: Connect, records: Records) -> None:
    with connect().cursor().copy("COPY sensor (id, v) FROM STDIN") as copy:
        copy.write("1\t1\n2\t2\n")
    assert [r["eventName"] for r in records()] == ["INSERT", "INSERT"]
    sql("INSERT INTO sensor VALUES (2, 3), (3, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v")
    assert sorted((r["eventName"], r["key"]["id"]) for r in records()) == [("INSERT", 3), ("UPDATE", 2)]
    sql("WITH gone AS (DELETE FROM sensor WHERE id = 1 RETURNING v) INSERT INTO sensor SELECT 4, v FROM gone")
    assert sorted((r["eventName"], r["key"]["id"]) for r in records()) == [("DELETE", 1), ("INSERT", 4)]
    if int(sql("SHOW server_version_num")) >= 150000:
        sql(
            """MERGE INTO sensor AS s USING (VALUES (2, 9), (3, NULL), (5, 5)) AS n (id, v) ON s.id = n.id
               WHEN MATCHED AND n.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = n.v
               WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.v)"""
        )
        assert sorted((r["eventName"], r["key"]["id"]) for r in records()) == [
            ("DELETE", 3), ("INSERT", 5), ("UPDATE", 2),
        ]  # fmt: skip


def test_what_a_foreign_key_cascades_is_captured(sql: Sql, records: Records) -> None:
    sql("CREATE TABLE device (id int PRIMARY KEY)")
    sql("CREATE TABLE reading (id int PRIMARY KEY, d int REFERENCES device ON DELETE CASCADE ON UPDATE CASCADE)")
    sql(f"{CREATE}('reading', 'f')")
    sql("INSERT INTO device VALUES (1), (2)")
    sql("INSERT INTO reading VALUES (10, 1), (11, 1), (20, 2)")
    records()
    sql("UPDATE device SET id = id + 5")
    assert sorted((r["eventName"], r["key"]["id"], r["new"]["d"], *r["changed"]) for r in records()) == [
        ("UPDATE", 10, 6, "d"), ("UPDATE", 11, 6, "d"), ("UPDATE", 20, 7, "d"),
    ]  # fmt: skip
    sql("DELETE FROM device WHERE id = 6")
    assert sorted((r["eventName"], r["key"]["id"]) for r in records()) == [("DELETE", 10), ("DELETE", 11)]
    sql("TRUNCATE device CASCADE")
    assert [r["eventName"] for r in records()] == ["TRUNCATE"]


# Options that say what is sent.


@pytest.mark.usefixtures("sensor")
def test_columns_say_what_is_sent_and_whose_update_fires(sql: Sql, records: Records) -> None:
    sql(f"{UPDATE}('sensor', columns => '{{v}}')")
    sql("INSERT INTO sensor VALUES (1, 1, 'a')")
    sql("UPDATE sensor SET note = 'b'")
    sql("UPDATE sensor SET v = 2, note = 'c'")
    sql("DELETE FROM sensor")
    found = records()
    assert brief(found) == [("INSERT", None, {"v": 1}), ("UPDATE", {"v": 1}, {"v": 2}), ("DELETE", {"v": 2}, None)]
    assert [r["changed"] for r in found] == [[], ["v"], []]
    assert [r["key"] for r in found] == [{"id": 1}] * 3
    sql(f"{UPDATE}('sensor', columns => '{{}}')")
    sql("INSERT INTO sensor VALUES (1, 1, 'a')")
    assert brief(records()) == [("INSERT", None, {"id": 1, "v": 1, "note": "a"})]


@pytest.mark.parametrize("filter", ["$.new.v > 30", "$.new ? (@.v > 30)"])
@pytest.mark.usefixtures("sensor")
def test_a_filter_lets_through_what_it_finds(sql: Sql, records: Records, filter: str) -> None:
    sql(f"{UPDATE}('sensor', filter => %s)", filter)
    sql("INSERT INTO sensor VALUES (1, 30), (2, 31), (3, NULL)")
    sql("UPDATE sensor SET v = 40 WHERE id = 1")
    sql("DELETE FROM sensor")
    assert [(r["eventName"], r["key"]["id"]) for r in records()] == [("INSERT", 2), ("UPDATE", 1)]
    sql(f"{UPDATE}('sensor', filter => '')")
    sql("INSERT INTO sensor VALUES (1, 30)")
    assert len(records()) == 1


def test_a_filter_never_fails_a_write_and_lets_through_what_it_cannot_read(sql: Sql, records: Records) -> None:
    sql("CREATE TABLE document (id int PRIMARY KEY, j json)")
    sql(f"{CREATE}('document', 'f', filter => '$.new.j.a == 1')")
    sql("""INSERT INTO document VALUES (1, '{"a": 1}'), (2, '{"a": 2}'), (3, '{"a": "\\u0000"}'), (4, '1e999999')""")
    assert [r["key"]["id"] for r in records()] == [1, 3, 4]


@pytest.mark.usefixtures("sensor")
def test_what_a_mapping_is_changed_to_holds_from_the_next_statement(sql: Sql, records: Records) -> None:
    seen = []
    for option in (
        "columns => '{id,v}'", "columns => '{}'", "filter => '$.new.v > 1'", "filter => ''",
        "key => '{note}'", "key => '{}'",
    ):  # fmt: skip
        sql(f"{UPDATE}('sensor', {option})")
        sql("INSERT INTO sensor VALUES (1, 1, 'a')")
        sql("UPDATE sensor SET v = 2")
        sql("DELETE FROM sensor")
        seen.append([(r["eventName"], r["key"], len(r["new"] or r["old"])) for r in records()])
    by_id, by_note, names = {"id": 1}, {"note": "a"}, ("INSERT", "UPDATE", "DELETE")
    assert seen == [
        [(name, by_id, 2) for name in names], [(name, by_id, 3) for name in names],
        [("UPDATE", by_id, 3)], [(name, by_id, 3) for name in names],
        [(name, by_note, 3) for name in names], [(name, by_id, 3) for name in names],
    ]  # fmt: skip


@pytest.mark.usefixtures("sensor")
def test_operations_say_which_statements_fire(sql: Sql, records: Records) -> None:
    sql(f"{UPDATE}('sensor', operations => '{{delete,insert}}')")
    sql("INSERT INTO sensor VALUES (1)")
    sql("UPDATE sensor SET v = 1")
    sql("DELETE FROM sensor")
    sql("TRUNCATE sensor")
    assert [r["eventName"] for r in records()] == ["INSERT", "DELETE"]
    assert sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'sensor'::regclass") == 2


@pytest.mark.usefixtures("sensor")
def test_a_key_of_ones_own(sql: Sql) -> None:
    sql(f"{UPDATE}('sensor', key => '{{note,v}}')")
    sql("INSERT INTO sensor VALUES (1, 1.0, 'a')")
    assert sql("SELECT key FROM awslambda.outbox") == '{"note":"a","v":1.0}'
    sql(f"{UPDATE}('sensor', key => '{{}}')")
    sql("UPDATE sensor SET v = 2")
    assert sql("SELECT key FROM awslambda.outbox ORDER BY id DESC LIMIT 1") == '{"id":1}'


@pytest.mark.usefixtures("sensor")
def test_two_mappings_on_one_table_capture_each_for_itself(sql: Sql, records: Records) -> None:
    assert sql(f"{CREATE}('sensor', 'arn:aws:lambda:us-east-1:123456789012:function:other:prod')") == "sensor_other"
    sql("INSERT INTO sensor VALUES (1)")
    assert (len(records("sensor")), len(records("sensor_other"))) == (1, 1)
    sql(f"{DELETE}('sensor')")
    sql("INSERT INTO sensor VALUES (2)")
    assert len(records("sensor_other")) == 1
    assert records() == []


@pytest.mark.usefixtures("sensor")
def test_a_disabled_mapping_goes_on_capturing(sql: Sql, records: Records) -> None:
    sql(f"{UPDATE}('sensor', enabled => false)")
    sql("INSERT INTO sensor VALUES (1)")
    assert len(records()) == 1


# Keeping changes out.


@pytest.mark.parametrize("value", ["off", "OFF", "false", "no", "0"])
@pytest.mark.usefixtures("sensor")
def test_the_owner_can_keep_changes_out(sql: Sql, records: Records, value: str) -> None:
    sql(f"SET awslambda.enabled = '{value}'")
    sql("INSERT INTO sensor VALUES (1)")
    assert records() == []
    sql("RESET awslambda.enabled")
    sql("INSERT INTO sensor VALUES (2)")
    assert len(records()) == 1


@pytest.mark.parametrize("value", ["", "on", "rubbish", "offf"])
@pytest.mark.usefixtures("sensor")
def test_anything_else_keeps_nothing_out(sql: Sql, records: Records, value: str) -> None:
    sql(f"SET awslambda.enabled = '{value}'")
    sql("INSERT INTO sensor VALUES (1)")
    assert len(records()) == 1


def test_who_does_not_own_the_table_keeps_nothing_out(owner: Sql, connect: Connect, sql: Sql, records: Records) -> None:
    owner("CREATE TABLE sensor (id int PRIMARY KEY)")
    owner(f"{CREATE}('sensor', 'f')")
    owner("GRANT INSERT ON sensor TO other")
    other = runner(connect(user="other"))
    for session in (owner, other):
        session("SET awslambda.enabled = off")
    owner("INSERT INTO sensor VALUES (1)")
    other("INSERT INTO sensor VALUES (2)")
    assert sql("SELECT array_agg(key || role) FROM awslambda.outbox") == ['{"id":2}other']
    records()
    sql("SET ROLE other")  # a superuser's session, but not his role
    sql("SET awslambda.enabled = off")
    sql("INSERT INTO sensor VALUES (3)")
    sql("RESET ROLE")
    assert len(records()) == 1


@pytest.mark.usefixtures("sensor")
def test_replication_does_not_fire(sql: Sql, records: Records) -> None:
    sql("SET session_replication_role = replica")
    sql("INSERT INTO sensor VALUES (1)")
    assert records() == []


# Partitions and children.


@pytest.fixture
def parts(sql: Sql) -> None:
    """A partitioned table with a mapping of the same name: leaf low, and high that is partitioned into leaf high_a."""
    sql("CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id)")
    sql("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    sql("CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (id)")
    sql("CREATE TABLE high_a PARTITION OF high FOR VALUES FROM (10) TO (50)")
    sql(f"{CREATE}('parts', 'f', name => 'parts')")


@pytest.mark.usefixtures("parts")
def test_writes_to_the_table_its_parts_and_leaves_count_once_and_as_of_the_table(sql: Sql, records: Records) -> None:
    for number, table in enumerate(("parts", "high", "high_a"), start=20):
        sql(f"INSERT INTO {table} VALUES ({number}, '{table}')")
    sql("INSERT INTO low VALUES (1)")
    sql("UPDATE high SET v = 'x' WHERE id = 21")
    sql("DELETE FROM parts WHERE id = 1")
    found = records()
    assert [(r["eventName"], r["key"]["id"]) for r in found] == [
        ("INSERT", 20), ("INSERT", 21), ("INSERT", 22), ("INSERT", 1), ("UPDATE", 21), ("DELETE", 1),
    ]  # fmt: skip
    assert {r["table"] for r in found} == {"parts"}


@pytest.mark.usefixtures("parts")
def test_an_update_that_moves_a_row_to_another_partition(sql: Sql, records: Records) -> None:
    sql("CREATE TABLE moved (id int, d int, PRIMARY KEY (id, d)) PARTITION BY LIST (d)")
    sql("CREATE TABLE moved_1 PARTITION OF moved FOR VALUES IN (1)")
    sql("CREATE TABLE moved_2 PARTITION OF moved FOR VALUES IN (2)")
    sql(f"{CREATE}('moved', 'f', key => '{{id}}')")
    sql("INSERT INTO parts VALUES (1, 'a')")
    sql("INSERT INTO moved VALUES (1, 1), (2, 1)")
    records()
    sql("UPDATE parts SET id = 20")
    assert [(r["eventName"], r["key"]["id"]) for r in records()] == [("DELETE", 1), ("INSERT", 20)]
    sql("UPDATE moved SET d = 2 WHERE id = 1")
    assert [(r["eventName"], r["key"]["id"]) for r in records()] == [("DELETE", 1), ("INSERT", 1)]


@pytest.mark.usefixtures("parts")
def test_truncate_of_the_table_is_one_record_and_of_a_leaf_names_the_leaf(sql: Sql, records: Records) -> None:
    sql("TRUNCATE parts")
    assert [(r["eventName"], r["table"]) for r in records()] == [("TRUNCATE", "parts")]
    sql("TRUNCATE low, high_a")
    assert sorted((r["eventName"], r["table"]) for r in records()) == [("TRUNCATE", "high_a"), ("TRUNCATE", "low")]
    sql("TRUNCATE high")
    assert [(r["eventName"], r["table"]) for r in records()] == [("TRUNCATE", "high")]


@pytest.mark.parametrize("concurrently", ["", " CONCURRENTLY"])
@pytest.mark.usefixtures("parts")
def test_partitions_that_come_are_captured_and_those_that_go_are_not(
    sql: Sql, records: Records, concurrently: str
) -> None:
    sql("CREATE TABLE high_b PARTITION OF high FOR VALUES FROM (50) TO (60)")
    sql("CREATE TABLE late (v text, id int NOT NULL)")
    sql("ALTER TABLE parts ATTACH PARTITION late FOR VALUES FROM (100) TO (200)")
    sql("INSERT INTO high_b VALUES (50)")
    sql("INSERT INTO late (id) VALUES (100)")
    assert [r["key"]["id"] for r in records()] == [50, 100]
    sql(f"ALTER TABLE parts DETACH PARTITION late{concurrently}")
    sql("ALTER TABLE high DETACH PARTITION high_b")
    sql("INSERT INTO high_b VALUES (51)")
    sql("INSERT INTO late (id) VALUES (101)")
    assert records() == []
    assert sql("SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('late'::regclass, 'high_b'::regclass)") == 0
    sql("DROP TABLE low")
    assert sql("SELECT _relations::text FROM awslambda.event_source_mapping") == "{parts,high,high_a}"


def test_a_foreign_partition_is_refused_since_it_cannot_be_captured(sql: Sql) -> None:
    sql("CREATE FOREIGN DATA WRAPPER nothing")
    sql("CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
    sql("CREATE TABLE log (id int) PARTITION BY RANGE (id)")
    sql(f"{CREATE}('log', 'f')")
    with raises("0A000", "foreign table", "transition tables"):
        sql("CREATE FOREIGN TABLE far PARTITION OF log FOR VALUES FROM (200) TO (300) SERVER nowhere")


def test_children_by_inheritance_are_captured_with_the_columns_of_the_table(sql: Sql, records: Records) -> None:
    sql("CREATE TABLE parent (id int PRIMARY KEY, v int)")
    sql(f"{CREATE}('parent', 'f')")
    sql("CREATE TABLE child (extra text) INHERITS (parent)")
    sql("INSERT INTO child VALUES (1, 2, 'x')")
    sql("UPDATE parent SET v = 3")
    assert brief(records()) == [
        ("INSERT", None, {"id": 1, "v": 2}), ("UPDATE", {"id": 1, "v": 2}, {"id": 1, "v": 3}),
    ]  # fmt: skip
    sql("ALTER TABLE child NO INHERIT parent")
    sql("INSERT INTO child VALUES (2)")
    assert records() == []


# What happens to a source.


@pytest.mark.usefixtures("sensor")
def test_a_mapping_follows_its_table(sql: Sql, records: Records) -> None:
    sql(f"{UPDATE}('sensor', columns => '{{v,note}}', key => '{{id,note}}')")
    sql("CREATE SCHEMA elsewhere")
    sql("ALTER TABLE sensor SET SCHEMA elsewhere")
    sql("ALTER TABLE elsewhere.sensor RENAME TO probe")
    sql("ALTER TABLE elsewhere.probe RENAME note TO remark")
    sql("ALTER TABLE elsewhere.probe ADD COLUMN more int DEFAULT 5")
    assert sql("SELECT columns::text, key::text FROM awslambda.event_source_mapping") == ("{v,remark}", "{id,remark}")
    sql("INSERT INTO elsewhere.probe VALUES (1, 2, 'a')")
    [record] = records()
    assert (record["schema"], record["table"]) == ("elsewhere", "probe")
    assert (record["key"], record["new"]) == ({"id": 1, "remark": "a"}, {"v": 2, "remark": "a"})


@pytest.mark.usefixtures("sensor")
def test_a_dropped_column_is_left_out_and_one_in_the_key_is_not_dropped(sql: Sql, records: Records) -> None:
    sql(f"{UPDATE}('sensor', columns => '{{id,v,note}}', key => '{{note}}')")
    with raises("2BP01", "cannot drop column note", "update_event_source_mapping('sensor'"):
        sql("ALTER TABLE sensor DROP COLUMN note")
    sql(f"{UPDATE}('sensor', key => '{{}}')")
    sql("ALTER TABLE sensor DROP COLUMN note, DROP COLUMN v")
    assert sql("SELECT columns::text FROM awslambda.event_source_mapping") == "{id}"
    sql("INSERT INTO sensor VALUES (1)")
    assert records()[0]["new"] == {"id": 1}
    with raises("2BP01", "the only column"):
        sql("ALTER TABLE sensor DROP COLUMN id")


@pytest.mark.usefixtures("sensor")
def test_a_primary_key_that_changes_is_followed(sql: Sql) -> None:
    keys = []
    for change in ("DROP CONSTRAINT sensor_pkey", "ADD PRIMARY KEY (note, id)", "RENAME note TO n"):
        sql(f"ALTER TABLE sensor {change}")
        sql("INSERT INTO sensor VALUES (1, 1, %s)", change)
        keys.append(sql("SELECT key FROM awslambda.outbox ORDER BY id DESC LIMIT 1"))
    assert keys == [
        None, '{"note":"ADD PRIMARY KEY (note, id)","id":1}', '{"n":"RENAME note TO n","id":1}',
    ]  # fmt: skip


@pytest.mark.usefixtures("sensor")
@pytest.mark.parametrize("statement", ["DROP TABLE sensor", f"{DELETE}('sensor')"])
def test_pending_records_of_a_mapping_that_goes_are_dead_letters(sql: Sql, statement: str) -> None:
    sql("INSERT INTO sensor VALUES (1), (2)")
    result = sql(statement)
    assert result in (None, 2)
    assert sql("SELECT count(*) FROM awslambda.event_source_mapping") == 0
    assert sql("SELECT count(*) FROM awslambda.outbox") == 0
    assert sql(
        "SELECT array_agg(key ORDER BY key), min(reason), min(function_name) FROM awslambda.dead_letter"
    ) == (['{"id":1}', '{"id":2}'], "MappingDeleted", "f")  # fmt: skip
    assert sql("SELECT count(*) FROM pg_trigger WHERE tgfoid = 'awslambda._capture'::regproc") == 0


def test_dropping_the_extension_leaves_tables_that_can_be_written_and_dropped(sql: Sql) -> None:
    sql("CREATE TABLE sensor (id int PRIMARY KEY)")
    sql(f"{CREATE}('sensor', 'f')")
    sql("DROP EXTENSION awslambda CASCADE")
    sql("INSERT INTO sensor VALUES (1)")
    sql("DROP TABLE sensor")


# Who may.


def test_only_the_owner_of_a_table_makes_it_a_source(owner: Sql, connect: Connect, sql: Sql) -> None:
    sql("CREATE TABLE theirs (id int)")
    with raises("42501", "must be owner of table theirs"):
        owner(f"{CREATE}('theirs', 'f')")
    owner("CREATE TABLE mine (id int) PARTITION BY LIST (id)")
    owner("CREATE TABLE mine_1 PARTITION OF mine FOR VALUES IN (1)")
    sql("ALTER TABLE mine_1 OWNER TO other")
    with raises("42501", "must be owner of table", "mine_1", "partition or child"):
        owner(f"{CREATE}('mine', 'f')")
    sql("ALTER TABLE mine_1 OWNER TO owner")
    assert owner(f"{CREATE}('mine', 'f')") == "mine_f"
    owner("INSERT INTO mine VALUES (1)")
    assert sql("SELECT role::text FROM awslambda.outbox") == "owner"


def test_a_mapping_is_seen_and_changed_by_its_role_and_the_owner_of_its_table(
    owner: Sql, connect: Connect, sql: Sql
) -> None:
    owner("CREATE TABLE mine (id int)")
    owner(f"{CREATE}('mine', 'f')")
    other = runner(connect(user="other"))
    assert other("SELECT count(*) FROM awslambda.event_source_mapping") == 0
    for statement in (f"{UPDATE}('mine_f', batch_size => 1)", f"{DELETE}('mine_f')"):
        with raises("42704", "mine_f", "lists those that you may see"):
            other(statement)
    sql("ALTER TABLE mine OWNER TO other")
    other(f"{UPDATE}('mine_f', batch_size => 1)")
    assert other("SELECT role::text, batch_size FROM awslambda.event_source_mapping") == ("other", 1)
    assert other(f"{DELETE}('mine_f')") == 0


def test_a_row_written_without_the_functions_is_checked_just_the_same(owner: Sql, sql: Sql) -> None:
    sql("CREATE TABLE theirs (id int)")
    owner("CREATE TABLE mine (id int PRIMARY KEY)")
    insert = "INSERT INTO awslambda.event_source_mapping (name, source, function_name) VALUES ('m', %s::regclass, 'f')"
    with raises("42501", "must be owner of table theirs"):
        owner(insert, "theirs")
    owner(insert, "mine")
    owner("INSERT INTO mine VALUES (1)")
    assert sql("SELECT count(*) FROM awslambda.outbox") == 1
    for change in ("role = 'postgres'", "_relations = '{theirs}'", "_key = '{x}'", "id = 5"):
        with raises("42501"):
            owner(f"UPDATE awslambda.event_source_mapping SET {change}")
    with raises("0A000", "do not change"):
        owner("UPDATE awslambda.event_source_mapping SET name = 'other'")


def test_a_role_that_forges_with_anothers_mapping_is_refused(owner: Sql, connect: Connect, sql: Sql) -> None:
    owner("CREATE TABLE mine (id int)")
    owner(f"{CREATE}('mine', 'f')")
    number = sql("SELECT id FROM awslambda.event_source_mapping")
    other = runner(connect(user="other"))
    other("CREATE TABLE forged (id int)")
    forge = f"""CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS affected_rows
                FOR EACH STATEMENT EXECUTE FUNCTION awslambda._capture('{number}')"""
    with raises("42501", "permission denied for function awslambda._capture"):
        other(forge)
    sql("GRANT EXECUTE ON FUNCTION awslambda._capture() TO other")
    other(forge)
    with raises("42501", "forged does not belong to the event source mapping", "Drop the trigger forge"):
        other("INSERT INTO forged VALUES (1)")
    assert sql("SELECT count(*) FROM awslambda.outbox") == 0


# Bad input.


@pytest.mark.parametrize(
    ("source", "sqlstate", "words"),
    [
        ("a_view", "42809", "is not a table"),
        ("a_sequence", "42809", "is not a table"),
        ("a_temporary", "42809", "temporary table"),
        ("pg_class", "42501", "system catalog"),
        ("awslambda.outbox", "42809", "of the extension"),
        ("nowhere", "42P01", 'relation "nowhere" does not exist'),
    ],
)
def test_a_source_that_cannot_be_one(sql: Sql, source: str, sqlstate: str, words: str) -> None:
    sql("CREATE VIEW a_view AS SELECT 1 AS id")
    sql("CREATE SEQUENCE a_sequence")
    sql("CREATE TEMP TABLE a_temporary (id int)")
    with raises(sqlstate, words):
        sql(f"{CREATE}(%s, 'f')", source)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("batch_size => 0", "1 to 10000"),
        ("batch_size => 10001", "1 to 10000"),
        ("maximum_batching_window => '301 s'", "0 to 300 seconds"),
        ("maximum_batching_window => '-1 s'", "0 to 300 seconds"),
        ("maximum_retry_attempts => -2", "-1 for no limit"),
        ("maximum_retry_attempts => 10001", "0 to 10000"),
        ("maximum_record_age => '59 s'", "60 seconds or more"),
        ("parallelization_factor => 0", "1 to 10"),
        ("parallelization_factor => 11", "1 to 10"),
        ("function_response_types => '{Report}'", "ReportBatchItemFailures"),
        ("invocation_type => 'DryRun'", "RequestResponse and Event"),
        ("invocation_type => 'Event', function_response_types => '{ReportBatchItemFailures}'", "take RequestResponse"),
        ("invocation_type => 'Event', keep_results => '1 h'", "take RequestResponse"),
        ("keep_results => '-1 h'", "0 to keep none"),
        ("keep_results => '1000000 years'", "at most 10 years"),
        ("event_format => 'SQS'", "postgresql, sqs and kinesis"),
        ("operations => '{INSERT,UPSERT}'", "INSERT, UPDATE, DELETE and TRUNCATE"),
        ("operations => '{}'", "one at least"),
        ("columns => '{id,nope}'", "Columns are: id, v, note."),
        ("key => '{nope}'", "Columns are: id, v, note."),
        ("filter => '$.new.v >'", "such as $.new.temperature > 30"),
        ("filter => 'v > 30'", "such as $.new.temperature > 30"),
        ("on_failure => 'arn:aws:s3:::bucket'", "SQS queue or SNS topic"),
        ("on_failure => 'no such name'", "SQS queue or SNS topic"),
        ("name => ''", "Leave it out"),
    ],
)
@pytest.mark.usefixtures("sensor")
def test_a_bad_option_is_refused_with_what_is_valid(sql: Sql, option: str, hint: str) -> None:
    more = "" if "name =>" in option else ", name => 'another'"
    with raises("22023", hint):
        sql(f"{CREATE}('sensor', 'f', {option}{more})")
    if "name" not in option:
        with raises("22023", hint):
            sql(f"{UPDATE}('sensor', {option})")
    assert sql("SELECT count(*) FROM awslambda.event_source_mapping") == 1


@pytest.mark.usefixtures("sensor")
def test_other_bad_arguments(sql: Sql) -> None:
    with raises("42710", "event source mapping sensor already exists", "another name"):
        sql(f"{CREATE}('sensor', 'f', name => 'sensor')")
    with raises("22023", "not the name or ARN of a Lambda function", "1 to 64 letters"):
        sql(f"{CREATE}('sensor', 'arn:aws:lambda:us-east-1:123456789012:f')")
    with raises("22004", "must not be NULL"):
        sql(f"{CREATE}(NULL, 'f')")
    with raises("22004", "batch_size must not be NULL"):
        sql(f"{CREATE}('sensor', 'f', batch_size => NULL)")
    with raises("42883", "create_event_source_mapping"):
        sql(f"{CREATE}('sensor', 'f', batchsize => 1)")
    for statement in (f"{UPDATE}('nope')", f"{DELETE}('nope')"):
        with raises("42704", "event source mapping nope does not exist"):
            sql(statement)


@pytest.mark.usefixtures("sensor")
def test_every_option_is_kept_and_can_be_taken_back(sql: Sql) -> None:
    sql(
        f"""{UPDATE}('sensor', function_name => 'g:prod', columns => '{{v}}', filter => '$.new', key => '{{v}}',
            on_failure => 'arn:aws:sqs:us-east-1:123456789012:dead', keep_results => '1 h', server => '',
            maximum_record_age => '-1', function_response_types => '{{ReportBatchItemFailures}}', batch_size => 10000,
            maximum_retry_attempts => -1, maximum_batching_window => '5 min')"""
    )
    optional = "columns::text, filter::text, key::text, on_failure, keep_results::text, function_response_types::text"
    shown = f"SELECT {optional} FROM awslambda.event_source_mapping"
    assert sql(shown) == (
        "{v}", '$."new"', "{v}", "arn:aws:sqs:us-east-1:123456789012:dead", "01:00:00", "{ReportBatchItemFailures}",
    )  # fmt: skip
    sql(
        f"""{UPDATE}('sensor', columns => '{{}}', filter => '', key => '{{}}', on_failure => '', keep_results => '0',
            function_response_types => '{{}}')"""
    )
    assert sql(shown) == (None, None, None, None, None, "{}")
    assert sql(
        "SELECT function_name, batch_size, maximum_record_age < '0' FROM awslambda.event_source_mapping"
    ) == ("g:prod", 10000, True)  # fmt: skip


# Other transactions.


def test_a_snapshot_from_before_the_mapping_or_the_partition_writes_on(
    sql: Sql, connect: Connect, records: Records
) -> None:
    sql("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    old = runner(connect())
    old("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old("SELECT 1")
    sql(f"{CREATE}('parts', 'f')")
    sql("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    old("INSERT INTO low VALUES (1)")
    old("COMMIT")
    old("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old("SELECT 1")
    sql("CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (100)")
    old("INSERT INTO high VALUES (11)")
    old("COMMIT")
    assert [r["key"]["id"] for r in records()] == [11]


@pytest.mark.usefixtures("sensor")
@pytest.mark.parametrize("column", ["id", "v"])
def test_a_snapshot_from_before_the_key_had_another_name_writes_on(
    sql: Sql, connect: Connect, records: Records, column: str
) -> None:
    sql(f"{UPDATE}('sensor', key => '{{{column}}}')")
    old = runner(connect())
    old("BEGIN ISOLATION LEVEL REPEATABLE READ")
    old("SELECT 1")
    sql(f"ALTER TABLE sensor RENAME {column} TO renamed")
    for rows in ("(1)", "(2), (3)"):
        old(f"INSERT INTO sensor VALUES {rows}")
        old("UPDATE sensor SET note = 'x'")
        old("DELETE FROM sensor")
    old("COMMIT")
    names = ["INSERT", "UPDATE", "DELETE"]
    names += [name for name in names for _ in range(2)]
    assert [(r["eventName"], r["key"]) for r in records()] == [(name, None) for name in names]


@pytest.fixture
def another(cluster: Cluster) -> Any:
    """A cluster with prepared transactions and logical replication, and databases source and target."""
    settings = {"max_prepared_transactions": "5", "wal_level": "logical"}
    with Cluster(cluster.environment, settings) as running:
        for name in ("source", "target"):
            running.psql("-c", f"CREATE DATABASE {name}")
            running.psql("-c", "CREATE EXTENSION awslambda CASCADE", database=name)
            running.psql("-c", "CREATE TABLE sensor (id int PRIMARY KEY)", database=name)
            running.psql("-c", f"{CREATE}('sensor', 'f')", database=name)
        yield running


def test_prepared_transactions_and_the_target_of_logical_replication(another: Cluster) -> None:
    def value(database: str, *statements: str) -> str:
        arguments = [part for statement in statements for part in ("-c", statement)]
        done = another.psql("-v", "ON_ERROR_STOP=1", "-Atq", *arguments, database=database)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    count = "SELECT count(*) FROM awslambda.outbox"
    value("source", "BEGIN", "INSERT INTO sensor VALUES (1)", "PREPARE TRANSACTION 'one'")
    assert value("source", count) == "0"
    assert value("source", "COMMIT PREPARED 'one'", count) == "1"

    value("source", "CREATE PUBLICATION all_of_it FOR TABLE sensor")
    value("source", "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
    value(
        "target",
        f"""CREATE SUBSCRIPTION all_of_it CONNECTION '{another.dsn("source")}' PUBLICATION all_of_it
            WITH (create_slot = false, slot_name = slot, copy_data = false)""",
    )
    value("source", "INSERT INTO sensor VALUES (2)")
    wait_until(lambda: value("target", "SELECT count(*) FROM sensor") == "1", "the row is replicated")
    assert (value("source", count), value("target", count)) == ("2", "0")
    value("target", "DROP SUBSCRIPTION all_of_it")


@pytest.mark.usefixtures("parts")
def test_a_dump_brings_mappings_triggers_and_what_is_captured_afterwards(
    sql: Sql, cluster: Cluster, connect: Connect, database: str
) -> None:
    sql("INSERT INTO parts VALUES (1)")
    sql("CREATE ROLE owner")
    sql("ALTER TABLE parts OWNER TO owner")
    dump = subprocess.run(
        [str(cluster.bindir / "pg_dump"), "-d", cluster.dsn(database)], capture_output=True, text=True, check=True
    )
    sql("CREATE DATABASE restored TEMPLATE template0")
    try:
        done = cluster.psql("-v", "ON_ERROR_STOP=1", database="restored", sql=dump.stdout)
        assert done.returncode == 0, done.stderr
        restored = runner(connect(name="restored"))
        triggers = """SELECT array_agg(tgrelid::regclass || ' ' || tgname ORDER BY tgrelid::regclass || ' ' || tgname)
                        FROM pg_trigger
                       WHERE tgfoid = 'awslambda._capture'::regproc"""
        mappings = """SELECT array_agg((to_jsonb(m) - '_relations')::text || (
                        SELECT array_agg(r::text ORDER BY r::text) FROM unnest(_relations) AS r)::text)
                        FROM awslambda.event_source_mapping AS m"""
        assert restored(triggers) == sql(triggers)
        assert restored(mappings) == sql(mappings)
        restored("TRUNCATE awslambda.outbox")
        restored("CREATE TABLE more PARTITION OF parts FOR VALUES FROM (100) TO (200)")
        restored("INSERT INTO parts VALUES (2), (101)")
        restored("INSERT INTO more VALUES (102)")
        assert restored("SELECT array_agg(key ORDER BY id) FROM awslambda.outbox") == [
            '{"id":2}', '{"id":101}', '{"id":102}',
        ]  # fmt: skip
        assert restored(f"{CREATE}('parts', 'g')") == "parts_g"
        restored(f"{DELETE}('parts')")
    finally:
        sql("DROP DATABASE restored WITH (FORCE)")


def test_a_mapping_that_is_mended_is_delivered_at_once_by_whoever_comes(sql: Sql) -> None:
    """Its pause was about another function, also for a CALL that was not there when it was mended."""
    sql("CREATE TABLE source (id int PRIMARY KEY)")
    name = sql("SELECT awslambda.create_event_source_mapping('source', 'missing')")
    sql("INSERT INTO source VALUES (1)")
    sql("CALL awslambda.dispatch('5 s')")
    paused = "SELECT paused_reason FROM awslambda.status WHERE mapping = %s"
    assert "There is no Lambda function 'missing'" in sql(paused, name)
    sql("CALL awslambda.dispatch('5 s')")
    assert sql("SELECT count(*) FROM awslambda.outbox") == 1
    sql("SELECT awslambda.update_event_source_mapping(%s, function_name => 'echo')", name)
    sql("CALL awslambda.dispatch('5 s')")
    assert sql("SELECT count(*) FROM awslambda.outbox") == 0
    assert sql(paused, name) is None
