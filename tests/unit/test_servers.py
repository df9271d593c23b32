"""Which server a call uses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from awslambda import errors, servers
from awslambda.servers import Server


def named(*names: str, usable: Sequence[str] | None = None) -> list[Server]:
    """Servers of these names; those in `usable` (default: all) may be used."""
    return [Server(name, usable is None or name in usable, ("region=eu-west-1",)) for name in names]


def chosen(among: Sequence[Server], asked: str | None = None) -> str | None:
    server = servers.choose(among, asked, lambda: "reporting")
    return None if server is None else server.name


def test_without_any_server_the_defaults_hold() -> None:
    assert chosen([]) is None


def test_the_only_server_is_used_whatever_its_name() -> None:
    assert chosen(named("reports")) == "reports"


def test_the_only_server_that_the_role_may_use_is_used() -> None:
    assert chosen(named("a", "aws", "reports", usable=["reports"])) == "reports"


@pytest.mark.parametrize("names", [("aws", "reports"), ("reports", "aws"), ("a", "aws", "z")])
def test_among_several_the_one_called_aws_is_used(names: tuple[str, ...]) -> None:
    assert chosen(named(*names)) == "aws"


def test_several_without_one_called_aws_are_listed_in_the_error() -> None:
    with pytest.raises(errors.ServerNotChosen) as caught:
        chosen(named("a", "b", "secret", usable=["a", "b"]))
    assert caught.value.sqlstate == "22023"
    assert "a, b" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "server" in caught.value.hint


def test_aws_does_not_count_for_who_may_not_use_it() -> None:
    with pytest.raises(errors.ServerNotChosen):
        chosen(named("a", "aws", "b", usable=["a", "b"]))


@pytest.mark.parametrize("asked", ["a", "aws", "b"])
def test_the_server_asked_for_is_used(asked: str) -> None:
    assert chosen(named("a", "aws", "b"), asked) == asked


def test_an_asked_server_without_usage_is_refused_though_others_could_be_used() -> None:
    with pytest.raises(errors.ServerNotAllowed) as caught:
        chosen(named("aws", "reports", usable=["aws"]), "reports")
    assert caught.value.sqlstate == "42501"
    assert "'reports'" in str(caught.value) and "'reporting'" in str(caught.value)
    assert "GRANT USAGE" in caught.value.hint


@pytest.mark.parametrize("existing", [[], named("aws"), named("REPORTS"), named("reports ")], ids=str)
def test_an_asked_server_that_does_not_exist_is_an_error(existing: list[Server]) -> None:
    with pytest.raises(errors.ServerNotFound) as caught:
        chosen(existing, "reports")
    assert caught.value.sqlstate == "42704"
    assert "'reports'" in str(caught.value)


def test_an_empty_name_is_not_the_default_server() -> None:
    with pytest.raises(errors.ServerNotFound):
        chosen(named("aws"), "")


@pytest.mark.parametrize("names", [("aws",), ("aws", "reports")])
def test_a_role_without_usage_on_any_server_gets_no_defaults(names: tuple[str, ...]) -> None:
    with pytest.raises(errors.ServerNotAllowed) as caught:
        chosen(named(*names, usable=[]))
    assert caught.value.sqlstate == "42501"
    assert "'reporting'" in str(caught.value)
    assert "GRANT USAGE" in caught.value.hint


def test_the_server_that_may_not_be_used_is_named_if_there_is_one_only() -> None:
    with pytest.raises(errors.ServerNotAllowed, match="'reports'"):
        chosen(named("reports", usable=[]))
