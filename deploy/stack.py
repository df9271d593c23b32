"""python -m deploy.stack: makes a stack of a SAM template, on AWS or on a local one, and uses its functions.

    python -m deploy.stack deploy template.yaml NAME [--bucket BUCKET] [Parameter=value ...]
    python -m deploy.stack delete NAME
    python -m deploy.stack invoke FUNCTION [PAYLOAD]
    python -m deploy.stack tail FUNCTION [--since SECONDS]

Where that is, say boto3's own variables: AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL. Code goes into the
bucket under the hash of its files, by default into `awslambda-ACCOUNT-REGION`, which is made if it is not there. SAM's
resources are translated here, with SAM's own translator, so that an endpoint that does not know them can have the
template.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from samtranslator.public.exceptions import InvalidDocumentException
from samtranslator.public.translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same files are the same archive
LATE = 60_000  # milliseconds by which lines of a log may come out of order


class Failed(Exception):
    """What cannot be done, and why."""


class Account:
    """Where stacks are made: the account and region that boto3's session finds, or a local AWS."""

    def __init__(self, session: boto3.Session) -> None:
        self.session = session

    def client(self, service: str, config: Config | None = None) -> Any:
        return self.session.client(service, config=config)

    def deploy(self, path: Path, name: str, parameters: dict[str, str], bucket: str = "") -> dict[str, str]:
        """Makes the stack, or changes it; its outputs. The template's functions are packaged from its folder."""
        if not path.is_file():
            raise Failed(f"there is no template {path}")
        template = yaml_parse(path.read_text())
        self._package(template, path.parent, bucket)
        return self.create(self.translated(template, parameters), name, parameters)

    def create(self, template: dict[str, Any], name: str, parameters: dict[str, str]) -> dict[str, str]:
        """Makes or changes a stack of a plain template, and waits for it. Parameters that are not given stay."""
        formation = self.client("cloudformation")
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        call = {
            "StackName": name,
            "TemplateBody": json.dumps(template),
            "Parameters": given,
            "Capabilities": CAPABILITIES,
        }
        try:
            formation.create_stack(**call)
            done = "stack_create_complete"
        except formation.exceptions.AlreadyExistsException:
            done = "stack_update_complete"
            [stack] = formation.describe_stacks(StackName=name)["Stacks"]
            had = {parameter["ParameterKey"] for parameter in stack.get("Parameters", [])}
            kept = sorted(had & template.get("Parameters", {}).keys() - parameters.keys())
            call["Parameters"] = given + [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
            try:
                formation.update_stack(**call)
            except ClientError as error:
                if "No updates" not in str(error):
                    raise
                done = ""
        if done:
            self._wait(done, name)
        [stack] = formation.describe_stacks(StackName=name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def delete(self, name: str) -> None:
        """Removes the stack and all that it made."""
        self.client("cloudformation").delete_stack(StackName=name)
        self._wait("stack_delete_complete", name)

    def _wait(self, state: str, name: str) -> None:
        """Up to an hour: the network interfaces of functions in a VPC take half of that to go away."""
        formation = self.client("cloudformation")
        try:
            formation.get_waiter(state).wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 3600})
        except WaiterError:
            reasons = []
            for event in formation.describe_stack_events(StackName=name)["StackEvents"]:  # the newest are first
                reason = event.get("ResourceStatusReason", "")
                if reason == "User Initiated":
                    break
                if event["ResourceStatus"].endswith("FAILED"):
                    reasons.insert(0, f"{event['LogicalResourceId']}: {reason}")
            raise Failed("\n".join([f"the stack {name} has failed", *reasons])) from None

    def translated(self, template: dict[str, Any], parameters: dict[str, str]) -> dict[str, Any]:
        """The template without SAM's resources."""
        if "Transform" not in template:
            return template
        given = {key: value["Default"] for key, value in template.get("Parameters", {}).items() if "Default" in value}
        try:
            plain: dict[str, Any] = transform(
                template, {**given, **parameters}, ManagedPolicyLoader(self.client("iam"))
            )
        except InvalidDocumentException as error:
            raise Failed("\n".join(cause.message for cause in error.causes)) from None
        return plain

    def _package(self, template: dict[str, Any], folder: Path, bucket: str) -> None:
        shared = template.get("Globals", {}).get("Function", {}).get("CodeUri")
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                code = resource["Properties"].get("CodeUri", shared)
                resource["Properties"]["CodeUri"] = self._upload(folder / code, bucket)

    def _upload(self, folder: Path, bucket: str) -> dict[str, str]:
        archive = packed(folder)
        account, storage = self.client("sts").get_caller_identity()["Account"], self.client("s3")
        bucket = bucket or f"awslambda-{account}-{self.session.region_name}"
        try:
            storage.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)  # others can guess its name
        except ClientError:
            where = {"LocationConstraint": self.session.region_name}
            storage.create_bucket(
                Bucket=bucket,
                **({} if self.session.region_name == "us-east-1" else {"CreateBucketConfiguration": where}),
            )
        key = f"{hashlib.sha256(archive).hexdigest()}.zip"
        storage.put_object(Bucket=bucket, Key=key, Body=archive)
        return {"Bucket": bucket, "Key": key}

    def invoke(self, function: str, payload: str) -> tuple[str, str | None]:
        """Its answer, and the kind of its error."""
        # A function runs for 15 minutes at most; a retry after a time-out would call it again.
        functions = self.client(
            "lambda", Config(read_timeout=910, tcp_keepalive=True, retries={"total_max_attempts": 1})
        )
        try:
            answer = functions.invoke(FunctionName=function, Payload=payload.encode())
        except functions.exceptions.ResourceNotFoundException:
            raise self._missing(function) from None
        return answer["Payload"].read().decode(), answer.get("FunctionError")

    def tail(self, function: str, since: float) -> Iterator[str]:
        """Lines of the function's log from so many seconds ago on, and then as they come."""
        functions, logs = self.client("lambda"), self.client("logs")
        try:
            functions.get_function_configuration(FunctionName=function)
        except functions.exceptions.ResourceNotFoundException:
            raise self._missing(function) from None
        start, seen = int((time.time() - since) * 1000), set[str]()
        while True:
            try:
                pages = logs.get_paginator("filter_log_events").paginate(
                    logGroupName=f"/aws/lambda/{function}", startTime=start
                )
                for event in [event for page in pages for event in page["events"]]:
                    if event["eventId"] not in seen:
                        seen.add(event["eventId"])
                        start = max(start, event["timestamp"] - LATE)
                        yield event["message"].rstrip("\n")
            except logs.exceptions.ResourceNotFoundException:
                pass  # it has not run yet
            time.sleep(1)

    def _missing(self, function: str) -> Failed:
        return Failed(f"there is no function {function!r} in {self.session.region_name}")


