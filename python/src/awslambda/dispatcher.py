"""`awslambda dispatch`: the process that delivers the outbox, beside PostgreSQL or on another host.

Several share the work, and nothing of one has to be cleaned up: what it owns are locks of its session, which end with
it. So whatever is wrong with the session ends in a new one, and what was in flight then is delivered again.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import awslambda
from awslambda.database import ConnectionLost, DatabaseError, PooledConnection, PsycopgDatabase
from awslambda.delivery import Delivery
from awslambda.health import Health, Snapshot
from awslambda.logs import Log
from awslambda.waits import start_helper

OK, REFUSED, UNAVAILABLE, CRASHED = 0, 1, 3, 70  # exit codes; 2 is a wrong command line
BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0  # seconds: the first and the longest upper bound of the jitter
LONGEST_STANDBY = 1.0  # seconds until a promotion is noticed
SLICE = 0.05  # seconds: how late a signal can be noticed
REPORTED = 60.0  # seconds between two lines of the log about the same

READY = """
SELECT pg_catalog.pg_is_in_recovery() AS standby, CURRENT_USER::text AS role,
       pg_catalog.current_database()::text AS database,
       (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'awslambda') AS version
"""
HOME = "SELECT awslambda._check_home()"
PENDING = "SELECT pg_catalog.sum(pending)::pg_catalog.int8 AS pending FROM awslambda.status"


@dataclass(frozen=True)
class Options:
    """The command line. `until` is "once", "drain", or "" for a signal."""

    dsn: str = ""
    concurrency: int = 32
    until: str = ""
    health: tuple[str, int] | None = None


class Refused(Exception):
    """Somebody has to do something, and `hint` says what."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Unavailable(Exception):
    """Not now, but perhaps soon."""

    hint = ""
    longest = LONGEST_BACK_OFF

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Standby(Unavailable):
    """Only a primary delivers."""

    longest = LONGEST_STANDBY


@dataclass
class Dispatcher:
    """One run of the process. `connect` and `make` are another in tests."""

    options: Options
    log: Log
    connect: Callable[[str], PsycopgDatabase] = PsycopgDatabase
    make: Callable[[PsycopgDatabase, int, Callable[[Callable[[], None]], object]], Delivery] = Delivery
    stopping: bool = False
    state: str = "starting"
    _database: PsycopgDatabase | None = None
    _delivery: Delivery | None = None
    _last_seen: float = 0.0
    _before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("delivered", "failed", "dead"), 0))
    _said: tuple[str, float] = ("", 0.0)
    _reported: float = field(default_factory=time.monotonic)
    _total: int | None = None
    _started: float = field(default_factory=time.monotonic)

    def run(self) -> int:
        """Delivers until it is told to stop, or until everything is delivered; the exit code."""
        with contextlib.ExitStack() as until_end:
            for number in (signal.SIGTERM, signal.SIGINT):
                until_end.callback(signal.signal, number, signal.signal(number, self._on_signal))
            try:
                if self.options.health is not None:
                    health = self._listening(self.options.health)
                    until_end.callback(health.close)
                    start_helper(health.serve)
                self.log("info", "started", "awslambda dispatch", version=awslambda.__version__, pid=os.getpid(),
                    concurrency=self.options.concurrency,
                )  # fmt: skip
                code = self._run()
            except Refused as error:
                self.log("error", "refused", str(error), hint=error.hint)
                code = REFUSED
            except Unavailable as error:
                self.log("error", "unavailable", str(error), hint=error.hint)
                code = UNAVAILABLE
            except Exception as error:
                self.log("error", "crashed", "this should not happen: please report it", error=_place(error))
                code = CRASHED
            self.log("info", "stopped", "ended", exit_code=code, **self.counters())
            return code

    def _listening(self, address: tuple[str, int]) -> Health:
        try:
            return Health(address, self.options.dsn, self.snapshot)
        except OSError as error:
            host, port = address
            raise Refused(
                f"cannot listen at {host}, port {port}: {error.strerror or error}", "--health takes [HOST:]PORT."
            ) from None

    def snapshot(self) -> Snapshot:
        """How it is, for another thread."""
        database, delivery = self._database, self._delivery
        seen = database.last_seen if database is not None else self._last_seen
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - seen if seen else None
        return Snapshot(self.state, age, 0 if delivery is None else delivery.in_flight, self.counters())

    def counters(self) -> dict[str, int]:
        """What was delivered, what failed (and is tried again) and what died, since the process started."""
        delivery = self._delivery
        if delivery is None:
            return dict(self._before)
        return {name: before + delivery.counters[name] for name, before in self._before.items()}

    def _run(self) -> int:
        attempt = 0
        while not self.stopping:
            try:
                with contextlib.closing(self._connected()) as database:
                    attempt = 0
                    self._deliver(database)
                    return OK
            except Unavailable as error:
                if self.options.until:
                    raise
                self._say(error)
                self._sleep(random.uniform(0, min(error.longest, BACK_OFF * 2**attempt)))  # noqa: S311 - no secret
                attempt = min(attempt + 1, 30)
            finally:
                self._forget()
        return OK

    def _connected(self) -> PsycopgDatabase:
        """A session that may deliver, and is where it should."""
        try:
            database = self.connect(self.options.dsn)
        except ValueError as error:
            raise Refused(
                f"the value of --dsn is wrong: {error}", "It is like 'host=db dbname=app user=dispatcher'."
            ) from None
        except DatabaseError as error:
            raise explained(error) from None
        try:
            self._database = database
            check(database)
        except BaseException:
            database.close()
            raise
        self.state = "delivering"
        self._said = ("", 0.0)
        self.log("info", "connected", "connected", **database.server)
        return database

    def _deliver(self, database: PsycopgDatabase) -> None:
        """Rounds of delivery on one session."""
        delivery = self._delivery = self.make(database, self.options.concurrency, start_helper)
        try:
            if self.options.until == "drain":
                self._total = pending(database)
            while True:
                delivery.stopping = delivery.stopping or self.stopping
                delivery.step()
                self._report(delivery)
                if delivery.stopping and delivery.in_flight == 0:
                    delivery.step()  # what finished is settled
                    return
                if self.options.until == "drain" and delivery.is_over():
                    return
                delivery.stopping = delivery.stopping or self.options.until == "once"
                delivery.wait()
        except DatabaseError as error:
            raise explained(error) from None
        finally:
            with contextlib.suppress(DatabaseError):
                delivery.close()

    def _report(self, delivery: Delivery) -> None:
        counters, now = self.counters(), time.monotonic()
        if self.options.until:
            self.log.progress(counters["delivered"] + counters["dead"], self._total, now - self._started)
        if now - self._reported >= REPORTED:
            self._reported = now
            self.log("info", "delivering", "so far", in_flight=delivery.in_flight, **counters)

    def _forget(self) -> None:
        self._before = self.counters()
        self._delivery = None
        if self._database is not None:
            self._last_seen = self._database.last_seen
        self._database = None

    def _say(self, error: Unavailable) -> None:
        """Once, and each minute while it stays the same."""
        said, at = self._said
        self.state = f"waiting: {error}"
        if said != str(error) or time.monotonic() - at >= REPORTED:
            self._said = (str(error), time.monotonic())
            event = "standby" if isinstance(error, Standby) else "unavailable"
            self.log("warning", event, f"{error}; trying again", hint=error.hint)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.stopping:  # in a handler nothing may be written that the interrupted code may be writing
            os._exit(128 + number)
        self.stopping = True
        self.state = "stopping"


