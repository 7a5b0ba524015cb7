"""The artifact's README.md: how it was made, what was measured, and lines to paste for each loader.

Everything in it is given by the caller; no times and no paths, so that equal runs write equal cards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from core.configs import Format, QuantizationConfig
from core.formats import compressed_tensors
from core.formats.gptq import checkpoint_format
from core.overrides import SKIP, skips
from core.preflight.architectures import NUMBERED_EXPERT
from core.preflight.mixed import grid_of, linear_grids, mixed_violations
from core.preflight.rules import Severity, Shapes, Target
from core.preflight.targets import family_refusal

CARD_FILE: Final = "README.md"
_RULE: Final = "|---|---|"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a card says.

    name: the artifact's. base_model: the source's name or hub id, never a path. shapes: the quantized linears.
    evidence: what was measured, label to value, in the order of the table. warnings: as in the report. layout: what the
    card's folder holds. model_type: the source's family, as config.json names it.
    """

    name: str
    base_model: str
    config: QuantizationConfig
    meta: Mapping[str, Any]
    shapes: Shapes
    evidence: Mapping[str, str]
    warnings: Sequence[str] = ()
    layout: Format = Format.GPTQ
    model_type: str = ""


def model_card_text(card: ModelCard) -> str:
    """Returns the card in Markdown, with the metadata block that model hubs read."""
    sections = [_front_matter(card), _summary(card), _evidence(card), _loading(card), _integrity()]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(card: ModelCard) -> str:
    tags = [str(card.config.method), str(card.layout), f"{card.config.bits}-bit"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        f"base_model: {json.dumps(card.base_model, ensure_ascii=False)}",
        "base_model_relation: quantized",
        "tags:",
        *(f"- {tag}" for tag in dict.fromkeys(tags)),
        "---",
    ]
    return "\n".join(lines)


def _summary(card: ModelCard) -> str:
    config = card.config
    grid = "symmetric" if config.sym else "asymmetric"
    group = "one scale per row" if config.group_size == -1 else f"groups of {config.group_size}"
    return (
        f"# {card.name}\n\n"
        f"{card.base_model}, quantized to {config.bits} bits by {str(config.method).upper()}: {grid}, {group}, "
        f"{len(card.shapes)} linears{_exceptions(card)}. {_unchanged(card)} "
        f"Checkpoint format `{_format_name(card)}`."
    )


def _unchanged(card: ModelCard) -> str:
    routers = ", and routers," if any(NUMBERED_EXPERT.search(name) for name in card.shapes) else ""
    config = card.config
    kept = [*([] if config.embeddings else ["embeddings"]), "norms", *([] if config.lm_head else ["head"])]
    named = " and ".join(filter(None, (", ".join(kept[:-1]), kept[-1])))
    return f"{named[0].upper()}{named[1:]}{routers} are unchanged."


def _exceptions(card: ModelCard) -> str:
    """Returns how many linears have another grid, by grid, and which have none."""
    usual = grid_of(card.config)
    others = Counter(str(grid) for grid in linear_grids(card.config, card.shapes).values() if grid != usual)
    apart = "".join(f"; {count} of them with {grid}" for grid, count in sorted(others.items()))
    floats = [f"`{pattern.removeprefix(SKIP)}`" for pattern in card.config.dynamic if skips(pattern)]
    return apart + (f"; linears like {' and '.join(floats)} stay in float" if floats else "")


def _format_name(card: ModelCard) -> str:
    if card.layout is Format.GPTQ:
        return checkpoint_format(sym=card.config.always_sym)
    return f"{card.layout}, {compressed_tensors.LAYOUT}"


def _evidence(card: ModelCard) -> str:
    rows = {**card.evidence, **{name: _plain(value) for name, value in card.meta.items()}}
    text = f"## How it was made and what was measured\n\n| | |\n{_RULE}\n{_rows(rows)}"
    if card.warnings:
        text += "\n\n" + "\n".join(f"- Warning: {warning}" for warning in card.warnings)
    return f"{text}\n\nPer linear: `quantization_report.json`."


def with_evidence(text: str, evidence: Mapping[str, str]) -> str:
    """Returns a card's text with more rows in front of its table; a row that has one of the labels is replaced."""
    head, rule, rest = text.partition(f"{_RULE}\n")
    replaced = tuple(f"| {_cell(name)} | " for name in evidence)
    kept = "".join(line for line in rest.splitlines(keepends=True) if not line.startswith(replaced))
    return f"{head}{rule}{_rows(evidence)}\n{kept}"


def _rows(rows: Mapping[str, str]) -> str:
    return "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())


def _loading(card: ModelCard) -> str:
    parts = []
    for target in (Target.TRANSFORMERS, Target.VLLM, Target.GPTQMODEL):
        broken = mixed_violations(target, card.config, card.shapes, card.layout)
        refusals = [violation for violation in broken if violation.severity is Severity.REFUSE]
        reason = _family_reason(target, card) or (refusals[0].detail if refusals else None)
        body = f"Does not load it: {reason}" if reason else _snippet(target, card)
        parts.append(f"### {target}\n\n{body}")
    return "## Loading\n\n" + "\n\n".join(parts)


def _family_reason(target: Target, card: ModelCard) -> str | None:
    family = family_refusal(target, card.model_type, card.layout, card.shapes)
    return None if family is None else f"{family.reason} ({family.versions})."


def _snippet(target: Target, card: ModelCard) -> str:
    name = card.name
    match target:
        case Target.TRANSFORMERS:
            return _transformers_snippet(card)
        case Target.VLLM:
            return _code("bash", f"vllm serve ./{name}")
        case Target.GPTQMODEL:
            return _code("python", f'from gptqmodel import GPTQModel\n\nmodel = GPTQModel.load("./{name}")')
        case _:
            assert_never(target)


def _transformers_snippet(card: ModelCard) -> str:
    readers = "optimum gptqmodel" if card.layout is Format.GPTQ else str(card.layout)
    imports, option = "AutoModelForCausalLM, AutoTokenizer", ""
    if card.layout is Format.COMPRESSED_TENSORS and not card.config.always_sym:
        # Without it the loader's placeholders for packed zeros have the wrong shape (targets.py has the rule).
        imports += ", CompressedTensorsConfig"
        option = ", quantization_config=CompressedTensorsConfig(dequantize=True)"
    code = (
        f"from transformers import {imports}\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("./{card.name}", device_map="auto"{option})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("./{card.name}")'
    )
    return _code("bash", f"pip install transformers {readers}") + "\n\n" + _code("python", code)


def _integrity() -> str:
    return f"## Integrity\n\n{_code('bash', 'sha256sum -c SHA256SUMS')}"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    """Returns the text in one table cell: foreign names may hold bars and line feeds."""
    return text.replace("|", "\\|").replace("\n", " ")
