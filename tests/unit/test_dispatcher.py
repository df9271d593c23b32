"""The dispatcher's decisions, on a database and a delivery that do what the test says; and what it shows of itself."""

from __future__ import annotations

import io
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, cast

import awslambda
import pytest
from awslambda import dispatcher, status
from awslambda.__main__ import main
from awslambda.database import ConnectionLost, DatabaseError, PooledConnection, PsycopgDatabase
from awslambda.delivery import Delivery
from awslambda.dispatcher import CRASHED, OK, REFUSED, UNAVAILABLE, Dispatcher, Options, Refused, Unavailable, explained
from awslambda.health import Health, Snapshot, metrics
from awslambda.logs import Log
from awslambda.waits import start_helper

Capture = pytest.CaptureFixture[str]


class FakeDatabase:
    """Ready to deliver, unless told otherwise."""

    def __init__(self, **ready: object) -> None:
        self.ready = {"standby": False, "role": "r", "database": "d", "version": awslambda.__version__, **ready}
        self.last_seen = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.closed = False
        self.server = {"host": "h"}

    def fetch(self, query: str, *_: str | None) -> list[dict[str, Any]]:
        return [self.ready] if query == dispatcher.READY else [{"pending": 10}]

    def close(self) -> None:
        self.closed = True


class FakeDelivery:
    """Does one thing after the other at each step."""

    def __init__(self, *steps: Callable[[FakeDelivery], None]) -> None:
        self.steps = list(steps)
        self.stopping = self.idle = self.closed = False
        self.in_flight = 0
        self.counters = {"delivered": 0, "failed": 0, "dead": 0}
        self.seen: list[bool] = []

    def is_over(self) -> bool:
        return self.idle

    def step(self) -> None:
        self.seen.append(self.stopping)
        if self.steps:
            self.steps.pop(0)(self)

    def wait(self) -> None:
        time.sleep(0.001)

    def close(self) -> None:
        self.closed = True


def made(
    *deliveries: FakeDelivery, until: str = "drain", databases: list[FakeDatabase] | None = None
) -> tuple[Dispatcher, io.StringIO]:
    stream, left, opened = io.StringIO(), list(deliveries), list(databases or [])

    def connect(_: str) -> PsycopgDatabase:
        return cast(PsycopgDatabase, opened.pop(0) if opened else FakeDatabase())

    def deliver(*_: object) -> Delivery:
        return cast(Delivery, left.pop(0))

    return Dispatcher(Options(until=until), Log(stream, True), connect, deliver), stream


def events(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def raising(error: Exception) -> Callable[[FakeDelivery], None]:
    def step(_: FakeDelivery) -> None:
        raise error

    return step


def becomes(**values: object) -> Callable[[FakeDelivery], None]:
    def step(delivery: FakeDelivery) -> None:
        for name, value in values.items():
            setattr(delivery, name, value)

    return step


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BACK_OFF", 0.001)


def test_drain_goes_on_until_there_is_nothing_left() -> None:
    delivery = FakeDelivery(becomes(in_flight=1), becomes(in_flight=0), becomes(idle=True))
    run, stream = made(delivery)
    assert run.run() == OK
    assert delivery.steps == [] and delivery.closed and not any(delivery.seen)
    assert events(stream) == ["started", "connected", "stopped"]


def test_once_starts_nothing_after_the_first_step_and_settles_what_it_started() -> None:
    delivery = FakeDelivery(becomes(in_flight=2), becomes(in_flight=1), becomes(in_flight=0))
    assert made(delivery, until="once")[0].run() == OK
    assert delivery.seen == [False, True, True, True], "one more step settles what finished"


def test_a_signal_stops_it_and_its_handlers_are_gone_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    delivery = FakeDelivery(
        becomes(in_flight=1), lambda _: signal.raise_signal(signal.SIGTERM), becomes(), becomes(in_flight=0)
    )
    assert made(delivery, until="")[0].run() == OK
    assert delivery.seen == [False, False, True, True, True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_lost_session_is_replaced_and_counters_go_on() -> None:
    first = FakeDelivery(becomes(counters={"delivered": 3, "failed": 1, "dead": 0}), raising(ConnectionLost("gone")))
    second = FakeDelivery(
        becomes(counters={"delivered": 2, "failed": 0, "dead": 1}), lambda _: signal.raise_signal(signal.SIGINT)
    )
    lost = FakeDatabase()
    run, stream = made(first, second, until="", databases=[lost])
    assert run.run() == OK
    assert first.closed and lost.closed
    assert events(stream) == ["started", "connected", "unavailable", "connected", "stopped"]
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["delivered"], last["failed"], last["dead"]) == (5, 1, 1)


@pytest.mark.parametrize("until", ["once", "drain"])
def test_a_lost_session_ends_what_should_end_anyway(until: str) -> None:
    run, stream = made(FakeDelivery(raising(ConnectionLost("gone"))), until=until)
    assert run.run() == UNAVAILABLE
    assert events(stream) == ["started", "connected", "unavailable", "stopped"]


def test_the_same_trouble_is_said_once() -> None:
    waiting = [FakeDatabase(standby=True) for _ in range(20)]
    delivery = FakeDelivery(lambda _: signal.raise_signal(signal.SIGTERM))
    run, stream = made(delivery, until="", databases=waiting)
    assert run.run() == OK
    assert events(stream) == ["started", "standby", "connected", "stopped"]
    assert all(database.closed for database in waiting)


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        ({"version": None}, ["'d'", "CREATE EXTENSION"]),
        ({"version": "0.0.9"}, ["0.0.9", awslambda.__version__, "ALTER EXTENSION awslambda UPDATE"]),
    ],
)
def test_what_a_person_must_do_ends_it(ready: dict[str, object], words: list[str]) -> None:
    database = FakeDatabase(**ready)
    run, stream = made(until="", databases=[database])
    assert run.run() == REFUSED and database.closed
    assert all(word in stream.getvalue() for word in words)


