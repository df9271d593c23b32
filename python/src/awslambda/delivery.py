"""Delivery carried out: one session of a dispatcher, whose database connection and clock this thread has.

Calls of functions run in helper threads, each with its own kept connection; everything else is done here, one thing
after the other, so that what is written about a record cannot overtake what was read. After an error of the database
the object is of no use: what is in flight then was sent by a session that no longer owns its slots, and nothing may be
written about it.
"""

from __future__ import annotations

import json
import math
import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from awslambda import batch as batch_
from awslambda import errors, outbox, resources, servers
from awslambda import invoke as lambda_
from awslambda import settings as settings_
from awslambda.connection import Connections
from awslambda.database import SECONDS, Database, is_data_error, servers_of
from awslambda.outbox import Batch, Death, Outcome, Result
from awslambda.settings import Settings
from awslambda.waits import waiting_for_helpers

SLOTS = range(64)
PRESENCE = 64  # the lock that all dispatchers share
CLAIM_EVERY, CONFIGURE_EVERY, REPORT_EVERY = 0.25, 1.0, 1.0  # seconds
WAKE_EVERY = 10.0  # and no more than a twentieth of the time
HOT, COLD, COOLING = 0.005, 0.05, 1.0  # seconds between looks: after something was found, and when long nothing was
STALE = 5.0  # seconds without a word from the database: the session may be gone, so nothing is sent

MAPPINGS = "SELECT awslambda._mappings()::text AS mappings"
SLOT_STATE = "SELECT dispatchers, pg_catalog.to_json(taken)::text AS taken FROM awslambda._slots()"
CLAIM = "SELECT pg_catalog.to_json(awslambda._claim($1::int[]))::text AS claimed"
WAKE = "SELECT awslambda._wake($1::int[])"
RELEASE = "SELECT awslambda._release($1::int[])"
LOOK = "SELECT awslambda._look($1::bigint, $2::int[], $3::bigint[], $4::int[])::text AS found"
BATCHES = (
    "SELECT b.body, pg_catalog.to_json(b.ids)::text AS ids, pg_catalog.to_json(b.message_ids)::text AS message_ids "
    "FROM ROWS FROM (pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::text[])) "
    "WITH ORDINALITY AS r (mapping, ids, n) "
    "CROSS JOIN LATERAL awslambda._batch(r.mapping, r.ids::bigint[]) AS b ORDER BY r.n"
)
MESSAGES = "SELECT m.id, m.body, m.message_id::text AS message_id FROM awslambda._messages($1::bigint[]) AS m"
TOGETHER = 16_000_000  # bytes of records that are asked for at once
SETTLE = "SELECT awslambda._settle($1::json) AS wrote"
FLUSH = "SELECT awslambda._flush()"

OUTCOMES: list[tuple[type[errors.LambdaError], Outcome]] = [
    (errors.Throttled, Outcome.THROTTLED),
    (errors.ConnectFailed, Outcome.UNREACHED),
    (errors.ServiceFailed, Outcome.UNREACHED),
    (errors.NoAnswer, Outcome.LOST),
    (errors.ConnectionBroke, Outcome.LOST),
    (errors.PayloadTooLarge, Outcome.REJECTED),
    (errors.InvalidJson, Outcome.REJECTED),
]
# Of AWS's codes for a function that cannot be run, those that do not pass by themselves.
NEED_A_PERSON = (
    "KMS",
    "Invalid",
    "EC2AccessDenied",
    "EFSMountFailure",
    "RuntimeVersionDeleted",
    "ServiceQuotaExceeded",
)


class Abandoned(Exception):
    """This session is over: what a helper thread was doing is of no use."""


@dataclass(frozen=True)
class Body:
    """What of a batch is still in the outbox."""

    body: str
    ids: list[int]
    message_ids: list[str]


@dataclass
class Sending:
    """A batch on its way through a helper thread."""

    batch: Batch
    mapping: outbox.Mapping  # as it was then: the answer is read by it
    request: lambda_.Request
    settings: Settings
    message_ids: list[str]


