"""The loop of a dispatcher, over the model of the table: slots, settings, outcomes, the end of a session."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from awslambda import delivery, errors
from awslambda import invoke as lambda_
from awslambda.delivery import PRESENCE, SLOTS, Delivery, Sending
from awslambda.outbox import Mapping, Outcome, Result

from .outbox_model import Table, numbers

MAPPING = Mapping(1, "users", "f", "app", batch_size=2, parallelization_factor=4)

# Every class of error, and what it means for a batch: a new one is to be thought about here.
EXPECTED = {
    errors.LambdaError: Outcome.HALTED,
    errors.FunctionError: Outcome.FAILED,
    errors.FunctionTimedOut: Outcome.FAILED,
    errors.InvalidBatchResponse: Outcome.FAILED,
    errors.Throttled: Outcome.THROTTLED,
    errors.ServiceFailed: Outcome.UNREACHED,
    errors.NoAnswer: Outcome.LOST,
    errors.ConnectFailed: Outcome.UNREACHED,
    errors.ConnectionBroke: Outcome.LOST,
    errors.CredentialsUnavailable: Outcome.UNREACHED,
    errors.PayloadTooLarge: Outcome.REJECTED,
    errors.InvalidJson: Outcome.REJECTED,
    # The rest needs a person.
    errors.FunctionNotFound: Outcome.HALTED,
    errors.ServerNotFound: Outcome.HALTED,
    errors.DestinationNotFound: Outcome.HALTED,
    errors.DestinationFailed: Outcome.HALTED,
    errors.AccessDenied: Outcome.HALTED,
    errors.ServerNotAllowed: Outcome.HALTED,
    errors.ServerNotTrusted: Outcome.HALTED,
    errors.ResourceNotAllowed: Outcome.HALTED,
    errors.NoCredentials: Outcome.HALTED,
    errors.CredentialsRefused: Outcome.HALTED,
    errors.RegionUnknown: Outcome.HALTED,
    errors.ServerNotChosen: Outcome.HALTED,
    errors.InvalidOption: Outcome.HALTED,
    errors.OptionNotAllowed: Outcome.HALTED,
    errors.InvalidArgument: Outcome.HALTED,
    errors.NullArgument: Outcome.HALTED,
    errors.NotLambda: Outcome.HALTED,
    errors.ResponseNotJson: Outcome.HALTED,
    errors.ResponseNotText: Outcome.HALTED,
    errors.NotLoaded: Outcome.HALTED,
    errors.InTransactionBlock: Outcome.HALTED,
    errors.NotSupported: Outcome.HALTED,
}


# What is said of streams, which delivery has nothing to do with.
STREAMS = {
    errors.BrokenRecord, errors.CheckpointMoved, errors.IteratorExpired, errors.NotKinesis, errors.NotLogs,
    errors.RecordNotStored, errors.RecordTooLarge, errors.RecordsLost, errors.ShardNotFound,
    errors.StreamConnectionBroke, errors.StreamFailed, errors.StreamNoAnswer, errors.StreamNotFound,
    errors.StreamThrottled,
}  # fmt: skip


class AnyField(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return 1.0


def made(kind: type[errors.LambdaError], **fields: Any) -> errors.LambdaError:
    """An error of this class, whatever fields its message has."""
    error = kind.__new__(kind)
    message = inspect.cleandoc(kind.__doc__ or "").format_map(AnyField(fields))
    Exception.__init__(error, message)
    error.fields, error.detail, error.hint = fields, "", kind.hint
    return error


def test_every_class_of_error_is_classified() -> None:
    classes = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.LambdaError)}
    assert classes == EXPECTED.keys() | STREAMS


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_an_error_is_what_it_means_for_a_batch(kind: type[errors.LambdaError]) -> None:
    assert delivery._outcome(made(kind)) is EXPECTED[kind]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("KMSAccessDeniedException", Outcome.HALTED),
        ("InvalidRuntimeException", Outcome.HALTED),
        ("EC2AccessDeniedException", Outcome.HALTED),
        ("EFSMountFailureException", Outcome.HALTED),
        ("ServiceException", Outcome.UNREACHED),
        ("EC2ThrottledException", Outcome.UNREACHED),
        ("EFSIOException", Outcome.UNREACHED),
        ("ResourceConflictException", Outcome.UNREACHED),
    ],
)
def test_of_awss_failures_some_do_not_pass_by_themselves(code: str, outcome: Outcome) -> None:
    assert delivery._outcome(errors.ServiceFailed(function="f", code=code, status=502)) is outcome


def test_a_record_that_is_too_large_dies_with_that_reason() -> None:
    assert delivery._result(made(errors.PayloadTooLarge)).reason == "PayloadTooLarge"
    assert delivery._result(made(errors.InvalidJson)).reason == "InvalidRecord"


# The loop


class Clock:
    CLOCK_BOOTTIME = 7

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now

    def clock_gettime(self, _: int) -> float:
        return self.now


class Server:
    """What all sessions share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.table = Table(now=1000.0)
        self.table.back_off = lambda attempts: 5.0
        self.locks: dict[int, FakeDatabase] = {}
        self.present: list[FakeDatabase] = []
        self.mappings = [MAPPING]
        self.flushed = True
        self.paused: dict[int, tuple[str, float]] = {}

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.table.now += seconds


