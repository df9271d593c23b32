"""The local AWS as a process: how it starts, and that nothing is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import awslambda_local
import pytest
from awslambda_local import LocalAWS

FUNCTIONS = Path(__file__).parent / "functions"


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between open and read
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def command(tmp_path):
    """Starts the program itself, with its temporary files in a folder of its own."""
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": str(Path(awslambda_local.__file__).parent.parent),
        "AWS_PROFILE": "a-profile-that-does-not-exist",
    }
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambda_local", "--port=0", "--imds-port=0", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until_ready(process):
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == "ready":
            return lines
    pytest.fail(f"ended before it was ready: {lines}")


def busy_and_idle_handlers(endpoint_url):
    """Process ids of a warm handler, of one at work, and of a program that a handler started."""
    from awslambda_local.clients import local_client

    client = local_client("lambda", endpoint_url, "us-east-1")
    idle = json.loads(client.invoke(FunctionName="environment")["Payload"].read())["pid"]
    offspring = json.loads(client.invoke(FunctionName="offspring", Payload=b"{}")["Payload"].read())
    client.invoke(FunctionName="slow", Payload=b'{"seconds": 60}', InvocationType="Event")
    return [idle, offspring]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_all_handlers_and_files(command, tmp_path, number, wait_until):
    ready_file = tmp_path / "ready.json"
    process = command(f"--deploy={FUNCTIONS}", f"--ready-file={ready_file}")
    lines = until_ready(process)
    ready = json.loads(ready_file.read_text())
    assert set(ready) == {"endpoint_url", "imds_endpoint", "region", "account_id"}
    assert any(ready["endpoint_url"] in line for line in lines)
    assert any(ready["imds_endpoint"] in line for line in lines)
    assert "function echo" in lines
    pids = busy_and_idle_handlers(ready["endpoint_url"])
    assert all(map(alive, pids))
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    assert "Error" not in process.stdout.read()
    assert not any(map(alive, pids))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_kill_9_ends_the_handlers_too(command, tmp_path, wait_until):
    ready_file = tmp_path / "ready.json"
    process = command(f"--deploy={FUNCTIONS}", f"--ready-file={ready_file}")
    until_ready(process)
    pids = busy_and_idle_handlers(json.loads(ready_file.read_text())["endpoint_url"])
    process.kill()
    wait_until(lambda: not any(map(alive, pids)), "the handlers have ended")


def test_a_port_that_is_taken_is_told_without_a_traceback(aws, command):
    port = aws.endpoint_url.rsplit(":", 1)[1]
    process = command(f"--port={port}")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"Port {port} is in use" in output
    assert "Traceback" not in output


def test_stop_returns_when_all_is_gone(wait_until):
    aws = LocalAWS(deploy=[FUNCTIONS])
    aws.start()
    pids = [aws.pid, *busy_and_idle_handlers(aws.endpoint_url)]
    aws.stop()
    assert not any(map(alive, pids))
    assert "Traceback" not in aws.output
    aws.stop()


def test_idle_processes_are_capped_and_outdated_ones_ended(command, tmp_path, wait_until):
    ready_file = tmp_path / "ready.json"
    process = command(f"--deploy={FUNCTIONS}", f"--ready-file={ready_file}", "--idle-processes=1")
    until_ready(process)
    from awslambda_local.clients import local_client

    client = local_client("lambda", json.loads(ready_file.read_text())["endpoint_url"], "us-east-1")

    def pid():
        return json.loads(client.invoke(FunctionName="environment")["Payload"].read())["pid"]

    first = pid()
    client.invoke(FunctionName="echo")
    wait_until(lambda: not alive(first), "the process used longest ago has ended")
    second = pid()
    client.update_function_configuration(FunctionName="environment", Environment={"Variables": {"A": "1"}})
    assert pid() != second
    wait_until(lambda: not alive(second), "the process with the old environment has ended")


def test_the_accounts_concurrency_is_a_limit_for_all_functions():
    with LocalAWS(deploy=[FUNCTIONS], concurrency=0) as aws:
        client = aws.client("lambda")
        with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
            client.invoke(FunctionName="echo")
        assert caught.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"
