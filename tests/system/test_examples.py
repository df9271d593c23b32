"""make example NAME=...: each example does on the local AWS what its README says."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster

import examples.__main__
from examples.stage import EXAMPLES, Stage
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
NAMES = sorted({path.parent.name for path in (ROOT / "examples").glob("*/*.sql")})


@pytest.mark.parametrize("name", NAMES)
def test_an_example_prints_what_its_readme_shows(name: str) -> None:
    done = example(name)
    assert done.returncode == 0, done.stdout + done.stderr
    readme = (ROOT / "examples" / name / "README.md").read_text()
    for block in re.findall(r"```text\n(.*?)```", readme, re.DOTALL):
        for line in timeless(block).splitlines():
            assert line in timeless(done.stdout), line


def test_a_name_that_is_none_is_said_in_words() -> None:
    done = example("weather")
    assert done.returncode == 2
    assert "there is no example 'weather'; there are address-change" in done.stderr


def test_times_are_utc_in_any_time_zone() -> None:
    """The example reads its metrics of the last two hours back: readings of another time are not among them."""
    done = example("temperature", PGTZ="Pacific/Auckland")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "build" / "temperature.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("new-user", "There is no Lambda function 'on-new-user' in us-east-1."),
        ("hello", "There is no Lambda function 'lambdaTest' in us-east-1."),
    ],
)
def test_a_function_that_is_missing_is_said_in_words(name: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with LocalAWS() as aws, Cluster(aws.environment) as cluster:
        assert not examples.__main__.play(Stage(aws, cluster), name)
    shown = capfd.readouterr()
    assert words in shown.out and "A statement has failed" in shown.err


def test_a_role_that_is_missing_is_said_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    with LocalAWS(deploy=[EXAMPLES / "hello"], instance_role=False) as aws, Cluster(aws.environment) as cluster:
        assert not examples.__main__.play(Stage(aws, cluster), "hello")
    assert "credentials" in capfd.readouterr().out


def test_a_table_that_is_missing_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    temperature = importlib.import_module("examples.temperature.local")
    monkeypatch.setattr(temperature, "prepare", lambda here: [])
    monkeypatch.setattr(temperature, "show", lambda here: False)  # after its half a minute
    with LocalAWS(deploy=[EXAMPLES / "temperature"]) as aws, Cluster(aws.environment) as cluster:
        assert not examples.__main__.play(Stage(aws, cluster), "temperature")
    words = r"/aws/lambda/lambdaTempReadingBatch: \[ERROR\] ResourceNotFoundException: .*PutItem"
    assert re.search(words, capfd.readouterr().err)


def test_a_reading_that_comes_again_counts_once_in_any_process() -> None:
    with LocalAWS(deploy=[EXAMPLES / "temperature"]) as aws, Cluster(aws.environment) as cluster:
        temperature = importlib.import_module("examples.temperature.local")
        temperature.prepare(Stage(aws, cluster))
        functions, now = aws.client("lambda"), datetime.datetime.now(datetime.timezone.utc)
        minute = now.replace(second=0, microsecond=0, tzinfo=None).isoformat()
        readings = [{"reading_time": minute, "reading_value": number} for number in range(200)]
        batch = {"Records": [{"eventID": str(number), "new": reading} for number, reading in enumerate(readings)]}
        single = {**readings[7], "id": "7"}
        for name, event in (("lambdaTempReadingBatch", batch), ("lambdaTempReadingTrigger", single)):
            for description in ("one", "another"):  # which makes new processes
                functions.update_function_configuration(FunctionName=name, Description=description)
                answer = functions.invoke(FunctionName=name, Payload=json.dumps(event))
                assert "FunctionError" not in answer, answer["Payload"].read()
        for metric, wanted in (("In Batches", (200, 199)), ("Temperature Reading", (1, 7))):
            [point] = aws.client("cloudwatch").get_metric_statistics(
                Namespace=temperature.NAMESPACE, MetricName=metric, Statistics=["SampleCount", "Maximum"], Period=60,
                StartTime=now - datetime.timedelta(minutes=5), EndTime=now + datetime.timedelta(minutes=5),
            )["Datapoints"]  # fmt: skip
            assert (point["SampleCount"], point["Maximum"]) == wanted


def test_of_two_sessions_on_one_row_completion_tells_who_won_and_intention_who_tried() -> None:
    script = (EXAMPLES / "address-change" / "address_change.sql").read_text()
    with LocalAWS(deploy=[EXAMPLES / "address-change"]) as aws, Cluster(aws.environment) as cluster:
        with contextlib.ExitStack() as stack:
            admin, one, two = (stack.enter_context(psycopg.connect(cluster.dsn(), autocommit=True)) for _ in range(3))
            admin.execute("CREATE EXTENSION awslambda CASCADE")
            admin.execute(script.split("-- A repair")[0])
            for intention in (True, False):
                call = f"CALL update_address(1, %s, intention => {intention})"
                one.execute("BEGIN")
                one.execute(call, ["one"])
                waiting = threading.Thread(target=two.execute, args=(call, ["two"]))
                waiting.start()
                wait_until(
                    lambda: admin.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None,
                    "the other session waits for the row",
                )
                one.execute("ROLLBACK")
                waiting.join()
                admin.execute("CALL awslambda.dispatch()")
        address_change = importlib.import_module("examples.address-change.local")
        told = ["one (intention)", "two (completion)", "two (intention)"]
        told = [f"address of customer 1: {text}" for text in told]
        wait_until(lambda: sorted(address_change.logged(aws.client("logs"))) == told, "they are told, and nobody else")


def example(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples", name], cwd=ROOT, env={**os.environ, **environment}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip


def timeless(text: str) -> str:
    """Without times, and without how wide psql makes a column."""
    return re.sub(r"[ -]+", " ", re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "(a time)", text))
