"""Servers: their options, which one a call uses, what it may reach, and as whom it calls AWS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from tests.conftest import FUNCTIONS, Connect, runner
from tests.endpoints import Endpoint, answer, refusal, silence
from tests.errors import raises
from tests.waiting import wait_until

Sql = Callable[..., Any]
GIVES_CREDENTIALS = """#!/usr/bin/python3
import datetime, json, time
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=15, seconds=3)
print(json.dumps({"Version": 1, "AccessKeyId": f"AKID{time.time_ns()}", "SecretAccessKey": "s", "SessionToken": "t",
                  "Expiration": expiry.isoformat()}))
"""
OTHER_ACCOUNT = "arn:aws:lambda:us-east-1:999999999999:function:f"
ROLE = "arn:aws:iam::123456789012:role/reports"
REFUSED_BY_STS = b"""<ErrorResponse><Error><Code>AccessDenied</Code>
<Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"""
CALL = "SELECT awslambda_fn('f', '1')"


@pytest.fixture
def where(endpoint: Callable[..., Endpoint]) -> Callable[[str], str]:
    """Options for a server whose calls answer the given word."""

    def options(word: str) -> str:
        return f"region 'us-east-1', endpoint_url '{endpoint(answer(body=word)).url}'"

    return options


def create(sql: Sql, name: str, options: str) -> None:
    sql(f"CREATE SERVER {name} FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")


@pytest.fixture
def caller(sql: Sql, connect: Connect) -> Sql:
    """A session of an ordinary role that may call functions."""
    sql("CREATE ROLE caller LOGIN")
    sql("SELECT awslambda.grant_usage('caller')")
    return runner(connect(user="caller"))


# Which server.


def test_without_servers_the_instance_is_the_identity(caller: Sql) -> None:
    assert caller("SELECT awslambda_fn('lambdaTest', '{}')") == '{"Status": "OK"}'


def test_one_usable_server_is_used_whatever_its_name(sql: Sql, caller: Sql, where: Callable[[str], str]) -> None:
    create(sql, "aws", where("aws"))
    create(sql, '"Reports"', where("reports"))
    sql('GRANT USAGE ON FOREIGN SERVER "Reports" TO caller')
    assert caller(CALL) == '"reports"'


def test_among_several_aws_is_the_default_and_another_can_be_named(
    sql: Sql, caller: Sql, where: Callable[[str], str]
) -> None:
    create(sql, "one", where("one"))
    create(sql, "two", where("two"))
    sql("GRANT USAGE ON FOREIGN SERVER one, two TO caller")
    with raises("22023", "several servers", "one, two"):
        caller(CALL)
    assert caller("SELECT payload FROM awslambda.invoke('f', '1', server => 'two')") == "two"
    create(sql, "aws", where("aws"))
    with raises("22023", "one, two"):
        caller(CALL)
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    assert caller(CALL) == '"aws"'


def test_as_soon_as_a_server_exists_usage_is_needed(sql: Sql, caller: Sql, where: Callable[[str], str]) -> None:
    assert caller("SELECT awslambda_fn('echo', '1')") == "1"
    create(sql, "aws", where("aws"))
    with raises("42501", "'caller' may not use the server 'aws'", "GRANT USAGE ON FOREIGN SERVER"):
        caller(CALL)
    with raises("42501", "'caller' may not use the server 'aws'"):
        caller("SELECT awslambda.invoke('f', '1', server => 'aws')")
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    assert caller(CALL) == '"aws"'
    sql("REVOKE USAGE ON FOREIGN SERVER aws FROM caller")
    with raises("42501"):
        caller(CALL)


def test_a_server_that_does_not_exist_or_is_of_another_wrapper(sql: Sql) -> None:
    sql("CREATE FOREIGN DATA WRAPPER other")
    sql("CREATE SERVER elsewhere FOREIGN DATA WRAPPER other")
    for name in ("nowhere", "elsewhere"):
        with raises("42704", f"no server '{name}'"):
            sql("SELECT awslambda.invoke('f', '1', server => %s)", name)
    assert sql("SELECT awslambda_fn('echo', '1')") == "1"


def test_privileges_choose_behind_set_role(sql: Sql, connect: Connect, where: Callable[[str], str]) -> None:
    for name in ("ann", "bob"):
        sql(f"CREATE ROLE {name}")
        sql(f"SELECT awslambda.grant_usage('{name}')")
        create(sql, f"for_{name}", where(name))
        sql(f"GRANT USAGE ON FOREIGN SERVER for_{name} TO {name}")
    pooled = runner(connect())
    for name in ("ann", "bob", "ann"):
        pooled(f"SET ROLE {name}")
        assert pooled(CALL) == f'"{name}"'
        pooled("RESET ROLE")
    pooled("SET ROLE bob")
    with raises("42501"):
        pooled("SELECT awslambda.invoke('f', '1', server => 'for_ann')")
    pooled("DISCARD ALL")


def test_a_security_definer_uses_its_owners_server(sql: Sql, connect: Connect, where: Callable[[str], str]) -> None:
    sql("CREATE ROLE keeper")
    sql("SELECT awslambda.grant_usage('keeper')")
    sql("CREATE ROLE visitor LOGIN")
    create(sql, "kept", where("kept"))
    create(sql, "visited", where("visited"))
    sql("GRANT USAGE ON FOREIGN SERVER kept TO keeper")
    sql("GRANT USAGE ON FOREIGN SERVER visited TO visitor")
    sql(
        """CREATE FUNCTION public.score() RETURNS text
           LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
           AS $$ SELECT public.awslambda_fn('f', '1') $$"""
    )
    sql("ALTER FUNCTION public.score() OWNER TO keeper")
    visitor = runner(connect(user="visitor"))
    assert visitor("SELECT public.score()") == '"kept"'
    with raises("42501", "permission denied for function awslambda_fn"):
        visitor(CALL)


def test_an_owner_who_could_drop_the_role_cannot_use_the_server(sql: Sql, connect: Connect) -> None:
    sql("CREATE ROLE bob LOGIN")
    sql("SELECT awslambda.grant_usage('bob')")
    create(sql, "narrow", f"region 'us-east-1', role_arn '{ROLE}'")
    sql("ALTER SERVER narrow OWNER TO bob")
    bob = runner(connect(user="bob"))
    bob("ALTER SERVER narrow OPTIONS (DROP role_arn)")  # a validator sees only what remains
    with raises("42501", "'narrow' is not used", "superuser must own it"):
        bob("SELECT awslambda_fn('echo', '1')")
    sql("GRANT USAGE ON FOREIGN DATA WRAPPER awslambda TO bob")
    assert bob("SELECT awslambda_fn('echo', '1')") == "1"


def test_nobody_steers_the_calls_of_others_by_making_a_server(sql: Sql, connect: Connect, where: Any) -> None:
    sql("CREATE ROLE dev LOGIN")
    sql("SELECT awslambda.grant_usage('dev')")
    sql("GRANT USAGE ON FOREIGN DATA WRAPPER awslambda TO dev")
    create(sql, "reports", where("reports"))
    dev = runner(connect(user="dev"))
    create(dev, "aws", "region 'us-east-1'")
    assert sql(CALL) == '"reports"'
    sql("GRANT USAGE ON FOREIGN SERVER reports TO dev")
    assert dev(CALL) == '"reports"'
    assert dev("SELECT (awslambda.invoke('echo', '1', server => 'aws')).status_code") == 200


def test_a_wrapper_by_another_name_opens_nothing(sql: Sql, caller: Sql, where: Callable[[str], str]) -> None:
    create(sql, "aws", where("aws"))
    sql("ALTER FOREIGN DATA WRAPPER awslambda RENAME TO renamed")
    with raises("42501", "may not use the server 'aws'"):
        caller(CALL)


@pytest.mark.parametrize("path", ["awslambda, public", "public, awslambda, pg_catalog", "pg_temp"])
def test_a_search_path_opens_nothing(sql: Sql, caller: Sql, where: Callable[[str], str], path: str) -> None:
    create(sql, "aws", where("aws"))
    caller(f"SET search_path = {path}")
    with raises("42501", "may not use the server 'aws'"):
        caller(CALL.replace("awslambda_fn", "public.awslambda_fn"))
    sql("GRANT USAGE ON FOREIGN SERVER aws TO caller")
    assert caller(CALL.replace("awslambda_fn", "public.awslambda_fn")) == '"aws"'


def test_a_credential_process_that_hangs_ends_with_the_wait_for_it(instance: Any, readable_folder: Path) -> None:
    config = readable_folder / "hanging"
    config.write_text("[default]\ncredential_process = sleep 12345\n")
    _, sql = instance(environment={"AWS_CONFIG_FILE": str(config)})

    def hanging() -> list[str]:
        running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return [command.decode() for command in running if b"sleep\x0012345" in command]

    sql("SET statement_timeout = '1500ms'")
    for _ in range(2):
        with raises("57014"):
            sql(CALL)
    wait_until(lambda: not hanging(), "the processes are gone")


def test_changed_options_count_at_once(
    sql: Sql, where: Callable[[str], str], endpoint: Callable[..., Endpoint]
) -> None:
    create(sql, "aws", where("before"))
    assert sql(CALL) == '"before"'
    sql(f"ALTER SERVER aws OPTIONS (SET endpoint_url '{endpoint(answer(body='after')).url}')")
    assert sql(CALL) == '"after"'
    sql("DROP SERVER aws")
    assert sql("SELECT awslambda_fn('echo', '1')") == "1"


def test_endpoint_url_of_the_service_overrides_the_general_one(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    general, of_lambda = endpoint(answer(body="general")), endpoint(answer(body="lambda"))
    create(sql, "aws", f"region 'us-east-1', endpoint_url '{general.url}', endpoint_url_lambda '{of_lambda.url}'")
    assert sql(CALL) == '"lambda"'


# What may be reached.


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        ("function:report-*", "report-daily", True),
        ("function:report-*", "report-daily:prod", True),
        ("function:report-*", "reports", False),
        ("stream/clicks, function:f", "f", True),
        ("*", "f", True),
        ("stream/*", "f", False),
        ("function:F", "f", False),
        ("function:*", OTHER_ACCOUNT, False),
        ("*", "123456789012:function:f", False),
        (OTHER_ACCOUNT, OTHER_ACCOUNT + ":prod", True),
        ("arn:aws:lambda:*:999999999999:function:*", "999999999999:function:f", True),
        ("arn:aws:lambda:*:999999999999:function:*", "999999999998:function:f", False),
        ("arn:*", "f", False),
    ],
)
def test_allowed_resources(
    own: Sql, endpoint: Callable[..., Endpoint], patterns: str, name: str, allowed: bool
) -> None:
    target = endpoint(answer(body="ok"))
    create(own, "aws", f"region 'us-east-1', endpoint_url '{target.url}', allowed_resources '{patterns}'")
    try:
        if allowed:
            assert own("SELECT awslambda_fn(%s, '1'::text)", name) == '"ok"'
        else:
            with raises("42501", "The server 'aws' does not allow", "allowed_resources"):
                own("SELECT awslambda_fn(%s, '1'::text)", name)
            assert target.connections == 0
    finally:
        own("DROP SERVER aws")


# Options.


def test_an_unknown_option_is_refused_with_the_valid_ones(own: Sql) -> None:
    with raises("HV00D", "invalid option 'reg'", "allowed_resources, ca_bundle, connect_timeout", "role_arn"):
        create(own, "aws", "reg 'us-east-1'")
    with raises("HV00D"):
        create(own, "aws", "password 'x'")


BAD_OPTIONS = [
    ("region", "Frankfurt", "region's name"),
    ("region", "", "region's name"),
    ("endpoint_url", "http://example.com", "https://"),
    ("endpoint_url", "https://me:hunter2@example.com", "https://"),
    ("endpoint_url", "ftp://127.0.0.1", "https://"),
    ("endpoint_url_lambda", "example.com", "https://"),
    ("role_arn", "reports", "arn:aws:iam::"),
    ("ca_bundle", "relative.pem", "absolute path"),
    ("connect_timeout", "soon", "an interval"),
    ("connect_timeout", "0", "an interval"),
    ("request_timeout", "-1s", "an interval"),
    ("request_timeout", "1 day", "an interval"),
    ("max_attempts", "0", "1 to 10"),
    ("max_attempts", "many", "1 to 10"),
    ("allowed_resources", "", "patterns"),
    ("allowed_resources", "function:a b", "patterns"),
    ("external_id", "x", "2 to 1224"),
]


@pytest.mark.parametrize(("option", "value", "wanted"), BAD_OPTIONS)
def test_a_bad_value_is_refused_with_what_is_wanted(own: Sql, option: str, value: str, wanted: str) -> None:
    with raises("22023", f"invalid value for option '{option}'", wanted) as caught:
        create(own, "aws", f"{option} '{value}'")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["1s", "800ms", "3", "1.5", "00:00:02", "PT2S"])
def test_times_are_intervals_as_postgres_reads_them(own: Sql, value: str) -> None:
    create(own, "aws", f"connect_timeout '{value}', request_timeout '{value}'")
    own("DROP SERVER aws")


def test_a_timeout_is_in_seconds_and_counts(own: Sql, endpoint: Callable[..., Endpoint]) -> None:
    create(own, "aws", f"region 'us-east-1', endpoint_url '{endpoint(silence).url}', request_timeout '300ms'")
    with raises("LA005", "within 0.3 s"):
        own(CALL)
    own("DROP SERVER aws")


def test_there_are_no_user_mappings_foreign_tables_or_options_of_the_wrapper(own: Sql) -> None:
    create(own, "aws", "region 'us-east-1'")
    with raises("0A000", "no user mappings"):
        own("CREATE USER MAPPING FOR PUBLIC SERVER aws")
    with raises("0A000"):
        own("CREATE USER MAPPING FOR PUBLIC SERVER aws OPTIONS (region 'us-east-1')")
    with raises("0A000"):
        own("CREATE FOREIGN TABLE t (a int) SERVER aws")
    with raises("0A000"):
        own("ALTER FOREIGN DATA WRAPPER awslambda OPTIONS (ADD region 'us-east-1')")
    own("DROP SERVER aws")


@pytest.mark.parametrize(
    "option",
    [
        "endpoint_url 'https://example.com'",
        "endpoint_url_sts 'https://example.com'",
        "profile 'admin'",
        "role_arn 'arn:aws:iam::123456789012:role/admin'",
        "ca_bundle '/tmp/mine.pem'",
    ],
)
def test_only_a_superuser_says_whose_identity_and_where_to(sql: Sql, connect: Connect, option: str) -> None:
    sql("CREATE ROLE owner LOGIN")
    sql("GRANT USAGE ON FOREIGN DATA WRAPPER awslambda TO owner")
    sql("GRANT CREATE ON SCHEMA public TO owner")
    owner = runner(connect(user="owner"))
    create(owner, "mine", "region 'us-east-1'")
    name = option.split(maxsplit=1)[0]
    with raises("42501", f"Only a superuser may set {name}"):
        owner(f"ALTER SERVER mine OPTIONS (ADD {option})")
    sql(f"ALTER SERVER mine OPTIONS (ADD {option})")
    with raises("42501", name):
        owner("ALTER SERVER mine OPTIONS (ADD allowed_resources '*')")


def test_settings_of_a_session_decide_nothing(own: Sql, endpoint: Callable[..., Endpoint]) -> None:
    evil = endpoint(answer(body="evil"))
    for setting in ("awslambda.endpoint_url", "awslambda.server", "aws.endpoint_url", "awslambda.role_arn"):
        own(f"SET {setting} = '{evil.url}'")
    assert own("SELECT awslambda_fn('echo', '1')") == "1"
    assert evil.connections == 0
    own("DISCARD ALL")


# Whose credentials.


def assuming(role: str, sts: str, target: str) -> str:
    """Options of a server that assumes a role at one endpoint and calls at another."""
    return (
        f"region 'us-east-1', endpoint_url_sts '{sts}', endpoint_url_lambda '{target}', "
        f"role_arn '{role}', external_id 'ext-1'"
    )


def test_role_arn_is_assumed_through_sts(sql: Sql, aws: LocalAWS, endpoint: Callable[..., Endpoint]) -> None:
    target = endpoint(answer(body="ok"))
    create(sql, "aws", assuming(ROLE, aws.endpoint_url, target.url))
    assert sql(CALL) == '"ok"'
    sql(CALL)
    assert len({request.headers["authorization"].split("/")[0] for request in target.requests}) == 1
    assert target.requests[0].headers["x-amz-security-token"]
    identity = sql("SELECT detail FROM awslambda.diagnostics() WHERE \"check\" = 'identity'")
    assert identity == "arn:aws:sts::123456789012:assumed-role/reports/awslambda"


def test_assuming_a_role_sends_the_external_id_and_its_refusal_is_an_error(
    sql: Sql, endpoint: Callable[..., Endpoint]
) -> None:
    sts, target = endpoint(answer(403, REFUSED_BY_STS)), endpoint(answer())
    create(sql, "aws", assuming(ROLE, sts.url, target.url))
    with raises("42501", "sts:AssumeRole"):
        sql(CALL)
    assert target.connections == 0
    assert b"ExternalId=ext-1" in sts.requests[0].body and b"role%2Freports" in sts.requests[0].body


def test_expired_credentials_are_refused_and_not_kept(sql: Sql, endpoint: Callable[..., Endpoint]) -> None:
    target = endpoint(refusal(403, "ExpiredTokenException", "The security token included in the request is expired"))
    create(sql, "aws", f"region 'us-east-1', endpoint_url_lambda '{target.url}'")
    with raises("28000", "security token included in the request is expired"):
        sql(CALL)
    target.behaviour = answer(body="ok")
    assert sql(CALL) == '"ok"'
    keys = [request.headers["authorization"].split("/")[0] for request in target.requests]
    assert len(set(keys)) == len(keys) == 3, "each refusal made it ask for new credentials, and try them once"


@pytest.fixture
def instance() -> Iterator[Callable[..., tuple[LocalAWS, Sql]]]:
    """A cluster of its own on an instance of its own."""
    with contextlib.ExitStack() as running:

        def start(environment: dict[str, str] | None = None, **options: Any) -> tuple[LocalAWS, Sql]:
            local = running.enter_context(LocalAWS(deploy=[FUNCTIONS], **options))
            cluster = running.enter_context(Cluster({**local.environment, **(environment or {})}))
            session = running.enter_context(psycopg.connect(cluster.dsn(), autocommit=True))
            session.execute("CREATE EXTENSION awslambda CASCADE")
            return local, runner(session)

        yield start


def test_region_and_credentials_come_from_the_instance(instance: Any) -> None:
    _, sql = instance(region="eu-central-1")
    arn = sql("SELECT payload->>'arn' FROM awslambda.invoke('behave', '{\"do\": \"about\"}')")
    assert arn == "arn:aws:lambda:eu-central-1:123456789012:function:behave"
    found = sql("""SELECT array_agg(detail) FROM awslambda.diagnostics() WHERE "check" IN ('credentials', 'region')""")
    assert found[0].startswith("iam-role, expire at ") and found[1] == "eu-central-1 from instance metadata"


def test_credentials_are_refreshed_before_they_expire(
    instance: Any, endpoint: Callable[..., Endpoint], readable_folder: Path
) -> None:
    # botocore asks for new ones in the last 15 minutes of the old ones. (It stretches those of IMDS by up to 20
    # minutes, lest IMDS be down: so they come from a program here.)
    program = readable_folder / "credentials"
    program.write_text(GIVES_CREDENTIALS)
    program.chmod(0o755)
    config = readable_folder / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    _, sql = instance(environment={"AWS_CONFIG_FILE": str(config)})
    target = endpoint(answer(body="ok"))
    create(sql, "aws", f"region 'us-east-1', endpoint_url_lambda '{target.url}'")

    def key() -> str:
        sql(CALL)
        return target.requests[-1].headers["authorization"].split("/")[0]

    first = key()
    assert key() == first
    wait_until(lambda: key() != first, "the session uses new credentials")


def test_without_an_instance_role_the_error_says_what_was_tried(instance: Any) -> None:
    _, sql = instance(instance_role=None)
    with raises("28000", "No AWS credentials", "env", "iam-role", "attach an instance role"):
        sql("SELECT awslambda_fn('lambdaTest', '{}')")


def test_without_a_region_the_error_says_what_was_tried(instance: Any) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    _, sql = instance(environment=keys)
    with raises("22023", "No AWS region is known", "instance metadata"):
        sql("SELECT awslambda_fn('lambdaTest', '{}')")
    assert sql("SELECT (awslambda.invoke('lambdaTest', '{}', region => 'us-east-1')).status_code") == 200
    assert sql("SELECT awslambda_fn('arn:aws:lambda:us-east-1:123456789012:function:lambdaTest', '{}')")


def test_expired_credentials_of_an_instance_whose_metadata_gives_only_those(instance: Any) -> None:
    _, sql = instance(credentials_lifetime=0.000001)
    with raises("28000", "security token included in the request is expired"):
        sql("SELECT awslambda_fn('echo', '1')")


def test_a_profile_that_does_not_exist(sql: Sql) -> None:
    create(sql, "aws", "region 'us-east-1', profile 'nobody'")
    with raises("28000", "nobody"):
        sql(CALL)
