"""What handlers print, in CloudWatch Logs: one event a line, in the stream of the process that printed it."""

from __future__ import annotations

import threading
import time

from moto.logs.models import LogsBackend, logs_backends

from awslambda_local.functions import FunctionSpec

_EVENTS_KEPT = 20_000

_creating = threading.Lock()


def write_log(spec: FunctionSpec, stream: str, text: str) -> None:
    """Append an invocation's log. Of one stream the last 20,000 lines, about, are kept: this is memory."""
    backend = logs_backends[spec.account_id][spec.region]
    _ensure_stream(backend, spec.log_group, stream)
    now = int(time.time() * 1000)
    lines = [{"timestamp": now, "message": line} for line in text.split("\n") if line]
    backend.put_log_events(spec.log_group, stream, lines)
    kept = backend.groups[spec.log_group].streams[stream].events
    if len(kept) > _EVENTS_KEPT:
        del kept[: _EVENTS_KEPT // 2]


def _ensure_stream(backend: LogsBackend, group: str, stream: str) -> None:
    with _creating:
        backend.ensure_log_group(group)
        if stream not in backend.groups[group].streams:
            backend.create_log_stream(group, stream)
