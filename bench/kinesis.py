"""kinesis_read beside a plain boto3 loop over the same stream, each in a process of its own."""

from __future__ import annotations

import base64
import http.server
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.rows import Connection, Row

PAGES, RECORDS, SIZE = 10, 10_000, 100  # pages of so many records of so many bytes

LOOP = """
import sys, time
sys.path.insert(0, sys.argv[1])
import boto3
keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
kinesis = boto3.client("kinesis", "us-east-1", endpoint_url=sys.argv[2], **keys)
def loop():
    many = 0
    for shard in kinesis.list_shards(StreamName="s")["Shards"]:
        asked = {"StreamName": "s", "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = kinesis.get_shard_iterator(**asked)["ShardIterator"]
        while iterator:
            page = kinesis.get_records(ShardIterator=iterator)
            many += len(page["Records"])
            iterator = page.get("NextShardIterator")
    return many
loop()
for line in sys.stdin:
    started = time.perf_counter()
    many = loop()
    print(many / (time.perf_counter() - started), flush=True)
"""


def reading(connect: Callable[[], Connection], rounds: int) -> list[Row]:
    """Records a second of both, in turn."""
    command = [sys.executable, "-m", "bench.kinesis"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{int(stub.stdout.readline())}"
        with connect() as session:
            row = session.execute("SELECT prosrc FROM pg_proc WHERE proname = 'kinesis_read'").fetchone()
            found = re.search(r'sys\.path\[0\] != "(.*?)"', row[0] if row else "")
            assert found is not None
            options = f"region 'us-east-1', endpoint_url_kinesis '{url}'"
            session.execute(f"CREATE SERVER bench FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")  # type: ignore[call-overload]
            ours, boto3 = rates(session, found[1], url, rounds)
            session.execute("DROP SERVER bench")
        stub.terminate()
    return [
        Row(
            "kinesis_read, records a second, x a boto3 loop's", ours / boto3, 0.9,
            f"{ours:.0f} / {boto3:.0f} records/s", at_least=True,
        )
    ]  # fmt: skip


def rates(session: Connection, folder: str, url: str, rounds: int) -> tuple[float, float]:
    loop = ["/usr/bin/python3", "-c", LOOP, folder, url]
    ours: list[float] = []
    boto3: list[float] = []
    with subprocess.Popen(loop, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for round_ in range(rounds + 1):
            started = time.perf_counter()
            statement = "SELECT count(*) FROM awslambda.kinesis_read('s', max_records => NULL, server => 'bench')"
            row = session.execute(statement).fetchone()
            assert row is not None and row[0] == PAGES * RECORDS
            rate = row[0] / (time.perf_counter() - started)
            print("", file=process.stdin, flush=True)
            if round_ > 0:  # the first one warms up
                ours.append(rate)
                boto3.append(float(process.stdout.readline()))
            else:
                process.stdout.readline()
        process.stdin.close()
    return statistics.median(ours), statistics.median(boto3)


DATA = base64.b64encode(json.dumps({"reading": "x" * (SIZE - 15)}).encode()).decode()
PAGE = json.dumps([
    {
        "SequenceNumber": f"4968056146271698585393864392201058849203266150981{number:07}",
        "ApproximateArrivalTimestamp": 1.5e9 + number / 1000, "PartitionKey": f"key-{number}", "Data": DATA,
    }
    for number in range(RECORDS)
])  # fmt: skip


class Stub(http.server.BaseHTTPRequestHandler):
    """One shard, whose pages are made once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        if operation == "ListShards":
            said = '{"Shards":[{"ShardId":"shard","SequenceNumberRange":{"StartingSequenceNumber":"1"}}]}'
        elif operation == "GetShardIterator":
            said = '{"ShardIterator":"1"}'
        else:
            page = int(body["ShardIterator"])
            following = f'"{page + 1}"' if page < PAGES else "null"
            said = f'{{"Records":{PAGE},"MillisBehindLatest":0,"NextShardIterator":{following}}}'
        answer = said.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    print(server.server_port, flush=True)
    server.serve_forever()