def test_a_bug_ends_it_without_showing_what_it_was_about() -> None:
    run, stream = made(FakeDelivery(raising(RuntimeError("the payload"))), until="")
    assert run.run() == CRASHED
    assert "the payload" not in stream.getvalue()
    assert "RuntimeError at dispatcher.py:" in stream.getvalue() and "test_dispatcher.py:" in stream.getvalue()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (PooledConnection("pooled"), Refused, ["pooled", "directly"]),
        (ConnectionLost("FATAL: sorry, too many clients already"), Unavailable, ["max_connections"]),
        (ConnectionLost("remaining connection slots are reserved"), Unavailable, ["max_connections"]),
        (ConnectionLost("Connection refused"), Unavailable, ["refused"]),
        (DatabaseError("permission denied", "42501"), Refused, ["permission denied", "awslambda.grant_dispatch('me')"]),
        (DatabaseError("a copy", "55000", "arm it"), Refused, ["a copy", "arm it"]),
        (DatabaseError("canceled", "57014"), Unavailable, ["canceled"]),
        (DatabaseError("function does not exist", "42883"), Unavailable, ["does not exist"]),
    ],
)
def test_each_error_of_the_database_has_its_meaning(error: DatabaseError, kind: type, words: list[str]) -> None:
    meant = explained(error, "me")
    assert isinstance(meant, kind)
    assert all(word in f"{meant} {meant.hint}" for word in words)


def test_an_error_that_may_quote_a_value_is_told_by_its_code() -> None:
    meant = explained(DatabaseError('invalid input syntax for type bigint: "secret"', "22P02"))
    assert "secret" not in str(meant) and "22P02" in str(meant)


# The command line.


