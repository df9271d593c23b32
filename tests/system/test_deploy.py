"""deploy/: stacks and Terraform that are what they say, and examples that run on what a stack made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hcl2
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster
from samtranslator.yaml_helper import yaml_parse

import examples.__main__
from deploy import iam
from examples.stage import EXAMPLES, Stage, outside

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NAMES = sorted({path.parent.name for path in EXAMPLES.glob("*/*.sql")} - {"write-back"})  # which has a stack of its own


@pytest.fixture(scope="module")
def account() -> Iterator[LocalAWS]:
    """A local AWS with both stacks, and no function from a folder."""
    with LocalAWS() as aws:
        for template, name in (("iam.json", "awslambda-iam"), ("examples.yaml", "awslambda-examples")):
            done = subprocess.run(
                [sys.executable, "-m", "deploy.stack", "deploy", DEPLOY / template, name],
                cwd=ROOT, env={**os.environ, **outside(aws)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        yield aws


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_on_what_the_stack_made(account: LocalAWS, name: str) -> None:
    with Cluster(account.environment) as cluster:
        assert examples.__main__.play(Stage(account, cluster), name)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["deploy", "none.yaml", "none"], {}, "there is no template none.yaml"),
        (["deploy", "deploy/iam.json", "none", "Stage"], {}, "'Stage' is not Parameter=value"),
        (["deploy", "deploy/examples.yaml", "none"], {"AWS_DEFAULT_REGION": ""}, "there is no region: set"),
        (["delete", "none"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
        (["delete", "none"], {"AWS_PROFILE": "none"}, "The config profile (none) could not be found"),
    ],
)  # fmt: skip
def test_what_cannot_be_deployed_is_said_in_words(
    account: LocalAWS, arguments: list[str], environment: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.stack", *arguments],
        cwd=ROOT, env={**os.environ, **outside(account), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_template_that_sam_does_not_know_is_said_in_words(account: LocalAWS, tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(
        "{Transform: AWS::Serverless-2016-10-31, Resources: "
        "{Odd: {Type: AWS::Serverless::Function, Properties: {CodeUri: ., Handler: a.b}}}}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "deploy.stack", "deploy", path, "odd"],
        cwd=ROOT, env={**os.environ, **outside(account)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Runtime and Handler" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_template_of_the_roles_is_what_the_policies_say() -> None:
    assert json.loads((DEPLOY / "iam.json").read_text()) == iam.template(), "python -m deploy.iam > deploy/iam.json"


@pytest.mark.parametrize("template", ["deploy/iam.json", "deploy/examples.yaml", "examples/write-back/template.yaml"])
def test_cloudformation_takes_the_templates(template: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), ROOT / template], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_instance_may_call_the_functions_of_the_examples_and_no_others() -> None:
    resources = yaml_parse((DEPLOY / "examples.yaml").read_text())["Resources"].values()
    functions = {one["Properties"]["FunctionName"] for one in resources if one["Type"] == "AWS::Serverless::Function"}
    [statement] = [
        one
        for one in json.loads((DEPLOY / "policies" / "instance.json").read_text())["Statement"]
        if one["Action"] == "lambda:InvokeFunction"
    ]
    named = {resource.rpartition(":")[2] for resource in statement["Resource"]}
    assert named == functions - {"on-audit-log"} | {"score-order-dev"}  # the first is Lambda's own mapping's


def test_terraform_makes_the_same_roles_of_the_same_documents() -> None:
    text = (DEPLOY / "terraform" / "main.tf").read_text()
    parsed = hcl2.loads(text)
    used = set(re.findall(r'templatefile\("\$\{path\.module\}/\.\./policies/([a-z-]+)\.json", local\.names\)', text))
    assert used == {path.stem for path in (DEPLOY / "policies").glob("*.json")}
    [local] = parsed["locals"]
    wanted = {
        name for path in (DEPLOY / "policies").glob("*.json") for name in re.findall(r"\${(\w+)}", path.read_text())
    }
    assert wanted <= set(local["names"])
    assert "RoleName" not in text and {f"awslambda-{name}" for name in ("instance", "reports")} == set(
        re.findall(r'name += "(awslambda-\w+)"', text)
    )


def test_terraform_would_format_nothing(tmp_path: Path) -> None:
    """By Terraform's own formatter, as npm has it."""
    installed = subprocess.run(
        ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", tmp_path, "@cdktf/hcl-tools@0.21.0"],
        capture_output=True, check=False,
    ) if shutil.which("npm") else None  # fmt: skip
    if installed is None or installed.returncode:
        pytest.skip("needs npm, for Terraform's formatter")
    path = DEPLOY / "terraform" / "main.tf"
    script = (
        "require('@cdktf/hcl-tools').format(require('fs').readFileSync(process.argv[1], 'utf8'))"
        ".then(text => process.stdout.write(text))"
    )
    done = subprocess.run(["node", "-e", script, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == path.read_text()
