"""Doubles of Kinesis: npm's kinesis-local, which reshards, expires and pages as AWS does, and a proxy with faults.

The local AWS has streams too; these are for what it does not do.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from tests.endpoints import Behaviour, Endpoint, Received, answer, closed_port
from tests.waiting import wait_until


def aggregate(*records: tuple[str, str | None, bytes]) -> bytes:
    """Keys, explicit hash keys and data as the encoder of the package aws-kinesis-agg puts them together."""
    import aws_kinesis_agg.aggregator

    with contextlib.redirect_stdout(io.StringIO()):
        aggregator = aws_kinesis_agg.aggregator.RecordAggregator()
        for key, hash_key, data in records:
            aggregator.add_user_record(key, data, hash_key)
        return bytes(aggregator.clear_and_get().get_contents()[2])


PACKAGE = "kinesis-local@0.6.2"


class Streams:
    """An endpoint of Kinesis, and a client of it."""

    def __init__(self, url: str, region: str = "us-east-1") -> None:
        self.url = url
        self.client: Any = botocore.session.get_session().create_client(
            "kinesis", region, endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b"
        )

    @property
    def server(self) -> str:
        """The statement that makes the server aws of it."""
        return (
            "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda"
            f" OPTIONS (region 'us-east-1', endpoint_url_kinesis '{self.url}')"
        )

    def create(self, name: str, shards: int = 1) -> None:
        self.client.create_stream(StreamName=name, ShardCount=shards)
        self.wait(name)

    def wait(self, name: str) -> None:
        """Until it is no longer being changed."""

        def active() -> bool:
            summary = self.client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
            return bool(summary["StreamStatus"] == "ACTIVE")

        wait_until(active, f"the stream {name} is active")

    def put(self, name: str, *records: bytes, key: str = "key") -> None:
        """One by one, so that they are in this order."""
        for record in records:
            self.client.put_record(StreamName=name, Data=record, PartitionKey=key)

    def put_many(self, name: str, records: list[tuple[str, bytes]]) -> None:
        """Pairs of key and data, in batches, each key's in order."""
        for start in range(0, len(records), 500):
            entries = [{"PartitionKey": key, "Data": data} for key, data in records[start : start + 500]]
            assert self.client.put_records(StreamName=name, Records=entries)["FailedRecordCount"] == 0

    def shards(self, name: str) -> list[dict[str, Any]]:
        return list(self.client.list_shards(StreamName=name)["Shards"])

    def split(self, name: str, shard_id: str) -> None:
        shard = next(one for one in self.shards(name) if one["ShardId"] == shard_id)
        middle = sum(int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey")) // 2
        self.client.split_shard(StreamName=name, ShardToSplit=shard_id, NewStartingHashKey=str(middle))
        self.wait(name)

    def merge(self, name: str, shard_id: str, other: str) -> None:
        self.client.merge_shards(StreamName=name, ShardToMerge=shard_id, AdjacentShardToMerge=other)
        self.wait(name)


@contextlib.contextmanager
def kinesis_local() -> Iterator[Streams]:
    """Runs npm's kinesis-local."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, for kinesis-local")
    with tempfile.TemporaryDirectory(prefix="awslambda-streams-", dir="/tmp") as folder:
        installed = subprocess.run(
            ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", folder, PACKAGE],
            capture_output=True, check=False,
        )  # fmt: skip
        if installed.returncode:
            pytest.skip("npm reaches no registry")
        port = closed_port()
        environment = {
            "PATH": os.environ["PATH"], "KINESIS_MOCK_PLAIN_PORT": str(port), "LOG_LEVEL": "ERROR",
            "KINESIS_MOCK_TLS_PORT": str(closed_port()), "SHARD_LIMIT": "1000",
        }  # fmt: skip
        package = Path(folder, "node_modules", "kinesis-local")
        with subprocess.Popen(
            ["node", "main.js"], cwd=package, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                wait_until(lambda: _listens(port), "kinesis-local listens")
                yield Streams(f"http://127.0.0.1:{port}")
            finally:
                process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class FaultyStreams(Streams):
    """A proxy in front of Kinesis. `faults` has behaviours by operation, the next one first: each replaces one answer;
    `changes` change what Kinesis says."""

    def __init__(self, behind: Streams) -> None:
        self._host = behind.url.removeprefix("http://")
        self.endpoint = Endpoint(self._behave)
        self.faults: dict[str, list[Behaviour]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.changes: dict[str, Any] = {}
        super().__init__(self.endpoint.url)

    def _behave(self, connection: socket.socket, received: Received) -> bool:
        operation = received.headers["x-amz-target"].rpartition(".")[2]
        self.asked.append((operation, json.loads(received.body)))
        if self.faults.get(operation):
            return self.faults[operation].pop(0)(connection, received)
        upstream = http.client.HTTPConnection(self._host)
        headers = {name: value for name, value in received.headers.items() if name != "host"}
        upstream.request(received.method, received.path, received.body, headers)
        response = upstream.getresponse()
        said = json.loads(response.read() or b"{}")
        upstream.close()
        if response.status == 200 and operation in self.changes:
            said = self.changes[operation](said)
        kind = said.get("__type", "")
        return answer(response.status, said, **({"x_amzn_ErrorType": kind} if kind else {}))(connection, received)
