"""Looks over calibration text before a job starts: is it enough, is it varied, is it text? Standard library only.

Without a tokenizer tokens are estimated from characters, and what rests on an estimate says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from core.calibration.documents import Conversation, Document, text_of

CHARS_PER_TOKEN: Final = 4.0
"""Of alphabets, about what current vocabularies reach; ideographs and syllables take about a token each."""
DUPLICATE_SHARE: Final = 0.2
DUPLICATE_CHARS: Final = 30
"""Shorter lines repeat in any text: braces, headings, list marks."""
MANY_LINES: Final = 20
LONG_LINE: Final = 2000
ONE_LANGUAGE_SHARE: Final = 0.95
CONTROL_SHARE: Final = 0.01

_WIDE = re.compile(r"[\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufffd]")
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS: Final = (
    ("Greek", re.compile(r"[\u0370-\u03ff]")),
    ("Cyrillic", re.compile(r"[\u0400-\u052f]")),
    ("Hebrew", re.compile(r"[\u0590-\u05ff]")),
    ("Arabic", re.compile(r"[\u0600-\u06ff]")),
    ("Devanagari", re.compile(r"[\u0900-\u097f]")),
    ("Thai", re.compile(r"[\u0e00-\u0e7f]")),
    ("Japanese", re.compile(r"[\u3040-\u30ff]")),
    ("Chinese", re.compile(r"[\u3400-\u9fff]")),
    ("Korean", re.compile(r"[\uac00-\ud7af]")),
)
_COMMON_WORDS: Final = {
    "English": frozenset({"the", "and", "of", "to", "is", "that", "with", "was", "for", "this", "are", "you"}),
    "German": frozenset({"der", "die", "und", "das", "nicht", "ist", "ein", "eine", "mit", "auf", "den", "zu"}),
    "French": frozenset({"le", "les", "des", "et", "une", "est", "dans", "que", "pour", "qui", "du", "vous"}),
    "Spanish": frozenset({"el", "los", "las", "y", "una", "es", "por", "con", "del", "para", "se", "su"}),
    "Portuguese": frozenset({"o", "os", "as", "e", "uma", "não", "com", "em", "do", "da", "um", "ao"}),
    "Italian": frozenset({"il", "gli", "di", "e", "che", "una", "della", "per", "sono", "non", "è", "con"}),
    "Dutch": frozenset({"het", "een", "van", "en", "dat", "niet", "zijn", "op", "te", "voor", "met", "aan"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLint:
    """What the look found. estimated_tokens: from characters. warnings: one sentence each."""

    documents: int
    conversations: int
    characters: int
    estimated_tokens: int
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Count:
    documents: int = 0
    conversations: int = 0
    characters: int = 0
    wide: int = 0
    control: int = 0
    lines: int = 0
    long_lines: int = 0
    repeated: int = 0
    seen: set[int] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document) -> None:
        text = text_of(document)
        self.documents += 1
        self.conversations += isinstance(document, Conversation)
        self.characters += len(text)
        self.wide += len(_WIDE.findall(text))
        self.control += len(_CONTROL.findall(text))
        for line in text.splitlines():
            self._add_line(line.strip())

    def _add_line(self, line: str) -> None:
        if not line:
            return
        self.lines += 1
        self.long_lines += len(line) > LONG_LINE
        if len(line) >= DUPLICATE_CHARS:
            key = hash(line)
            self.repeated += key in self.seen
            self.seen.add(key)
            language = language_of(line)
            if language is not None:
                self.languages[language] += 1


def lint(documents: Iterable[Document]) -> TextLint:
    """Returns what is to be said of the documents; reads all of them."""
    count = _Count()
    for document in documents:
        count.add(document)
    return TextLint(
        documents=count.documents,
        conversations=count.conversations,
        characters=count.characters,
        estimated_tokens=round((count.characters - count.wide) / CHARS_PER_TOKEN) + count.wide,
        warnings=tuple(_warnings(count)),
    )


def too_few_tokens(estimated_tokens: int, needed: int) -> str | None:
    """Returns a warning where the text seems to have fewer tokens than a draw needs; None where it seems enough."""
    if estimated_tokens >= needed:
        return None
    return (
        f"The calibration text has about {estimated_tokens:,} tokens (estimated from its characters), the draw "
        f"needs {needed:,}: give more text, or lower samples or seq_len."
    )


def language_of(line: str) -> str | None:
    """Returns the language of a line by its script or its commonest words; None where neither tells."""
    if not line.isascii():
        for name, characters in _SCRIPTS:
            if len(characters.findall(line)) > len(line) / 4:
                return name
    words = [word.lower() for word in _WORD.findall(line)]
    hits = {name: sum(word in common for word in words) for name, common in _COMMON_WORDS.items()}
    best, second = sorted(hits, key=lambda name: -hits[name])[:2]
    return best if hits[best] >= 2 and hits[best] > hits[second] else None  # noqa: PLR2004 - one word may be chance


def _warnings(count: _Count) -> list[str]:
    found = []
    if count.documents == 1 and count.lines == 1:
        found.append("The calibration text is one single line; text with its line ends kept is usually meant.")
    elif count.long_lines and count.long_lines == count.lines < MANY_LINES:
        found.append(f"All {count.lines} lines of the calibration text are longer than {LONG_LINE:,} characters.")
    long_enough = len(count.seen) + count.repeated
    if long_enough and count.repeated / long_enough > DUPLICATE_SHARE:
        found.append(
            f"{count.repeated / long_enough:.0%} of the calibration text's lines repeat an earlier one: "
            "repeated tokens count in the statistics without telling anything new."
        )
    if count.characters and count.control / count.characters > CONTROL_SHARE:
        found.append("The calibration text is full of control characters: it may be no text, or in another encoding.")
    told = sum(count.languages.values())
    if told >= MANY_LINES:
        [(language, lines)] = count.languages.most_common(1)
        if lines / told >= ONE_LANGUAGE_SHARE:
            found.append(
                f"The calibration text is in {language} only: no other language that the model speaks is calibrated on."
            )
    return found
