"""awslambda._may_call is the rules of servers.py, resources.py and settings.py a second time, without Python: the same
cases through both."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import psycopg
import pytest
from awslambda import database, errors, resources, servers, settings
from awslambda_local.cluster import Cluster
from botocore.loaders import Loader

Sql = Callable[..., Any]

ARN = "arn:aws:lambda:eu-west-1:123456789012:function"
NAMES = [
    "f", "F-_9", "a" * 64, "a" * 65, "f:prod", "f:$LATEST", "f:$LATEST.PUBLISHED", "f:$latest", "f:" + "q" * 128,
    "f:" + "q" * 129, "a" * 64 + ":" + "q" * 128, "a" * 65 + ":q", "", " ", "f ", " f", "f\n", "f\tg", "f:", ":f",
    "f::q",
    "f:a:b", "é", "fé", "f*", "*", "f.g", "f/g", "%", "_", "report_a", "reportXa", "report-daily", "report-", "report",
    "function:f", "function", "function:function", "function:f:prod", "function:", "function:" + "a" * 65, "Function:f",
    "eu-west-1:f", "eu-west-1:function:f", "eu-west-1", "eu-west-1:eu-west-1", "my-fn-1:prod", "us-gov-west-1:f",
    "123456789012:f", "123456789012:function:f", "123456789012:function:f:prod", "123456789012", "12345678901:f",
    "999999999999:f", "eu-west-1:123456789012:f", "eu-west-1:123456789012:function:f:1", "cn-north-1:123456789012:f",
    "us-isob-east-1:123456789012:f", "eu-west-1:" + "a" * 100, "123456789012:" + "a" * 100, "function:" + "a" * 100,
    "eu-west-1:123456789012:" + "a" * 100, "eu-west-1:123456789012:function:" + "a" * 100, "123456789012:" + "a" * 129,
    f"{ARN}:f", f"{ARN}:f:prod", f"{ARN}:f:$LATEST", f"{ARN}:f:", f"{ARN}:", f"{ARN}:{'a' * 64}:{'q' * 128}",
    f"{ARN}:{'a' * 65}", f"{ARN}:f:{'q' * 129}", f"{ARN}:f*", f"{ARN}:report-x", f"x{ARN}:f", f"{ARN}:f\n",
    f"{ARN}:f:a:b",
    "arn", "arn:", "arn:x", "arn:aws", "arn:aws:lambda:f", "arn:aws:lambda:eu-west-1:f", f"ARN{ARN[3:]}:f",
    "arn:aws:lambda:eu-west-1:123456789012:f", "arn:aws:lambda:123456789012:function:f", "arn:aws:lambda:function:f",
    "arn:aws-cn:lambda:cn-north-1:123456789012:function:f",
    "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f",
    "arn:awsXY-:lambda:eu-west-1:123456789012:function:f", "arn:AWS:lambda:eu-west-1:123456789012:function:f",
    "arn:aws:lambda:eu-west-1:999999999999:function:f", "arn:aws:s3:eu-west-1:123456789012:function:f",
    "arn:aws:lambda:EU-west-1:123456789012:function:f", "arn:aws:lambda:eu-west-:123456789012:function:f",
    "x" * 171, "arn:" + "x" * 200, "😀" * 200,
]  # fmt: skip
PATTERNS = [
    None, "*", "function:f", "function:*", "function:report-*", "function:report_*", "f", "function:*a*a*", "arn:*",
    "function:f*:prod", "stream/clicks, function:f", "\t function:f ,\n function:F*", f"{ARN}:f", f"{ARN}:*",
    f"{ARN}:f:*",
    "arn:aws:lambda:*:123456789012:function:*", "arn:aws*:lambda:*:*:function:f", f"function:x, {ARN}:f",
    "arn:aws:lambda:us-east-1:123456789012:function:f", "arn:aws-cn:*", "function:f\u2003,\u00a0function:g",
    "**", "*f*",
]  # fmt: skip


class Rules:
    """What the Python side decides in a session: None, or SQLSTATE, message and hint."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self.session = session

    def servers(self) -> list[servers.Server]:
        rows = self.session.execute(database.SERVERS)  # type: ignore[call-overload]
        return [
            servers.Server(name, usable, tuple(options or ()), by_superuser, rightful)
            for name, options, by_superuser, usable, rightful in rows
        ]

    def __call__(self, name: str, asked: str | None) -> tuple[str, str, str] | None:
        found, [role] = self.servers(), self.session.execute("SELECT CURRENT_USER").fetchone() or [""]
        try:
            target = resources.function(name)
            server = servers.choose(found, asked, lambda: role)
            if server is not None:
                options = settings.parse(server.name, dict(o.split("=", 1) for o in server.options), float)
                region = target.region or options.region or ""
                options.check_allowed(target.resource, target.arn(region, partition))
        except errors.LambdaError as error:
            return error.sqlstate, str(error), error.hint
        return None


_BOTOCORE = botocore.session.get_session()


