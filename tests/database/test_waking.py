"""Keys of the outbox whose records wait for each other, or for one that is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

ALL = -1  # slots, as bits


def insert(sql: Callable[..., Any], *due_at: str | None) -> None:
    for one in due_at:
        sql(
            "INSERT INTO awslambda.outbox (function_name, payload, key, due_at, invocation_type) "
            "VALUES ('f', '1', 'a', %s::timestamptz, 'Event')",
            one,
        )


def due(sql: Callable[..., Any]) -> list[str]:
    text = sql(
        "SELECT json_agg(CASE WHEN due_at IS NULL THEN 'ready' WHEN due_at = 'infinity' THEN 'behind' "
        "WHEN due_at > now() THEN 'later' ELSE 'due' END ORDER BY id)::text FROM awslambda.outbox"
    )
    found: list[str] = json.loads(text)
    return found


def test_a_look_wakes_a_key_whose_last_due_record_goes_behind(sql: Callable[..., Any]) -> None:
    insert(sql, "infinity", "2020-01-01")
    look = "SELECT awslambda._look(%s, '{0}', '{0}', '{100}')::text"
    assert [row[8] for row in json.loads(sql(look, ALL))["records"]] == [1]
    assert due(sql) == ["due", "due"]
    assert [(row[1], row[8]) for row in json.loads(sql(look, ALL))["records"]] == [(1, 0), (2, 0)]


def test_a_look_does_not_wake_a_key_that_has_a_record_in_back_off(sql: Callable[..., Any]) -> None:
    insert(sql, "2100-01-01", "2020-01-01", None)
    sql("SELECT awslambda._look(%s, '{0}', '{0}', '{100}')::text", ALL)
    assert due(sql) == ["later", "behind", "behind"]


def test_a_key_whose_first_record_was_deleted_is_woken(sql: Callable[..., Any]) -> None:
    insert(sql, "2100-01-01", "infinity", "infinity")
    wake = "SELECT awslambda._wake(ARRAY(SELECT generate_series(0, 63)))::text"
    sql(wake)
    assert due(sql) == ["later", "behind", "behind"]
    sql("DELETE FROM awslambda.outbox WHERE due_at = '2100-01-01'")
    sql(wake)
    assert due(sql) == ["due", "due"]
