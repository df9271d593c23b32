"""examples/write-back's awslambda_handlers: what @transaction promises, and what Router answers."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from examples.stage import outside

Sql = Callable[..., Any]
PACKAGE = "awslambda_handlers"
SOURCE = Path(__file__).parents[2] / "examples" / "write-back" / "src"


@pytest.fixture
def handlers(sql: Sql, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package as in a new process of a function whose libpq variables name the test's database."""
    monkeypatch.syspath_prepend(str(SOURCE))
    for name, value in psycopg.conninfo.conninfo_to_dict(cluster.dsn(sql("SELECT current_database()"))).items():
        variable = {"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}")
        monkeypatch.setenv(variable, str(value))
    sql("CREATE TABLE student (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL)")
    sql("INSERT INTO student (name) VALUES ('emmy')")
    yield importlib.import_module(PACKAGE)
    if (connection := sys.modules[f"{PACKAGE}.database"]._connection) is not None:
        connection.close()
    for name in [name for name in sys.modules if name.split(".")[0] in (PACKAGE, "students", "score_order")]:
        del sys.modules[name]


def add(connection: Any, name: str, *, fails: bool = False) -> Any:
    row = connection.execute("INSERT INTO student (name) VALUES (%s) RETURNING name", [name]).fetchone()
    if fails:
        raise ValueError("no")
    return row


NAMES = "SELECT array_agg(name ORDER BY id) FROM student"


def test_what_returns_is_committed_and_what_raises_is_not(handlers: Any, sql: Sql) -> None:
    insert = handlers.transaction(add)
    assert insert("ada") == {"name": "ada"}
    with pytest.raises(ValueError, match="no"):
        insert("bob", fails=True)
    assert insert("eve") == {"name": "eve"}
    assert sql(NAMES) == ["emmy", "ada", "eve"]


def test_a_connection_outlives_invocations_and_is_made_anew_when_it_is_gone(handlers: Any, sql: Sql) -> None:
    pid = handlers.transaction(lambda connection: connection.info.backend_pid)
    first = pid()
    assert pid() == first
    sql("SELECT pg_terminate_backend(%s, 10000)", first)
    assert pid() != first


def test_a_call_inside_a_transaction_is_a_savepoint_of_it(handlers: Any, sql: Sql) -> None:
    insert = handlers.transaction(add)

    @handlers.transaction
    def both(connection: Any, *, fails: bool) -> None:
        insert("outer")
        with pytest.raises(ValueError, match="no"):
            insert("inner", fails=True)
        if fails:
            raise KeyError

    both(fails=False)
    assert sql(NAMES) == ["emmy", "outer"]
    with pytest.raises(KeyError):
        both(fails=True)
    assert sql(NAMES) == ["emmy", "outer"]


def test_an_error_of_sql_that_is_caught_cannot_pass_for_a_commit(handlers: Any, sql: Sql) -> None:
    """PostgreSQL rolls back then, whatever is asked for, and says so in no error."""

    @handlers.transaction
    def careless(connection: Any) -> str:
        add(connection, "ada")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        return "done"

    with pytest.raises(RuntimeError, match="nothing of it can be committed"):
        careless()
    assert handlers.transaction(add)("eve") == {"name": "eve"}
    assert sql(NAMES) == ["emmy", "eve"]


