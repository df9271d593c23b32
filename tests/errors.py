"""What a test says about an error that SQL gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@contextlib.contextmanager
def raises(sqlstate: str, *words: str) -> Iterator[Any]:
    """The block ends in an error of this SQLSTATE that says these words in message, DETAIL or HINT, in this order of
    importance: an error is useless without them. A Python traceback is never the message."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    diagnostic = caught.value.diag
    said = "\n".join(
        part for part in (diagnostic.message_primary, diagnostic.message_detail, diagnostic.message_hint) if part
    )
    assert diagnostic.sqlstate == sqlstate, said
    for word in words:
        assert word in said
    assert "Traceback" not in said and "AttributeError" not in said and "KeyError" not in said
