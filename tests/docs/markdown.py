"""What the tests need to know of a document in Markdown: its blocks of code, its links and its headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    line: int  # of its first ```
    follows: bool  # nothing but blank lines stands between the block before and this one


@dataclass(frozen=True)
class Document:
    """A file in Markdown."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @property
    def blocks(self) -> list[Block]:
        found, end = [], -1
        for match in _BLOCK.finditer(self.text):
            follows = end >= 0 and not self.text[end : match.start()].strip()
            code = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
            found.append(Block(match[2].strip(), code, self.text.count("\n", 0, match.start()) + 1, follows))
            end = match.end()
        return found

    @property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return _BLOCK.sub("", self.text)

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What #... of a link can name, by GitHub's rule."""
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(self.prose)}


def documents(*patterns: str) -> list[Document]:
    """Those below the repository's root that match a pattern."""
    return [Document(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def matches(expected: str, actual: str) -> bool:
    """Whether an output is the documented one. `...` stands for anything within a line, or for any lines where it
    stands alone; how wide psql makes a column does not count."""
    pattern = "".join(_line(line) for line in _lines(expected))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(actual)), re.DOTALL) is not None


def _line(expected: str) -> str:
    if expected == "...":
        return r"(?:[^\n]*\n)*?"
    return r"[^\n]*?".join(re.escape(part) for part in expected.split("...")) + r"\n"


def _lines(text: str) -> list[str]:
    lines = [re.sub(r"-{2,}", "--", re.sub(r" +", " ", line.strip())) for line in text.strip().splitlines()]
    return [line for line in lines if line]
