"""Reads the pages: their code blocks, the links in them, the commands and variables that they show.

A comment right above a block says what it is for the tests. `<!-- run -->`: a shell block that they run as it stands,
with BITMILL_URL and BITMILL_MODEL set and its placeholders filled in. `<!-- JobRequest -->`: JSON that must be a valid
request of that name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("", "sh", "bash")
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s#]*)(?:#([^)\s]+))?\)")
_VARIABLE = re.compile(r"BITMILL_[A-Z0-9_]*[A-Z0-9]")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block. mark: the words of the comment above it, empty where there is none."""

    language: str
    mark: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Returns a page's code blocks in order."""
    return [
        Block(found["language"], (found["mark"] or "").strip(), found["text"])
        for found in _BLOCK.finditer(page.read_text())
    ]


def runnable(page: Path) -> str:
    """Returns the script that a page's marked blocks make together."""
    return "\n".join(block.text for block in blocks(page) if block.mark == "run")


def commands(page: Path) -> Iterator[list[str]]:
    """Yields the words of each `bitmill ...` that stands in a shell block or in the text, up to a redirection."""
    for inline in re.findall(r"`(bitmill [^`\n]+)`", _BLOCK.sub("", page.read_text())):
        yield from _bitmill(inline)
    for block in blocks(page):
        if block.language in SHELLS:
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from _bitmill(line)


def _bitmill(line: str) -> Iterator[list[str]]:
    found = re.search(r"(?:^|[\s/(])bitmill ((?:'[^']*'|\"[^\"]*\"|[^'\"|;&<>#])*)", line)
    # An image and a daemon are called so too, and messages begin so.
    if found and re.match(r"[a-z]", found[1]):
        yield shlex.split(found[1].rstrip().removesuffix(")"))


def links(page: Path) -> list[tuple[str, str]]:
    """Returns each relative link as target and anchor, either of which may be empty."""
    return _LINK.findall(_BLOCK.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """Returns what the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def variables(page: Path) -> set[str]:
    """Returns every BITMILL_ variable that a page names."""
    return set(_VARIABLE.findall(page.read_text()))
