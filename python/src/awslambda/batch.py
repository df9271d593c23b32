"""Which records of a batch failed, by what the function answered: ReportBatchItemFailures.

The rules are Lambda's own (its pages "Configuring partial batch response" for SQS and for Kinesis). An answer that
breaks them raises, and then every record of the batch counts as failed: it may run twice, and none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .errors import InvalidBatchResponse


def failed(event_format: str, answer: bytes, message_ids: Sequence[str], ids: Sequence[int]) -> frozenset[int]:
    """The positions of the failed records in the batch.

    `message_ids` and `ids` (of the outbox, growing) name the records in the order in which they were sent. Records are
    named by message id, in the format `kinesis` by sequence number, and there all from the lowest one on have failed.
    Raises InvalidBatchResponse if the answer tells nothing that can be relied on.
    """
    names = {str(name): position for position, name in enumerate(ids if event_format == "kinesis" else message_ids)}
    positions = {_position(entry, names) for entry in _failures(answer)}
    if event_format == "kinesis" and positions:
        return frozenset(range(min(positions), len(names)))
    return frozenset(positions)


def _failures(answer: bytes) -> list[object]:
    """The list batchItemFailures; an answer without one says that all is well."""
    if not answer.strip():
        return []
    try:
        response = json.loads(answer)
    except (ValueError, RecursionError):  # ValueError: not UTF-8, too
        raise InvalidBatchResponse(reason="it is not JSON") from None
    if response is None:
        return []
    if not isinstance(response, dict):
        raise InvalidBatchResponse(reason="it is not an object")
    failures = response.get("batchItemFailures")
    if failures is None:
        return []
    if not isinstance(failures, list):
        raise InvalidBatchResponse(reason="batchItemFailures is not a list")
    return failures


def _position(entry: object, names: dict[str, int]) -> int:
    identifier = entry.get("itemIdentifier") if isinstance(entry, dict) else None
    if not isinstance(identifier, str) or not identifier:
        raise InvalidBatchResponse(reason="an entry of batchItemFailures has no itemIdentifier")
    if identifier not in names:
        raise InvalidBatchResponse(reason="an itemIdentifier names no record of the batch")
    return names[identifier]
