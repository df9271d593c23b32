"""python -m awslambda_handlers.template STAGE: the template of a stage, with the API that the decorators declare.

Reads template.yaml and schema.graphql beside src/, imports the modules of the template's functions from src/, and
prints the template with a method of API Gateway for each @router.rest and a resolver of AppSync for each
@router.graphql. Both APIs let in who may by IAM. A field that is declared and not in the schema, or the other way
around, is an error.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import graphql
from samtranslator.yaml_helper import yaml_parse

from awslambda_handlers.router import Field, Rest, Router

ROOT = Path(__file__).parents[2]


def template(stage: str, base: dict[str, Any], schema: str, routers: dict[str, Router]) -> dict[str, Any]:
    """`routers` by the logical names of their functions in `base`."""
    fields = {name: [one for one in router.routes if isinstance(one, Field)] for name, router in routers.items()}
    check(schema, [one for declared in fields.values() for one in declared])
    resources = base["Resources"]
    base["Parameters"]["Stage"]["Default"] = stage
    outputs = base.setdefault("Outputs", {})
    routes = {
        name: declared
        for name, router in routers.items()
        if (declared := [one for one in router.routes if isinstance(one, Rest)])
    }
    if routes:
        resources |= _rest(routes)
        outputs["ApiUrl"] = {"Value": _sub("https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${Stage}")}
    for name in (name for name in fields if fields[name]):
        resources |= {f"{name}Source": _source(name)}
        resources |= {_logical(one.type_name, one.name): _resolver(name, one) for one in fields[name]}
    if any(fields.values()):
        resources |= _graphql(schema, [name for name, declared in fields.items() if declared])
    return base


def check(schema: str, declared: list[Field]) -> None:
    """SystemExit with the names of what is only in one of the two."""
    built = graphql.build_schema(schema)
    known = {
        (kind.name, name)
        for kind in (built.query_type, built.mutation_type)
        if kind is not None
        for name in kind.fields
    }
    wanted = {(one.type_name, one.name) for one in declared}
    for missing, where in ((wanted - known, "schema.graphql"), (known - wanted, "the decorators")):
        if missing:
            raise SystemExit(f"{where} do not have {', '.join(sorted('.'.join(one) for one in missing))}")


def _rest(routes: dict[str, list[Rest]]) -> dict[str, Any]:
    """The API with a resource for each part of a path, and a method for each route."""
    made: dict[str, Any] = {
        "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": _sub("${AWS::StackName}")}},
    }
    methods = []
    for name, declared in routes.items():
        made[f"{name}Permission"] = {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": name}, "Action": "lambda:InvokeFunction",
                "Principal": "apigateway.amazonaws.com",
                "SourceArn": _sub("arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/*"),
            },
        }  # fmt: skip
        for one in declared:
            where: dict[str, Any] = {"Fn::GetAtt": ["Api", "RootResourceId"]}
            parts = [part for part in one.path.split("/") if part]
            for depth, part in enumerate(parts, 1):
                resource = _logical("path", *parts[:depth])
                made[resource] = {
                    "Type": "AWS::ApiGateway::Resource",
                    "Properties": {"RestApiId": {"Ref": "Api"}, "ParentId": where, "PathPart": part},
                }
                where = {"Ref": resource}
            methods.append(_logical(one.method, one.path))
            made[methods[-1]] = _method(name, one, where)
    # A deployment is a picture of the methods, so other methods need another one.
    declared_now = json.dumps([made[method] for method in methods], sort_keys=True)
    deployment = f"Deployment{hashlib.sha256(declared_now.encode()).hexdigest()[:10]}"
    made[deployment] = {
        "Type": "AWS::ApiGateway::Deployment", "DependsOn": methods, "Properties": {"RestApiId": {"Ref": "Api"}},
    }  # fmt: skip
    made["ApiStage"] = {
        "Type": "AWS::ApiGateway::Stage",
        "Properties": {
            "RestApiId": {"Ref": "Api"}, "DeploymentId": {"Ref": deployment}, "StageName": {"Ref": "Stage"}
        },
    }  # fmt: skip
    return made


def _method(function: str, one: Rest, resource: dict[str, Any]) -> dict[str, Any]:
    uri = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${%s.Arn}/invocations"
    return {
        "Type": "AWS::ApiGateway::Method",
        "Properties": {
            "RestApiId": {"Ref": "Api"}, "ResourceId": resource, "HttpMethod": one.method,
            "AuthorizationType": "AWS_IAM",
            "Integration": {"Type": "AWS_PROXY", "IntegrationHttpMethod": "POST", "Uri": _sub(uri % function)},
        },
    }  # fmt: skip


def _graphql(schema: str, functions: list[str]) -> dict[str, Any]:
    arns = [{"Fn::GetAtt": [name, "Arn"]} for name in functions]
    trust = {"Effect": "Allow", "Principal": {"Service": "appsync.amazonaws.com"}, "Action": "sts:AssumeRole"}
    invoke = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arns}
    return {
        "GraphQL": {
            "Type": "AWS::AppSync::GraphQLApi",
            "Properties": {"Name": _sub("${AWS::StackName}"), "AuthenticationType": "AWS_IAM"},
        },
        "GraphQLSchema": {"Type": "AWS::AppSync::GraphQLSchema", "Properties": {"ApiId": _API, "Definition": schema}},
        "GraphQLRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                "Policies": [
                    {"PolicyName": "invoke", "PolicyDocument": {"Version": "2012-10-17", "Statement": [invoke]}}
                ],
            },
        },
    }


def _source(function: str) -> dict[str, Any]:
    return {
        "Type": "AWS::AppSync::DataSource",
        "Properties": {
            "ApiId": _API, "Name": function, "Type": "AWS_LAMBDA",
            "ServiceRoleArn": {"Fn::GetAtt": ["GraphQLRole", "Arn"]},
            "LambdaConfig": {"LambdaFunctionArn": {"Fn::GetAtt": [function, "Arn"]}},
        },
    }  # fmt: skip


def _resolver(function: str, one: Field) -> dict[str, Any]:
    return {
        "Type": "AWS::AppSync::Resolver",
        "DependsOn": "GraphQLSchema",
        "Properties": {
            "ApiId": _API, "TypeName": one.type_name, "FieldName": one.name,
            "DataSourceName": {"Fn::GetAtt": [f"{function}Source", "Name"]},
        },
    }  # fmt: skip


_API = {"Fn::GetAtt": ["GraphQL", "ApiId"]}


def _sub(text: str) -> dict[str, str]:
    return {"Fn::Sub": text}


def _logical(*parts: str) -> str:
    text = " ".join(parts).replace("{", " by ")  # /students/{id} is not /students/id
    words = "".join(letter if letter.isalnum() else " " for letter in text).split()
    return "".join(word[:1].upper() + word[1:] for word in words)


def scan(base: dict[str, Any]) -> dict[str, Router]:
    """The routers of the template's functions, which are variables `router` of their modules."""
    found = {}
    for name, resource in base["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            module = importlib.import_module(resource["Properties"]["Handler"].rpartition(".")[0])
            if isinstance(router := getattr(module, "router", None), Router):
                found[name] = router
    return found


def main(stage: str) -> None:
    """Prints the template. The stage is part of names of functions and stack, whose rules it has to follow."""
    if not re.fullmatch("[A-Za-z0-9-]+", stage):
        sys.exit(f"a stage has letters, digits and hyphens; this is {stage!r}")
    base = yaml_parse((ROOT / "template.yaml").read_text())
    written = template(stage, base, (ROOT / "schema.graphql").read_text(), scan(base))
    print(json.dumps(written, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
