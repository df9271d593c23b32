"""Asynchronous invocations: Lambda's own queue, its retries, and what becomes of an event in the end.

An event whose function fails is retried, after the first and the second of the retry delays; one that is throttled
goes back to the queue and uses up no retry. An event that succeeded, or that is given up, goes to the function's
destination. Events live in memory: those still queued when the local AWS ends are lost.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

from awslambda_local.destinations import Condition, Destinations, InvocationRecord
from awslambda_local.errors import ResourceNotFound, ServiceFailure, TooManyRequests
from awslambda_local.functions import FunctionReference, Target
from awslambda_local.sandbox import Outcome
from awslambda_local.service import LambdaService

THROTTLED_DELAY = 1.0
DEFAULT_RETRY_ATTEMPTS = 2
DEFAULT_EVENT_AGE = 6 * 3600

_WORKERS = 16


@dataclass(frozen=True)
class Event:
    reference: FunctionReference
    payload: bytes
    request_id: str
    received: float
    attempts: int = 0


class EventQueue:
    """Runs events in background threads, the earliest due first."""

    def __init__(self, service: LambdaService, destinations: Destinations, retry_delays: Sequence[float]) -> None:
        self._service = service
        self._destinations = destinations
        self._retry_delays = retry_delays
        self._due: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()

    def start(self) -> None:
        for number in range(_WORKERS):
            threading.Thread(target=self._work, daemon=True, name=f"events-{number}").start()

    def put(self, reference: FunctionReference, payload: bytes, request_id: str) -> None:
        self._schedule(Event(reference, payload, request_id, received=time.monotonic()), delay=0)

    def _schedule(self, event: Event, delay: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), event))
            self._changed.notify()

    def _next(self) -> Event:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)

    def _work(self) -> None:
        while True:
            event = self._next()
            try:
                self._attempt(event)
            except ResourceNotFound:
                continue  # the function was deleted while the event waited
            except ServiceFailure:
                return  # the local AWS is ending
            except Exception:  # a worker must outlive whatever one event does
                traceback.print_exc(file=sys.stderr)

    def _attempt(self, event: Event) -> None:
        target = event.reference.resolve()
        if target.reserved_concurrency == 0:
            self._finish(event, target, "ZeroReservedConcurrency", None)
            return
        try:
            outcome = self._service.run(target, event.payload, request_id=event.request_id)
        except TooManyRequests:
            self._again(event, target, None, THROTTLED_DELAY)
            return
        event = replace(event, attempts=event.attempts + 1)
        if not outcome.failed:
            self._finish(event, target, "Success", outcome)
        elif event.attempts > int(target.event_invoke_config.get("MaximumRetryAttempts", DEFAULT_RETRY_ATTEMPTS)):
            self._finish(event, target, "RetriesExhausted", outcome)
        else:
            delay = self._retry_delays[min(event.attempts, len(self._retry_delays)) - 1] if self._retry_delays else 0.0
            self._again(event, target, outcome, delay)

    def _again(self, event: Event, target: Target, outcome: Outcome | None, delay: float) -> None:
        """Back into the queue, unless the event would be too old by then."""
        limit = float(target.event_invoke_config.get("MaximumEventAgeInSeconds", DEFAULT_EVENT_AGE))
        if time.monotonic() + delay - event.received > limit:
            self._finish(event, target, "EventAgeExceeded", outcome)
        else:
            self._schedule(event, delay)

    def _finish(self, event: Event, target: Target, condition: Condition, outcome: Outcome | None) -> None:
        record = InvocationRecord(
            request_id=event.request_id,
            function_arn=target.arn,
            executed_version=target.spec.version,
            condition=condition,
            attempts=event.attempts,
            request=event.payload,
            outcome=outcome,
        )
        self._destinations.deliver(target, record)
