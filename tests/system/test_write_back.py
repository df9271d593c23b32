"""examples/write-back from its own Makefile: a stage of it in the local AWS, and functions that write back."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

from examples.stage import EXAMPLES, outside
from tests.waiting import wait_until

Sql = Callable[..., Any]
Make = Callable[..., "subprocess.CompletedProcess[str]"]
FOLDER = EXAMPLES / "write-back"
STUDENTS = json.dumps({"info": {"parentTypeName": "Query", "fieldName": "students"}, "arguments": {}})

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def make(aws: LocalAWS) -> Iterator[Make]:
    """make in the example's folder for the stage `test`, which is deployed."""
    environment = {**os.environ, **outside(aws)}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--silent", "-C", str(FOLDER), "STAGE=test", "REQUIREMENTS=", *arguments],
            env={**environment, **more}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    done = run("deploy")
    assert done.returncode == 0, done.stderr
    yield run
    assert run("delete").returncode == 0
    functions = [one["FunctionName"] for one in aws.client("lambda").list_functions()["Functions"]]
    assert not {"students-test", "score-order-test"} & set(functions)


@pytest.fixture
def secret(aws: LocalAWS, cluster: Cluster, sql: Sql) -> Iterator[None]:
    """The functions' database is the test's."""
    secrets = aws.client("secretsmanager")
    sql("CREATE ROLE functions LOGIN")
    where = {
        "host": str(cluster.folder), "port": cluster.port, "dbname": sql("SELECT current_database()"),
        "username": "functions", "password": "of-the-secret",
    }  # fmt: skip
    secrets.create_secret(Name="write-back/database", SecretString=json.dumps(where))
    yield
    secrets.delete_secret(SecretId="write-back/database", ForceDeleteWithoutRecovery=True)
    for name in ("students-test", "score-order-test"):  # another test has another database: processes begin anew
        aws.client("lambda").update_function_configuration(FunctionName=name, Description=where["dbname"])


@pytest.mark.parametrize("columns", ["columns => '{customer, amount}'", "operations => '{INSERT, UPDATE}'"])
def test_a_row_comes_back_into_another_table_and_no_loop_goes_on(
    make: Make, secret: None, sql: Sql, columns: str
) -> None:
    """With `columns` what the function writes is no event; without, it is one that changes nothing any more."""
    sql("CREATE TABLE orders (id int PRIMARY KEY, customer text, amount numeric, is_scored boolean DEFAULT false)")
    sql("CREATE TABLE order_score (order_id int PRIMARY KEY, score numeric NOT NULL)")
    sql("GRANT SELECT, INSERT, UPDATE ON orders, order_score TO functions")
    sql(f"SELECT awslambda.create_event_source_mapping('orders', 'score-order-test', {columns})")
    sql("INSERT INTO orders VALUES (1, 'albert', 40)")

    def quiet() -> bool:
        sql("CALL awslambda.dispatch()")
        return sql("SELECT count(*) FROM awslambda.outbox") == 0

    wait_until(quiet, "the outbox is empty and stays so")
    assert sql("SELECT (is_scored, score)::text FROM orders JOIN order_score ON order_id = id") == "(t,10)"
    events = 1 if "customer" in columns else 2
    assert sql("SELECT delivered FROM awslambda.status WHERE mapping IS NOT NULL") == events
    assert sql("SELECT count(*) FROM awslambda.dead_letter") == 0


