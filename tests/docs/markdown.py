"""What the tests need to know of a document in Markdown: its blocks of code, its links and its headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_VARYING = {  # what is another each time, and stands for any of its kind
    "(an id)": re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"),
    "(a time)": re.compile(r"\b\d\d:\d\d(?::\d\d(?:\.\d+)?)?\b"),
}
_SAID = re.compile(  # by psql and Postgres of a statement that returns nothing
    r"(?:CREATE|ALTER|DROP|GRANT|REVOKE|SET|RESET|DO|CALL|BEGIN|COMMIT|ROLLBACK|INSERT|UPDATE|DELETE)(?: [A-Z]+| \d+)*"
    r"|NOTICE:  installing required extension .*"
)
_HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    line: int  # of its first ```


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
        text = self.text
        return [
            Block(
                language=match[2].strip(),
                code=re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE),
                line=text.count("\n", 0, match.start()) + 1,
            )
            for match in _BLOCK.finditer(text)
        ]

    def output_of(self, block: Block) -> str | None:
        """What the document says a block prints: the block of text after it, if there is one."""
        after = [other for other in self.blocks if other.line > block.line][:1]
        return after[0].code if after and after[0].language == "text" else None

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
    stands alone. Request ids and times count as equal; how wide psql makes a column does not count, nor do the tags of
    statements that return nothing."""
    pattern = "".join(_line(line) for line in _lines(expected))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(actual)), re.DOTALL) is not None


def _line(expected: str) -> str:
    if expected == "...":
        return r"(?:[^\n]*\n)*?"
    return r"[^\n]*?".join(re.escape(part) for part in expected.split("...")) + r"\n"


def _lines(text: str) -> list[str]:
    for name, pattern in _VARYING.items():
        text = pattern.sub(name, text)
    kept = [line for line in text.splitlines() if line.strip() and not _SAID.fullmatch(line.rstrip())]
    return [re.sub(r"-{2,}", "--", re.sub(r" +", " ", line.strip())) for line in kept]