def test_a_commit_that_fails_is_an_error_and_the_next_invocation_goes_on(handlers: Any, sql: Sql) -> None:
    sql("ALTER TABLE student ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    insert = handlers.transaction(add)
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert("emmy")
    insert("eve")
    assert sql(NAMES) == ["emmy", "eve"]


def test_coroutines_have_the_connection_one_after_the_other(handlers: Any, sql: Sql) -> None:
    @handlers.transaction
    async def slowly(connection: Any, name: str, fails: bool = False) -> str:
        connection.execute("INSERT INTO student (name) VALUES (%s)", [name])
        await asyncio.sleep(0.01)
        if fails:
            raise ValueError(name)
        return name

    async def invocation() -> list[Any]:
        return await asyncio.gather(slowly("a"), slowly("b", fails=True), slowly("c"), return_exceptions=True)

    for _ in range(2):  # a loop for each invocation
        done = asyncio.run(invocation())
        assert [str(one) for one in done] == ["a", "b", "c"]
    assert sql(NAMES) == ["emmy", "a", "c", "a", "c"]


def test_coroutines_inside_a_transaction_are_savepoints_one_after_the_other(handlers: Any, sql: Sql) -> None:
    @handlers.transaction
    async def slowly(connection: Any, name: str, seconds: float, fails: bool) -> None:
        add(connection, name)
        await asyncio.sleep(seconds)
        add(connection, name, fails=fails)

    @handlers.transaction
    async def both(connection: Any) -> None:
        done = await asyncio.gather(slowly("a", 0.02, True), slowly("b", 0.01, False), return_exceptions=True)
        assert [type(one) for one in done] == [ValueError, type(None)]

    asyncio.run(both())
    assert sql(NAMES) == ["emmy", "b", "b"]


def test_a_plain_function_does_not_join_a_transaction_that_another_coroutine_awaits(handlers: Any, sql: Sql) -> None:
    @handlers.transaction
    async def slowly(connection: Any) -> None:
        add(connection, "slow")
        await asyncio.sleep(0.01)

    async def plain() -> None:
        handlers.transaction(add)("plain")

    async def invocation() -> list[Any]:
        return await asyncio.gather(slowly(), plain(), return_exceptions=True)

    @handlers.transaction
    async def outer(connection: Any) -> list[Any]:
        return await invocation()

    for refused in (asyncio.run(invocation())[1], asyncio.run(outer())[1]):
        assert isinstance(refused, RuntimeError) and "another transaction is open" in str(refused)
    assert sql(NAMES) == ["emmy", "slow", "slow"]


def test_an_order_that_is_gone_has_no_score(handlers: Any, sql: Sql) -> None:
    """Delivery is after commit: its batch must not fail for ever."""
    sql("CREATE TABLE orders (id int PRIMARY KEY, customer text, amount numeric, is_scored boolean DEFAULT false)")
    sql("CREATE TABLE order_score (order_id int PRIMARY KEY REFERENCES orders, score numeric NOT NULL)")
    sql("INSERT INTO orders VALUES (2, 'isaac', 25)")
    records = [{"key": {"id": number}, "new": {"id": number, "customer": "isaac", "amount": 25}} for number in (1, 2)]
    importlib.import_module("score_order").lambda_handler({"Records": records}, None)
    assert sql("SELECT array_agg(order_id) FROM order_score") == [2]


def test_a_secret_that_is_missing_or_is_no_json_is_said_in_words(
    handlers: Any, aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**outside(aws), "DATABASE_SECRET": "not-there"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=r"'not-there' of DATABASE_SECRET cannot be read: .*can't find"):
        handlers.transaction(add)("ada")
    monkeypatch.setenv("DATABASE_SECRET", "not-json")
    aws.client("secretsmanager").create_secret(Name="not-json", SecretString="of-the-secret")
    with pytest.raises(RuntimeError, match="'not-json' of DATABASE_SECRET cannot be read: Expecting value"):
        handlers.transaction(add)("ada")


def test_a_secret_is_asked_for_at_each_connect(
    handlers: Any, sql: Sql, cluster: Cluster, aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"host": str(cluster.folder), "port": cluster.port, "dbname": sql("SELECT current_database()")}
    for variable in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(variable)
    for name, value in {**outside(aws), "DATABASE_SECRET": where["dbname"]}.items():
        monkeypatch.setenv(name, value)
    secrets = aws.client("secretsmanager")
    sql("CREATE ROLE one LOGIN")
    sql("CREATE ROLE two LOGIN")
    user = handlers.transaction(lambda connection: (connection.info.user, connection.info.backend_pid))
    secrets.create_secret(Name=where["dbname"], SecretString=json.dumps({**where, "username": "one", "password": "x"}))
    name, pid = user()
    assert name == "one"
    secrets.put_secret_value(SecretId=where["dbname"], SecretString=json.dumps({**where, "username": "two"}))
    sql("SELECT pg_terminate_backend(%s, 10000)", pid)
    assert user()[0] == "two"


def rest(method: str, resource: str, body: str | None = None, **path: str) -> dict[str, Any]:
    return {
        "httpMethod": method, "resource": resource, "path": resource.format(**path), "pathParameters": path or None,
        "body": body, "headers": {}, "queryStringParameters": None, "requestContext": {"stage": "test"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        (rest("GET", "/students"), 200, '[{"id": 1, "name": "emmy"}]'),
        (rest("POST", "/students", '{"name": "ada"}'), 201, '{"id": 2, "name": "ada"}'),
        (rest("GET", "/students/{id}", id="1"), 200, '{"id": 1, "name": "emmy"}'),
        (rest("PUT", "/students/{id}", '{"name": "noether"}', id="1"), 200, "noether"),
        (rest("DELETE", "/students/{id}", id="1"), 200, "emmy"),
        (rest("GET", "/students/{id}", id="7"), 404, "there is no student 7"),
        (rest("GET", "/students/{id}", id="x"), 400, "invalid input syntax for type integer"),
        (rest("POST", "/students", "{"), 400, "the body is not JSON"),
        (rest("POST", "/students", "[1]"), 400, "the body is not a JSON object"),
        (rest("POST", "/students"), 400, "missing a required argument: 'name'"),
        (rest("POST", "/students", '{"name": "ada", "age": 1}'), 400, "unexpected keyword argument 'age'"),
        (rest("PATCH", "/students"), 404, "Not found"),
    ],
)
def test_a_request_has_the_answer_that_its_route_gives(
    handlers: Any, event: dict[str, Any], status: int, words: str
) -> None:
    answer = importlib.import_module("students").lambda_handler(event, None)
    assert (answer["statusCode"], words in answer["body"]) == (status, True), answer


def test_a_field_has_what_its_function_returns_or_raises(handlers: Any) -> None:
    handle = importlib.import_module("students").lambda_handler

    def ask(kind: str, field: str, **arguments: str) -> Any:
        return handle({"info": {"parentTypeName": kind, "fieldName": field}, "arguments": arguments}, None)

    assert ask("Mutation", "addStudent", name="ada") == {"id": 2, "name": "ada"}
    assert [one["name"] for one in ask("Query", "students")] == ["emmy", "ada"]
    with pytest.raises(handlers.NotFound, match="no student 7"):
        ask("Query", "student", id="7")
    with pytest.raises(ValueError, match="neither API Gateway's, with httpMethod, nor AppSync's"):
        handle({}, None)


def test_a_route_and_a_field_of_a_coroutine_have_what_it_returns(handlers: Any, sql: Sql) -> None:
    router = handlers.Router()

    @router.rest("POST", "/students")
    @router.graphql("Mutation", "addStudent")
    @handlers.transaction
    async def add_student(connection: Any, name: str) -> Any:
        return add(connection, name)

    assert json.loads(router.handle(rest("POST", "/students", '{"name": "ada"}'), None)["body"]) == {"name": "ada"}
    field = {"info": {"parentTypeName": "Mutation", "fieldName": "addStudent"}, "arguments": {"name": "eve"}}
    assert router.handle(field, None) == {"name": "eve"}
    assert sql(NAMES) == ["emmy", "ada", "eve"]


def test_schema_and_decorators_must_agree(handlers: Any) -> None:
    template = importlib.import_module(f"{PACKAGE}.template")
    router = handlers.Router()
    router.graphql("Query", "teacher")(lambda: None)
    with pytest.raises(SystemExit, match=r"schema.graphql do not have Query.teacher"):
        template.check("type Query { students: Int }", router.routes)
    with pytest.raises(SystemExit, match=r"the decorators do not have Query.students"):
        template.check("type Query { students: Int, teacher: Int }", router.routes)


def test_paths_that_look_alike_are_resources_of_their_own(handlers: Any) -> None:
    template = importlib.import_module(f"{PACKAGE}.template")
    router = handlers.Router()
    for path in ("/", "/students/id", "/students/{id}"):
        router.rest("GET", path)(lambda: None)
    made = template._rest({"Students": router.routes})
    parts = [one["Properties"]["PathPart"] for one in made.values() if one["Type"] == "AWS::ApiGateway::Resource"]
    assert sorted(parts) == ["id", "students", "{id}"]
    methods = [one["Properties"] for one in made.values() if one["Type"] == "AWS::ApiGateway::Method"]
    assert len(methods) == 3 and methods[0]["ResourceId"] == {"Fn::GetAtt": ["Api", "RootResourceId"]}


def test_a_token_of_iam_is_for_host_port_and_user_over_tls(handlers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("DATABASE_IAM", "true"), ("PGHOST", "db.example.com"), ("PGUSER", "functions"), ("PGPORT", "5433"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    found = sys.modules[f"{PACKAGE}.database"]._credentials()
    assert found["sslmode"] == "require"
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert sys.modules[f"{PACKAGE}.database"]._credentials()["sslmode"] == "verify-full"
    assert found["password"].startswith("db.example.com:5433/?Action=connect&DBUser=functions&")
