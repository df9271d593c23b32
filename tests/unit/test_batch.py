"""Which records of a batch failed, by Lambda's rules for ReportBatchItemFailures."""

from __future__ import annotations

import json
import uuid

import pytest
from awslambda.batch import failed
from awslambda.errors import InvalidBatchResponse
from hypothesis import given, settings
from hypothesis import strategies as st

MESSAGE_IDS = [str(uuid.UUID(int=number)) for number in (7, 3, 9)]
IDS = [40, 41, 57]
FORMATS = ("postgresql", "sqs", "kinesis")

quickly = settings(max_examples=200, deadline=None, database=None)
all_formats = pytest.mark.parametrize("event_format", FORMATS)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def answered(*identifiers: object) -> bytes:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": one} for one in identifiers]}).encode()


# What says that all is well.


@all_formats
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b" \n",
        b"null",
        b"{}",
        b'{"batchItemFailures": null}',
        b'{"batchItemFailures": []}',
        b'{"statusCode": 200, "body": "[1]"}',
    ],
)
def test_an_answer_without_failures_says_that_all_succeeded(event_format: str, answer: bytes) -> None:
    assert failed(event_format, answer, MESSAGE_IDS, IDS) == set()


# What names failed records.


@pytest.mark.parametrize("event_format", ["postgresql", "sqs"])
def test_exactly_the_records_named_by_message_id_failed(event_format: str) -> None:
    answer = answered(MESSAGE_IDS[2], MESSAGE_IDS[0], MESSAGE_IDS[2])
    assert failed(event_format, answer, MESSAGE_IDS, IDS) == {0, 2}


def test_in_kinesis_all_from_the_lowest_sequence_number_on_failed() -> None:
    assert failed("kinesis", answered("41"), MESSAGE_IDS, IDS) == {1, 2}
    assert failed("kinesis", answered("57", "40"), MESSAGE_IDS, IDS) == {0, 1, 2}
    assert failed("kinesis", answered("57"), MESSAGE_IDS, IDS) == {2}


def test_members_beside_the_ones_of_lambda_do_not_count() -> None:
    answer = {"batchItemFailures": [{"itemIdentifier": MESSAGE_IDS[1], "why": "locked"}], "ran": 2}
    assert failed("sqs", json.dumps(answer).encode(), MESSAGE_IDS, IDS) == {1}


# What cannot be relied on: the whole batch failed.


@all_formats
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"done", "it is not JSON"),
        (b'{"batchItemFailures": [', "it is not JSON"),
        (b'"\xff"', "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'"done"', "it is not an object"),
        (b"[]", "it is not an object"),
        (b"false", "it is not an object"),
        (b'{"batchItemFailures": {}}', "batchItemFailures is not a list"),
        (b'{"batchItemFailures": ""}', "batchItemFailures is not a list"),
        (b'{"batchItemFailures": false}', "batchItemFailures is not a list"),
        (answered(""), "an entry of batchItemFailures has no itemIdentifier"),
        (answered(None), "an entry of batchItemFailures has no itemIdentifier"),
        (answered(41), "an entry of batchItemFailures has no itemIdentifier"),
        (answered([MESSAGE_IDS[0]]), "an entry of batchItemFailures has no itemIdentifier"),
        (b'{"batchItemFailures": ["41"]}', "an entry of batchItemFailures has no itemIdentifier"),
        (b'{"batchItemFailures": [null]}', "an entry of batchItemFailures has no itemIdentifier"),
        (b'{"batchItemFailures": [{"messageId": "41"}]}', "an entry of batchItemFailures has no itemIdentifier"),
        (answered("42"), "an itemIdentifier names no record of the batch"),
        (answered(str(uuid.UUID(int=8))), "an itemIdentifier names no record of the batch"),
    ],
)
def test_nonsense_fails_the_whole_batch(event_format: str, answer: bytes, reason: str) -> None:
    with pytest.raises(InvalidBatchResponse, match=reason) as caught:
        failed(event_format, answer, MESSAGE_IDS, IDS)
    assert caught.value.sqlstate == "22032"


@all_formats
def test_one_bad_identifier_outweighs_the_good_ones(event_format: str) -> None:
    good = "41" if event_format == "kinesis" else MESSAGE_IDS[1]
    with pytest.raises(InvalidBatchResponse):
        failed(event_format, answered(good, "nobody"), MESSAGE_IDS, IDS)


def test_records_are_named_by_what_their_format_calls_an_identifier() -> None:
    for event_format in ("postgresql", "sqs"):
        with pytest.raises(InvalidBatchResponse):
            failed(event_format, answered("41"), MESSAGE_IDS, IDS)
    with pytest.raises(InvalidBatchResponse):
        failed("kinesis", answered(MESSAGE_IDS[1]), MESSAGE_IDS, IDS)


def test_what_the_function_answered_is_not_in_the_error() -> None:
    with pytest.raises(InvalidBatchResponse) as caught:
        failed("sqs", answered("card 4111-1111"), MESSAGE_IDS, IDS)
    assert "4111" not in str(caught.value) + caught.value.detail + caught.value.hint
    assert caught.value.__cause__ is None


# Any answer.


@quickly
@given(st.sampled_from(FORMATS), st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_gives_positions_of_the_batch_or_is_refused(event_format: str, answer: bytes) -> None:
    try:
        positions = failed(event_format, answer, MESSAGE_IDS, IDS)
    except InvalidBatchResponse:
        return
    assert positions <= set(range(3))


@quickly
@given(st.sampled_from(FORMATS), json_values)
def test_any_value_in_the_place_of_the_list_succeeds_or_is_refused(event_format: str, value: object) -> None:
    answer = json.dumps({"batchItemFailures": value}).encode()
    if value is None or value == []:
        assert failed(event_format, answer, MESSAGE_IDS, IDS) == set()
    else:
        with pytest.raises(InvalidBatchResponse):
            failed(event_format, answer, MESSAGE_IDS, IDS)


@quickly
@given(st.sampled_from(FORMATS), st.sets(st.integers(1, 2**63 - 1), min_size=1, max_size=50), st.data())
def test_what_was_named_has_failed_and_nothing_else_but_what_follows_in_kinesis(
    event_format: str, ids: set[int], data: st.DataObject
) -> None:
    order = sorted(ids)
    message_ids = [str(uuid.uuid4()) for _ in order]
    names = [str(one) for one in order] if event_format == "kinesis" else message_ids
    named = data.draw(st.lists(st.sampled_from(range(len(order)))))
    positions = failed(event_format, answered(*(names[one] for one in named)), message_ids, order)
    if event_format == "kinesis" and named:
        assert positions == set(range(min(named), len(order)))
    else:
        assert positions == set(named)