def packed(folder: Path) -> bytes:
    """The archive of a folder's code."""
    if not folder.is_dir():
        raise Failed(f"there is no folder {folder}: make build")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            entry = zipfile.ZipInfo(str(file.relative_to(folder)), EPOCH)
            entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return buffer.getvalue()


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not Parameter=value")
    return key, value


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", help="make a stack, or change it")
    deploy.add_argument("template", type=Path)
    deploy.add_argument("name")
    deploy.add_argument("parameters", nargs="*", type=_parameter, metavar="Parameter=value")
    deploy.add_argument("--bucket", default="", help="for code (default: awslambda-ACCOUNT-REGION)")
    commands.add_parser("delete", help="remove a stack").add_argument("name")
    invoke = commands.add_parser("invoke", help="call a function and wait for its answer")
    invoke.add_argument("function")
    invoke.add_argument("payload", nargs="?", default="{}")
    tail = commands.add_parser("tail", help="follow a function's log")
    tail.add_argument("function")
    tail.add_argument("--since", type=float, default=600, help="seconds (default: 600)")
    return parser


def main() -> int:
    """Runs a command; 1 if what it asked for failed."""
    asked = parser().parse_args()
    try:
        account = Account(boto3.Session())
        if not account.session.region_name:
            raise Failed("there is no region: set AWS_DEFAULT_REGION")
        if asked.command == "deploy":
            outputs = account.deploy(asked.template, asked.name, dict(asked.parameters), asked.bucket)
            for key, value in outputs.items():
                print(f"{key}\t{value}")
        elif asked.command == "delete":
            account.delete(asked.name)
        elif asked.command == "invoke":
            answer, error = account.invoke(asked.function, asked.payload)
            print(answer)
            return 1 if error else 0
        else:
            for line in account.tail(asked.function, asked.since):
                print(line, flush=True)
    except (Failed, BotoCoreError, ClientError) as error:
        print(f"deploy.stack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
