"""@transaction: a function runs in a transaction of a connection that outlives the invocation.

A process of a function serves one invocation at a time, so it has one connection: made by the first invocation that
needs it, looked at by each, since the server may have closed it while the process was frozen, and made anew if it is
gone. What the function returns is committed, what it raises rolls back. Rows are dicts.

Where the database is, says the environment: libpq's own variables (PGHOST, PGUSER, PGPASSWORD, ...); DATABASE_SECRET,
the name or ARN of a secret in Secrets Manager with host, port, dbname, username and password as JSON; or
DATABASE_IAM=true with PGHOST and PGUSER, for RDS's tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import json
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

CONNECT_TIMEOUT = 5  # seconds; also until a server that acknowledges nothing is taken for gone
BUSY = "another transaction is open, and there is one connection"

_connection: psycopg.Connection[dict[str, Any]] | None = None
# In a transaction: the lock of those inside it, of which each coroutine is a savepoint.
_inner: contextvars.ContextVar[asyncio.Lock | None] = contextvars.ContextVar("inner", default=None)
_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


def transaction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls the function with a connection before its other arguments, in a transaction.

    It must be the decorator next to the function. A function that is called in another one's transaction is part of
    it, in a savepoint. An `async def` is awaited in the transaction; since there is one connection, the next one waits,
    also inside a transaction. A plain function cannot wait: beside a transaction that is awaited it is a RuntimeError.
    So is a function that catches an error of SQL and returns, since nothing can be committed then.
    A connection that breaks is an error of the invocation, and the next one connects again: whether a COMMIT without an
    answer took place is not known, so what is retried must bear to be done twice.
    """

    async def awaited(*arguments: Any, **named: Any) -> Any:
        async with _inner.get() or _lock():
            with _entered() as connection:
                return await function(connection, *arguments, **named)

    def called(*arguments: Any, **named: Any) -> Any:
        if (inner := _inner.get()) and inner.locked():
            raise RuntimeError(BUSY)
        with _entered() as connection:
            return function(connection, *arguments, **named)

    wrapped = functools.wraps(function)(awaited if inspect.iscoroutinefunction(function) else called)
    signature = inspect.signature(function)
    wrapped.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return wrapped


@contextlib.contextmanager
def _entered() -> Iterator[psycopg.Connection[dict[str, Any]]]:
    is_outermost = _inner.get() is None or _connection is None
    connection = connected() if is_outermost else _connection
    token = _inner.set(asyncio.Lock())
    try:
        with connection.transaction():
            yield connection
            # PostgreSQL answers COMMIT with ROLLBACK here, which psycopg does not call an error.
            if connection.info.transaction_status == TransactionStatus.INERROR:
                raise RuntimeError("an error of SQL was caught in the transaction, so nothing of it can be committed")
    finally:
        _inner.reset(token)
        if is_outermost and connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()  # it is broken, or its rollback failed


def _lock() -> asyncio.Lock:
    """That of the running loop: each invocation may have a loop of its own."""
    return _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def connected() -> psycopg.Connection[dict[str, Any]]:
    """The process's connection, which answers."""
    global _connection  # noqa: PLW0603 - of the process, as its promise is
    if _connection is not None:
        if _connection.info.transaction_status not in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN):
            raise RuntimeError(BUSY)
        try:
            _connection.execute("SELECT")
        except psycopg.OperationalError:
            _connection.close()
            _connection = None
    if _connection is None:
        _connection = psycopg.connect(
            "", autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_TIMEOUT,
            tcp_user_timeout=CONNECT_TIMEOUT * 1000,
            application_name=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "awslambda_handlers"), **_credentials(),
        )  # fmt: skip
    return _connection


def _credentials() -> dict[str, Any]:
    """What libpq's variables do not say. Asked for at each connect, so that a rotated secret is found."""
    if secret := os.environ.get("DATABASE_SECRET"):
        said = _secret(secret)
        names = {"host": "host", "port": "port", "dbname": "dbname", "username": "user", "password": "password"}
        return {names[name]: value for name, value in said.items() if name in names}
    if os.environ.get("DATABASE_IAM") == "true":
        import boto3

        host, user, port = os.environ["PGHOST"], os.environ["PGUSER"], int(os.environ.get("PGPORT", "5432"))
        token = boto3.client("rds").generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)
        return {"password": token, "sslmode": os.environ.get("PGSSLMODE", "require")}
    return {}


def _secret(name: str) -> dict[str, Any]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # A subnet without a way to Secrets Manager is an error before the function's own timeout.
    config = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=CONNECT_TIMEOUT, retries={"total_max_attempts": 2})
    try:
        found = boto3.client("secretsmanager", config=config).get_secret_value(SecretId=name)
        return dict(json.loads(found["SecretString"]))
    except (BotoCoreError, ClientError, ValueError) as error:
        raise RuntimeError(f"the secret {name!r} of DATABASE_SECRET cannot be read: {error}") from error
