"""The errors that Lambda's API answers with, in their shape on the wire: status, `x-amzn-ErrorType`, and a JSON body.

Names, statuses and the spelling of `message` come from the API's own model; texts are those that AWS sends.
https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import json
from typing import ClassVar


class ApiError(Exception):
    """An answer that is an error."""

    status: ClassVar[int] = 400
    code: ClassVar[str]
    message_key: ClassVar[str] = "message"

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    @property
    def body(self) -> bytes:
        kind = "User" if self.status < 500 else "Service"
        return json.dumps({"Type": kind, self.message_key: self.message, **self.details}).encode()


class MissingAuthenticationToken(ApiError):
    status, code = 403, "MissingAuthenticationTokenException"


class IncompleteSignature(ApiError):
    status, code = 403, "IncompleteSignatureException"


class ExpiredToken(ApiError):
    status, code = 403, "ExpiredTokenException"


class AccessDenied(ApiError):
    status, code, message_key = 403, "AccessDeniedException", "Message"


class ResourceNotFound(ApiError):
    status, code, message_key = 404, "ResourceNotFoundException", "Message"


class InvalidParameterValue(ApiError):
    code = "InvalidParameterValueException"


class Validation(ApiError):
    code = "ValidationException"


class InvalidRequestContent(ApiError):
    code = "InvalidRequestContentException"


class RequestTooLarge(ApiError):
    status, code = 413, "RequestTooLargeException"


class TooManyRequests(ApiError):
    status, code = 429, "TooManyRequestsException"


class InvalidRuntime(ApiError):
    status, code, message_key = 502, "InvalidRuntimeException", "Message"


class ServiceFailure(ApiError):
    status, code, message_key = 500, "ServiceException", "Message"
