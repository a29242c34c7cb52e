"""The pages as their tests read them: which files they are, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = {path.stem: path for path in sorted(DOCS.glob("*.md"))}
FILES = {**PAGES, **{path.stem: path for path in sorted(REPOSITORY.glob("*.md"))}}
"""The pages, and what stands beside the code: README.md, CONTRIBUTING.md and the like."""

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>[\w{}-]*)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One fenced block: its page, the line it begins in, and the comment in the line before."""

    page: str
    line: int
    language: str
    code: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text(page: str) -> str:
    """Return what the file of a page holds."""
    return FILES[page].read_text(encoding="utf-8")


def blocks(*languages: str) -> list[Block]:
    """Return the blocks in some languages of all files, in their order."""
    found = []
    for page in FILES:
        content = text(page)
        for fence in _FENCE.finditer(content):
            line = content.count("\n", 0, fence.start("code"))
            block = Block(page, line, fence["language"], fence["code"], fence["mark"] or "")
            if block.language in languages:
                found.append(block)
    return found
