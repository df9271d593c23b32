"""The seam that the SQL bodies call: SQL values in, rows out, errors with SQLSTATE and hint.

`plpy` is handed in. One Backend lives as long as the session does; nothing in it says who may do what, because it
outlives SET ROLE and DISCARD ALL.
"""

from __future__ import annotations

import functools
import json
import re
import time
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from awslambda import errors, resources, servers
from awslambda import invoke as lambda_
from awslambda import settings as settings_
from awslambda.connection import Connections
from awslambda.database import CommittingDatabase, PlpyDatabase
from awslambda.settings import Settings

if TYPE_CHECKING:
    from awslambda import rds

CONCURRENCY = 16  # batches that CALL awslambda.dispatch has out at once

P = ParamSpec("P")
T = TypeVar("T")


class Backend:
    """What one session keeps between calls: plans, connections and parsed options."""

    def __init__(self, plpy: Any) -> None:
        self.plpy = plpy
        self.database = PlpyDatabase(plpy)
        self.connections = Connections()
        self._settings: dict[servers.Server | None, Settings] = {}
        self._encoding = ""

    def settings(self, asked: str | None) -> Settings:
        """The options of the server that this call uses. Chosen anew each time: it is the permission check."""
        found = self.database.servers()
        server = servers.choose(found, asked, self.database.role() if found else "")
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
        try:
            return function(backend, *args, **kwargs)
        except errors.LambdaError as error:
            raised = _as_plpy(backend, error)
        except ImportError as error:
            raised = _as_plpy(backend, errors.NotLoaded(reason=error))
        raise raised

    return cast(Callable[Concatenate[Any, P], T], called)


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
        f"{response.duration:.6f} seconds",
    )


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
    try:
        backend.plpy.commit()
    except backend.plpy.spiexceptions.InvalidTransactionTermination:
        raise errors.InTransactionBlock from None
    database = CommittingDatabase(backend.plpy)
    database.fetch("SELECT awslambda._check_home()")
    session = delivery.Delivery(database, CONCURRENCY, waits.start_helper)
    try:
        while not (session.idle or (session.stopping and not session.in_flight)):
            session.step()
            session.wait()
            session.stopping = session.stopping or time.monotonic() >= end
        session.stopping = True  # what this step sent would be thrown away
        session.step()
    finally:
        session.close()


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
