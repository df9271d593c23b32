"""One signed request to an AWS service on a kept connection, and the patience that calls have in common.

What a service's answer means is the business of who asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import awslambda
from awslambda import aws, errors, signing
from awslambda.connection import Answer
from awslambda.settings import Settings
from awslambda.waits import Wait

T = TypeVar("T")

BACK_OFF, LONGEST_BACK_OFF = 0.1, 5.0  # seconds: the first and the longest upper bound of the jitter
USER_AGENT = f"awslambda-postgresql/{awslambda.__version__}"

# Errors by which every service says who may not.
CODES: dict[str, type[errors.LambdaError]] = {
    "AccessDeniedException": errors.AccessDenied,
    "ExpiredTokenException": errors.CredentialsRefused,
    "IncompleteSignatureException": errors.CredentialsRefused,
    "InvalidClientTokenId": errors.CredentialsRefused,
    "InvalidSignatureException": errors.CredentialsRefused,
    "MissingAuthenticationTokenException": errors.CredentialsRefused,
    "RequestExpired": errors.CredentialsRefused,
    "RequestTimeTooSkewed": errors.CredentialsRefused,
    "UnrecognizedClientException": errors.CredentialsRefused,
}
SKEWED = ("InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed")  # what a wrong clock may get


def message(request: signing.Request, headers: Mapping[str, str]) -> bytes:
    """What goes over the wire, with the headers that authorise it."""
    head = (
        f"{request.method} {request.path} HTTP/1.1\r\nHost: {request.host}\r\nUser-Agent: {USER_AGENT}\r\n"
        f"Content-Length: {len(request.body)}\r\n"
    )
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{head}{lines}\r\n".encode("ascii") + request.body


def document(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def refusal(answer: Answer, said: Mapping[str, Any]) -> tuple[str, str]:
    """Code and message of a refused request; the code is empty if AWS gave none."""
    code = str(answer.headers.get("x-amzn-errortype") or said.get("__type") or said.get("code") or "")
    code = code.split(":", maxsplit=1)[0].rsplit("#", maxsplit=1)[-1]
    text = str(said.get("message") or said.get("Message") or code or f"HTTP {answer.status}")
    return code, text.split("\n", maxsplit=1)[0]  # then AWS shows the signed headers, with the token


def retried(
    attempt: Callable[[], T],
    settings: Settings,
    wait: Wait,
    again: tuple[type[errors.LambdaError], ...],
    patiently: Mapping[type[errors.LambdaError], float] | None = None,
) -> T:
    """What `attempt` returns. It is tried again, with full jitter, after the errors `again` up to `max_attempts` times
    in all, and after those of `patiently` for as long as there is time, with so many seconds as the first bound of the
    jitter. Refused credentials may have been replaced since this session found them: they are looked for once more. And
    where our clock is wrong, AWS's is gone by from then on."""
    patiently = patiently or {}
    tried, waited, refused, corrected = 0, 0, False, False
    while True:
        try:
            return attempt()
        except errors.CredentialsRefused as error:  # nothing was done
            if not corrected and _corrected(error):
                corrected = True
            else:
                aws.forget(settings)
                if refused or time.monotonic() >= wait.deadline:
                    raise
                refused = True
        except (errors.NoCredentials, errors.RegionUnknown):
            aws.forget(settings)
            raise
        except (*again, *patiently) as error:
            import random

            if first := patiently.get(type(error)):
                waited += 1
                pause = random.uniform(first / 2, min(LONGEST_BACK_OFF, first * 2 ** min(waited - 1, 10)))  # noqa: S311
            else:
                tried += 1
                pause = random.uniform(0, min(LONGEST_BACK_OFF, BACK_OFF * 2 ** (tried - 1)))  # noqa: S311 - no secret
            if tried >= settings.max_attempts or time.monotonic() + pause >= wait.deadline:
                raise
            wait.sleep(pause)


def _corrected(error: errors.CredentialsRefused) -> bool:
    """Whether it was the clock that was wrong, which it no longer is."""
    return error.fields.get("code") in SKEWED and signing.clock.correct(str(error.fields.get("date")))