class FakeDatabase:
    """A session: each query that delivery knows, done by the model."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.last_seen = server.clock.now
        self.queries: list[str] = []
        self.broken = False

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        if self.broken:
            raise ConnectionError
        self.last_seen = self.server.clock.now
        self.queries.append(query)
        return self.does()[query](*arguments)

    def check_interrupts(self) -> None:
        self.last_seen = self.server.clock.now

    def does(self) -> dict[str, Callable[..., list[dict[str, Any]]]]:
        return {
            delivery.MAPPINGS: self.mappings,
            delivery.SLOT_STATE: self.slot_state,
            delivery.CLAIM: self.claim,
            delivery.WAKE: self.wake,
            delivery.RELEASE: self.release,
            delivery.LOOK: self.look,
            delivery.BATCHES: self.batches,
            delivery.MESSAGES: self.messages,
            delivery.SETTLE: self.settle,
            delivery.FLUSH: lambda: [],
        }

    def mappings(self) -> list[dict[str, Any]]:
        rows = []
        for mapping in self.server.mappings:
            reason, seconds = self.server.paused.get(mapping.id, (None, None))
            rows.append({**asdict(mapping), "paused_reason": reason, "paused_for": seconds})
        return [{"mappings": json.dumps(rows)}]

    def slot_state(self) -> list[dict[str, Any]]:
        return [{"dispatchers": len(self.server.present), "taken": json.dumps(list(self.server.locks))}]

    def claim(self, slots: str) -> list[dict[str, Any]]:
        claimed = []
        for slot in numbers(slots):
            if slot == PRESENCE:
                assert self not in self.server.present, "a lock taken twice would have to be released twice"
                self.server.present.append(self)
            elif self.server.locks.setdefault(slot, self) is not self:
                continue
            claimed.append(slot)
        self.server.table.promote_behind(claimed)
        return [{"claimed": json.dumps(claimed)}]

    def wake(self, slots: str) -> list[dict[str, Any]]:
        self.server.table.promote_behind(numbers(slots))
        return []

    def release(self, slots: str) -> list[dict[str, Any]]:
        for slot in numbers(slots):
            if slot == PRESENCE and self in self.server.present:
                self.server.present.remove(self)
            if self.server.locks.get(slot) is self:
                del self.server.locks[slot]
        return []

    def look(self, slots: str, *arrays: str) -> list[dict[str, Any]]:
        bits = int(slots)
        assert -(1 << 63) <= bits < 1 << 63, "a bigint"
        held = [slot for slot in SLOTS if bits >> slot & 1]
        assert all(self.server.locks.get(slot) is self for slot in held)
        answer = self.server.table.look(held, *(numbers(array) for array in arrays))
        return [{"found": json.dumps({**answer, "flushed": self.server.flushed})}]

    def batches(self, mappings: str, ids: str) -> list[dict[str, Any]]:
        rows = []
        for _, array in zip(numbers(mappings), json.loads("[" + ids[1:-1] + "]"), strict=True):
            existing = [id for id in numbers(array) if id in self.server.table.rows]
            names = json.dumps([f"message {id}" for id in existing])
            rows.append({"body": "{}", "ids": json.dumps(existing), "message_ids": names})
        return rows

    def messages(self, ids: str) -> list[dict[str, Any]]:
        rows = []
        for id in numbers(ids):
            there = id in self.server.table.rows
            rows.append({"id": id, "body": "{}" if there else None, "message_id": f"message {id}" if there else None})
        return rows

    def settle(self, document: str) -> list[dict[str, Any]]:
        settlement = json.loads(document)
        self.server.table.settle(settlement)
        return [{"wrote": any(settlement[name] for name in ("done", "behind", "retry", "dead"))}]

    def end(self) -> None:
        """The session is gone, and its locks."""
        self.broken = True
        self.release("{" + ",".join(map(str, [*SLOTS, PRESENCE])) + "}")


class Dispatcher(Delivery):
    """Without threads: what was handed over waits until it is let go."""

    def __init__(self, server: Server, concurrency: int = 8) -> None:
        self.database = FakeDatabase(server)
        super().__init__(self.database, concurrency, lambda help: None)

    def sent(self) -> list[Sending]:
        taken = []
        while not self._work.empty():
            work = self._work.get()
            assert isinstance(work, Sending)
            taken.append(work)
        return taken

    def land(self, result: Result | None = None) -> list[list[int]]:
        ids = []
        for work in self.sent():
            ids.append(work.batch.ids)
            self._done.put((work, result or self._invoke(work, SimpleNamespace())))  # type: ignore[arg-type]
        return ids


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(delivery, "time", clock)
    monkeypatch.setattr(delivery, "servers_of", lambda database, role: [])
    return clock


@pytest.fixture
def server(clock: Clock) -> Server:
    return Server(clock)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the function answers, the last one again and again: bytes, or an error to be raised."""
    answers: list[Any] = [b""]

    def invoke(*_: Any) -> Any:
        one = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(one, Exception):
            raise one
        return SimpleNamespace(payload=one)

    monkeypatch.setattr(lambda_, "invoke", invoke)
    monkeypatch.setattr(lambda_, "raise_function_error", lambda request, response: None)
    yield answers


