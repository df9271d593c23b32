"""The dispatcher's HTTP endpoint: GET /health for containers, GET /metrics in Prometheus's text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from awslambda import status
from awslambda.database import DatabaseError

FRESH = 10.0  # seconds: a session that has not answered for longer is not healthy
PATIENCE = 5.0  # seconds for a client to send its request
KEPT = 1.0  # seconds that an answer about the database is good for, however many ask

# Of a mapping: name, type, column of awslambda.status, help.
OF_MAPPING = (
    ("awslambda_enabled", "gauge", "enabled", "1 if the mapping is enabled."),
    ("awslambda_paused", "gauge", "paused_reason", "1 if delivery is paused until somebody acts."),
    ("awslambda_pending", "gauge", "pending", "Records that wait in the outbox."),
    ("awslambda_in_flight", "gauge", "in_flight", "Records that are being sent."),
    ("awslambda_oldest_age_seconds", "gauge", "oldest_age", "Age of the oldest record that waits."),
    ("awslambda_delivered_total", "counter", "delivered", "Records delivered."),
    ("awslambda_failed_total", "counter", "failed", "Deliveries that failed and are tried again."),
    ("awslambda_dead", "gauge", "dead", "Records in awslambda.dead_letter."),
)
OF_PROCESS = (
    ("awslambda_dispatcher_delivered_total", "counter", "delivered", "Records that this process delivered."),
    ("awslambda_dispatcher_failed_total", "counter", "failed", "Deliveries of this process that failed."),
    ("awslambda_dispatcher_dead_total", "counter", "dead", "Records that this process gave up."),
)


@dataclass(frozen=True)
class Snapshot:
    """How the dispatcher is. `age` is how long ago Postgres last answered, in seconds; None if it never did."""

    state: str
    age: float | None
    in_flight: int
    counters: Mapping[str, int]

    @property
    def healthy(self) -> bool:
        return self.age is not None and self.age < FRESH


class Health:
    """Listens from the start; `serve` answers, in a thread of its own, until `close`."""

    def __init__(self, address: tuple[str, int], dsn: str, snapshot: Callable[[], Snapshot]) -> None:
        self._dsn = dsn
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._kept: tuple[float, list[dict[str, Any]] | None] = (0.0, None)
        self._server = _Server(address, self)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, str]:
        """Status, content type and body."""
        if path == "/health":
            now = self._snapshot()
            body = {
                "status": "ok" if now.healthy else "failing",
                "state": now.state,
                "last_round_trip": _rounded(now.age),
            }
            return (200 if now.healthy else 503), "application/json", json.dumps(body) + "\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics(self._snapshot(), self._rows())
        return 404, "text/plain; charset=utf-8", "There is /health, and /metrics.\n"

    def _rows(self) -> list[dict[str, Any]] | None:
        """awslambda.status, over a session of its own; None if it cannot be had."""
        with self._lock:
            at, rows = self._kept
            if time.monotonic() - at >= KEPT or at == 0.0:
                rows = None
                with contextlib.suppress(DatabaseError):
                    rows = status.read(self._dsn, "awslambda metrics")
                self._kept = (time.monotonic(), rows)
            return rows


def metrics(now: Snapshot, rows: Sequence[Mapping[str, Any]] | None) -> str:
    """Prometheus's text. Without `rows` there are no metrics of mappings."""
    lines: list[str] = []

    def metric(name: str, kind: str, help_: str, values: Sequence[tuple[str, float]]) -> None:
        lines.extend((f"# HELP {name} {help_}", f"# TYPE {name} {kind}"))
        lines.extend(
            f"{name}{labels} {value:g}" if value < 1e6 else f"{name}{labels} {value:.0f}" for labels, value in values
        )

    metric("awslambda_dispatcher_up", "gauge", "1 if PostgreSQL answered lately.", [("", int(now.healthy))])
    if now.age is not None:
        metric("awslambda_dispatcher_last_round_trip_seconds", "gauge", "Since PostgreSQL answered.", [("", now.age)])
    metric("awslambda_dispatcher_in_flight", "gauge", "Batches that this process is sending.", [("", now.in_flight)])
    for name, kind, counter, help_ in OF_PROCESS:
        metric(name, kind, help_, [("", now.counters[counter])])
    metric("awslambda_status_up", "gauge", "1 if awslambda.status could be read.", [("", int(rows is not None))])
    for name, kind, column, help_ in OF_MAPPING if rows else ():
        values = [
            (_labels(row), _number(row[column]))
            for row in rows or ()
            if row.get(column) is not None or column == "paused_reason"
        ]
        metric(name, kind, help_, values)
    return "\n".join([*lines, ""])


def _labels(row: Mapping[str, Any]) -> str:
    shown = str(row["mapping"] or "").replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{mapping="{shown}"}}'


def _number(value: object) -> float:
    """Of a column; a reason counts as 1."""
    return float(value) if isinstance(value, (int, float)) else float(value is not None)


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 3)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.health = health
        super().__init__(address, _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is nobody's trouble."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE
    server_version = "awslambda"
    sys_version = ""

    def do_GET(self) -> None:
        code, kind, body = self.server.health.answer(self.path.split("?", 1)[0])
        content = body.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Who asks is not worth a line each time."""
