"""Running a function: a process from the pool, and its log to CloudWatch Logs. What every way of calling a function
ends in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from awslambda_local.functions import Target
from awslambda_local.logs import write_log
from awslambda_local.pool import Pool
from awslambda_local.sandbox import Invocation, Outcome


@dataclass(frozen=True)
class LambdaService:
    pool: Pool

    def run(
        self, target: Target, payload: bytes, *, request_id: str | None = None, client_context: str | None = None
    ) -> Outcome:
        """Run it once and wait for the outcome. Raises TooManyRequests when no process may be had."""
        invocation = Invocation(request_id or new_request_id(), target.arn, payload or b"{}", client_context)
        with self.pool.borrow(target) as sandbox:
            outcome = sandbox.run(invocation)
        write_log(target.spec, sandbox.log_stream, outcome.log)
        return outcome


def new_request_id() -> str:
    return str(uuid.uuid4())