def rounds(server: Server, dispatchers: list[Dispatcher], count: int, each: float = 0.1) -> None:
    for _ in range(count):
        for one in dispatchers:
            one.step()
        server.advance(each)


@pytest.mark.parametrize("count", [1, 2, 3, 70])
def test_dispatchers_share_the_slots_evenly_and_leave_none(server: Server, count: int) -> None:
    dispatchers: list[Dispatcher] = []
    for _ in range(count):  # one after the other, as in a rolling start
        dispatchers.append(Dispatcher(server))
        rounds(server, dispatchers, 1)
    rounds(server, dispatchers, 30)
    owned = [len(one._slots) for one in dispatchers]
    assert sum(owned) == len(server.locks) == 64
    assert max(owned) <= math.ceil(64 / count)
    assert {slot: holder.server for slot, holder in server.locks.items()}.keys() == set(SLOTS)


def test_the_slots_of_one_that_was_killed_are_taken_over_within_a_second(server: Server, answer: list[Any]) -> None:
    dispatchers = [Dispatcher(server), Dispatcher(server)]
    rounds(server, dispatchers, 20)
    server.table.add(1, *"abcdefghijkl")
    rounds(server, dispatchers, 3)
    assert dispatchers[0].in_flight
    dispatchers[0].database.end()
    rounds(server, dispatchers[1:], 10)
    assert len(dispatchers[1]._slots) == 64
    for _ in range(20):
        dispatchers[1].land()
        rounds(server, dispatchers[1:], 1)
    assert not server.table.rows


def test_what_is_in_flight_keeps_its_slot_until_it_is_written(server: Server) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 2)
    server.table.add(1, "a")
    rounds(server, [one], 3)
    slot = server.table.rows[1].slot
    one._leaving = {slot, (slot + 1) % 64}
    one._slots, one._next_claim = set(SLOTS), math.inf
    assert one._outbox.leave(one._leaving) == {(slot + 1) % 64}
    assert str(int(one._bits())) != "-1", "leaving slots are not looked at"


def test_a_dispatcher_that_owns_all_slots_asks_with_all_bits(server: Server) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    assert one._bits() == "-1"


def test_records_are_delivered(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, *"abc")
    rounds(server, [one], 1)
    assert one.in_flight == 2 and not one.idle
    assert sorted(one.land()) == [[1, 2], [3]]
    rounds(server, [one], 2)
    assert not server.table.rows and one.in_flight == 0 and one.idle
    assert one.counters == {"delivered": 3, "failed": 0, "dead": 0}


def test_it_is_over_when_every_slot_is_somebodys(server: Server, answer: list[Any]) -> None:
    """Of three that drain, the first to end leaves slots that nobody has yet, and records in them."""
    one, two = Dispatcher(server), Dispatcher(server)
    rounds(server, [one, two], 20)
    assert one.is_over() and two.is_over()
    two.close()
    assert one.idle and not one.is_over()
    rounds(server, [one], 1)
    assert len(one._slots) == 64 and one.is_over()
    one._leaving = {1}
    assert not one.is_over()


def test_no_more_is_in_flight_than_the_concurrency(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server, concurrency=3)
    rounds(server, [one], 1)
    server.table.add(1, *[None] * 50)
    most = 0
    for _ in range(60):
        rounds(server, [one], 1)
        most = max(most, one.in_flight)
        one.land()
    assert most == 3 and one._threads == 3
    assert not server.table.rows