@functools.cache
def partition(region: str) -> str:
    """As aws.Identity.partition has it."""
    return str(_BOTOCORE.get_partition_for_region(region))


def in_sql(session: psycopg.Connection[Any], name: str, asked: str | None) -> tuple[str, str, str] | None:
    try:
        with session.transaction():
            assert session.execute("SELECT awslambda._may_call(%s, %s)", [name, asked]).fetchone() == (True,)
    except psycopg.Error as error:
        diagnostic = error.diag
        return diagnostic.sqlstate or "", diagnostic.message_primary or "", diagnostic.message_hint or ""
    return None


def like_sql(decided: tuple[str, str, str] | None) -> tuple[str, str, str] | None:
    """Python quotes what is shown as Python does, Postgres as Postgres: the same but for special characters."""
    if decided is None:
        return None
    return decided[0], decided[1].replace("\\n", "\n").replace("\\t", "\t"), decided[2]


@pytest.fixture(scope="module")
def session(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """One transaction, rolled back, in the database that all share."""
    with psycopg.connect(cluster.dsn("shared")) as session:
        for role in ("caller", "owner"):
            session.execute(f"CREATE ROLE {role}")  # type: ignore[call-overload]
        session.execute("SELECT awslambda.grant_usage('caller')")
        yield session
        session.rollback()


def test_names_and_allowed_resources_are_as_in_python(session: psycopg.Connection[Any]) -> None:
    rules, refused = Rules(session), 0
    randomly = random.Random(4)
    pieces = [
        "arn:aws:lambda:",
        "eu-west-1:",
        "123456789012:",
        "function:",
        "f",
        "a" * 63,
        ":",
        "prod",
        "-1",
        "$LATEST",
    ]
    names = NAMES + ["".join(randomly.choices(pieces, k=randomly.randint(1, 6))) for _ in range(200)]
    for patterns, region in itertools.product(PATTERNS, ("eu-west-1", "cn-north-1")):
        with session.transaction(force_rollback=True):
            given = "" if patterns is None else f", allowed_resources '{patterns}'"
            session.execute(
                f"CREATE SERVER one FOREIGN DATA WRAPPER awslambda OPTIONS (region '{region}'{given})"  # type: ignore[call-overload]
            )
            for name in names if patterns in (None, "function:f", f"function:x, {ARN}:f") else NAMES:
                expected = rules(name, None)
                assert in_sql(session, name, None) == like_sql(expected), (patterns, region, name)
                refused += expected is not None
    assert refused > 1000


def test_the_choice_of_a_server_is_as_in_python(session: psycopg.Connection[Any]) -> None:
    rules, outcomes = Rules(session), set()
    # Of each server: whether it exists, whether the caller has USAGE, whether a superuser owns it.
    for kinds in itertools.product(("", "usable", "closed", "foreign", "foreign closed"), repeat=3):
        for rightful in (True, False):
            with session.transaction(force_rollback=True):
                if rightful:
                    session.execute("GRANT USAGE ON FOREIGN DATA WRAPPER awslambda TO owner")
                for name, kind in zip(("aws", "Other", "zz"), kinds, strict=True):
                    if not kind:
                        continue
                    session.execute(f'CREATE SERVER "{name}" FOREIGN DATA WRAPPER awslambda')  # type: ignore[call-overload]
                    if "closed" not in kind:
                        session.execute(f'GRANT USAGE ON FOREIGN SERVER "{name}" TO caller')  # type: ignore[call-overload]
                    if "foreign" in kind:
                        session.execute(
                            "UPDATE pg_foreign_server SET srvowner = 'owner'::regrole WHERE srvname = %s", [name]
                        )
                session.execute("SET LOCAL ROLE caller")
                for asked in (None, "aws", "Other", "nowhere"):
                    expected = rules("f", asked)
                    assert in_sql(session, "f", asked) == like_sql(expected), (kinds, rightful, asked)
                    outcomes.add(expected and expected[1])
    assert len(outcomes) >= 12


def test_a_partition_is_what_botocore_says_of_each_region(shared: Sql) -> None:
    known = [
        (region, found["id"])
        for found in Loader().load_data("partitions")["partitions"]
        for region in found["regions"]
        if not region.endswith("-global")
    ]
    assert len(known) > 30
    for region, expected in known:
        assert shared("SELECT awslambda._partition(%s)", region) == expected


def test_without_a_region_an_account_is_left_to_the_delivery_unless_no_pattern_is_an_arn(
    session: psycopg.Connection[Any],
) -> None:
    for patterns, allowed in ((f"{ARN}:f", True), ("function:f", False)):
        with session.transaction(force_rollback=True):
            session.execute(
                f"CREATE SERVER one FOREIGN DATA WRAPPER awslambda OPTIONS (allowed_resources '{patterns}')"  # type: ignore[call-overload]
            )
            decided = in_sql(session, "123456789012:f", None)
            assert decided is None if allowed else decided and decided[:2] == (
                "42501", "The server 'one' does not allow '123456789012:f'."
            )  # fmt: skip
