"""What a consumer takes for deleted, on a stream of plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from awslambda import errors, resources
from awslambda.consumer import LOCK, READY, Checkpoint, Consumer, Consuming, Consumption
from awslambda.kinesis import Page, Position, Record, Shard, Unpacking

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


class Followed:
    """A stream of one shard that is read in two pages; `between` happens after the first. It has `oldest` first."""

    def __init__(self, between: Callable[[], None], oldest: Page, *records: tuple[int, float]) -> None:
        self.target = resources.stream("s")
        self.region = "us-east-1"
        self.began: list[Position] = []
        self._between = between
        self._oldest = oldest
        self._records = records
        self._left = 2

    def now(self) -> float:
        return NOW

    def retention(self) -> float:
        return 48 * HOUR

    def shards(self) -> list[Shard]:
        return [Shard("shard", (), closed=False)]

    def iterator(self, shard_id: str, at: Position) -> str:
        if at != ALL:
            self.began.append(at)
        return at.kind

    def page(self, shard_id: str, iterator: str, limit: int) -> Page:
        if iterator == ALL.kind:
            return self._oldest
        self._left -= 1
        if not self._left:
            return page(iterator=iterator)
        self._between()
        return page(*self._records, behind=9, iterator=iterator)


class Consumes(Session):
    """A session with one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def change(self, **changes: Any) -> Callable[[], None]:
        return lambda: setattr(self, "checkpoint", replace(self.checkpoint, **changes))

    def fetch(self, query: str, *arguments: str | None) -> list[dict[str, Any]]:
        return {READY: [asdict(self.checkpoint)], LOCK: [{"locked": True}]}.get(query, [])

    def call(self, query: str, types: object, *arguments: object) -> list[dict[str, Any]]:
        return [{"done": 0, "problem": None, "message": None}]


def consume(session: Consumes, stream: Any, tolerant: bool = False) -> None:
    asked = Consumption("1", None, 1000, 60, "stop", bisect=True, follow=False, search_path="")
    Consuming(Consumer(session, "app", stream, ALL, tolerant), session, asked, Unpacking(), str).run()


def test_a_run_notices_what_is_deleted_while_it_lags() -> None:
    session = Consumes(place(AFTER, "5", done=47))
    stream = Followed(session.change(sequence_number="6", done_until=NOW - 49 * HOUR), page((9, 47)), (6, 49))
    with pytest.raises(errors.RecordsLost, match="after 6: Kinesis has deleted all that arrived between"):
        consume(session, stream)


def test_a_run_reports_once_what_was_deleted_behind_one_record() -> None:
    session = Consumes(place(AFTER, "5", done=50))
    consume(session, Followed(session.change(done_until=NOW - 49 * HOUR), page((9, 47))), tolerant=True)
    assert len(session.warnings) == 1


def test_a_run_goes_on_from_the_moment_that_a_reset_says() -> None:
    session = Consumes(place("AT_TIMESTAMP", done=1, asked=1))
    stream = Followed(session.change(timestamp=NOW - 2 * HOUR, done_until=NOW - 2 * HOUR), EMPTY)
    consume(session, stream)
    assert [NOW - (at.timestamp or 0) for at in stream.began] == [HOUR, 2 * HOUR]


def test_a_run_keeps_its_iterator_while_nobody_moves_it() -> None:
    session = Consumes(place("AT_TIMESTAMP", done=1, asked=1))
    stream = Followed(lambda: None, EMPTY)
    consume(session, stream)
    assert len(stream.began) == 1
