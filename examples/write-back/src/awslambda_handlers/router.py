"""Router: decorators that give functions an API, as REST of API Gateway and as fields of AppSync.

    router = Router()

    @router.rest("GET", "/students/{id}")
    @router.graphql("Query", "student")
    @transaction
    def student(connection, id): ...

    lambda_handler = router.handle

Path, query and the members of a JSON body are the function's arguments by name, as a field's arguments are. An
`async def` is run to its end. Powertools does the routing; what is declared is kept in `routes`, from which the
template is written.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, AppSyncResolver, Response
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, NotFoundError


class NotFound(Exception):
    """What was asked for is not there: 404 in REST, an error of the field in GraphQL."""


@dataclass(frozen=True)
class Rest:
    method: str
    path: str  # as API Gateway writes it: /students/{id}


@dataclass(frozen=True)
class Field:
    type_name: str  # Query or Mutation
    name: str


class Router:
    """Routes of one function."""

    def __init__(self) -> None:
        self.routes: list[Rest | Field] = []
        self._rest = APIGatewayRestResolver(serializer=lambda value: json.dumps(value, default=str))
        self._graphql = AppSyncResolver()

    def rest(self, method: str, path: str, status: int = 200) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declares a route. `status` is that of success."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            self.routes.append(Rest(method, path))

            def answer(**in_path: Any) -> Response[Any]:
                event = self._rest.current_event
                given = {**(event.query_string_parameters or {}), **_members(event.body), **in_path}
                try:
                    inspect.signature(function).bind(**given)
                except TypeError as error:
                    raise BadRequestError(str(error)) from None
                try:
                    body = _returned(function, given)
                except NotFound as error:
                    raise NotFoundError(str(error)) from None
                except psycopg.DataError as error:
                    raise BadRequestError(error.diag.message_primary or str(error)) from None
                return Response(status, "application/json", json.dumps(body, default=str))

            self._rest.route(re.sub(r"{(\w+)}", r"<\1>", path), method=[method])(answer)
            return function

        return declare

    def graphql(self, type_name: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declares a field of Query or Mutation."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            self.routes.append(Field(type_name, name))

            def answer(**given: Any) -> Any:
                return json.loads(json.dumps(_returned(function, given), default=str))

            self._graphql.resolver(type_name=type_name, field_name=name)(answer)
            return function

        return declare

    def handle(self, event: dict[str, Any], context: Any) -> Any:
        """The function's handler: an event of AppSync has `info`, one of API Gateway `httpMethod`."""
        if "info" in event:
            return self._graphql(event, context)
        if "httpMethod" in event:
            return self._rest(event, context)
        raise ValueError("the event is neither API Gateway's, with httpMethod, nor AppSync's, with info")


def _returned(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    return asyncio.run(function(**given)) if inspect.iscoroutinefunction(function) else function(**given)


def _members(body: str | None) -> dict[str, Any]:
    try:
        members = json.loads(body or "{}")
    except ValueError:
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(members, dict):
        raise BadRequestError("the body is not a JSON object")
    return members
