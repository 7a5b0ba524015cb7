"""Maps the names of a built model's tensors to the names in its checkpoint, both ways and completely.

transformers renames weights while it loads them; its own rules are applied here, so that the engine finds every tensor
and the artifact carries the checkpoint's names, which loaders expect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from core.errors import ModelProblem, ModelRefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class NameMap:
    """source_of: checkpoint name by module name. unused: checkpoint tensors that the model has no place for.

    tied: module names that share another module name's tensor, by that name (`lm_head.weight` → embedding).
    """

    source_of: Mapping[str, str]
    unused: tuple[str, ...]
    tied: Mapping[str, str]


def map_names(model: PreTrainedModel, source_names: Sequence[str]) -> NameMap:
    """Returns the complete map; raises ModelRefusedError where a tensor is missing or would have to be fused."""
    state = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    source_of: dict[str, str] = {}
    unused: list[str] = []
    for name in source_names:
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if target not in state and name in state:
            target, pattern = name, None
        if pattern is not None:
            _refuse_fused(name)
        if target in state:
            source_of[target] = name
        else:
            unused.append(name)
    tied = _tied(model, source_of)
    _refuse_missing(model, set(state) - set(source_of) - set(tied))
    return NameMap(source_of=source_of, unused=tuple(unused), tied=tied)


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


def _refuse_fused(name: str) -> None:
    raise ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"Tensor {name} is one of several that transformers fuses into a single parameter (mixture of experts).",
        "Use a model whose blocks hold plain linear layers.",
    )


def _refuse_missing(model: PreTrainedModel, missing: set[str]) -> None:
    if missing:
        shown = ", ".join(sorted(missing)[:5])
        raise ModelRefusedError(
            ModelProblem.WEIGHTS_MISSING,
            f"The checkpoint lacks {len(missing)} tensors that {type(model).__name__} needs, such as {shown}.",
            "Use a complete copy of the model.",
        )
