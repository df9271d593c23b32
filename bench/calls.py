"""Calls from SQL, beside the unsigned floor and boto3 in the same backend."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.rows import Connection, Row

CALLS = 40
OURS = "SELECT public.awslambda_fn('f', '{\"a\": 1}')"

# What we are compared with, each as good as it can be; boto3 is the very one that is installed with the extension.
PEERS = """
CREATE FUNCTION floor(payload text) RETURNS text LANGUAGE plpython3u AS $$
  import http.client
  if "connection" not in SD:
      SD["connection"] = http.client.HTTPConnection("127.0.0.1", {port})
  SD["connection"].request("POST", "/2015-03-31/functions/f/invocations", payload)
  return SD["connection"].getresponse().read().decode()
$$;
CREATE FUNCTION boto3_cached(payload text) RETURNS text LANGUAGE plpython3u AS $$
  import sys
  if "client" not in SD:
      sys.path.insert(0, "{folder}")
      import boto3
      SD["client"] = boto3.client("lambda")
  return SD["client"].invoke(FunctionName="f", Payload=payload)["Payload"].read().decode()
$$;
CREATE FUNCTION of_2016(payload text) RETURNS text LANGUAGE plpython3u AS $$
  import sys
  sys.path.insert(0, "{folder}")
  import boto3
  client = boto3.client("lambda", "us-east-1")
  response = client.invoke(FunctionName="f", InvocationType="RequestResponse", Payload=payload)
  return response["Payload"].read().decode()
$$;
"""
TIMED = """
CREATE FUNCTION timed(statement text, calls int) RETURNS float8[] LANGUAGE plpgsql AS $$
DECLARE started timestamptz; took float8[];
BEGIN
  FOR i IN 1 .. calls LOOP
    started := clock_timestamp();
    EXECUTE statement;
    took := took || extract(epoch FROM clock_timestamp() - started)::float8;
  END LOOP;
  RETURN took;
END $$
"""


def prepare(session: Connection, port: int) -> None:
    """Makes the peers."""
    source = session.execute("SELECT prosrc FROM pg_proc WHERE proname = 'awslambda_fn' LIMIT 1").fetchone()
    folder = re.search(r'sys\.path\[0\] != "(.*?)"', source[0] if source else "")
    assert folder is not None
    session.execute(PEERS.format(port=port, folder=folder[1]))  # type: ignore[call-overload]
    session.execute(TIMED)


def warm_calls(connect: Callable[[], Connection], rounds: int) -> list[Row]:
    """Medians of many calls in backends that have called before, in turn."""
    statements = {"ours": OURS, "floor": "SELECT floor('{}')", "boto3": "SELECT boto3_cached('{}')"}
    sessions = {name: connect() for name in statements}
    took: dict[str, list[float]] = {name: [] for name in statements}
    for round_ in range(rounds + 1):
        for name, statement in statements.items():
            row = sessions[name].execute("SELECT timed(%s, %s)", (statement, CALLS)).fetchone()
            if round_ > 0:  # the first one warms up
                took[name] += row[0] if row else []
    for session in sessions.values():
        session.close()
    ours, floor, boto3 = (statistics.median(took[name]) * 1000 for name in ("ours", "floor", "boto3"))
    return [
        Row("awslambda_fn, warm, x the unsigned floor", ours / floor, 1.8, f"{ours:.3f} ms / {floor:.3f} ms"),
        Row("awslambda_fn, warm, x boto3's cached client", ours / boto3, 0.4, f"{ours:.3f} ms / {boto3:.3f} ms"),
    ]


def new_backends(connect: Callable[[], Connection], backends: int) -> list[Row]:
    """The first call of a backend: its time beside the 2016 function's, and the private memory it leaves."""
    statements = {"ours": OURS, "2016": "SELECT of_2016('{}')"}
    took: dict[str, list[float]] = {name: [] for name in statements}
    gained: dict[str, list[float]] = {name: [] for name in statements}
    with connect() as another:  # as in a server with many: what all of them map, the libraries, is nobody's alone
        for statement in statements.values():
            another.execute(statement)  # type: ignore[call-overload]
        for _ in range(backends):
            for name, statement in statements.items():
                with connect() as session:
                    before = private_memory(session.info.backend_pid)
                    started = time.perf_counter()
                    session.execute(statement)  # type: ignore[call-overload]
                    took[name].append(time.perf_counter() - started)
                    gained[name].append(private_memory(session.info.backend_pid) - before)
    ours, old = (statistics.median(took[name]) * 1000 for name in statements)
    memory, old_memory = (statistics.median(gained[name]) for name in statements)
    return [
        Row(
            "first call of a backend, x the 2016 function",
            ours / old,
            0.5,
            f"{ours:.0f} ms / {old:.0f} ms; wanted 0.25",
        ),
        Row("private memory of the first call, MB", memory, 20, f"the 2016 function: {old_memory:.0f} MB; wanted 12"),
    ]


def private_memory(pid: int) -> float:
    """Of a process, in MB: what it alone has (USS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE)) / 1024
