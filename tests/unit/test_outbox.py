"""What the engine of delivery decides, piece by piece; any history as a whole: test_outbox_history."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from awslambda import outbox
from awslambda.outbox import DIRECT, Batch, Floor, Mapping, Outbox, Outcome, Result, Snapshot

from .outbox_model import INFINITY, Table, numbers

MAPPING = Mapping(1, "users", "f", "app", batch_size=10, parallelization_factor=4)
F = ("f", "Event", None, "app", False)
G = ("g", "Event", None, "app", False)
ALL = range(64)
DELIVERED, FAILED, THROTTLED = Result(Outcome.DELIVERED), Result(Outcome.FAILED, "it raised"), Result(Outcome.THROTTLED)


class Bench:
    """An engine that has all slots, over the model of the table."""

    def __init__(self, *mappings: Mapping) -> None:
        self.table = Table(now=1000.0)
        self.table.back_off = lambda attempts: 5.0
        self.engine = Outbox()
        self.mappings = mappings
        self.now = 0.0
        self.configure(*mappings)

    def configure(self, *mappings: Mapping) -> None:
        self.engine.configure(mappings, {}, self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.table.now += seconds

    def look(self) -> int:
        look = self.engine.look(self.now)
        answer = self.table.look(ALL, look.mappings, look.floors, look.limits)
        return self.engine.looked(look, answer, self.now)

    def batches(self, room: int = 100) -> list[Batch]:
        return list(self.engine.batches(self.now, room))

    def sends(self, room: int = 100) -> list[list[int]]:
        return [batch.ids for batch in self.batches(room)]

    def finish(self, batch: Batch, result: Result = DELIVERED) -> None:
        self.engine.finished(batch, result, self.now)

    def settle(self) -> dict[str, Any]:
        for death in self.engine.deaths():
            self.engine.died(death, None)
        document = self.engine.settlement().as_json()
        self.table.settle(document)
        return document

    def deliver_all(self, rounds: int = 100) -> list[int]:
        """The ids in the order in which they go out, from now on without a fault."""
        order = []
        for _ in range(rounds):
            self.look()
            for batch in self.batches():
                order += batch.ids
                self.finish(batch)
            self.settle()
            self.advance(10.0)
        return order


# Snapshots


@pytest.mark.parametrize(
    ("xid", "ended"), [(5, True), (9, True), (10, False), (11, True), (12, False), (13, False), (2**31 + 13, True)]
)
def test_a_transaction_has_ended_if_it_is_below_the_snapshots_end_and_not_in_it(xid: int, ended: bool) -> None:
    assert Snapshot("10:12:10").has_ended(xid) is ended


def test_transaction_ids_that_wrapped_around_are_compared_by_32_bits() -> None:
    after = Snapshot(f"{2**32 - 2}:{2**32 + 3}:{2**32 - 2},{2**32 + 1}")
    assert [xid for xid in (2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1, 2, 3, 4) if after.has_ended(xid)] == [
        2**32 - 3, 2**32 - 1, 0, 2,
    ]  # fmt: skip


def test_a_snapshot_without_running_transactions_is_read() -> None:
    assert Snapshot("7:7:").has_ended(6)


# Where a look may begin


def snapshot(xmax: int, *running: int) -> Snapshot:
    return Snapshot(f"{min(running, default=xmax)}:{xmax}:{','.join(map(str, running))}")


def test_what_nobody_can_add_to_is_not_looked_at_again() -> None:
    floor = Floor()
    assert floor.looked(0, snapshot(10), [], 100, True)
    assert floor.start() == 100


def test_a_transaction_that_ended_after_a_look_has_it_begin_lower() -> None:
    floor = Floor()
    floor.looked(0, snapshot(10, 5), [5], 100, True)
    floor.looked(floor.start(), snapshot(10, 5), [5], 100, True)
    assert floor.start() == 100, "it has lasted for two looks: it will go on"
    assert not floor.looked(100, snapshot(10), [], 120, True), "what it drew below 100 is not in this look"
    assert floor.start() == 0
    assert floor.looked(0, snapshot(10), [], 120, True)
    assert floor.start() == 120


def test_a_transaction_that_ends_between_its_listing_and_the_rows_has_left_nothing_unseen() -> None:
    floor = Floor()
    assert floor.looked(0, snapshot(10), [5], 100, True)  # 5 was running, and had ended in the snapshot
    assert floor.start() == 100


def test_a_transaction_above_the_end_of_the_snapshot_may_have_drawn_small_ids() -> None:
    floor = Floor()
    floor.looked(0, snapshot(10), [11], 100, True)  # xmax is the one after the latest that ended: 11 runs
    assert floor.start() == 0


def test_a_look_that_was_cut_off_marks_what_it_reached_and_strikes_nothing_above() -> None:
    floor = Floor()
    floor.looked(0, snapshot(10, 5), [5], 100, True)
    floor.looked(0, snapshot(10), [], 60, False)  # 5 ended: what it left between 60 and 100 was cut off
    assert floor.start() == 60
    floor.looked(60, snapshot(10), [], 100, True)
    assert floor.start() == 100


def test_each_of_several_long_transactions_leads_back_to_where_it_may_have_drawn() -> None:
    floor = Floor()
    floor.looked(0, snapshot(10), [], 50, True)
    for reached in (100, 110):
        floor.looked(floor.start(), snapshot(10, 5), [5], reached, True)
    for reached in (200, 210):
        floor.looked(floor.start(), snapshot(10, 5, 7), [5, 7], reached, True)
    assert floor.start() == 210
    assert not floor.looked(210, snapshot(10, 5), [5], 220, True)
    floor.looked(floor.start(), snapshot(10, 5), [5], 220, True)
    floor.looked(floor.start(), snapshot(10, 5), [5], 230, True)
    assert floor.start() == 230
    assert not floor.looked(230, snapshot(10), [], 240, True)
    assert floor.start() <= 50


def test_few_marks_are_kept_whatever_runs() -> None:
    floor = Floor()
    for n in range(1, 2000):
        running = [5, 7, *range(1000 + n, 1003 + n)]  # two for ever, and many short ones
        floor.looked(floor.start(), snapshot(1003 + n, *running), running, n * 10, n % 3 > 0)
        assert len(floor._marks) < 10


def test_an_id_drawn_before_commits_of_larger_ones_is_seen() -> None:
    bench = Bench(MAPPING)
    slow = bench.table.begin()
    late = bench.table.insert(slow, 1)
    bench.table.add(1, None, None)
    assert bench.deliver_all(3) == [2, 3]
    bench.table.add(1, None)
    assert bench.deliver_all(3) == [4]
    bench.table.commit(slow)
    assert bench.deliver_all(3) == [late]


def test_a_row_that_comes_up_between_the_sequence_and_the_snapshot_is_seen_once() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, None)

    def one_more() -> None:
        if bench.table.last < 20:
            bench.table.add(1, None)

    bench.table.in_between = one_more
    assert sorted(bench.deliver_all(20)) == list(range(1, 21))


# Batches


def test_a_batch_has_at_most_batch_size_records() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, *[None] * 25)
    assert bench.look() == 25
    assert [len(ids) for ids in bench.sends()] == [10, 10, 5]


def test_a_batch_has_at_most_as_many_bytes_as_lambda_takes_but_a_record() -> None:
    bench = Bench(replace(MAPPING, invocation_type="Event"))
    for size in (600_000, 600_000, 1, 2_000_000, 1):
        bench.table.add(1, None, size=size)
    bench.look()
    assert bench.sends() == [[1], [2, 3], [4], [5]]


def test_a_window_waits_for_a_full_batch_or_its_end_by_the_databases_clock() -> None:
    bench = Bench(replace(MAPPING, window=3.0))
    bench.table.add(1, *[None] * 4)
    bench.look()
    assert bench.sends() == []
    assert not bench.engine.is_idle(bench.now)
    bench.advance(3.5)
    assert bench.sends() == [[1, 2, 3, 4]]
    bench.table.add(1, *[None] * 12)
    bench.look()
    assert bench.sends() == [list(range(5, 15))]


def test_as_many_batches_are_out_as_the_parallelization_factor_and_the_room_allow() -> None:
    bench = Bench(replace(MAPPING, batch_size=1))
    bench.table.add(1, *[None] * 9)
    bench.look()
    assert len(bench.sends(room=3)) == 3
    assert len(bench.sends()) == 1


def test_a_key_is_in_one_batch_at_a_time_and_may_fill_it() -> None:
    bench = Bench(replace(MAPPING, batch_size=2))
    bench.table.add(1, "a", "a", "a", "b", "a", "b")
    bench.look()
    first, second = bench.batches()
    assert (first.ids, second.ids) == ([1, 2], [4, 6])
    bench.finish(first)
    assert bench.sends() == [], "delivered, but that is not written yet"
    bench.settle()
    assert bench.sends() == [[3, 5]]


def test_mappings_take_turns() -> None:
    bench = Bench(*(replace(MAPPING, id=id, batch_size=1, parallelization_factor=100) for id in (1, 2, 3)))
    bench.table.add(1, *[None] * 50)
    bench.table.add(2, None, None)
    bench.table.add(3, None, None)
    bench.look()
    sent = Counter(batch.route.mapping.id for batch in bench.batches(room=9))
    assert sent == {1: 5, 2: 2, 3: 2}


# Failures


def test_a_batch_that_failed_is_bisected_down_to_the_bad_record() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, *[None] * 8)
    bench.look()
    sent = []
    while batches := bench.batches():
        assert len(batches) == 1, "its pieces go one after the other"
        sent.append(batches[0].ids)
        bench.finish(batches[0], FAILED if 6 in batches[0].ids else DELIVERED)
        bench.settle()
    assert sent == [list(range(1, 9)), [1, 2, 3, 4], [5, 6, 7, 8], [5, 6], [5], [6], [7, 8]]
    assert list(bench.table.rows) == [6]
    assert bench.table.rows[6].attempts == 1


def test_no_piece_of_a_batch_overtakes_a_failed_record_of_its_key() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, "a", "b", "a", "b")
    bench.look()
    (batch,) = bench.batches()
    bench.finish(batch, FAILED)
    (half,) = bench.batches()
    bench.finish(half, FAILED)
    (one,) = bench.batches()
    assert one.ids == [1]
    bench.finish(one, FAILED)
    bench.settle()
    (two,) = bench.batches()
    assert two.ids == [2]
    bench.finish(two)
    bench.settle()
    (four,) = bench.batches()
    assert four.ids == [4]
    assert {id: row.due_at for id, row in bench.table.rows.items()} == {1: 1005.0, 3: INFINITY, 4: None}
    bench.finish(four)
    bench.settle()
    assert bench.deliver_all() == [1, 3]


def test_without_bisecting_the_whole_batch_has_failed() -> None:
    bench = Bench(replace(MAPPING, bisect=False))
    bench.table.add(1, *[None] * 3)
    bench.look()
    bench.finish(bench.batches()[0], FAILED)
    bench.settle()
    assert [row.attempts for row in bench.table.rows.values()] == [1, 1, 1]
    assert bench.sends() == []


def test_a_lost_batch_is_not_split_and_counts_as_an_attempt() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, None, None)
    bench.look()
    bench.finish(bench.batches()[0], Result(Outcome.LOST, "no answer"))
    document = bench.settle()
    assert [(numbers(one["ids"]), one["counted"], one["attempts"]) for one in document["retry"]] == [([1, 2], True, 1)]


def test_failed_items_of_a_batch_wait_and_the_others_are_done() -> None:
    bench = Bench(replace(MAPPING, report_failures=True))
    bench.table.add(1, *"abc")
    bench.look()
    bench.finish(bench.batches()[0], Result(Outcome.DELIVERED, "named", failed=frozenset({1})))
    bench.settle()
    assert list(bench.table.rows) == [2]
    assert bench.table.done == [1, 3]


def test_a_rejected_record_dies_alone_and_its_key_goes_on() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, "a", "a", "b")
    bench.look()
    rejected = Result(Outcome.REJECTED, "too large", "PayloadTooLarge")
    order = []
    for _ in range(8):
        for batch in bench.batches():
            order.append(batch.ids)
            bench.finish(batch, rejected if 1 in batch.ids else DELIVERED)
        bench.settle()
    assert order == [[1, 2, 3], [1], [2, 3]]
    assert bench.table.dead.keys() == {1}
    assert bench.table.dead[1][1] == "PayloadTooLarge"


@pytest.mark.parametrize(("most", "tries"), [(0, 1), (2, 3)])
def test_a_record_dies_when_its_retries_are_spent(most: int, tries: int) -> None:
    bench = Bench(replace(MAPPING, maximum_retry_attempts=most))
    bench.table.add(1, "a", "a")
    order = []
    for _ in range(30):
        bench.look()
        for batch in bench.batches():
            order.append(batch.ids)
            bench.finish(batch, FAILED if 1 in batch.ids else DELIVERED)
        bench.settle()
        bench.advance(1.0)
    assert sum(1 in ids for ids in order) == tries + 1, "once more with the batch that was bisected"
    assert bench.table.dead[1][1] == "RetryAttemptsExhausted"
    assert bench.table.done == [2]


def test_a_record_that_is_too_old_dies_unsent_and_one_without_a_limit_does_not() -> None:
    bench = Bench(replace(MAPPING, maximum_record_age=60.0), replace(MAPPING, id=2, maximum_record_age=None))
    bench.table.add(1, "a", "a")
    bench.table.add(2, "a")
    bench.advance(61.0)
    bench.look()
    assert bench.sends() == [[3]]
    dead = bench.settle()["dead"]
    assert [(one["ids"], one["reason"], one["counted"]) for one in dead] == [
        ("{1}", "RecordAgeExceeded", False), ("{2}", "RecordAgeExceeded", False),
    ]  # fmt: skip


def test_nothing_of_a_key_overtakes_a_record_that_waits_for_its_destination() -> None:
    bench = Bench(replace(MAPPING, batch_size=1, maximum_retry_attempts=0, on_failure="arn"))
    bench.table.add(1, "a", "a")
    bench.look()
    bench.finish(bench.batches()[0], FAILED)
    (death,) = bench.engine.deaths()
    assert bench.sends() == []
    assert not bench.engine.is_idle(bench.now)
    bench.engine.died(death, "no such topic")
    assert bench.settle()["dead"][0]["destination_error"] == "no such topic"
    assert bench.sends() == [[2]]


# Waiting in the table


def test_a_late_commit_of_a_smaller_id_is_not_put_behind_the_larger_one_that_failed() -> None:
    bench = Bench(replace(MAPPING, batch_size=1))
    slow = bench.table.begin()
    bench.table.insert(slow, 1, "a")
    bench.table.add(1, "a", "a")
    bench.look()
    (batch,) = bench.batches()
    assert batch.ids == [2]
    bench.table.commit(slow)
    while not bench.look():
        pass
    bench.finish(batch, FAILED)
    assert numbers(bench.settle()["behind"][0]["ids"]) == [3]
    assert bench.deliver_all() == [1, 2, 3]


def test_a_message_before_one_of_its_key_whose_function_is_throttled_is_not_put_behind_it() -> None:
    bench = Bench()
    bench.table.add(DIRECT, None, direct=F)
    bench.table.add(DIRECT, "a", direct=G)
    bench.table.add(DIRECT, "a", direct=F)
    bench.look()
    (batch,) = bench.batches(room=1)
    bench.finish(batch, THROTTLED)
    bench.settle()
    assert sorted(bench.deliver_all()) == [1, 2, 3]


def test_a_delayed_message_does_not_overtake_one_that_was_ready_until_this_look() -> None:
    bench = Bench()
    bench.table.add(DIRECT, "a", direct=F)
    bench.look()
    (batch,) = bench.batches()
    bench.finish(batch, FAILED)
    bench.settle()
    bench.table.add(DIRECT, "a", direct=F)
    bench.table.add(DIRECT, "a", direct=F, delay=6.0)
    bench.advance(7.0)
    assert bench.deliver_all() == [1, 2, 3]


def test_a_key_whose_due_records_are_all_behind_others_goes_on() -> None:
    bench = Bench()
    bench.table.add(DIRECT, "a", direct=F, delay=1.0)
    bench.table.add(DIRECT, "a", direct=F)
    bench.table.add(DIRECT, "a", direct=F, delay=60.0)
    assert bench.deliver_all() == [1, 2, 3]


def test_one_hot_key_leaves_memory_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LOADED", 100)
    monkeypatch.setattr(outbox, "KEPT_OF_A_KEY", 20)
    bench = Bench(replace(MAPPING, batch_size=1))
    bench.table.add(1, *["hot"] * 400)
    bench.table.add(1, *(f"cold {n}" for n in range(10)))
    order = []
    for _ in range(30):
        bench.look()
        assert len(bench.engine._scans[1].known) <= 200
        for batch in bench.batches():
            order += batch.ids
            bench.finish(batch)
        bench.settle()
    assert set(range(401, 411)) <= set(order), "they came up within a few looks"
    hot = [id for id in order + bench.deliver_all(400) if id <= 400]
    assert hot == list(range(1, 401))


def test_a_slot_is_given_back_when_nothing_of_it_is_out() -> None:
    bench = Bench(replace(MAPPING, batch_size=1, parallelization_factor=1))
    bench.table.add(1, "a", "a", "b")
    bench.look()
    (batch,) = bench.batches()
    slot_of_a, slot_of_b = bench.table.rows[1].slot, bench.table.rows[3].slot
    assert slot_of_a != slot_of_b
    assert bench.engine.leave({slot_of_a, slot_of_b, 99}) == {slot_of_b, 99}
    bench.finish(batch)
    bench.settle()
    assert bench.engine.leave({slot_of_a}) == {slot_of_a}
    assert bench.sends() == [], "what it knew of them is forgotten"
    bench.engine.slots_changed()
    assert bench.deliver_all() == [2, 3]


def test_records_that_somebody_deleted_are_not_sent_and_hold_nothing_up() -> None:
    bench = Bench(replace(MAPPING, batch_size=2))
    bench.table.add(1, "a", "b", "a")
    bench.look()
    (first,) = bench.batches()
    bench.table.delete(1)
    bench.engine.vanished(first, {2})
    assert first.ids == [2]
    bench.finish(first)
    bench.settle()
    assert sorted(bench.deliver_all()) == [3]
    assert bench.engine.is_idle(bench.now)


# Speed


def test_throttling_slows_a_mapping_and_burns_no_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    bench = Bench(replace(MAPPING, batch_size=1, parallelization_factor=8))
    bench.table.add(1, *[None] * 100)
    bench.look()
    waits = []
    for _ in range(12):
        batches = bench.batches()
        assert batches
        for batch in batches:
            bench.finish(batch, THROTTLED)
        assert not bench.sends()
        waits.append(bench.engine._routes[1].resume_at - bench.now)
        bench.now = bench.engine._routes[1].resume_at
    assert waits[:3] == pytest.approx([0.2, 0.4, 0.8]) and max(waits) == outbox.LONGEST_BACK_OFF
    assert len(batches) == 1, "one at a time by now"
    assert not bench.settle()["retry"]
    rates = []
    for _ in range(60):
        batches = bench.batches()
        rates.append(len(batches))
        for batch in batches:
            bench.finish(batch)
    assert max(rates) == 8 and rates[:3] == sorted(rates[:3]), "it comes back step by step"


def test_batches_that_were_out_together_slow_their_mapping_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    bench = Bench(replace(MAPPING, batch_size=1, parallelization_factor=8))
    bench.table.add(1, *[None] * 8)
    bench.look()
    for batch in bench.batches():
        bench.finish(batch, THROTTLED)
    assert bench.engine._routes[1].limit == 4
    assert bench.engine._routes[1].failures == 1


def test_what_needs_a_person_pauses_a_mapping_until_it_changes_or_is_tried_again() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, None)
    bench.look()
    bench.finish(bench.batches()[0], Result(Outcome.HALTED, "no such function"))
    (state,), _ = bench.engine.report(bench.now)
    assert (state["paused_reason"], state["paused_for"]) == ("no such function", outbox.PAUSE)
    assert not bench.sends() and bench.engine.is_idle(bench.now)
    assert 1 not in bench.engine.look(bench.now).mappings
    bench.configure(MAPPING)
    assert not bench.sends(), "nothing changed"
    bench.configure(replace(MAPPING, function_name="g"))
    (batch,) = bench.batches()
    bench.finish(batch, Result(Outcome.HALTED, "no such function"))
    bench.advance(outbox.PAUSE)
    assert bench.sends() == [[1]], "in case that it was mended elsewhere"
    bench.finish(batch)
    bench.settle()
    (state,), _ = bench.engine.report(bench.now)
    assert (state["paused_reason"], state["delivered"]) == (None, 1)


def test_a_pause_is_known_to_the_next_dispatcher() -> None:
    engine = Outbox()
    engine.configure([MAPPING], {1: ("no such function", 7.0)}, 100.0)
    assert engine.look(106.0).mappings == [DIRECT]
    assert engine.look(107.5).mappings == [DIRECT, 1]


def test_a_batch_given_up_before_it_was_sent_goes_out_again_at_once() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, "a", "b")
    bench.look()
    (batch,) = bench.batches()
    bench.finish(batch, Result(Outcome.UNSENT))
    assert not bench.settle()["retry"]
    assert bench.sends() == [[1, 2]]


def test_a_disabled_mapping_sends_nothing_and_does_not_hold_up_the_others() -> None:
    bench = Bench(replace(MAPPING, enabled=False), replace(MAPPING, id=2))
    bench.table.add(1, None)
    bench.table.add(2, None)
    assert bench.deliver_all(3) == [2]
    assert bench.engine.is_idle(bench.now)
    bench.configure(MAPPING, replace(MAPPING, id=2))
    assert bench.deliver_all(3) == [1]


def test_a_deleted_mapping_is_forgotten_while_its_batch_is_out() -> None:
    bench = Bench(MAPPING, replace(MAPPING, id=2))
    bench.table.add(1, "a", "a")
    bench.look()
    (batch,) = bench.batches()
    bench.configure(replace(MAPPING, id=2))
    bench.finish(batch, FAILED)
    for piece in bench.batches():
        bench.finish(piece, THROTTLED)
    bench.settle()
    assert bench.engine.report(bench.now)[1] == []
    assert 1 not in bench.engine._scans


# Direct messages


def test_messages_of_a_throttled_function_do_not_slow_another_one() -> None:
    bench = Bench()
    bench.table.add(DIRECT, *[None] * 400, direct=F)
    bench.table.add(DIRECT, *[None] * 3, direct=G)
    bench.look()
    for batch in bench.batches(room=1000):
        bench.finish(batch, THROTTLED if batch.route.mapping.function_name == "f" else DELIVERED)
    document = bench.settle()
    assert bench.table.done == [401, 402, 403]
    assert {one["counted"] for one in document["retry"]} == {False}
    assert len(bench.engine._scans[DIRECT].known) == 0
    assert {row.attempts for row in bench.table.rows.values()} == {0}


def test_new_messages_of_a_function_that_is_waiting_leave_room_for_another_one() -> None:
    bench = Bench()
    bench.table.add(DIRECT, None, direct=F)
    bench.look()
    bench.finish(bench.batches()[0], Result(Outcome.HALTED, "no such function"))
    bench.settle()
    bench.table.add(DIRECT, *[None] * 3000, direct=F)
    bench.table.add(DIRECT, None, direct=G)
    for _ in range(8):
        bench.look()
        for batch in bench.batches():
            assert batch.route.mapping.function_name == "g"
            bench.finish(batch)
        bench.settle()
        bench.advance(0.1)
    assert bench.table.done == [3002]


def test_each_direct_message_goes_alone_and_one_key_in_order_over_functions() -> None:
    bench = Bench()
    bench.table.add(DIRECT, "a", direct=F)
    bench.table.add(DIRECT, "a", direct=G)
    bench.table.add(DIRECT, None, direct=G)
    bench.look()
    assert sorted(bench.sends()) == [[1], [3]]


def test_functions_that_are_not_called_any_more_are_forgotten() -> None:
    bench = Bench()
    for n in range(300):
        bench.table.add(DIRECT, None, direct=(f"f{n}", "Event", None, "app", False))
        bench.deliver_all(1)
        bench.configure()
        bench.engine.report(bench.now)
    assert len(bench.engine._routes) <= 3
    assert len(bench.table.done) == 300


# What is told


def test_a_report_has_what_is_new_and_what_is_out() -> None:
    bench = Bench(replace(MAPPING, batch_size=1, maximum_retry_attempts=0), replace(MAPPING, id=2))
    bench.table.add(1, *[None] * 3)
    bench.look()
    first, second, _ = bench.batches()
    bench.finish(first)
    bench.finish(second, FAILED)
    bench.settle()
    state, sending = bench.engine.report(bench.now)
    assert state == [
        {"mapping": 1, "delivered": 1, "failed": 1, "dead": 1, "error": "it raised", "paused_reason": None,
         "paused_for": None},
    ]  # fmt: skip
    assert sending == [{"mapping": 1, "batches": 1}]
    assert bench.engine.report(bench.now) == ([], sending)
    assert bench.engine.counters == {"delivered": 1, "failed": 1, "dead": 1}


def test_results_are_kept_where_they_are_wanted() -> None:
    bench = Bench(replace(MAPPING, keep_results=True))
    bench.table.add(1, None, None)
    bench.look()
    bench.finish(bench.batches()[0], Result(Outcome.DELIVERED, payload='{"a": 1}'))
    assert bench.settle()["results"] == [{"mapping": 1, "ids": "{1,2}", "payload": '{"a": 1}'}]


def test_it_is_idle_when_all_that_can_go_out_now_is_done() -> None:
    bench = Bench(MAPPING)
    bench.table.add(1, None)
    assert not bench.engine.is_idle(bench.now), "it has not looked"
    bench.look()
    assert not bench.engine.is_idle(bench.now)
    (batch,) = bench.batches()
    bench.look()
    assert not bench.engine.is_idle(bench.now), "a batch is out"
    bench.finish(batch, Result(Outcome.LOST, "no answer"))
    assert not bench.engine.is_idle(bench.now), "it is not settled"
    bench.settle()
    assert bench.engine.is_idle(bench.now), "it is to be tried later"


def test_it_is_not_idle_while_a_look_was_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LOADED", 20)
    bench = Bench(replace(MAPPING, parallelization_factor=1))
    bench.table.add(1, *[None] * 25)
    assert bench.look() == 20
    while batches := bench.batches():
        bench.finish(batches[0])
        bench.settle()
    assert not bench.engine.is_idle(bench.now)
    assert bench.deliver_all(3) == [21, 22, 23, 24, 25]
    assert bench.engine.is_idle(bench.now)