def check(database: PsycopgDatabase) -> None:
    """Raises unless this session can deliver."""
    try:
        [row] = database.fetch(READY)
        if row["standby"]:
            raise Standby(
                "this is a standby, which does not deliver until it is promoted",
                "A connection string with all hosts of the cluster finds the primary: host=one,two",
            )
        if row["version"] is None:
            raise Refused(
                f"the database {row['database']!r} has no extension awslambda",
                "CREATE EXTENSION awslambda CASCADE makes it; or --dsn names another database.",
            )
        if row["version"] != awslambda.__version__:
            raise Refused(
                f"the extension in the database {row['database']!r} is version {row['version']}, and this program "
                f"{awslambda.__version__}",
                "ALTER EXTENSION awslambda UPDATE, or run the program of that version.",
            )
        try:
            database.fetch(HOME)
        except DatabaseError as error:
            raise explained(error, row["role"]) from None
    except DatabaseError as error:
        raise explained(error) from None


def explained(error: DatabaseError, role: str = "...") -> Refused | Unavailable:
    """What an error of the database means for the process."""
    message = str(error)
    if error.sqlstate.startswith("22"):  # it may quote a value
        message = f"a query failed with SQLSTATE {error.sqlstate}"
    if isinstance(error, PooledConnection):
        return Refused(message, "Connect to PostgreSQL directly, without the pooler: slots are locks of a session.")
    if isinstance(error, ConnectionLost):
        full = "too many" in message or "connection slots" in message
        return Unavailable(message, "Raise max_connections, or the role's or database's own limit." if full else "")
    if error.sqlstate == "42501":
        return Refused(
            f"the role {role} may not deliver: {message}",
            f"SELECT awslambda.grant_dispatch('{role}'), as a superuser or the extension's owner.",
        )
    if error.sqlstate == "55000":  # of awslambda._check_home
        return Refused(message, error.hint)
    return Unavailable(message, error.hint)


def pending(database: PsycopgDatabase) -> int | None:
    """How much there is to deliver; None if this role may not know."""
    try:
        return int(database.fetch(PENDING)[0]["pending"] or 0)
    except ConnectionLost:
        raise
    except DatabaseError:
        return None


def _place(error: BaseException) -> str:
    """Type and place of an exception; its message may hold anything."""
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' > '.join(places)}"


def main(options: Options, as_json: bool) -> int:
    """`awslambda dispatch`."""
    return Dispatcher(options, Log(sys.stderr, as_json)).run()
