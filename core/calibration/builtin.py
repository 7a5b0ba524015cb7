"""The offline text: the language reference that CPython itself carries (`pydoc_data.topics`), English and code.

Topics quote each other at length, so topics that share a paragraph are one family, and a family is given to one split
as a whole: no evaluation paragraph is ever calibration text. Standard library only. The text differs between Python
versions; a job therefore stores it, with its hash, when it is submitted.
"""

from __future__ import annotations

import re
from pydoc_data.topics import topics
from typing import Literal

Split = Literal["calibration", "evaluation"]

BUILTIN_NAME = "builtin"
"""What a stored set that holds this text is called."""

SHARED_PARAGRAPH_CHARS = 60  # shorter paragraphs are headings and phrases that any two texts may share
EVALUATION_EVERY = 3  # of the families by falling length, each third one is held out: about a quarter of the text


def builtin_text(split: Split) -> list[str]:
    """Returns the documents of one split, longest first: the same list on every call of one Python version.

    A topic that says nothing beyond the longer topics of its family is left out.
    """
    held_out = split == "evaluation"
    families = _families({name: _paragraphs(text) for name, text in topics.items()})
    chosen = [
        family
        for rank, family in enumerate(sorted(families, key=_by_falling_length))
        if (rank % EVALUATION_EVERY == EVALUATION_EVERY - 1) == held_out
    ]
    return [topics[name] for family in chosen for name in _without_repetition(family)]


def _paragraphs(text: str) -> frozenset[str]:
    """Returns the long paragraphs of a text with their white space levelled."""
    levelled = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return frozenset(paragraph for paragraph in levelled if len(paragraph) >= SHARED_PARAGRAPH_CHARS)


def _families(paragraphs: dict[str, frozenset[str]]) -> list[list[str]]:
    """Returns the connected components of "shares a paragraph with" (and of "is the very same text")."""
    families: dict[str, list[str]] = {name: [name] for name in paragraphs}
    first_holder: dict[str, str] = {}
    for name in sorted(paragraphs):
        for key in (*paragraphs[name], topics[name].strip()):
            holder = first_holder.setdefault(key, name)
            if families[holder] is not families[name]:
                _merge(families, holder, name)
    return list({id(family): family for family in families.values()}.values())


def _merge(families: dict[str, list[str]], one: str, other: str) -> None:
    families[one].extend(families[other])
    for name in families[other]:
        families[name] = families[one]


def _by_falling_length(family: list[str]) -> tuple[int, str]:
    return -sum(len(topics[name]) for name in family), min(family)


def _without_repetition(family: list[str]) -> list[str]:
    kept: list[str] = []
    said: set[str] = set()
    for name in sorted(family, key=lambda name: (-len(topics[name]), name)):
        paragraphs = _paragraphs(topics[name])
        if not kept or not paragraphs <= said:
            kept.append(name)
        said |= paragraphs
    return kept
