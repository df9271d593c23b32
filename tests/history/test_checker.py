"""The checker itself: histories with one violation each, and good ones that only look like violations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.history.checker import (
    CUT,
    FAILED,
    FUNCTION_ERROR,
    GONE,
    OK,
    THROTTLE,
    Dead,
    Fault,
    History,
    Invocation,
    Record,
    Sight,
    check,
)

KEY = '{"id":7}'


def insert(token: str = "a", sequence: int = 1, attempt: int = 1, **more: Any) -> Sight:
    return Sight(token, f"m-{sequence}", sequence, attempt, KEY, "INSERT", None, token, **more)


def update(token: str, old: str, sequence: int, attempt: int = 1, **more: Any) -> Sight:
    return Sight(token, f"m-{sequence}", sequence, attempt, KEY, "UPDATE", old, token, **more)


def sent(start: float, *sights: Sight, outcome: str = OK, client: str = "d1", takes: float = 0.5) -> Invocation:
    return Invocation(client, "f", start, start + takes, outcome, sights)


def history(*invocations: Invocation, **more: Any) -> History:
    """Row 7 is inserted as a, changed to b and to c; all three committed."""
    committed = {
        "a": Record("a", "f", "INSERT", KEY), "b": Record("b", "f", "UPDATE", KEY), "c": Record("c", "f", "UPDATE", KEY)
    }  # fmt: skip
    return replace(History(committed, {"x"}, invocations, rows={"f": {KEY: "c"}}, retries={"f": 2}), **more)


def kinds(*invocations: Invocation, **more: Any) -> set[str]:
    return set(check(history(*invocations, **more)).kinds())


A, B, C = insert(), update("b", "a", 2), update("c", "b", 3)
GOOD = (sent(1, A), sent(2, B), sent(3, C))


def test_a_good_history_has_no_violation() -> None:
    report = check(history(*GOOD))
    assert not report.violations
    assert report.counts["committed"] == report.counts["acknowledged"] == 3
    assert report.counts["duplicates"] == 0
    assert kinds(sent(1, A, B, C)) == set()


@pytest.mark.parametrize("outcome", [FUNCTION_ERROR, THROTTLE, FAILED, CUT, GONE])
def test_what_was_not_acknowledged_may_and_must_come_again(outcome: str) -> None:
    attempt = 1 if outcome == THROTTLE else 2
    assert kinds(sent(0, A, outcome=outcome), sent(1, replace(A, attempt=attempt)), *GOOD[1:]) == set()
    assert kinds(*GOOD[:2], sent(3, C, outcome=outcome)) == {"lost"}
    assert kinds(*GOOD[:2], sent(3, C, outcome=outcome), pending=["c"]) == {"stuck"}


def test_a_record_that_was_never_sent_is_lost() -> None:
    assert kinds(*GOOD[:2]) == {"lost"}
    assert kinds(*GOOD[:2], pending=["c"]) == {"stuck"}


def test_a_record_in_the_middle_that_is_lost_is_missed_although_the_rest_is_in_order() -> None:
    assert "lost" in kinds(GOOD[0], GOOD[2])


@pytest.mark.parametrize(("token", "kind"), [("x", "ghost"), ("y", "invented")])
def test_what_did_not_commit_must_not_be_seen_anywhere(token: str, kind: str) -> None:
    assert kinds(*GOOD, sent(4, Sight(token), outcome=FUNCTION_ERROR)) == {kind}
    assert kinds(*GOOD, dead=[Dead(token, "RetryAttemptsExhausted", 3)]) == {kind}
    assert kinds(*GOOD, pending=[token]) == {kind}


def failing(*attempts: int, outcome: str = FUNCTION_ERROR) -> Sequence[Invocation]:
    return [sent(3 + n, replace(C, attempt=attempt), outcome=outcome) for n, attempt in enumerate(attempts)]


def test_a_record_may_die_when_its_function_failed_it_often_enough() -> None:
    exhausted = Dead("c", "RetryAttemptsExhausted", 3)
    assert kinds(*GOOD[:2], *failing(1, 2, 3), dead=[exhausted]) == set()
    assert kinds(*GOOD[:2], *failing(1, 2), dead=[exhausted]) == {"dead without cause"}
    assert kinds(*GOOD[:2], *failing(1, 2), dead=[replace(exhausted, attempts=2)]) == {"dead without cause"}
    assert kinds(*GOOD[:2], *failing(1, 1, 1, outcome=THROTTLE), dead=[exhausted]) == {"dead without cause"}
    assert kinds(*GOOD[:2], *failing(1, 2, 3), dead=[replace(exhausted, reason="InvalidRecord")]) == {
        "dead without cause"
    }
    assert kinds(*GOOD[:2], dead=[exhausted]) == {"dead without cause"}


def test_throttling_burns_no_attempt() -> None:
    throttled = [sent(3, C, outcome=THROTTLE), sent(4, C, outcome=THROTTLE)]
    assert kinds(*GOOD[:2], *throttled, sent(5, C)) == set()
    assert kinds(*GOOD[:2], *throttled, sent(5, replace(C, attempt=2))) == {"burnt attempt"}


def test_a_record_stays_the_same_over_all_deliveries() -> None:
    failed = (*GOOD[:2], sent(3, C, outcome=FUNCTION_ERROR))
    assert kinds(*failed, sent(4, replace(C, attempt=2, message_id="m-9"))) == {"changed identity"}
    assert "changed identity" in kinds(*failed, sent(4, replace(C, attempt=2, sequence=9)))
    assert kinds(*failed, sent(4, replace(C, attempt=2, key='{"id":8}'))) == {"misdelivered"}
    assert kinds(*failed, sent(4, replace(C, attempt=2, operation="DELETE"))) == {"misdelivered"}
    assert kinds(*failed, replace(sent(4, replace(C, attempt=2)), function="g")) == {"misdelivered"}
    assert "changed identity" in kinds(sent(1, A), sent(2, replace(B, message_id="m-1")), sent(3, C))


def test_what_was_acknowledged_comes_again_only_after_a_fault_of_who_called() -> None:
    again = (*GOOD, sent(4, C, client="d2"))
    assert kinds(*again) == {"repeated"}
    report = check(history(*again, faults=[Fault("kill", 3.2, 3.2, "d1")]))
    assert not report.violations
    assert report.counts["duplicates"] == 1
    assert kinds(*again, faults=[Fault("kill", 3.2, 3.2, "d3")]) == {"repeated"}, "of another"
    assert kinds(*again, faults=[Fault("kill", 4.2, 4.2, "d1")]) == {"repeated"}, "afterwards"
    assert kinds(*again, faults=[Fault("kill", 2.9, 2.9, "d1")]) == {"repeated"}, "before"
    assert kinds(*again, faults=[Fault("immediate stop", 3.2, 3.9)]) == set(), "of all"
    assert kinds(*again, faults=[Fault("stop", 1.0, 4.0, "d2")]) == set(), "of who had looked before"


def test_an_item_that_failed_is_not_acknowledged_and_those_beside_it_are() -> None:
    batch = sent(2, B, replace(C, failed=True))
    assert kinds(GOOD[0], batch) == {"lost"}
    assert kinds(GOOD[0], batch, sent(3, replace(C, attempt=2))) == set()
    assert kinds(GOOD[0], batch, sent(3, B, replace(C, attempt=2))) == {"repeated"}


def test_a_record_waits_for_those_before_it_in_its_key() -> None:
    assert "order" in kinds(sent(1, A), sent(2, C), sent(3, B)), "sent before"
    assert "order" in kinds(sent(1, A), sent(2, C, B)), "before in one batch"
    failed = sent(2, B, outcome=FUNCTION_ERROR)
    assert kinds(GOOD[0], failed, sent(3, replace(B, attempt=2)), sent(4, C)) == set()
    assert kinds(GOOD[0], failed, sent(3, C), sent(4, replace(B, attempt=2))) == {"order"}, "before that succeeded"
    assert kinds(GOOD[0], failed, sent(3, replace(B, attempt=2), C)) == set(), "in the batch with it"
    assert kinds(sent(1, A, B, outcome=FUNCTION_ERROR), sent(2, replace(A, attempt=2)), sent(3, replace(B, attempt=2)),
                 sent(4, C)) == set(), "bisected"  # fmt: skip
    assert kinds(sent(1, A, B, outcome=FUNCTION_ERROR), sent(2, replace(B, attempt=2)), sent(3, replace(A, attempt=2)),
                 sent(4, C)) == {"order"}, "bisected, the later half first"  # fmt: skip


def test_what_is_before_may_also_have_died() -> None:
    died = [sent(2 + n, replace(B, attempt=n), outcome=FUNCTION_ERROR) for n in (1, 2, 3)]
    dead = [Dead("b", "RetryAttemptsExhausted", 3)]
    assert kinds(GOOD[0], *died, sent(6, C), dead=dead) == set()
    assert kinds(GOOD[0], *died[:2], sent(4.7, C, takes=0.1), died[2], dead=dead) == {"order"}


def test_direct_messages_of_a_key_go_in_the_order_of_their_turns() -> None:
    committed = {token: Record(token, "g", None, "k", turn) for turn, token in enumerate("pqr")}
    invocations = [Invocation("d1", "g", at, at + 0.5, OK, [Sight(token)]) for at, token in enumerate("pqr")]
    good = History(committed, (), invocations)
    assert not check(good).violations
    swapped = [replace(invocations[0], start=1, end=1.5), replace(invocations[1], start=0, end=0.5), invocations[2]]
    assert set(check(replace(good, invocations=sorted(swapped, key=lambda one: one.start))).kinds()) == {"order"}


def test_two_batches_of_a_key_must_not_fly_at_once() -> None:
    overlapping = (*GOOD[:2], sent(3, C, client="d1", outcome=GONE), sent(3.2, replace(C, attempt=2), client="d2"))
    assert "two in flight" in kinds(*overlapping)
    stopped = [Fault("stop", 3.1, 9.0, "d1")]
    assert "two in flight" not in kinds(*overlapping, faults=stopped)
    forever = (*GOOD[:2], sent(3, C, outcome=GONE, takes=math.inf), sent(9, replace(C, attempt=2), client="d2"))
    assert kinds(*forever) == {"two in flight"}
    assert kinds(*GOOD[:2], sent(3, C, outcome=CUT, takes=0.1), sent(3.1, replace(C, attempt=2))) == set()


def test_changes_of_a_key_must_follow_from_each_other_and_end_in_the_table() -> None:
    assert kinds(GOOD[0], GOOD[1], sent(3, replace(C, old="a"))) == {"does not follow"}
    assert kinds(*GOOD, rows={"f": {KEY: "d"}}) == {"does not follow"}
    assert kinds(*GOOD, rows={"f": {}}) == {"does not follow"}
    assert kinds(sent(1, replace(A, sequence=2)), sent(2, replace(B, sequence=1)), sent(3, C)) >= {"does not follow"}
