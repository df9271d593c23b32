"""examples/kinesis: the way of 2016 and today's read the same."""

from __future__ import annotations

import re
import sys

from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster
from awslambda_local.deploy import ROLE, find_functions

from tests.docs.markdown import ROOT

EXAMPLE = ROOT / "examples" / "kinesis"


def test_both_ways_read_the_three_readings_as_the_readme_shows(aws: LocalAWS, cluster: Cluster, database: str) -> None:
    client = aws.client("lambda")
    names = {function["FunctionName"] for function in client.list_functions()["Functions"]}
    for source in find_functions(EXAMPLE):
        if source.name not in names:
            client.create_function(
                FunctionName=source.name, Runtime=f"python3.{sys.version_info.minor}", Handler=source.handler,
                Role=f"arn:aws:iam::{aws.account_id}:role/{ROLE}", Code={"ZipFile": source.archive},
                Timeout=source.settings.timeout,
            )  # fmt: skip
    script = (EXAMPLE / "kinesis.sql").read_text().replace("MySensorReadings", "ExampleReadings")
    aws.client("kinesis").create_stream(StreamName="ExampleReadings", ShardCount=1)
    done = cluster.psql("-v", "ON_ERROR_STOP=1", database=database, sql=script)
    assert done.returncode == 0, done.stderr
    notices, rows = re.findall(r"```text\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert "".join(f"{line}\n" for line in done.stderr.splitlines() if "Time" in line) == notices
    assert rows in done.stdout
