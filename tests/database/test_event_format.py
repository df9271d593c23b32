"""What a function gets of the outbox: the three formats, which Powertools for AWS Lambda, unmodified, handles."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, cast

import psycopg
import pytest
from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent, SQSEvent
from aws_lambda_powertools.utilities.parser import parse
from aws_lambda_powertools.utilities.parser.models import KinesisDataStreamModel, SqsModel
from awslambda import batch
from awslambda_local.cluster import Cluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import FUNCTIONS, Connect, runner
from tests.docs.markdown import ROOT, Document
from tests.errors import raises

Sql = Callable[..., Any]

TIME = datetime(2026, 11, 21, 18, 21, 0, 123456, timezone.utc)
MILLISECONDS = 1795285260123
RECORD = {
    "eventName": "UPDATE", "database": "app", "schema": "public", "table": "sensors", "key": {"id": 7},
    "new": {"id": 7, "name": "Zoë 😀", "temperature": 20.5}, "old": {"id": 7, "name": None, "temperature": 20},
    "changed": ["name", "temperature"], "occurredAt": "2026-11-21T18:21:00.123456Z", "transactionId": "741",
}  # fmt: skip
OURS = ("eventID", "eventSource", "sequence", "attempt")  # what a batch adds to a record
ACCOUNT = "123456789012"


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


TEXT = compact(RECORD)


class Outbox:
    """Mappings and records as triggers and people leave them, and the batches made of them."""

    def __init__(self, sql: Sql) -> None:
        self.sql = sql

    def mapping(
        self, event_format: str, name: str = "sensors", source: str = "keyed", function_name: str = "f", **more: object
    ) -> int:
        columns = {"name": name, "function_name": function_name, "event_format": event_format, "source": source, **more}
        mapping: int = self.sql(
            f"INSERT INTO awslambda.event_source_mapping ({', '.join(columns)})"
            f" VALUES ({', '.join('%s' for _ in columns)}) RETURNING id",
            *columns.values(),
        )
        return mapping

    def add(
        self, mapping: int, payload: str = TEXT, key: str | None = '{"id":7}', attempts: int = 0
    ) -> tuple[int, uuid.UUID]:
        """The id and the message id of a new record."""
        added: tuple[int, uuid.UUID] = self.sql(
            "INSERT INTO awslambda.outbox (mapping, payload, key, attempts, role, enqueued_at)"
            " VALUES (%s, %s, %s, %s, 'postgres', %s) RETURNING id, message_id",
            mapping, payload, key, attempts, TIME,
        )  # fmt: skip
        return added

    def deliver(self) -> None:
        """Calls what is due; whenever this runs, no record is too old for it."""
        self.sql("UPDATE awslambda.outbox SET enqueued_at = clock_timestamp()")
        self.sql("CALL awslambda.dispatch('10 s')")

    def batch(self, mapping: int, *ids: int) -> tuple[str | None, list[int], list[uuid.UUID]]:
        made: tuple[str | None, list[int], list[uuid.UUID]] = self.sql(
            "SELECT body, ids, message_ids FROM awslambda._batch(%s, %s::bigint[])", mapping, list(ids)
        )
        return made

    def event(self, mapping: int, *ids: int) -> dict[str, Any]:
        body, _, _ = self.batch(mapping, *ids)
        assert body is not None
        event: dict[str, Any] = json.loads(body)
        return event

    def record(self, mapping: int, id: int) -> dict[str, Any]:
        [record] = self.event(mapping, id)["Records"]
        return dict(record)


@pytest.fixture
def outbox(own: Sql) -> Iterator[Outbox]:
    own("CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE unkeyed (id int)")
    yield Outbox(own)
    own("DELETE FROM awslambda.outbox; DELETE FROM awslambda.event_source_mapping; DROP TABLE keyed, unkeyed")


def whole(payload: str, id: int, message_id: uuid.UUID, attempt: int = 1) -> str:
    """The record of a payload that a trigger wrote, to the byte."""
    return (
        f'{{"eventID":"{message_id}","eventSource":"postgresql",{payload[1:-1]},"sequence":{id},"attempt":{attempt}}}'
    )


# The batch.


def test_a_record_is_what_the_trigger_wrote_to_the_byte_and_who_it_is(outbox: Outbox) -> None:
    mapping = outbox.mapping("postgresql")
    payload = '{"eventName":"INSERT","new":{"n":1.10, "big":1e400,"nul":"\\u0000","same":1,"same":2},"old":null}'
    id, message_id = outbox.add(mapping, payload)
    assert outbox.batch(mapping, id) == (f'{{"Records":[{whole(payload, id, message_id)}]}}', [id], [message_id])


def test_the_members_of_a_record_come_in_the_documented_order(outbox: Outbox) -> None:
    mapping = outbox.mapping("postgresql")
    id, _ = outbox.add(mapping)
    assert " ".join(outbox.record(mapping, id)) == (
        "eventID eventSource eventName database schema table key new old changed occurredAt transactionId "
        "sequence attempt"
    )


@pytest.mark.parametrize("event_format", ["postgresql", "sqs", "kinesis"])
def test_a_batch_has_the_records_that_are_left_in_order_of_id(outbox: Outbox, event_format: str) -> None:
    mapping, other = outbox.mapping(event_format), outbox.mapping(event_format, name="other")
    added = [outbox.add(mapping) for _ in range(20)]
    elsewhere, _ = outbox.add(other)
    gone, _ = added.pop(7)
    outbox.sql("DELETE FROM awslambda.outbox WHERE id = %s", gone)
    body, ids, message_ids = outbox.batch(mapping, *(id for id, _ in reversed(added)), gone, elsewhere)
    assert list(zip(ids, message_ids, strict=True)) == added
    records = json.loads(body or "")["Records"]
    if event_format == "kinesis":
        assert [record["kinesis"]["sequenceNumber"] for record in records] == [str(id) for id, _ in added]
    else:
        name = {"postgresql": "eventID", "sqs": "messageId"}[event_format]
        assert [record[name] for record in records] == [str(message_id) for _, message_id in added]


@pytest.mark.parametrize("event_format", ["postgresql", "sqs", "kinesis"])
def test_a_batch_of_which_nothing_is_left_is_empty(outbox: Outbox, event_format: str) -> None:
    mapping = outbox.mapping(event_format)
    assert outbox.batch(mapping, 1, 2) == ('{"Records":[]}', [], [])
    assert outbox.batch(mapping) == ('{"Records":[]}', [], [])


def test_a_message_is_its_payload_to_the_byte(outbox: Outbox) -> None:
    payload = ' {"a": 1.0,\n"a":2} '
    id, message_id = outbox.add(0, payload, key=None)
    found = outbox.sql("SELECT json_agg(m) FROM awslambda._messages(ARRAY[%s, %s]) AS m", id + 1, id)
    assert found == [
        {"id": id + 1, "body": None, "message_id": None},
        {"id": id, "body": payload, "message_id": str(message_id)},
    ]


def test_retries_count_and_change_nothing_else(outbox: Outbox) -> None:
    for event_format in ("postgresql", "sqs", "kinesis"):
        mapping = outbox.mapping(event_format, name=event_format)
        id, _ = outbox.add(mapping)
        first = outbox.record(mapping, id)
        outbox.sql("UPDATE awslambda.outbox SET attempts = 2 WHERE id = %s", id)
        third = outbox.record(mapping, id)
        if event_format == "postgresql":
            assert (first.pop("attempt"), third.pop("attempt")) == (1, 3)
        elif event_format == "sqs":
            counts = [one["attributes"].pop("ApproximateReceiveCount") for one in (first, third)]
            assert counts == ["1", "3"]
            assert first.pop("receiptHandle") != third.pop("receiptHandle")
            bodies = [one.pop("body") for one in (first, third)]
            digests = [one.pop("md5OfBody") for one in (first, third)]
            assert digests == [hashlib.md5(body.encode()).hexdigest() for body in bodies]
            assert bodies[0].replace('"attempt":1', '"attempt":3') == bodies[1]
        else:
            data = [json.loads(base64.b64decode(one["kinesis"].pop("data"))) for one in (first, third)]
            assert [one.pop("attempt") for one in data] == [1, 3]
            assert data[0] == data[1]
        assert first == third


# Payloads that no trigger of ours wrote.

BY_HAND = [
    ' {"eventName": "INSERT", "new": {"a": {}}}', '\n\t{"new":1}\r\n', '{"new":1} ', "{}", " { } ", '{"a":"}"} ',
    '{ "a" : "{" }', '{"":""}', '{\n"a\\"b": [{}]\n}', '{"a":"\\n, }"}\n', '{"ü":"\\u0000😀"} ',
]  # fmt: skip


@pytest.mark.parametrize("payload", BY_HAND)
def test_an_object_written_by_hand_is_a_record_however_it_is_spaced(outbox: Outbox, payload: str) -> None:
    mapping = outbox.mapping("postgresql")
    id, message_id = outbox.add(mapping, payload)
    expected = {"eventID": str(message_id), "eventSource": "postgresql", **json.loads(payload)}
    assert outbox.record(mapping, id) == {**expected, "sequence": id, "attempt": 1}


@pytest.mark.parametrize("payload", ["[1]", '"{}"', '"{\\"a\\":1}"', "null", " 7\n", "true", '["{"]'])
def test_what_is_no_object_becomes_a_member_of_one(outbox: Outbox, payload: str) -> None:
    mapping = outbox.mapping("postgresql")
    id, message_id = outbox.add(mapping, payload)
    expected = {"eventID": str(message_id), "eventSource": "postgresql", "payload": json.loads(payload)}
    assert outbox.record(mapping, id) == {**expected, "sequence": id, "attempt": 1}


_leaf = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
_objects = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.recursive(
        _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a}{ ", max_size=3), inner)
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_objects, st.sampled_from([None, 0, 2]), st.sampled_from(["", " ", "\n"]), st.sampled_from(["", " ", "\r\n"]))
def test_any_object_is_a_record_in_every_format(
    outbox: Outbox, value: dict[str, object], indent: int | None, before: str, after: str
) -> None:
    payload = before + json.dumps(value, indent=indent, ensure_ascii=indent is None) + after
    found = []
    for event_format in ("postgresql", "sqs", "kinesis"):
        mapping = outbox.mapping(event_format, name=str(uuid.uuid4()))
        id, message_id = outbox.add(mapping, payload)
        record = outbox.record(mapping, id)
        if event_format == "sqs":
            assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
            record = json.loads(record["body"])
        elif event_format == "kinesis":
            record = json.loads(base64.b64decode(record["kinesis"]["data"], validate=True))
        own = {"eventID": str(message_id), "eventSource": "postgresql", "sequence": id, "attempt": 1}
        found.append({name: record.pop(name) for name in own} == own and record)
    assert found == [value] * 3


# sqs.


def test_a_record_of_a_keyed_mapping_is_one_of_a_fifo_queue(outbox: Outbox) -> None:
    mapping = outbox.mapping("sqs", function_name="arn:aws:lambda:eu-west-1:123456789012:function:f")
    id, message_id = outbox.add(mapping, attempts=1)
    body = whole(TEXT, id, message_id, attempt=2)
    record = outbox.record(mapping, id)
    assert record == {
        "messageId": str(message_id),
        "receiptHandle": f"{message_id}/2",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "2",
            "SentTimestamp": str(MILLISECONDS),
            "SequenceNumber": str(id),
            "MessageGroupId": '{"id":7}',
            "SenderId": "postgres",
            "MessageDeduplicationId": str(message_id),
            "ApproximateFirstReceiveTimestamp": str(MILLISECONDS),
        },
        "messageAttributes": {},
        "md5OfBody": hashlib.md5(body.encode()).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:sensors.fifo",
        "awsRegion": "eu-west-1",
    }
    assert " ".join(record) == (  # AWS's order
        "messageId receiptHandle body attributes messageAttributes md5OfBody eventSource eventSourceARN awsRegion"
    )


def test_a_record_of_an_unkeyed_mapping_is_one_of_a_standard_queue(outbox: Outbox) -> None:
    mapping = outbox.mapping("sqs", source="unkeyed")
    id, _ = outbox.add(mapping, key=None)
    record = outbox.record(mapping, id)
    assert " ".join(record["attributes"]) == (
        "ApproximateReceiveCount SentTimestamp SenderId ApproximateFirstReceiveTimestamp"
    )
    assert record["eventSourceARN"] == "arn:aws:sqs:local:000000000000:sensors"


def test_a_record_without_a_key_in_a_keyed_mapping_is_a_group_of_its_own(outbox: Outbox) -> None:
    mapping = outbox.mapping("sqs")
    id, message_id = outbox.add(mapping, key=None)
    assert outbox.record(mapping, id)["attributes"]["MessageGroupId"] == str(message_id)


# kinesis.


def test_a_record_of_the_format_kinesis_is_as_kinesis_sends_it(outbox: Outbox) -> None:
    mapping = outbox.mapping("kinesis", function_name="arn:aws:lambda:eu-west-1:123456789012:function:f")
    id, message_id = outbox.add(mapping)
    slot = outbox.sql("SELECT awslambda._slot(key, message_id) FROM awslambda.outbox WHERE id = %s", id)
    record = outbox.record(mapping, id)
    assert record == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": '{"id":7}',
            "sequenceNumber": str(id),
            "data": base64.b64encode(whole(TEXT, id, message_id).encode()).decode(),
            "approximateArrivalTimestamp": MILLISECONDS / 1000,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-{slot:012}:{id}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/postgres",
        "awsRegion": "eu-west-1",
        "eventSourceARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/sensors",
    }
    assert " ".join(record) == (  # AWS's order
        "kinesis eventSource eventVersion eventID eventName invokeIdentityArn awsRegion eventSourceARN"
    )


def test_the_partition_key_of_an_unkeyed_record_is_its_message_id(outbox: Outbox) -> None:
    mapping = outbox.mapping("kinesis", source="unkeyed")
    id, message_id = outbox.add(mapping, key=None)
    assert outbox.record(mapping, id)["kinesis"]["partitionKey"] == str(message_id)


# Names, regions, encodings.

ROLE = "arn:aws:iam::210987654321:role/writer"


@pytest.mark.parametrize(
    ("function_name", "options", "server", "arn"),
    [
        ("f", "", None, "aws:sqs:eu-central-1:000000000000"),
        ("f", f", role_arn '{ROLE}'", None, "aws:sqs:eu-central-1:210987654321"),
        ("123456789012:function:f:prod", f", role_arn '{ROLE}'", "main", "aws:sqs:eu-central-1:123456789012"),
        ("arn:aws:lambda:us-west-2:123456789012:function:f", "", None, "aws:sqs:us-west-2:123456789012"),
        ("arn:aws-cn:lambda:cn-north-1:123456789012:function:f", "", None, "aws-cn:sqs:cn-north-1:123456789012"),
        ("f", "", "other", "aws-us-gov:sqs:us-gov-west-1:000000000000"),
    ],
)
def test_region_and_account_are_those_that_the_mapping_knows(
    outbox: Outbox, function_name: str, options: str, server: str | None, arn: str
) -> None:
    outbox.sql(f"CREATE SERVER main FOREIGN DATA WRAPPER awslambda OPTIONS (region 'eu-central-1'{options})")
    try:
        if server == "other":
            outbox.sql("CREATE SERVER other FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-gov-west-1')")
        mapping = outbox.mapping("sqs", function_name=function_name, server=server)
        id, _ = outbox.add(mapping)
        record = outbox.record(mapping, id)
        assert record["eventSourceARN"] == f"arn:{arn}:sensors.fifo"
        assert record["awsRegion"] == arn.split(":")[2]
    finally:
        outbox.sql("DROP SERVER main; DROP SERVER IF EXISTS other")


def test_the_server_named_aws_counts_where_there_are_several(outbox: Outbox) -> None:
    for name, region in (("a", "eu-west-1"), ("aws", "eu-west-2"), ("b", "eu-west-3")):
        outbox.sql(f"CREATE SERVER {name} FOREIGN DATA WRAPPER awslambda OPTIONS (region '{region}')")
    try:
        mapping = outbox.mapping("kinesis")
        id, _ = outbox.add(mapping)
        assert outbox.record(mapping, id)["awsRegion"] == "eu-west-2"
    finally:
        outbox.sql("DROP SERVER a; DROP SERVER aws; DROP SERVER b")


@pytest.mark.parametrize("event_format", ["sqs", "kinesis"])
def test_any_names_give_json_and_an_arn_of_six_parts(outbox: Outbox, event_format: str) -> None:
    key = '{"a\\"b":"c\\\\d\\u0000😀"}'
    mapping = outbox.mapping(event_format, name='Zoë\'s "readings": all\n')
    id, _ = outbox.add(mapping, key=key)
    outbox.sql('CREATE ROLE "o\'b ""\\"')
    try:
        outbox.sql("UPDATE awslambda.event_source_mapping SET role = %s", '"o\'b ""\\"')
        outbox.sql("UPDATE awslambda.outbox SET role = %s", '"o\'b ""\\"')
        record = outbox.record(mapping, id)
    finally:
        outbox.sql("UPDATE awslambda.event_source_mapping SET role = 'postgres'")
        outbox.sql("UPDATE awslambda.outbox SET role = 'postgres'")
        outbox.sql('DROP ROLE "o\'b ""\\"')
    *_, name = record["eventSourceARN"].split(":")
    if event_format == "sqs":
        assert (len(record["eventSourceARN"].split(":")), name) == (6, "Zo--s--readings---all-.fifo")
        assert record["attributes"]["MessageGroupId"] == key
        assert record["awsRegion"] == "local"
    else:
        assert name == "stream/Zo--s--readings---all-"
        assert record["kinesis"]["partitionKey"] == key


def test_bodies_are_utf8_whatever_the_encoding_of_the_database(cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
        try:
            with psycopg.connect(cluster.dsn("latin"), autocommit=True) as session:
                session.execute("CREATE EXTENSION awslambda CASCADE; CREATE TABLE keyed (id int PRIMARY KEY)")
                outbox = Outbox(runner(session))
                payload = '{"eventName":"INSERT","new":{"name":"Zoë ½"}}'
                for event_format in ("postgresql", "sqs", "kinesis"):
                    mapping = outbox.mapping(event_format, name=event_format)
                    id, message_id = outbox.add(mapping, payload, key='{"name":"Zoë"}')
                    record = outbox.record(mapping, id)
                    expected = whole(payload, id, message_id)
                    if event_format == "sqs":
                        assert record["body"] == expected
                        assert record["md5OfBody"] == hashlib.md5(expected.encode()).hexdigest()
                    elif event_format == "kinesis":
                        assert base64.b64decode(record["kinesis"]["data"]) == expected.encode()
                        assert record["kinesis"]["partitionKey"] == '{"name":"Zoë"}'
                    else:
                        assert record == json.loads(expected)
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")


def test_nobody_reads_records_by_batch_without_the_grant(connect: Connect, sql: Sql) -> None:
    sql("CREATE ROLE caller LOGIN; SELECT awslambda.grant_usage('caller')")
    with raises("42501"):
        runner(connect("caller"))("SELECT * FROM awslambda._batch(1, '{1}')")


# Powertools for AWS Lambda.


def test_powertools_models_and_data_classes_take_both_formats(outbox: Outbox) -> None:
    for source in ("keyed", "unkeyed"):
        mapping = outbox.mapping("sqs", name=f"sqs {source}", source=source)
        id, message_id = outbox.add(mapping, key='{"id":7}' if source == "keyed" else None)
        event = outbox.event(mapping, id)
        [message] = parse(event, SqsModel).Records
        assert (message.messageId, message.eventSource) == (str(message_id), "aws:sqs")
        assert message.attributes.SentTimestamp == TIME.replace(microsecond=123000)
        assert message.attributes.MessageGroupId == ('{"id":7}' if source == "keyed" else None)
        [record] = SQSEvent(event).records
        assert record.json_body["new"] == RECORD["new"]
        assert record.queue_url.endswith(f"/000000000000/sqs-{source}" + (".fifo" if source == "keyed" else ""))
    mapping = outbox.mapping("kinesis", name="stream")
    id, _ = outbox.add(mapping)
    event = outbox.event(mapping, id)
    [parsed] = parse(event, KinesisDataStreamModel).Records
    assert json.loads(cast(bytes, parsed.kinesis.data))["new"] == RECORD["new"]
    assert parsed.kinesis.approximateArrivalTimestamp == MILLISECONDS / 1000
    [change] = KinesisStreamEvent(event).records
    assert change.kinesis.data_as_json()["new"] == RECORD["new"]


def reading(temperature: float) -> str:
    return compact({**RECORD, "new": {"temperature": temperature}})


def failed(outbox: Outbox, event_format: str, function_name: str, readings: list[tuple[str, float]]) -> set[int]:
    """The positions of those that failed, of records that are (key, temperature), in a real handler."""
    mapping = outbox.mapping(event_format, function_name=function_name)
    wanted = [outbox.add(mapping, reading(temperature), key)[0] for key, temperature in readings]
    body, ids, message_ids = outbox.batch(mapping, *wanted)
    answer: str = outbox.sql("SELECT awslambda_fn(%s, %s::text)", function_name, body)
    return set(batch.failed(event_format, answer.encode(), [str(one) for one in message_ids], ids))


READINGS = [("a", 20.0), ("b", 120.5), ("b", 21.0), ("c", 22.0), ("a", 300.0), ("c", 23.0)]


def test_the_batch_processor_for_sqs_fails_the_records_that_raise_and_no_others(outbox: Outbox) -> None:
    assert failed(outbox, "sqs", "powertools-sqs", READINGS) == {1, 4}


def test_the_fifo_processor_leaves_the_rest_of_a_failed_group_and_no_other(outbox: Outbox) -> None:
    assert failed(outbox, "sqs", "powertools-fifo", READINGS) == {1, 2, 4}


def test_the_batch_processor_for_kinesis_fails_all_from_the_first_that_raises(outbox: Outbox) -> None:
    assert failed(outbox, "kinesis", "powertools-kinesis", READINGS) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("event_format", "name"), [("sqs", "sqs"), ("sqs", "fifo"), ("kinesis", "kinesis")])
def test_a_batch_in_which_nothing_raises_has_no_failures(outbox: Outbox, event_format: str, name: str) -> None:
    assert failed(outbox, event_format, f"powertools-{name}", [("a", 1.0), ("b", 2.0), ("a", 3.0)]) == set()


def test_powertools_raises_when_all_records_of_a_batch_failed(outbox: Outbox) -> None:
    with pytest.raises(psycopg.Error, match="BatchProcessingError: All records failed") as caught:
        failed(outbox, "sqs", "powertools-sqs", [("a", 101.0), ("b", 102.0)])
    assert caught.value.sqlstate == "LA001"


def test_the_idempotency_of_powertools_runs_a_message_once_however_often_it_comes(outbox: Outbox) -> None:
    mapping = outbox.mapping("sqs")
    added = [outbox.add(mapping) for _ in range(3)]
    ids = [id for id, _ in added]
    for attempts in range(3):
        outbox.sql("UPDATE awslambda.outbox SET attempts = %s", attempts)
        body, _, _ = outbox.batch(mapping, *ids)
        answer = json.loads(outbox.sql("SELECT awslambda_fn('powertools-idempotent', %s::text)", body))
        assert answer == {"batchItemFailures": [], "ran": [str(message_id) for _, message_id in added]}


# End to end.


@pytest.fixture
def unhurried(outbox: Outbox) -> Iterator[Outbox]:
    """An outbox in which a failed record waits until the test says otherwise."""
    back_off = outbox.sql("SELECT pg_get_functiondef('awslambda._back_off'::regproc)")
    outbox.sql(
        "CREATE OR REPLACE FUNCTION awslambda._back_off(attempts int) RETURNS interval LANGUAGE sql"
        " AS $$ SELECT interval '1 hour' $$"
    )
    yield outbox
    outbox.sql(back_off)
    outbox.sql("DELETE FROM awslambda._state")


@pytest.mark.parametrize(
    ("event_format", "function_name", "left"),
    [
        ("sqs", "powertools-sqs", {1, 4}),
        ("sqs", "powertools-fifo", {1, 2, 4}),
        ("kinesis", "powertools-kinesis", {1, 2, 3, 4, 5}),
    ],
)
def test_failures_that_powertools_reports_are_delivered_again_and_nothing_else(
    unhurried: Outbox, event_format: str, function_name: str, left: set[int]
) -> None:
    outbox = unhurried
    mapping = outbox.mapping(
        event_format, function_name=function_name, function_response_types=["ReportBatchItemFailures"]
    )
    for key, temperature in READINGS:
        outbox.add(mapping, reading(temperature), key)
    positions = {id: at for at, id in enumerate(outbox.sql("SELECT array_agg(id ORDER BY id) FROM awslambda.outbox"))}
    outbox.deliver()
    waiting = outbox.sql("SELECT array_agg(id ORDER BY id) FROM awslambda.outbox")
    assert {positions[id] for id in waiting} == left
    assert outbox.sql("SELECT max(attempts) FROM awslambda.outbox") == 1
    assert outbox.sql("SELECT last_error FROM awslambda.outbox WHERE id = %s", min(waiting)) == (
        "named in batchItemFailures"
    )

    outbox.sql("UPDATE awslambda.outbox SET payload = %s::json", reading(20.0))
    outbox.sql("UPDATE awslambda.outbox SET due_at = clock_timestamp() WHERE due_at < 'infinity'")
    outbox.deliver()
    assert outbox.sql("SELECT count(*) FROM awslambda.outbox") == 0


@pytest.mark.parametrize("event_format", ["postgresql", "sqs", "kinesis"])
@pytest.mark.parametrize(
    "answer",
    ['"done"', '{"batchItemFailures": [{"itemIdentifier": ""}]}', '{"batchItemFailures": [{"itemIdentifier": "7"}]}'],
)
def test_nonsense_in_the_place_of_failures_delivers_nothing(unhurried: Outbox, event_format: str, answer: str) -> None:
    outbox = unhurried
    mapping = outbox.mapping(
        event_format, function_name="answer", function_response_types=["ReportBatchItemFailures"],
        bisect_batch_on_function_error=False,
    )  # fmt: skip
    payload = json.dumps({**RECORD, "new": {"answer": json.loads(answer)}})
    for key in ("a", "b", "c"):
        outbox.add(mapping, payload, key)
    outbox.deliver()
    assert outbox.sql("SELECT array_agg(attempts) FROM awslambda.outbox") == [1, 1, 1]
    assert "InvalidBatchResponse" in outbox.sql("SELECT min(last_error) FROM awslambda.outbox")


@pytest.mark.parametrize("event_format", ["postgresql", "sqs", "kinesis"])
def test_without_report_batch_item_failures_an_answer_is_not_looked_at(unhurried: Outbox, event_format: str) -> None:
    outbox = unhurried
    mapping = outbox.mapping(event_format, function_name="answer")
    payload = json.dumps({**RECORD, "new": {"answer": {"batchItemFailures": [{"itemIdentifier": ""}]}}})
    outbox.add(mapping, payload)
    outbox.deliver()
    assert outbox.sql("SELECT count(*) FROM awslambda.outbox") == 0


@pytest.mark.parametrize(
    ("event_format", "function_name", "left"),
    [("sqs", "powertools-sqs", [2]), ("kinesis", "powertools-kinesis", [2, 3])],
)
def test_powertools_handles_what_triggers_captured(
    unhurried: Outbox, event_format: str, function_name: str, left: list[int]
) -> None:
    sql = unhurried.sql
    sql("CREATE TABLE readings (sensor int PRIMARY KEY, temperature float8)")
    try:
        sql(
            "SELECT awslambda.create_event_source_mapping('readings', %s, event_format => %s,"
            " function_response_types => '{ReportBatchItemFailures}')",
            function_name, event_format,
        )  # fmt: skip
        sql("INSERT INTO readings VALUES (1, 20.5), (2, 120.5), (3, 21)")
        sql("CALL awslambda.dispatch('10 s')")
        waiting = "SELECT array_agg((payload -> 'new' ->> 'sensor')::int ORDER BY id) FROM awslambda.outbox"
        assert sql(waiting) == left
    finally:
        sql("DELETE FROM awslambda.outbox; DROP TABLE readings")


def test_a_synchronous_message_has_its_id_in_the_client_context(unhurried: Outbox) -> None:
    sql = unhurried.sql
    message_id = sql(
        "SELECT awslambda.enqueue('behave', '{\"do\": \"about\"}', invocation_type => 'RequestResponse',"
        " keep_results => '1 hour')"
    )
    sql("CALL awslambda.dispatch('10 s')")
    status, answer = sql("SELECT status, payload FROM awslambda.result(%s)", message_id)
    assert answer["custom"] == {"message_id": str(message_id), "attempt": 1}, status


def test_a_redriven_record_keeps_its_message_id_and_grows_its_sequence(unhurried: Outbox) -> None:
    outbox = unhurried
    mapping = outbox.mapping("postgresql", function_name="behave", maximum_retry_attempts=0)
    id, message_id = outbox.add(mapping)
    outbox.deliver()
    assert outbox.sql("SELECT awslambda.redrive()") == 1
    redriven = outbox.sql("SELECT id FROM awslambda.outbox WHERE mapping = %s", mapping)
    record = outbox.record(mapping, redriven)
    assert (record["eventID"], record["attempt"]) == (str(message_id), 1)
    assert record["sequence"] == redriven > id


# The page.

PAGE = Document(ROOT / "docs/event-formats.md")


def test_the_documented_events_are_what_a_function_gets(outbox: Outbox) -> None:
    documented = [json.loads(block.code) for block in PAGE.blocks if block.language == "json"][:3]
    [record] = documented[0]["Records"]
    payload = {name: value for name, value in record.items() if name not in OURS}
    for event_format, expected in zip(("postgresql", "sqs", "kinesis"), documented, strict=True):
        mapping = outbox.mapping(
            event_format, name="users", function_name=f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f"
        )
        outbox.sql(
            "INSERT INTO awslambda.outbox (mapping, id, message_id, payload, key, role, enqueued_at)"
            " VALUES (%s, %s, %s, %s, %s, 'postgres', %s)",
            mapping, record["sequence"], record["eventID"], compact(payload), '{"id":7}', TIME,
        )  # fmt: skip
        assert outbox.event(mapping, record["sequence"]) == expected
        outbox.sql("DELETE FROM awslambda.outbox; DELETE FROM awslambda.event_source_mapping")


def test_the_documented_handler_is_the_tested_one() -> None:
    [block] = [block for block in PAGE.blocks if block.language == "python"]
    assert block.code == (FUNCTIONS / "powertools-sqs.py").read_text("utf-8")
