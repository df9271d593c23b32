"""Which server a call uses: privileges choose, so the choice holds behind SET ROLE, poolers and SECURITY DEFINER."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from awslambda import errors

DEFAULT = "aws"  # the one that counts where a role may use several


class Server(NamedTuple):
    """A server of the foreign data wrapper awslambda, as the catalog has it."""

    name: str
    usable: bool  # the current user has USAGE on it
    options: tuple[str, ...]  # name=value
    by_superuser: bool = True  # a superuser owns it; nobody asks where there is no other
    rightful: bool = True  # its owner may make servers: what is altered by somebody who may not is not used


def choose(servers: Sequence[Server], asked: str | None, role: Callable[[], str]) -> Server | None:
    """The server asked for; else the only usable one; else `aws`. None if there is no server at all. `role` gives its
    name for an error.

    Without being asked for, a server of somebody else than a superuser is not used beside one of a superuser: nobody
    steers the calls of others by making a server.
    """
    if asked is not None:
        for server in servers:
            if server.name == asked:
                return _checked(_allowed([server], role)[0])
        raise errors.ServerNotFound(server=asked)
    if not servers:
        return None
    allowed = _allowed(servers, role)
    usable = [server for server in allowed if server.by_superuser] or allowed
    if len(usable) == 1:
        return _checked(usable[0])
    for server in usable:
        if server.name == DEFAULT:
            return _checked(server)
    raise errors.ServerNotChosen(servers=", ".join(server.name for server in usable))


def _checked(server: Server) -> Server:
    if not server.rightful:
        raise errors.ServerNotTrusted(server=server.name)
    return server


def _allowed(servers: Sequence[Server], role: Callable[[], str]) -> list[Server]:
    usable = [server for server in servers if server.usable]
    if not usable:
        named = (
            f"the server {servers[0].name!r}"
            if len(servers) == 1
            else "any server of the foreign data wrapper awslambda"
        )
        raise errors.ServerNotAllowed(role=role(), servers=named)
    return usable