def test_functions_are_invoked_and_their_logs_followed(make: Make, secret: None, sql: Sql, aws: LocalAWS) -> None:
    sql("CREATE TABLE student (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL)")
    sql("GRANT SELECT ON student TO functions")
    sql("INSERT INTO student (name) VALUES ('emmy''s')")
    done = make("invoke", "FUNCTION=students", f"PAYLOAD={STUDENTS}")
    assert json.loads(done.stdout) == [{"id": 1, "name": "emmy's"}]
    done = make("invoke", "FUNCTION=score-order", "PAYLOAD={}")
    assert done.returncode != 0 and json.loads(done.stdout)["errorType"] == "KeyError"
    done = make("invoke", "FUNCTION=none")
    assert done.returncode != 0 and "there is no function 'none-test' in us-east-1" in done.stderr
    done = make("tail", "FUNCTION=none")
    assert done.returncode != 0 and "there is no function 'none-test' in us-east-1" in done.stderr
    command = ["make", "--silent", "-C", str(FOLDER), "STAGE=test", "tail", "FUNCTION=score-order"]
    with subprocess.Popen(
        command, env={**os.environ, **outside(aws)}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as tail:  # fmt: skip
        assert tail.stdout is not None
        assert any("KeyError" in line for line in tail.stdout)
        os.killpg(tail.pid, signal.SIGINT)


def test_a_function_runs_in_this_process(make: Make, secret: None, sql: Sql) -> None:
    sql("CREATE TABLE student (id int, name text)")
    sql("GRANT SELECT ON student TO functions")
    done = make("run-local", f"PAYLOAD={STUDENTS}", DATABASE_SECRET="write-back/database")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    done = make("run-local", "PAYLOAD={")
    assert "the payload is not JSON" in done.stderr
    done = make("run-local", 'PAYLOAD={"price": "$5"')
    assert "Expecting ',' delimiter" in done.stderr and "column 15" in done.stderr, "a dollar has gone"
    done = make("run-local", "FUNCTION=none")
    assert done.returncode != 0 and done.stderr.startswith("there is no function 'none'")


def test_a_stage_is_deployed_again_and_has_what_the_decorators_declare(make: Make, aws: LocalAWS) -> None:
    done = make("deploy")
    assert done.returncode == 0 and done.stdout.startswith("ApiUrl\thttps://"), done.stderr
    gateway = aws.client("apigateway")
    [api] = [one["id"] for one in gateway.get_rest_apis()["items"] if one["name"] == "write-back-test"]
    methods = {
        (method, resource["path"]): gateway.get_method(restApiId=api, resourceId=resource["id"], httpMethod=method)
        for resource in gateway.get_resources(restApiId=api)["items"]
        for method in resource.get("resourceMethods", {})
    }
    assert set(methods) == {
        ("GET", "/students"), ("POST", "/students"), ("GET", "/students/{id}"), ("PUT", "/students/{id}"),
        ("DELETE", "/students/{id}"),
    }  # fmt: skip
    for method in methods.values():
        assert method["authorizationType"] == "AWS_IAM"
        assert "function:students-test/invocations" in method["methodIntegration"]["uri"]
    template = json.loads((FOLDER / "build" / "template-test.json").read_text())
    kinds = [one["Type"] for one in template["Resources"].values()]
    assert kinds.count("AWS::AppSync::Resolver") == 5
    assert template["Resources"]["GraphQL"]["Properties"]["AuthenticationType"] == "AWS_IAM"


def test_the_template_of_a_stage_is_what_cloudformation_takes(make: Make) -> None:
    done = subprocess.run(
        [str(EXAMPLES.parent / ".venv/bin/cfn-lint"), str(FOLDER / "build" / "template-test.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("stage", ["", "my_stage", "my stage"])
def test_a_stage_that_names_cannot_have_is_said_in_words(make: Make, stage: str) -> None:
    done = make("build", f"STAGE={stage}")
    assert done.returncode != 0 and f"hyphens; this is '{stage}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_build_without_its_requirements_fails_again(make: Make, tmp_path: Path) -> None:
    """Half a folder of them must not pass for all."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("psycopg==0.0.0\n")
    for _ in range(2):
        done = make("build", f"REQUIREMENTS={requirements}", "PLATFORM=any", "PYTHON=" + sys.executable)
        assert done.returncode != 0 and "psycopg==0.0.0" in done.stderr


def test_a_build_has_what_lambdas_machines_need(make: Make) -> None:
    done = make("build", "REQUIREMENTS=src/requirements.txt", "PYTHON_VERSION=3.12", "STAGE=real")
    assert done.returncode == 0, done.stderr
    code = FOLDER / "build" / "code"
    assert list((code / "psycopg_binary").glob("*cpython-312-x86_64-linux-gnu.so"))
    assert (code / "awslambda_handlers" / "router.py").exists() and (code / "aws_lambda_powertools").is_dir()
    packed = importlib.import_module("deploy.stack").packed(code)
    assert packed == importlib.import_module("deploy.stack").packed(code)
    assert len(packed) < 50 * 1024 * 1024  # what Lambda takes
