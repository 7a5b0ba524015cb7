"""Maps the names of a built model's tensors to the names in its checkpoint, both ways and completely.

transformers renames weights while it loads them, and stacks those of experts; its own rules are applied here, so that
the engine finds every tensor and the artifact carries the checkpoint's names, which loaders expect.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from core.errors import ModelProblem, ModelRefusedError
from core.model.experts import PROJECTIONS, fused_modules

_STACKED: Final = {1: [MergeModulelist], 2: [MergeModulelist, Concatenate]}
"""What transformers does with the experts' weights of one and of two projections to fuse them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameMap:
    """source_of: checkpoint name by module name. unused: checkpoint tensors that the model has no place for.

    tied: module names that share another module name's tensor, by that name (`lm_head.weight` → embedding). experts:
    module paths of the fused experts that the checkpoint stores one by one; their module names are those of the split.
    """

    source_of: Mapping[str, str]
    unused: tuple[str, ...]
    tied: Mapping[str, str]
    experts: tuple[str, ...] = ()


def map_names(model: PreTrainedModel, source_names: Sequence[str]) -> NameMap:
    """Returns the complete map of the model with the experts split that it names; the model itself is not split yet.

    Raises ModelRefusedError where a tensor is missing, or where transformers fuses it into one that cannot be split.
    """
    state = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    fused = fused_modules(model)
    split: dict[str, nn.Module] = {}
    source_of: dict[str, str] = {}
    unused: list[str] = []
    for name in source_names:
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if target not in state and name in state:
            target, pattern = name, None
        if pattern is not None:
            path = target.rpartition(".")[0]
            source_of[_expert_target(name, target, pattern, converters, fused)] = name
            split[path] = fused[path]
        elif target in state:
            source_of[target] = name
        else:
            unused.append(name)
    tied = _tied(model, source_of)
    _refuse_missing(model, _split_state(state, split) - set(source_of) - set(tied))
    return NameMap(source_of=source_of, unused=tuple(unused), tied=tied, experts=tuple(split))


def _expert_target(
    name: str, target: str, pattern: str, converters: Sequence[WeightConverter], fused: Collection[str]
) -> str:
    """Returns the split linear's weight that a stored tensor is, which a converter would stack into `target`."""
    path, _, parameter = target.rpartition(".")
    converter = next(rule for rule in converters if pattern in rule.source_patterns)
    linears = PROJECTIONS.get(parameter, ())
    number = re.search(r"\.experts\.(\d+)\.", name)
    stacked = [type(operation) for operation in converter.operations] == _STACKED.get(len(converter.source_patterns))
    if path not in fused or number is None or not stacked or len(linears) != len(converter.source_patterns):
        raise _fused(name)
    return f"{path}.{number[1]}.{linears[converter.source_patterns.index(pattern)]}.weight"


def _split_state(state: Collection[str], split: Mapping[str, nn.Module]) -> set[str]:
    """Returns the names of the model's tensors once these experts are split."""
    names = set(state)
    for path, module in split.items():
        for parameter, linears in PROJECTIONS.items():
            names.remove(f"{path}.{parameter}")
            experts = range(len(module.get_parameter(parameter)))
            names |= {f"{path}.{number}.{linear}.weight" for number in experts for linear in linears}
    return names


def _tied(model: PreTrainedModel, source_of: Mapping[str, str]) -> dict[str, str]:
    """Returns the parameters that share storage with another one and have no tensor of their own in the checkpoint."""
    first_name: dict[int, str] = {}
    groups: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(first_name.setdefault(id(parameter), name), []).append(name)
    declared: Mapping[str, str] = model.all_tied_weights_keys or {}
    for target, original in declared.items():
        groups.setdefault(original, [original]).append(target)
    tied: dict[str, str] = {}
    for members in groups.values():
        stored = [name for name in members if name in source_of]
        if stored:
            tied.update({name: stored[0] for name in members if name not in source_of})
    return tied


def _fused(name: str) -> ModelRefusedError:
    return ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"Tensor {name} is one of several that transformers fuses into a parameter of another form than known experts.",
        "Use a model whose blocks hold plain linears or plain gated experts.",
    )


def _refuse_missing(model: PreTrainedModel, missing: set[str]) -> None:
    if missing:
        shown = ", ".join(sorted(missing)[:5])
        raise ModelRefusedError(
            ModelProblem.WEIGHTS_MISSING,
            f"The checkpoint lacks {len(missing)} tensors that {type(model).__name__} needs, such as {shown}.",
            "Use a complete copy of the model.",
        )
