"""awslambda.map beside what its calls must take if nothing but the function takes time."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench.rows import Connection, Row
from bench.stub import ANSWER

AT_ONCE, CALLS, LASTS = 32, 1600, 0.05  # seconds that the function takes

STATEMENT = """
SELECT count(*) FILTER (WHERE payload = '"ok"')
  FROM awslambda.map('f', array_fill('{"a": 1}'::jsonb, ARRAY[%s]), max_concurrency => %s, server => 'bench')
"""


def calling(connect: Callable[[], Connection], rounds: int) -> list[Row]:
    """The share of the ideal time that many calls take."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.map"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stub:
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{int(stub.stdout.readline())}"
        took: list[float] = []
        with connect() as session:
            options = f"region 'us-east-1', endpoint_url '{url}'"
            session.execute(f"CREATE SERVER bench FOREIGN DATA WRAPPER awslambda OPTIONS ({options})")  # type: ignore[call-overload]
            for _ in range(rounds + 1):
                started = time.perf_counter()
                row = session.execute(STATEMENT, (CALLS, AT_ONCE)).fetchone()
                took.append(time.perf_counter() - started)
                assert row is not None and row[0] == CALLS
            session.execute("DROP SERVER bench")
        stub.terminate()
    ideal, ours = CALLS / AT_ONCE * LASTS, statistics.median(took[1:])  # the first one warms up
    return [
        Row(
            f"map, {AT_ONCE} calls of {LASTS * 1000:g} ms at a time, share of the ideal", ideal / ours, 0.9,
            f"{ours * 1000:.0f} ms / {ideal * 1000:.0f} ms for {CALLS} calls", at_least=True,
        )
    ]  # fmt: skip


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request of a connection when the function's time has passed."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            await asyncio.sleep(LASTS)
            writer.write(ANSWER)
    except asyncio.IncompleteReadError:
        writer.close()


async def main() -> None:
    """Prints the port it listens on."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2 * AT_ONCE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
