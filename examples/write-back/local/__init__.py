"""The secret, and the stack of the stage `local`; then what the API says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from examples.stage import EXAMPLES, Stage, outside

FOLDER = EXAMPLES / "write-back"
ORIGINS = {"requestContext": {"stage": "local"}, "headers": {}, "queryStringParameters": None}


def prepare(here: Stage) -> list[str]:
    """make deploy, as on AWS; the local AWS has the requirements."""
    where = {
        "host": str(here.cluster.folder), "port": here.cluster.port, "dbname": "postgres", "username": "functions",
        "password": "of-the-secret",
    }  # fmt: skip
    here.aws.client("secretsmanager").create_secret(Name="write-back/database", SecretString=json.dumps(where))
    make(here, "deploy", "REQUIREMENTS=")
    return []


def make(here: Stage, *arguments: str) -> str:
    """Runs the example's own make against the local AWS."""
    done = subprocess.run(
        ["make", "--silent", "-C", str(FOLDER), "STAGE=local", *arguments],
        env={**os.environ, **outside(here.aws)}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"make {arguments[0]} has failed: {done.stdout}")
    return done.stdout


def show(here: Stage) -> bool:
    """Prints students by REST and by GraphQL."""
    added = rest(here, "POST", "/students", body={"name": "emmy"})
    rest(here, "PUT", "/students/{id}", {"id": "1"}, {"name": "emmy noether"})
    rest(here, "GET", "/students")
    missing = rest(here, "GET", "/students/{id}", {"id": "7"})
    graphql(here, "Query", "student", {"id": "1"})
    gone = graphql(here, "Mutation", "removeStudent", {"id": "1"})
    return added["statusCode"] == 201 and missing["statusCode"] == 404 and gone == {"id": 1, "name": "emmy noether"}


def rest(
    here: Stage, method: str, resource: str, path: dict[str, str] | None = None, body: Any = None
) -> dict[str, Any]:
    """As API Gateway calls the function."""
    where = resource.format(**(path or {}))
    event = {
        **ORIGINS, "httpMethod": method, "resource": resource, "path": where, "pathParameters": path,
        "body": None if body is None else json.dumps(body),
    }  # fmt: skip
    answer: dict[str, Any] = invoke(here, event)
    print(f"   {method} {where} -> {answer['statusCode']} {answer['body']}")
    return answer


def graphql(here: Stage, kind: str, field: str, arguments: dict[str, str]) -> Any:
    """As AppSync calls the function."""
    answer = invoke(here, {"info": {"parentTypeName": kind, "fieldName": field}, "arguments": arguments})
    print(f"   {kind} {field} {json.dumps(arguments)} -> {json.dumps(answer)}")
    return answer


def invoke(here: Stage, event: dict[str, Any]) -> Any:
    return json.loads(make(here, "invoke", f"PAYLOAD={json.dumps(event)}"))
