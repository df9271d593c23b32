"""python -m deploy.iam > deploy/iam.json: the roles of policies/ as a CloudFormation template.

The documents are the one source, here and in terraform/: ${partition}, ${region} and ${account_id} in them are
CloudFormation's pseudo parameters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POLICIES = Path(__file__).parent / "policies"
PSEUDO = {"${partition}": "${AWS::Partition}", "${region}": "${AWS::Region}", "${account_id}": "${AWS::AccountId}"}


def template() -> dict[str, Any]:
    """The roles awslambda-instance, with its instance profile, and awslambda-reports, which it may assume."""
    instance, reports = _role("instance"), {**_role("reports"), "DependsOn": "Instance"}
    profile = {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {"InstanceProfileName": "awslambda-instance", "Roles": [{"Ref": "Instance"}]},
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Who PostgreSQL is in AWS, and what it may. Written by python -m deploy.iam from policies/",
        "Resources": {"Instance": instance, "InstanceProfile": profile, "Reports": reports},
        "Outputs": {
            "InstanceProfileName": {"Value": {"Ref": "InstanceProfile"}},
            "ReportsRoleArn": {"Value": {"Fn::GetAtt": ["Reports", "Arn"]}},
        },
    }


def _role(name: str) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": f"awslambda-{name}",
            "AssumeRolePolicyDocument": document(f"{name}-trust"),
            "Policies": [{"PolicyName": "awslambda", "PolicyDocument": document(name)}],
        },
    }


def document(name: str) -> Any:
    """A policy document with CloudFormation's functions in the place of ours."""
    return _filled(json.loads((POLICIES / f"{name}.json").read_text()))


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner) for inner in value]
    if "${" not in value:
        return value
    for ours, pseudo in PSEUDO.items():
        value = value.replace(ours, pseudo)
    return {"Fn::Sub": value}


if __name__ == "__main__":
    print(json.dumps(template(), indent=2))