@pytest.mark.parametrize(
    "arguments",
    [
        ["--concurrency=0"], ["--concurrency=x"], ["--concurrency=1001"], ["--once", "--drain"], ["--log-format=xml"],
        ["--health=x"], ["--health=1:2:99999"], ["--health="], ["extra"],
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["dispatch", *arguments])
    assert caught.value.code == 2 and capsys.readouterr().err.startswith("usage: awslambda ")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], Options()),
        (["--dsn", "host=x", "--concurrency", "7", "--once"], Options("host=x", 7, "once")),
        (["--drain", "--health", "8080"], Options(until="drain", health=("127.0.0.1", 8080))),
        (["--health", "0.0.0.0:8080"], Options(health=("0.0.0.0", 8080))),
        (["--health", "[::]:8080"], Options(health=("::", 8080))),
    ],
)
def test_the_command_line_is_the_options(
    arguments: list[str], options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    monkeypatch.setattr(dispatcher, "main", lambda *arguments: given.extend(arguments) or 0)
    assert main(["dispatch", *arguments]) == 0
    assert given == [options, False]


# Log and progress.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_for_people_and_one_for_machines() -> None:
    people, machines = io.StringIO(), io.StringIO()
    Log(people)("warning", "lost", "the connection\nis gone", host="a b", port=1, hint="")
    Log(machines, True)("warning", "lost", "gone", host="a\nb")
    time_, rest = people.getvalue().split(" ", 1)
    assert len(time_) == len("2026-11-21T18:21:00.123Z")
    assert rest.startswith("WARNING ") and 'host="a b" port=1' in rest and "hint" not in rest
    assert people.getvalue().count("\n") == machines.getvalue().count("\n") == 1
    assert json.loads(machines.getvalue())["host"] == "a\nb"


def test_the_bar_gives_way_to_a_line_and_is_for_terminals_only() -> None:
    terminal, file, machines = Terminal(), io.StringIO(), Terminal()
    log = Log(terminal)
    log.progress(25, 100, 2.0)
    assert terminal.getvalue().startswith("[#######") and "25 of 100 12/s" in terminal.getvalue()
    log("info", "x", "y")
    assert "\r" in terminal.getvalue() and terminal.getvalue().endswith("y\n")
    Log(file).progress(25, 100, 2.0)
    Log(machines, True).progress(25, 100, 2.0)
    assert file.getvalue() == machines.getvalue() == ""


# Health and metrics.

ROW: dict[str, Any] = {
    "mapping": 'a"b\\c\nd', "source": "t", "function_name": "f", "enabled": True, "pending": 12345678, "in_flight": 1,
    "oldest_age": 1.5, "delivered": 7, "failed": 0, "dead": 2, "last_error": "no\nmore", "paused_reason": "denied",
    "dispatchers": ["12@a", "13@b"],
}  # fmt: skip


def snapshot(age: float | None) -> Snapshot:
    return Snapshot("delivering", age, 3, {"delivered": 5, "failed": 1, "dead": 0})


@pytest.fixture
def served() -> Iterator[tuple[list[Snapshot], str]]:
    """The snapshot that is told, and the URL."""
    now = [snapshot(0.5)]
    health = Health(("127.0.0.1", 0), "host=/nowhere", lambda: now[0])
    start_helper(health.serve)
    yield now, f"http://127.0.0.1:{health.port}"
    health.close()


def test_health_is_200_while_postgres_answers_and_503_after(served: tuple[list[Snapshot], str]) -> None:
    now, url = served
    with urllib.request.urlopen(url + "/health") as response:
        assert response.status == 200 and json.load(response)["status"] == "ok"
        assert "Python" not in response.headers["Server"]
    for age in (10.1, None):
        now[0] = snapshot(age)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url + "/health")
        with caught.value:
            assert caught.value.code == 503 and json.load(caught.value)["state"] == "delivering"


def test_metrics_without_a_database_are_those_of_the_process(served: tuple[list[Snapshot], str]) -> None:
    with urllib.request.urlopen(served[1] + "/metrics") as response:
        text = response.read().decode()
    assert "\nawslambda_dispatcher_delivered_total 5\n" in text and "\nawslambda_status_up 0\n" in text
    assert "awslambda_pending" not in text


def test_metrics_are_prometheus_s_text() -> None:
    text = metrics(snapshot(0.5), [ROW, {**ROW, "mapping": None, "paused_reason": None, "oldest_age": None}])
    lines = text.splitlines()
    label = r'{mapping="a\"b\\c\nd"}'
    assert f"awslambda_pending{label} 12345678" in lines
    assert f"awslambda_oldest_age_seconds{label} 1.5" in lines
    assert f"awslambda_paused{label} 1" in lines and 'awslambda_paused{mapping=""} 0' in lines
    assert f"awslambda_enabled{label} 1" in lines
    assert 'awslambda_oldest_age_seconds{mapping=""}' not in text
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and text.endswith("\n")


# awslambda status.


def test_the_table_is_aligned_and_reasons_stand_below() -> None:
    heads, first, second, *below = status.table(
        [{**ROW, "mapping": "users"}, {**ROW, "paused_reason": None, "last_error": None}]
    ).splitlines()
    assert heads.index("pending") + len("pending") == first.index("12345678") + len("12345678")
    assert "12@a,13@b" in first and "1s" in first and second
    assert below == ["users: paused: denied", "users: last error: no more"]
    assert "no event source mappings" in status.table([])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.85, "850ms"), (12.9, "12s"), (185.0, "3m 5s"), (7200.0, "2h 0m"), (100800.0, "1d 4h")],
)
def test_an_age_has_the_units_that_matter(seconds: float, shown: str) -> None:
    assert status.age(seconds) == shown