@dataclass
class Telling:
    """Records that die, of which a destination is told first."""

    death: Death
    settings: Settings
    message_ids: list[str]
    payload: str | None


class Delivery:
    """One session's delivery: `step` and `wait`, again and again."""

    def __init__(
        self, database: Database, concurrency: int, start_thread: Callable[[Callable[[], None]], object]
    ) -> None:
        self._database = database
        self._outbox = outbox.Outbox()
        self._concurrency = concurrency
        self._start_thread = start_thread
        self._host = socket.gethostname()
        self._work: queue.SimpleQueue[Sending | Telling | None] = queue.SimpleQueue()
        # No SimpleQueue: interrupted by a signal when its timeout is just over, its get() waits for ever.
        self._done: queue.Queue[tuple[Sending | Telling, Any]] = queue.Queue()
        self._ready: list[tuple[Sending | Telling, Any]] = []  # taken from _done by wait
        self._threads = 0
        self._closed = threading.Event()
        self._present = False  # among the dispatchers that share the slots
        self._slots: set[int] = set()
        self._leaving: set[int] = set()  # slots to give back when nothing of theirs is known
        self._next_claim = self._next_configure = self._next_report = self._next_look = 0.0
        self._next_wake = time.monotonic() + WAKE_EVERY
        self._found_at = 0.0
        self._flushed = False  # the WAL, up to the last look
        self._reported: list[dict[str, Any]] = []
        self._settings: dict[tuple[str, str | None], Settings | errors.LambdaError] = {}
        self._parsed: dict[servers.Server | None, Settings] = {}
        self.stopping = False
        self.in_flight = 0

    @property
    def counters(self) -> dict[str, int]:
        """Records delivered, failed (attempts) and dead since this session began."""
        return {name: self._outbox.counters[name] for name in ("delivered", "failed", "dead")}

    @property
    def idle(self) -> bool:
        """Nothing is in flight, and the last look found nothing that could be sent now."""
        return not self.in_flight and bool(self._slots) and not self._leaving and self._outbox.is_idle(time.monotonic())

    def is_over(self) -> bool:
        """Idle, and every slot is somebody's: what another dispatcher left when it ended is taken first."""
        if not self.idle:
            return False
        if len(json.loads(self._database.fetch(SLOT_STATE)[0]["taken"])) == len(SLOTS):
            return True
        self._next_claim = 0.0
        return False

    def step(self) -> None:
        """One round on the database's connection."""
        now = time.monotonic()
        self._collect(now)
        self._send_more()  # of what earlier looks found: what is done is settled while that is on its way
        if now >= self._next_configure:
            self._configure(now)
        if now >= self._next_claim:
            self._share_slots(now)
        if now >= self._next_wake:
            self._wake(now)
        found = self._look(now)
        for death in self._outbox.deaths():
            self._bury(death)
        wrote = self._settle(now)
        if found and not (wrote or self._flushed):
            self._database.fetch(FLUSH)
        self._send_more()

    def _send_more(self) -> None:
        if not self.stopping:
            self._send(list(self._outbox.batches(time.monotonic(), self._concurrency - self.in_flight)))

    def wait(self) -> None:
        """Until a batch is done or the next look is due; Postgres may interrupt it."""
        while not self._ready and (left := self._next_look - time.monotonic()) > 0:
            try:
                with waiting_for_helpers():
                    self._ready.append(self._done.get(timeout=min(left, 0.02)))
            except queue.Empty:
                self._database.check_interrupts()

    def close(self) -> None:
        """Ends the helper threads, whose work is thrown away. Gives the slots back if the session still lives."""
        self._closed.set()
        for _ in range(self._threads):
            self._work.put(None)
        self._next_report = 0.0
        try:
            self._settle(time.monotonic())
        finally:
            self._database.fetch(RELEASE, outbox.sql_array([*SLOTS, PRESENCE]))

    # Slots and mappings

    def _configure(self, now: float) -> None:
        self._next_configure = now + CONFIGURE_EVERY
        self._settings.clear()
        mappings, paused = [], {}
        for row in json.loads(self._database.fetch(MAPPINGS)[0]["mappings"]):
            reason, seconds = row.pop("paused_reason"), row.pop("paused_for")
            if reason is not None:
                paused[row["id"]] = (reason, max(0.0, seconds or 0.0))
            mappings.append(outbox.Mapping(**row))
        self._outbox.configure(mappings, paused, now)

    def _share_slots(self, now: float) -> None:
        """Each dispatcher has an equal share: what exceeds ours goes back, what nobody has we take."""
        self._next_claim = now + CLAIM_EVERY
        if not self._present:
            self._database.fetch(CLAIM, outbox.sql_array([PRESENCE]))
            self._present = True
        state = self._database.fetch(SLOT_STATE)[0]
        share = math.ceil(len(SLOTS) / max(1, state["dispatchers"]))
        owned, taken = self._slots - self._leaving, set(json.loads(state["taken"]))
        if len(owned) > share:
            self._leaving |= set(random.sample(sorted(owned), len(owned) - share))
        elif len(owned) < share and not self.stopping:
            back = set(sorted(self._leaving)[: share - len(owned)])
            free = [slot for slot in SLOTS if slot not in taken]
            random.shuffle(free)
            wanted = free[: share - len(owned) - len(back)]
            claimed = json.loads(self._database.fetch(CLAIM, outbox.sql_array(wanted))[0]["claimed"]) if wanted else []
            if claimed or back:
                self._slots |= set(claimed)
                self._leaving -= back
                self._outbox.slots_changed()
        left = self._outbox.leave(self._leaving)
        if left:
            self._database.fetch(RELEASE, outbox.sql_array(left))
            self._slots -= left
            self._leaving -= left

    # Records

    def _wake(self, now: float) -> None:
        """Keys that wait for a record that somebody deleted by hand; when slots are claimed, that is looked for too."""
        self._database.fetch(WAKE, outbox.sql_array(self._slots))
        took = time.monotonic() - now
        self._next_wake = now + max(WAKE_EVERY, 20 * took)

    def _look(self, now: float) -> int:
        """How many records are new to us."""
        if now < self._next_look:
            return 0
        if self.stopping or not self._slots:
            self._next_look = now + COLD  # what `wait` goes by
            return 0
        look = self._outbox.look(now)
        found = 0
        if look.mappings:
            arguments = (outbox.sql_array(values) for values in (look.mappings, look.floors, look.limits))
            answer = json.loads(self._database.fetch(LOOK, self._bits(), *arguments)[0]["found"])
            looked = time.monotonic()
            found = self._outbox.looked(look, answer, looked, looked - now)
            self._flushed = answer["flushed"]
        now = time.monotonic()
        if found:
            self._found_at = now
        self._next_look = now + min(COLD, max(HOT, (now - self._found_at - COOLING) / 10))
        return found

    def _bits(self) -> str:
        """The slots as a signed bigint."""
        bits = sum(1 << slot for slot in self._slots - self._leaving)
        return str(bits - (1 << 64) if bits >> 63 else bits)

    def _settle(self, now: float) -> bool:
        """Whether something was written, and with it all WAL before it."""
        settlement = self._outbox.settlement()
        document = settlement.as_json()
        if now >= self._next_report:
            self._next_report = now + REPORT_EVERY
            document["state"], sending = self._outbox.report(now)
            if sending != self._reported or document["state"]:
                document["sending"], document["host"], self._reported = sending, self._host, sending
        if not settlement and "sending" not in document:
            return False
        return bool(self._database.fetch(SETTLE, json.dumps(document))[0]["wrote"])

    # Sending

    def _settings_of(self, mapping: outbox.Mapping) -> Settings:
        """The server's options, if the role may use it; asked anew each second."""
        key = (mapping.role, mapping.server)
        if key not in self._settings:
            try:
                usable = servers_of(self._database, mapping.role)
                server = servers.choose(usable, mapping.server, lambda: mapping.role)
                if server not in self._parsed:
                    self._parsed[server] = self._options(server)
                self._settings[key] = self._parsed[server]
            except errors.LambdaError as error:
                self._settings[key] = error
        found = self._settings[key]
        if isinstance(found, errors.LambdaError):
            raise found
        return found

    def _parse(self, server: servers.Server | None) -> Settings:
        if server is None:
            return Settings()
        options = settings_.named(server.options)
        return settings_.parse(server.name, options, lambda text: self._database.fetch(SECONDS, text)[0]["seconds"])

    def _options(self, server: servers.Server | None) -> Settings:
        """Those of a server. Trying again is decided here, not in a call: the session may not own the slot any more."""
        return self._parse(server)._replace(max_attempts=1)

    def _send(self, batches: list[Batch]) -> None:
        """Fetches the records of batches, many at once as long as they are small, and hands them to the threads."""
        while batches:
            together, size = [batches.pop(0)], 0
            while batches and (size := size + together[-1].size + batches[0].size) <= TOGETHER:
                together.append(batches.pop(0))
            self._send_together(together)

    def _send_together(self, batches: list[Batch]) -> None:
        batches = sorted(batches, key=lambda batch: batch.route.mapping.id == outbox.DIRECT)
        try:
            bodies = self._fetch([(batch.route.mapping.id, batch.ids) for batch in batches])
        except Exception as error:
            if not is_data_error(error):
                raise
            if len(batches) > 1:
                for batch in batches:
                    self._send_together([batch])
            else:  # bytes that are no text, in a database of the encoding SQL_ASCII
                result = Result(Outcome.REJECTED, f"its payload is not UTF-8: {error}")
                self._outbox.finished(batches[0], result, time.monotonic())
            return
        for batch, body in zip(batches, bodies, strict=True):
            self._send_one(batch, body)

    def _fetch(self, batches: list[tuple[int, list[int]]]) -> list[Body]:
        """Of mappings first, then of direct messages."""
        of_mappings = [(mapping, ids) for mapping, ids in batches if mapping != outbox.DIRECT]
        direct = [ids[0] for mapping, ids in batches if mapping == outbox.DIRECT]
        bodies: list[Body] = []
        if of_mappings:
            mappings = outbox.sql_array(mapping for mapping, _ in of_mappings)
            ids = "{" + ",".join(f'"{outbox.sql_array(ids)}"' for _, ids in of_mappings) + "}"
            for row in self._database.fetch(BATCHES, mappings, ids):
                bodies.append(Body(row["body"], json.loads(row["ids"]), json.loads(row["message_ids"])))
        if direct:
            for row in self._database.fetch(MESSAGES, outbox.sql_array(direct)):
                is_there = row["body"] is not None
                bodies.append(Body(row["body"], [row["id"]] * is_there, [row["message_id"]] * is_there))
        return bodies

    def _send_one(self, batch: Batch, found: Body) -> None:
        mapping = batch.route.mapping
        self._outbox.vanished(batch, set(found.ids))
        if not batch.records:
            return
        try:
            request = lambda_.Request(
                resources.function(mapping.function_name),
                found.body.encode(),
                mapping.invocation_type,
                client_context=_client_context(batch, found.message_ids),
            )
            sending = Sending(batch, mapping, request, self._settings_of(mapping), found.message_ids)
        except errors.LambdaError as error:
            self._outbox.finished(batch, _result(error), time.monotonic())
            return
        self._hand_over(sending)

    def _bury(self, death: Death) -> None:
        """Tells the mapping's on_failure first."""
        mapping = death.route.mapping
        if mapping.on_failure is None:
            self._outbox.died(death, None)
            return
        found = self._fetch([(mapping.id, [record.id for record in death.records])])[0]
        try:
            settings = self._settings_of(mapping)
        except errors.LambdaError as error:
            self._outbox.died(death, _text(error))
            return
        self._hand_over(Telling(death, settings, found.message_ids, found.body))

    def _hand_over(self, work: Sending | Telling) -> None:
        self.in_flight += 1
        if self._threads < min(self.in_flight, self._concurrency):
            self._threads += 1
            self._start_thread(self._help)
        self._work.put(work)

    def _collect(self, now: float) -> None:
        while not self._done.empty():
            self._ready.append(self._done.get())
        for work, outcome in self._ready:
            self.in_flight -= 1
            if isinstance(work, Sending):
                self._outbox.finished(work.batch, outcome, now)
            else:
                self._outbox.died(work.death, outcome)
        self._ready.clear()

    # In helper threads

    def _help(self) -> None:
        connections = Connections()
        try:
            while (work := self._work.get()) is not None:
                if isinstance(work, Sending):
                    self._done.put((work, self._invoke(work, connections)))
                else:
                    self._done.put((work, self._tell(work)))
        except Abandoned:
            pass
        finally:
            connections.close()

    def _check(self) -> None:
        if self._closed.is_set():
            raise Abandoned

    def _invoke(self, sending: Sending, connections: Connections) -> Result:
        self._check()
        if time.clock_gettime(time.CLOCK_BOOTTIME) - self._database.last_seen > STALE:
            return Result(Outcome.UNSENT)
        mapping = sending.mapping
        try:
            response = lambda_.invoke(sending.request, sending.settings, connections, self._check)
            lambda_.raise_function_error(sending.request, response)
            failed = frozenset[int]()
            if mapping.report_failures:
                failed = batch_.failed(mapping.event_format, response.payload, sending.message_ids, sending.batch.ids)
        except errors.LambdaError as error:
            return _result(error)
        except Abandoned:
            raise
        except Exception as error:  # a bug of ours must not stop delivery; the record waits
            return Result(Outcome.LOST, f"{type(error).__name__}: {error}")
        payload = response.payload.decode("utf-8", "replace").replace("\0", "") if mapping.keep_results else None
        return Result(Outcome.DELIVERED, "named in batchItemFailures" if failed else "", failed=failed, payload=payload)

    def _tell(self, telling: Telling) -> str | None:
        """Why the destination could not be told; None if it was."""
        from awslambda import destinations

        death = telling.death
        try:
            destinations.send(
                str(death.route.mapping.on_failure),
                destinations.document(death, telling.message_ids, telling.payload),
                telling.settings,
                self._check,
            )
        except errors.LambdaError as error:
            return _text(error)
        return None


def _outcome(error: errors.LambdaError) -> Outcome:
    if isinstance(error, (errors.FunctionError, errors.FunctionTimedOut, errors.InvalidBatchResponse)):
        return Outcome.FAILED
    if isinstance(error, errors.ServiceFailed) and str(error.fields.get("code")).startswith(NEED_A_PERSON):
        return Outcome.HALTED
    return next((outcome for kind, outcome in OUTCOMES if isinstance(error, kind)), Outcome.HALTED)


def _result(error: errors.LambdaError) -> Result:
    reason = "PayloadTooLarge" if isinstance(error, errors.PayloadTooLarge) else "InvalidRecord"
    return Result(_outcome(error), _text(error), reason)


def _text(error: errors.LambdaError) -> str:
    return f"{type(error).__name__}: {error}"


def _client_context(batch: Batch, message_ids: list[str]) -> str | None:
    """What a single synchronous call tells its function, to be idempotent by."""
    mapping = batch.route.mapping
    if mapping.id != outbox.DIRECT or mapping.invocation_type != "RequestResponse":
        return None
    return json.dumps({"custom": {"message_id": message_ids[0], "attempt": batch.records[0].attempts + 1}})