def test_the_wal_is_flushed_before_what_was_found_is_sent(server: Server) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 2)
    server.flushed = False
    server.table.add(1, "a")
    one.database.queries.clear()
    rounds(server, [one], 1)
    queries = [one for one in one.database.queries if one in (delivery.LOOK, delivery.FLUSH, delivery.BATCHES)]
    assert queries == [delivery.LOOK, delivery.FLUSH, delivery.BATCHES]


def test_a_flush_is_saved_where_all_is_on_disk_or_nothing_was_found(server: Server) -> None:
    one = Dispatcher(server)
    server.flushed = False
    rounds(server, [one], 3)
    server.flushed = True
    server.table.add(1, "a")
    rounds(server, [one], 3)
    assert one.in_flight == 1 and delivery.FLUSH not in one.database.queries


def test_nothing_is_sent_when_the_database_has_been_silent(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 1)
    answer[0] = AssertionError("it was sent")
    server.advance(delivery.STALE + 1.0)
    (work,) = one.sent()
    result = one._invoke(work, SimpleNamespace())  # type: ignore[arg-type]
    assert result.outcome is Outcome.UNSENT


def test_what_a_thread_has_not_sent_when_the_session_ends_is_not_sent(server: Server) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 1)
    (work,) = one.sent()
    one.close()
    with pytest.raises(delivery.Abandoned):
        one._invoke(work, SimpleNamespace())  # type: ignore[arg-type]


def test_closing_writes_what_was_collected_and_gives_the_slots_back(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a", "b", "c")
    rounds(server, [one], 1)
    one.land()
    one._collect(server.clock.now)
    one.close()
    assert not server.table.rows and not server.locks and not server.present


def test_closing_a_session_that_is_gone_writes_nothing_and_says_so(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 1)
    one.land()
    one.database.end()
    with pytest.raises(ConnectionError):
        one.close()
    assert list(server.table.rows) == [1]
    assert one._closed.is_set()


def test_a_dispatcher_that_stops_sends_nothing_new_and_finishes_what_is_out(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a", "a", "a")
    rounds(server, [one], 1)
    one.stopping = True
    one.land()
    rounds(server, [one], 3)
    assert list(server.table.rows) == [3] and one.in_flight == 0


def test_a_server_that_the_role_may_not_use_pauses_its_mapping(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(*_: Any) -> None:
        raise errors.ServerNotAllowed(role="app", servers="the server aws")

    monkeypatch.setattr("awslambda.servers.choose", choose)
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 3)
    assert one.in_flight == 0 and list(server.table.rows) == [1] and server.table.rows[1].attempts == 0
    assert one._outbox._routes[1].paused_reason == "ServerNotAllowed: The role 'app' may not use the server aws."


def test_an_error_that_nobody_thought_of_is_an_attempt_and_delivery_goes_on(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 1)
    answer[:] = [KeyError("oh"), b""]
    one.land()
    rounds(server, [one], 1)
    assert server.table.rows[1].attempts == 1
    rounds(server, [one], 10, each=1.0)
    one.land()
    rounds(server, [one], 1)
    assert not server.table.rows


def test_the_answer_is_read_by_the_mapping_as_it_was_when_the_batch_was_sent(server: Server, answer: list[Any]) -> None:
    server.mappings = [Mapping(1, "users", "f", "app", batch_size=2, report_failures=True)]
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(1, "a", "b")
    rounds(server, [one], 1)
    server.mappings = [Mapping(1, "users", "f", "app", batch_size=2)]
    rounds(server, [one], 15)
    answer[0] = json.dumps({"batchItemFailures": [{"itemIdentifier": "message 2"}]}).encode()
    one.land()
    rounds(server, [one], 1)
    assert list(server.table.rows) == [2], "the function said that it failed"


def test_a_key_goes_on_when_somebody_deletes_the_record_that_it_waits_for(server: Server, answer: list[Any]) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.back_off = lambda attempts: 600.0
    server.table.add(1, "a")
    rounds(server, [one], 1)
    one.land(Result(Outcome.FAILED, "it raised"))
    rounds(server, [one], 1)
    server.table.add(1, "a")
    rounds(server, [one], 3)
    server.table.delete(1)
    for _ in range(130):
        rounds(server, [one], 1)
        one.land()
    assert not server.table.rows


def test_a_direct_synchronous_message_tells_its_id_and_attempt(server: Server) -> None:
    one = Dispatcher(server)
    rounds(server, [one], 1)
    server.table.add(0, None, direct=("f", "RequestResponse", None, "app", False))
    server.table.add(0, None, direct=("f", "Event", None, "app", False))
    rounds(server, [one], 2)
    contexts = [work.request.client_context for work in one.sent()]
    assert [one and json.loads(one) for one in contexts] == [
        {"custom": {"message_id": "message 1", "attempt": 1}}, None,
    ]  # fmt: skip
