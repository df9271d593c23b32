"""The cheapest Lambda endpoint there is: answers each POST on a kept connection with the same 200, from one thread.

With an argument it notes there when each small request came, by the monotonic clock, and its body.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from pathlib import Path

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx-amzn-RequestId: r\r\nX-Amz-Executed-Version: $LATEST\r\n\r\n"ok"'


def main() -> None:
    """Prints the port it listens on; ends with its standard input."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    arrivals = Path(sys.argv[1]).open("wb", buffering=0) if len(sys.argv) > 1 else None  # noqa: SIM115
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    received: dict[socket.socket, bytes] = {}
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(client, selectors.EVENT_READ)
                received[client] = b""
                continue
            client = key.fileobj  # type: ignore[assignment]
            data = client.recv(65536)
            if not data:
                ready.unregister(client)
                client.close()
                del received[client]
                continue
            received[client] += data
            while (whole := request_length(received[client])) is not None:
                if arrivals is not None and b'{"late"' in received[client][:whole]:
                    body = received[client][:whole].split(b"\r\n\r\n", 1)[1]
                    arrivals.write(f"{time.monotonic()} ".encode() + body + b"\n")
                received[client] = received[client][whole:]
                client.sendall(ANSWER)


def request_length(data: bytes) -> int | None:
    """Bytes of the first request in `data`, once it is complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = data[:end].lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    return end + 4 + length if len(data) >= end + 4 + length else None


if __name__ == "__main__":
    main()
