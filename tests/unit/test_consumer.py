"""What a consumer takes for deleted, on a stream of plain values."""

from __future__ import annotations

from typing import Any

import pytest
from awslambda import errors, resources
from awslambda.consumer import Checkpoint, Consumer
from awslambda.kinesis import Page, Position, Record

NOW = 1_800_000_000.0
HOUR = 3600.0
ALL = Position("TRIM_HORIZON")


class KeptForTwoDays:
    """A stream of one shard, with the pages that it has from its oldest record on."""

    def __init__(self, *pages: Page) -> None:
        self.target = resources.stream("s")
        self.region = "us-east-1"
        self._pages = pages
        self.slept = 0

    def now(self) -> float:
        return NOW

    def retention(self) -> float:
        return 48 * HOUR

    def iterator(self, shard_id: str, at: Position) -> str:
        assert at == ALL
        return "0"

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        return self._pages[int(iterator)]

    def sleep(self, seconds: float) -> None:
        self.slept += 1


class Session:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, ...]] = []
        self.warnings: list[str] = []

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        self.asked.append(arguments)
        return []

    def warn(self, message: str, hint: str) -> None:
        self.warnings.append(message)


def place(position: str, number: str | None = None, *, done: float | None, asked: float = 0) -> Checkpoint:
    """Of which is done what is older than so many hours; so many hours ago it was read, or asked for."""
    since = None if done is None else NOW - done * HOUR
    return Checkpoint("shard", position, number, None, since, NOW - asked * HOUR, since)


def page(*records: tuple[int, float], behind: int = 0, iterator: str | None = "0") -> Page:
    """Sequence numbers, and how many hours ago each arrived."""
    return Page([Record(str(number), NOW - age * HOUR, "k", b"") for number, age in records], iterator, behind)


AFTER = "AFTER_SEQUENCE_NUMBER"
EMPTY = page()


@pytest.mark.parametrize(
    ("checkpoint", "pages"),
    [
        (place(AFTER, "5", done=23), []),
        (place(AFTER, "5", done=47), []),
        (place(AFTER, "5", done=50), [page((5, 49))]),
        (place(AFTER, "5", done=50), [page(behind=9, iterator="1"), page((4, 49))]),
        (place(AFTER, "5", done=None), [page((5, 1))]),
        (place("AT_SEQUENCE_NUMBER", "5", done=None), [page((5, 1))]),
        (place("AT_TIMESTAMP", done=40, asked=40), []),
        (place("AT_TIMESTAMP", done=50, asked=50), [page((7, 51))]),
        (place("AT_TIMESTAMP", done=900, asked=1), []),
        (place("AT_TIMESTAMP", done=900, asked=47), []),
        (place("TRIM_HORIZON", done=47), []),
        (place("TRIM_HORIZON", done=50), [page((7, 51))]),
    ],
)
def test_nothing_is_said_while_all_is_there(checkpoint: Checkpoint, pages: list[Page]) -> None:
    session = Session()
    Consumer(session, "app", KeptForTwoDays(*pages), ALL, False).check_trimmed(checkpoint)  # type: ignore[arg-type]
    assert not session.asked


@pytest.mark.parametrize(
    ("checkpoint", "pages", "words"),
    [
        (
            place(AFTER, "5", done=50),
            [page((6, 49))],
            "after 5: Kinesis has deleted all that arrived between 2027-01-13",
        ),
        (place(AFTER, "5", done=50), [EMPTY], "after 5: Kinesis has deleted all that arrived between 2027-01-13"),
        (place(AFTER, "5", done=50), [page(behind=9, iterator=None)], "after 5: Kinesis has deleted"),
        (place(AFTER, "5", done=None), [page((6, 1))], "after 5: Kinesis no longer has that one"),
        (place(AFTER, "5", done=None), [EMPTY], "after 5: Kinesis no longer has that one"),
        (place("AT_TIMESTAMP", done=50, asked=50), [page((6, 47))], "from its beginning: Kinesis has deleted"),
        (place("AT_TIMESTAMP", done=900, asked=50), [page((6, 47))], "between 2027-01-13"),
        (place("TRIM_HORIZON", done=50), [page((6, 47))], "from its beginning: Kinesis has deleted"),
    ],
)
def test_what_was_deleted_is_an_error_or_a_warning(checkpoint: Checkpoint, pages: list[Page], words: str) -> None:
    session = Session()
    stream: Any = KeptForTwoDays(*pages)
    with pytest.raises(errors.RecordsLost, match=words):
        Consumer(session, "app", stream, ALL, False).check_trimmed(checkpoint)
    assert not session.asked
    Consumer(session, "app", stream, ALL, True).check_trimmed(checkpoint)
    assert words in session.warnings[0]
    assert session.asked[0][:3] == ("app", "s", "shard")
    assert session.asked[0][4:] == ("False", "2027-01-13T08:00:00+00:00")
