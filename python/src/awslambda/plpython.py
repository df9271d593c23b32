"""The seam that the SQL bodies call: SQL values in, rows out, errors with SQLSTATE and hint.

`plpy` is handed in. One Backend lives as long as the session does; nothing in it says who may do what, because it
outlives SET ROLE and DISCARD ALL.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from awslambda import errors, resources, servers, waits
from awslambda import invoke as lambda_
from awslambda import settings as settings_
from awslambda.connection import Connections
from awslambda.database import CommittingDatabase, PlpyDatabase
from awslambda.settings import Settings

if TYPE_CHECKING:
    from decimal import Decimal

    from awslambda import kinesis, rds

CONCURRENCY = 16  # batches that CALL awslambda.dispatch has out at once

P = ParamSpec("P")
T = TypeVar("T")


class Backend:
    """What one session keeps between calls: plans, connections and parsed options."""

    def __init__(self, plpy: Any) -> None:
        waits.keep_openssl()
        self.plpy = plpy
        self.database = PlpyDatabase(plpy)
        self.connections = Connections()
        self.polls: Any = None
        self._settings: dict[servers.Server | None, Settings] = {}
        self._encoding = ""

    def settings(self, asked: str | None) -> Settings:
        """The options of the server that this call uses. Chosen anew each time: it is the permission check."""
        server = servers.choose(self.database.servers(), asked, self.database.role)
        if server not in self._settings:
            self._settings[server] = self._parsed(server)
        return self._settings[server]

    def text(self, value: str) -> str:
        """Foreign text for an error or a log: as `json`, without what no text of Postgres can hold."""
        return self.json(value.replace("\0", "").encode("utf-8", "replace").decode())

    def json(self, value: str) -> str:
        """`value` in characters that the database's encoding has: JSON's escapes stand for the others."""
        self._encoding = self._encoding or self.database.encoding()
        if value.isascii() or self._encoding in ("UTF8", "SQL_ASCII"):
            return value
        return re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], value)

    def _parsed(self, server: servers.Server | None) -> Settings:
        if server is None:
            return Settings()
        return settings_.parse(server.name, settings_.named(server.options), self.database.seconds)


@functools.cache
def _backend(plpy: Any) -> Backend:
    """The one of this session."""
    return Backend(plpy)


def _seam(function: Callable[Concatenate[Backend, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Gives the function this session's Backend for `plpy`, and turns its errors into Postgres's."""

    @functools.wraps(function)
    def called(plpy: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        backend = _backend(plpy)
        with _translating(backend):
            return function(backend, *args, **kwargs)

    return cast(Callable[Concatenate[Any, P], T], called)


def _seam_of_rows(
    function: Callable[Concatenate[Backend, P], Iterator[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """As _seam, for rows that are made when Postgres asks for them. The first is made at once: an error that comes then
    has its own message, and a later one is the DETAIL of plpython's "error fetching next item from iterator"."""

    @functools.wraps(function)
    def called(plpy: Any, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        backend = _backend(plpy)
        with _translating(backend):
            rows = function(backend, *args, **kwargs)
            first = list(itertools.islice(rows, 1))
        return _Rows(_rest(backend, first, rows))

    return cast(Callable[Concatenate[Any, P], Iterator[T]], called)


class _Rows(Iterator[T]):
    """An iterator that may be let go of while it runs, as Postgres does when it ends the process in the middle of a
    wait; of a generator Python says then, in the server's log, that it cannot be closed."""

    def __init__(self, rows: Iterator[T]) -> None:
        self._rows = rows

    def __next__(self) -> T:
        return next(self._rows)


def _rest(backend: Backend, first: Sequence[T], rows: Iterator[T]) -> Iterator[T]:
    with _translating(backend):
        yield from first
        yield from rows


@contextlib.contextmanager
def _translating(backend: Backend) -> Iterator[None]:
    """Our errors as Postgres's."""
    try:
        yield
        return
    except errors.LambdaError as error:
        raised = _as_plpy(backend, error)
    except ImportError as error:
        raised = _as_plpy(backend, errors.NotLoaded(reason=error))
    raise raised


def _as_plpy(backend: Backend, error: errors.LambdaError) -> Any:
    """The error that becomes ERROR: awslambda.<Class>: message, with SQLSTATE, DETAIL and HINT."""
    raised = _plpy_form(backend.plpy.Error, type(error).__name__)(backend.text(str(error)))
    raised.sqlstate = error.sqlstate
    raised.detail = backend.text(error.detail) or None
    raised.hint = backend.text(error.hint) or None
    return raised


@functools.cache
def _plpy_form(base: type[Exception], name: str) -> Any:
    """plpy honours these attributes on subclasses of its own Error only, and prefixes the message with the class."""
    return type(name, (base,), {"__module__": "awslambda"})


@_seam
def awslambda_fn(backend: Backend, fn_name: str | None, fn_args: str | None, kind: str) -> str | None:
    """The function's result as text; raises if the function fails."""
    request, response = _invoke(backend, fn_name, fn_args, "RequestResponse", kind)
    lambda_.raise_function_error(request, response)
    return _payload(backend, request, response, kind)


@_seam
def awslambda_fn_async(backend: Backend, fn_name: str | None, fn_args: str | None, kind: str) -> str | None:
    """The AWS request id."""
    return _invoke(backend, fn_name, fn_args, "Event", kind)[1].request_id


@_seam
def invoke(  # noqa: PLR0917 - the arguments of the SQL function
    backend: Backend,
    function_name: str | None,
    payload: str | None,
    invocation_type: str | None,
    log_type: str | None,
    client_context: str | None,
    qualifier: str | None,
    server: str | None,
    region: str | None,
) -> tuple[object, ...]:
    """A row of awslambda.invocation."""
    request = lambda_.Request(
        resources.function(_not_null("function_name", function_name), qualifier),
        _not_null("payload", payload).encode(),
        _not_null("invocation_type", invocation_type),
        _not_null("log_type", log_type),
        client_context,
        region,
    )
    response = lambda_.invoke(request, backend.settings(server), backend.connections, backend.database.check_interrupts)
    return (
        response.status_code,
        _payload(backend, request, response, "jsonb"),
        response.executed_version,
        response.log_result and backend.text(b64decode(response.log_result).decode("utf-8", "replace")),
        response.function_error,
        response.request_id,
        _interval(response.duration),
    )


@_seam_of_rows
def map(  # noqa: PLR0917 - the arguments of the SQL function
    backend: Backend,
    function_name: str | None,
    payloads: Sequence[str | None] | None,
    max_concurrency: int | None,
    ordered: bool | None,
    invocation_type: str | None,
    client_context: str | None,
    qualifier: str | None,
    server: str | None,
    region: str | None,
) -> Iterator[tuple[object, ...]]:
    """Rows of ordinality, status_code, payload, executed_version, function_error, request_id, duration, sqlstate,
    error_message."""
    from awslambda.map import outcomes

    request = lambda_.Request(
        resources.function(_not_null("function_name", function_name), qualifier),
        b"",
        _not_null("invocation_type", invocation_type),
        client_context=client_context,
        region=region,
    )
    settings = backend.settings(server)

    def call(payload: str | None, check: Callable[[], None]) -> lambda_.Response:
        one = request.carrying(_not_null("an element of payloads", payload).encode())
        return lambda_.invoke(one, settings, backend.connections, check)

    given, check = _flat("payloads", _not_null("payloads", payloads)), backend.database.check_interrupts
    at_once, in_order = _not_null("max_concurrency", max_concurrency), _not_null("ordered", ordered)
    lambda_.prepare(request, settings, check)
    with contextlib.closing(outcomes(call, given, at_once, in_order, check)) as calls:
        for position, outcome in calls:
            yield position + 1, *_mapped(backend, request, outcome)


def _mapped(
    backend: Backend, request: lambda_.Request, outcome: lambda_.Response | errors.LambdaError
) -> tuple[object, ...]:
    """A row of awslambda.map without its ordinality."""
    if isinstance(outcome, errors.LambdaError):
        return None, None, None, None, None, None, outcome.sqlstate, _said(backend, outcome)
    payload = failure = None
    try:
        payload = _payload(backend, request, outcome, "jsonb")
        lambda_.raise_function_error(request, outcome)
    except errors.LambdaError as error:
        failure = error
    return (
        outcome.status_code,
        payload,
        outcome.executed_version,
        outcome.function_error,
        outcome.request_id,
        _interval(outcome.duration),
        failure and failure.sqlstate,
        failure and _said(backend, failure),
    )


def _said(backend: Backend, error: errors.LambdaError) -> str:
    return backend.text(f"{type(error).__name__}: {error}")


def _interval(seconds: float) -> str:
    return f"{seconds:.6f} seconds"


def rds_invoke(  # noqa: PLR0917 - the arguments of the SQL function
    plpy: Any,
    function_name: str | None,
    payload: str | None,
    is_json: bool,
    region: str | None,
    invocation_type: str | None,
    log_type: str | None,
    context: str | None,
    qualifier: str | None,
    connect_timeout_ms: str | None,
    request_timeout_ms: str | None,
) -> tuple[object, ...]:
    """A row of aws_lambda._invoke: status_code, result, executed_version, log_result; or SQLSTATE, message, detail,
    hint of what PL/pgSQL is to raise. Errors of Postgres itself, interrupts above all, are raised."""
    from awslambda import rds

    backend = _backend(plpy)
    try:
        text = _not_null("payload", payload)
        given = rds.recognised(
            rds.Arguments(
                _not_null("function_name", function_name), region, invocation_type, log_type, context, qualifier
            )
        )
        request = lambda_.Request(
            resources.function(given.function_name, given.qualifier),
            text.encode(),
            _not_null("invocation_type", given.invocation_type),
            _not_null("log_type", given.log_type),
            given.context,
            given.region,
        )
        if not is_json:
            _check_json(backend, request.function, text)
            _check_context(backend, given.context)
        settings = rds.timed(backend.settings(None), connect_timeout_ms, request_timeout_ms)
        response = lambda_.invoke(request, settings, backend.connections, backend.database.check_interrupts)
        try:
            lambda_.raise_function_error(request, response)
        except errors.LambdaError as error:
            arn = lambda_.arn(request, settings, backend.database.check_interrupts)
            return _rds_problem(backend, rds.function_problem(error, arn, response))
        result = _payload(backend, request, response, "json")
    except errors.LambdaError as error:
        return _rds_problem(backend, rds.problem(error))
    if result is None and request.invocation_type == "RequestResponse":
        result = "null"
    return response.status_code, result, response.executed_version, response.log_result, None, None, None, None


def _rds_problem(backend: Backend, problem: rds.Problem) -> tuple[object, ...]:
    said = (problem.message, problem.detail, problem.hint)
    return None, None, None, None, problem.sqlstate, *(backend.text(part) for part in said)


@_seam
def diagnostics(backend: Backend, server: str | None) -> list[tuple[str, str, str, str]]:
    """Rows of check, status, detail, hint."""
    from awslambda import diagnostics as diagnostics_

    try:
        rows = list(diagnostics_.checks(backend.settings(server), backend.database.check_interrupts))
    except errors.LambdaError as error:
        rows = [diagnostics_.failed("server", error)]
    return [(row.check, row.status, backend.text(row.detail), backend.text(row.hint)) for row in rows]


@_seam
def validate_server_options(backend: Backend, options: list[str], catalog: int) -> None:
    """What CREATE and ALTER of the wrapper, its servers, user mappings and foreign tables have to say about options."""
    kind = backend.database.catalog(catalog)
    if kind == "pg_foreign_data_wrapper" and not options:
        return
    if kind != "pg_foreign_server":
        raise errors.NotSupported(
            reason="the foreign data wrapper awslambda has servers, but no user mappings, foreign tables or options",
            hint="Identity and limits are a server's: CREATE SERVER ... FOREIGN DATA WRAPPER awslambda OPTIONS (...).",
        )
    given = settings_.named(options)
    settings_.parse(None, given, backend.database.seconds)
    guarded = sorted(settings_.SUPERUSER_ONLY & given.keys())
    if guarded and not backend.database.is_superuser():
        raise errors.OptionNotAllowed(options=", ".join(guarded))


@_seam
def dispatch(backend: Backend, max_duration: str | None) -> None:
    """Delivers for so long, or until there is nothing left that is due; finishes what is in flight."""
    from awslambda import delivery, waits

    end = time.monotonic() + backend.database.seconds(_not_null("max_duration", max_duration))
    database = CommittingDatabase(backend.plpy, errors.InTransactionBlock(procedure="dispatch"))
    database.fetch("SELECT awslambda._check_home()")
    session = delivery.Delivery(database, CONCURRENCY, waits.start_helper)
    try:
        while not (session.is_over() or (session.stopping and not session.in_flight)):
            session.step()
            session.wait()
            session.stopping = session.stopping or time.monotonic() >= end
        session.stopping = True  # what this step sent would be thrown away
        session.step()
    finally:
        session.close()


@_seam_of_rows
def kinesis_read(  # noqa: PLR0917 - the arguments of the SQL function
    backend: Backend,
    stream: str | None,
    starting_position: str | None,
    starting_timestamp: str | None,
    starting_sequence_number: Decimal | None,
    shard_ids: Sequence[str | None] | None,
    max_records: int | None,
    batch_size: int | None,
    max_duration: str | None,
    deaggregate: bool | None,
    decompress: str | None,
    server: str | None,
) -> Iterator[tuple[object, ...]]:
    """Rows of shard_id, sequence_number, sub_sequence_number, approximate_arrival_timestamp, partition_key, data,
    millis_behind_latest."""
    from awslambda import kinesis

    asked = kinesis.Read(
        _position(backend, starting_position, starting_timestamp, starting_sequence_number),
        None if shard_ids is None else tuple(_elements("shard_ids", shard_ids)),
        _not_null("batch_size", batch_size),
        max_records,
        backend.database.seconds(_not_null("max_duration", max_duration)),
    )
    unpacking = kinesis.Unpacking(_not_null("deaggregate", deaggregate), _not_null("decompress", decompress))
    pages = kinesis.read(_stream(backend, stream, server), asked)
    return itertools.islice(kinesis.rows(pages, unpacking, backend.text), max_records)


@_seam_of_rows
def kinesis_poll(  # noqa: PLR0917 - the arguments of the SQL function
    backend: Backend,
    consumer: str | None,
    stream: str | None,
    starting_position: str | None,
    starting_timestamp: str | None,
    starting_sequence_number: Decimal | None,
    max_records: int | None,
    batch_size: int | None,
    max_duration: str | None,
    deaggregate: bool | None,
    decompress: str | None,
    server: str | None,
) -> Iterator[tuple[object, ...]]:
    """Rows of awslambda.kinesis_record."""
    from awslambda import consumer as consumer_
    from awslambda import kinesis

    start = _position(backend, starting_position, starting_timestamp, starting_sequence_number)
    duration = backend.database.seconds(_not_null("max_duration", max_duration))
    asked = kinesis.Read(start, None, _not_null("batch_size", batch_size), max_records, duration)
    unpacking = kinesis.Unpacking(_not_null("deaggregate", deaggregate), _not_null("decompress", decompress))
    source = _stream(backend, stream, server)
    who = consumer_.Consumer(backend.database, _not_null("consumer", consumer), source, start, tolerant=False)
    backend.polls = backend.polls or consumer_.Polls()
    polling = consumer_.Polling(who, backend.database, backend.polls, asked, unpacking, backend.text)
    return itertools.islice(polling.rows(), max_records)


@_seam
def kinesis_received(backend: Backend, poll: int, shard_id: str, counted: int | None) -> list[tuple[object, ...]]:
    """What a poll of this session has handed out of a shard: a row of _kinesis_received, or none."""
    counted = counted or 0
    found = backend.polls and backend.polls.take(poll, shard_id, counted)
    if not found:
        return []
    return [
        (
            found.sequence_number, found.sub_sequence_number, found.arrival, found.millis_behind_latest,
            found.done_until, (found.before or 0) + found.records - counted, found.ended,
        )
    ]  # fmt: skip


@_seam
def kinesis_consume(  # noqa: PLR0917 - the arguments of the SQL procedure
    backend: Backend,
    consumer: str | None,
    stream: str | None,
    target: str | None,
    handler: str | None,
    starting_position: str | None,
    starting_timestamp: str | None,
    starting_sequence_number: Decimal | None,
    batch_size: int | None,
    max_duration: str | None,
    on_error: str | None,
    bisect: bool | None,
    follow: bool | None,
    deaggregate: bool | None,
    decompress: str | None,
    server: str | None,
) -> None:
    """Reads into a table or a function, batch by batch."""
    from awslambda import consumer as consumer_
    from awslambda import kinesis

    start = _position(backend, starting_position, starting_timestamp, starting_sequence_number)
    duration = backend.database.seconds(_not_null("max_duration", max_duration))
    size = kinesis.Read(start, None, _not_null("batch_size", batch_size)).batch_size
    unpacking = kinesis.Unpacking(_not_null("deaggregate", deaggregate), _not_null("decompress", decompress))
    asked = consumer_.Consumption(
        target and backend.database.oid("regclass", target), handler and backend.database.oid("regprocedure", handler),
        size, duration, _not_null("on_error", on_error), _not_null("bisect_batch_on_error", bisect),
        _not_null("follow", follow), backend.database.search_path(),
    )  # fmt: skip
    settings = backend.settings(server)
    database = CommittingDatabase(backend.plpy, errors.InTransactionBlock(procedure="kinesis_consume"))
    source = kinesis.Stream(_not_null("stream", stream), settings, backend.connections, database.check_interrupts)
    tolerant = asked.on_error != "stop"
    who = consumer_.Consumer(database, _not_null("consumer", consumer), source, start, tolerant)
    consumer_.Consuming(who, database, asked, unpacking, backend.text).run()


@_seam_of_rows
def kinesis_put_records(  # noqa: PLR0917 - the arguments of the SQL function
    backend: Backend,
    stream: str | None,
    data: Sequence[bytes | None] | None,
    partition_keys: Sequence[str | None] | None,
    explicit_hash_keys: Sequence[Decimal | None] | None,
    server: str | None,
) -> Iterator[tuple[object, ...]]:
    """Rows of ordinality, shard_id, sequence_number, error_code, error_message."""
    from uuid import uuid4

    from awslambda import kinesis

    records = _elements("data", _not_null("data", data))
    for name, given in (("partition_keys", partition_keys), ("explicit_hash_keys", explicit_hash_keys)):
        if given is not None and len(_flat(name, given)) != len(records):
            raise errors.InvalidArgument(
                reason=f"data has {len(records)} elements, and {name} has {len(given)}", hint="Nothing was put."
            )
    if partition_keys and "" in partition_keys:
        raise errors.InvalidArgument(
            reason="an element of partition_keys is empty", hint="NULL is a random one. Nothing was put."
        )
    entries = [
        kinesis.Entry(
            one,
            (partition_keys[at] if partition_keys else None) or str(uuid4()),
            _hash_key(explicit_hash_keys[at] if explicit_hash_keys else None),
        )
        for at, one in enumerate(records)
    ]
    put = kinesis.put(_stream(backend, stream, server), entries)
    for ordinality, one in enumerate(put, 1):
        message = one.error_message and backend.text(one.error_message)
        yield ordinality, one.shard_id, one.sequence_number, one.error_code, message


@_seam_of_rows
def cloudwatch_logs_events(
    backend: Backend, data: bytes | None, include_control: bool | None
) -> Iterator[tuple[object, ...]]:
    """Rows of message_type, owner, log_group, log_stream, subscription_filters, id, timestamp, message, event."""
    from awslambda import content

    try:
        for document in [] if data is None else content.log_documents(data):
            if document.message_type == "CONTROL_MESSAGE" and not include_control:
                continue
            head = [backend.text(part) for part in document.head]
            filters = [backend.text(name) for name in document.subscription_filters]
            for one in document.events:
                event = _texts(backend, one)
                at = content.time_of(one["timestamp"] / 1000) if "timestamp" in one else None
                yield *head, filters, event.get("id"), at, event.get("message"), json.dumps(event, ensure_ascii=False)
    except content.Broken as error:
        raise errors.NotLogs(reason=error) from None


def _texts(backend: Backend, value: Any) -> Any:
    """What JSON says, with each text in it one that the database can hold."""
    if isinstance(value, str):
        return backend.text(value)
    if isinstance(value, dict):
        return {backend.text(key): _texts(backend, of) for key, of in value.items()}
    return [_texts(backend, of) for of in value] if isinstance(value, list) else value


@_seam
def mysql_audit_event(backend: Backend, message: str | None, time_zone: str | None) -> tuple[object, ...]:
    """A row of mysql_audit_event; all NULL if the line is none."""
    from awslambda import content

    zone = _not_null("time_zone", time_zone)
    if not zone.strip():  # to Postgres that would be the session's
        raise errors.InvalidArgument(reason="time_zone is empty", hint="Name that of the MySQL server, as 'UTC'.")
    return tuple(content.audit_event(message or "", zone) or (None,) * 12)


def _flat(name: str, given: Sequence[T]) -> Sequence[T]:
    """`given`, whose type in SQL allows any number of dimensions."""
    if given and isinstance(given[0], list):
        raise errors.InvalidArgument(reason=f"{name} has more than one dimension", hint="It is like ARRAY['a', 'b'].")
    return given


def _elements(name: str, given: Sequence[T | None]) -> list[T]:
    return [_not_null(f"an element of {name}", one) for one in _flat(name, given)]


def _hash_key(given: Decimal | None) -> str | None:
    if given is None:
        return None
    if not (given.is_finite() and given == given.to_integral_value() and 0 <= given < 2**128):
        raise errors.InvalidArgument(
            reason=f"not an explicit hash key: {given}", hint="It is a whole number below 2^128. Nothing was put."
        )
    return f"{given:f}".split(".", maxsplit=1)[0]


def _stream(backend: Backend, stream: str | None, server: str | None) -> kinesis.Stream:
    from awslambda import kinesis

    settings = backend.settings(server)
    return kinesis.Stream(_not_null("stream", stream), settings, backend.connections, backend.database.check_interrupts)


def _position(
    backend: Backend, kind: str | None, timestamp: str | None, sequence_number: Decimal | None
) -> kinesis.Position:
    from awslambda import kinesis

    epoch = None if timestamp is None else backend.database.epoch(timestamp)
    number = None if sequence_number is None else f"{sequence_number:f}"
    return kinesis.position(_not_null("starting_position", kind), number, epoch)


def _invoke(
    backend: Backend, fn_name: str | None, fn_args: str | None, invocation_type: str, kind: str
) -> tuple[lambda_.Request, lambda_.Response]:
    """`kind` is the type that `fn_args` came as."""
    function = resources.function(_not_null("fn_name", fn_name))
    request = lambda_.Request(function, _not_null("fn_args", fn_args).encode(), invocation_type)
    if kind == "text":
        _check_json(backend, function, request.payload.decode())
    return request, lambda_.invoke(
        request, backend.settings(None), backend.connections, backend.database.check_interrupts
    )


def _check_json(backend: Backend, function: resources.Target, text: str) -> None:
    try:
        backend.database.check_json(text)
    except ValueError as error:
        raise errors.InvalidJson(function=function.given, reason=str(error)) from None


def _check_context(backend: Backend, context: str | None) -> None:
    try:
        backend.database.check_json(context or "null")
    except ValueError as error:
        raise errors.InvalidArgument(
            reason=f"the client context is not JSON: {error}",
            hint='It is like {"custom": {"tenant": "a"}}. Nothing was sent.',
        ) from None


def _payload(backend: Backend, request: lambda_.Request, response: lambda_.Response, kind: str) -> str | None:
    """The answer as a value of type `kind`; None if it is empty."""
    function = request.function.given
    try:
        text = response.payload.decode()
    except UnicodeDecodeError:
        raise errors.ResponseNotText(function=function) from None
    if "\0" in text:
        raise errors.ResponseNotText(function=function)
    text = backend.json(text)
    if text and kind != "text":
        try:
            backend.database.check_json(text, binary=kind == "jsonb")
        except ValueError as error:
            raise errors.ResponseNotJson(function=function, kind=kind, reason=str(error)) from None
    return text or None


def _not_null(argument: str, value: T | None) -> T:
    if value is None:
        raise errors.NullArgument(argument=argument)
    return value
