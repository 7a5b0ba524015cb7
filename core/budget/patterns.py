"""Writes which unit is on which grid as a config with `dynamic` patterns, so that everything behind it just reads them.

The grid of most weights is the config's own; each other one gets a pattern per family, with the blocks' numbers in it.
Standard library only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from core.budget.units import EXPERTS, Unit
from core.configs import QuantizationConfig
from core.overrides import CHANGE, MAX_PATTERN_LENGTH, Overrides
from core.preflight.mixed import FUSED_NAMES
from core.preflight.rules import Grid

MEMBERS: Final = {joined: (*members, joined) for members, joined in FUSED_NAMES.items()}
"""A loader that joins linears asks for the joined name, one that does not for each."""


def planned_config(
    config: QuantizationConfig, prefix: str, units: Sequence[Unit], grids: Sequence[Grid]
) -> QuantizationConfig:
    """Returns the config with these grids; the user's own patterns stay in front. prefix: as in ModelFacts."""
    weights: Counter[Grid] = Counter()
    for unit, grid in zip(units, grids, strict=True):
        weights[grid] += unit.weights
    [(base, _)] = weights.most_common(1)
    blocks: dict[tuple[str, Grid], list[int]] = {}
    for unit, grid in zip(units, grids, strict=True):
        if grid != base:
            blocks.setdefault((unit.family, grid), []).append(unit.block)
    patterns: dict[str, Mapping[str, Any]] = dict(config.dynamic)
    for (family, grid), numbers in blocks.items():
        changes = {"bits": grid.bits, "group_size": grid.group_size}
        patterns |= {f"{CHANGE}{regex}": changes for regex in _regexes(prefix, family, numbers)}
    return replace(config, bits=base.bits, group_size=base.group_size, dynamic=Overrides(patterns))


def _regexes(prefix: str, family: str, blocks: Sequence[int]) -> Iterator[str]:
    """Yields expressions, none too long, that together match the family in these blocks and nothing else."""
    head, tail = _escaped(prefix), _tail(family)
    room = MAX_PATTERN_LENGTH - len(CHANGE) - len(f"{head}(?:){tail}")
    part = ""
    for number in map(str, sorted(blocks)):
        if part and len(part) + 1 + len(number) > room:
            yield f"{head}(?:{part}){tail}"
            part = ""
        part = f"{part}|{number}" if part else number
    yield f"{head}(?:{part}){tail}"


def _tail(family: str) -> str:
    if f".{family}.".endswith(EXPERTS):
        return rf"\.{_escaped(family)}\b"
    parent, dot, last = family.rpartition(".")
    names = MEMBERS.get(last, (last,))
    either = f"(?:{'|'.join(map(_escaped, names))})" if len(names) > 1 else _escaped(last)
    return rf"\.{_escaped(f'{parent}{dot}')}{either}$"


def _escaped(text: str) -> str:
    return re.escape(text)
