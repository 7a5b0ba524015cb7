"""Options of single linears by pattern, as GPTQModel writes `dynamic`: "+:regex" changes options, "-:regex" leaves the
linear in float. The first pattern that matches from a name's start decides. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.errors import InvalidConfigError

SKIP: Final = "-:"
CHANGE: Final = "+:"
MAX_PATTERNS: Final = 256
MAX_PATTERN_LENGTH: Final = 256
MAX_QUANTIFIERS: Final = 4
"""Patterns come from users and meet every name: with few repetitions, and none of a group, matching stays quick."""
FORM: Final = (
    f'"+:regex": {{options}} or "-:regex": {{}}; at most {MAX_PATTERN_LENGTH} characters, '
    f"{MAX_QUANTIFIERS} repetitions (* + {{) and no repeated group"
)


class Overrides(Mapping[str, Mapping[str, Any]]):
    """An immutable `dynamic`: patterns in their order, each with its changed options. Hashable; equal to a dict.

    Raises InvalidConfigError, naming `dynamic`, on a pattern that is none. Which options may change is the config's
    to say.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        _check_form(entries)
        self._entries: dict[str, dict[str, Any]] = {pattern: dict(changes) for pattern, changes in entries.items()}

    @classmethod
    def from_value(cls, value: object) -> Overrides:
        """Reads a mapping, or the pairs that `to_pairs` wrote."""
        if isinstance(value, cls):
            return value
        if isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):  # noqa: PLR2004 - a pair
            value = dict(value)
        if not isinstance(value, Mapping):
            raise InvalidConfigError("dynamic", value, "not a mapping", FORM)
        return cls(value)

    def __getitem__(self, pattern: str) -> Mapping[str, Any]:
        """Returns a pattern's changed options."""
        return self._entries[pattern]

    def __iter__(self) -> Iterator[str]:
        """Yields the patterns in their order."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Returns the number of patterns."""
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        """Whether patterns, options and their order are the same."""
        return list(self.items()) == list(other.items()) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        """Returns a hash of the patterns and their options."""
        return hash(json.dumps(self.to_pairs(), sort_keys=True, default=str))

    def __repr__(self) -> str:
        """Returns the patterns as they are written."""
        return f"Overrides({self._entries!r})"

    def to_pairs(self) -> list[list[Any]]:
        """Returns plain JSON values that keep the order, which a sorted or a binary JSON object loses."""
        return [[pattern, dict(changes)] for pattern, changes in self._entries.items()]

    def match(self, name: str) -> str | None:
        """Returns the pattern that decides about a linear, None where none does."""
        return next((pattern for pattern in self._entries if re.match(_regex(pattern), name)), None)


def skips(pattern: str) -> bool:
    """Whether the pattern leaves what it matches in float."""
    return pattern.startswith(SKIP)


def _regex(pattern: str) -> str:
    """Returns the expression; a pattern without a sign changes options, as for GPTQModel."""
    return pattern.removeprefix(SKIP) if skips(pattern) else pattern.removeprefix(CHANGE)


def _check_form(entries: Mapping[Any, Any]) -> None:
    if len(entries) > MAX_PATTERNS:
        raise InvalidConfigError("dynamic", len(entries), f"more than {MAX_PATTERNS} patterns", FORM)
    for pattern, changes in entries.items():
        if not isinstance(pattern, str) or not isinstance(changes, Mapping) or not _regex(pattern):
            raise InvalidConfigError("dynamic", {pattern: changes}, "not a pattern with options", FORM)
        _check_regex(pattern)
        if skips(pattern) and changes:
            raise InvalidConfigError("dynamic", pattern, "a skipped linear has no options", FORM)


def _check_regex(pattern: str) -> None:
    regex = _regex(pattern)
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", regex)
    if len(pattern) > MAX_PATTERN_LENGTH or len(re.findall(r"[*+{]", plain)) > MAX_QUANTIFIERS:
        raise InvalidConfigError("dynamic", pattern, "too long, or too many repetitions", FORM)
    if re.search(r"\)[*+{]", plain):
        raise InvalidConfigError("dynamic", pattern, "a repeated group can take for ever to match", FORM)
    try:
        re.compile(regex)
    except re.error as error:
        raise InvalidConfigError("dynamic", pattern, f"not a regular expression ({error})", FORM) from error
