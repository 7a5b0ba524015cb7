"""Builds a model without weights from a folder's config, and fills and empties parts of it from a checkpoint.

Parameters start on the meta device; buffers that a module computes for itself (rotary frequencies) are real. A part is
loaded when its turn comes and dropped when it is done, so that the whole model is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.device import CPU
from core.errors import ModelProblem, ModelRefusedError
from core.model.attention import attend_blockwise
from core.model.experts import split_experts
from core.model.intermediates import spare_intermediates
from core.model.names import NameMap, map_names
from core.model.structure import Blocks, find_blocks
from core.profile import Work, span


class TensorSource(Protocol):
    """Where weights come from, one tensor at a time."""

    def names(self) -> tuple[str, ...]:
        """Returns every tensor's name."""

    def tensor(self, name: str) -> torch.Tensor:
        """Returns one tensor."""


def build_empty(source_dir: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Returns the decoder that config.json describes, in evaluation mode, its parameters on the meta device.

    Never runs code from the folder. Raises ModelRefusedError where transformers cannot build a decoder from it.
    """
    try:
        config = AutoConfig.from_pretrained(source_dir, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # the auto class is untyped
                config, dtype=dtype, trust_remote_code=False
            )
    except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise ModelRefusedError(
            ModelProblem.UNSUPPORTED_ARCHITECTURE,
            f"transformers cannot build a causal language model from config.json: {error}",
            "Use a decoder model of a family that this transformers version knows.",
        ) from error
    attend_blockwise(model)
    spare_intermediates(model)
    return model.eval()  # type: ignore[no-any-return]  # the auto class is untyped


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputHead:
    """The linear behind the last norm. path: in the model. stored_name: of a linear of its own in a checkpoint.

    weight, bias: the checkpoint's tensors; the weight is the embedding's where the two are tied.
    """

    path: str
    stored_name: str
    module: nn.Module
    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEmbedding:
    """What turns token numbers into vectors. path: in the model. stored_name: in the checkpoint, without `.weight`."""

    path: str
    stored_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """A model without weights, its blocks, and where each tensor lies in the checkpoint."""

    model: PreTrainedModel
    blocks: Blocks
    names: NameMap
    dtype: torch.dtype
    device: torch.device = CPU

    @classmethod
    def open(
        cls, source_dir: Path, source: TensorSource, dtype: torch.dtype = torch.float32, device: torch.device = CPU
    ) -> Skeleton:
        """Builds the model, its experts split, and finds its parameters in the checkpoint. device: where parts go.

        Raises ModelRefusedError if one is missing.
        """
        model = build_empty(source_dir, dtype)
        names = map_names(model, source.names())
        split_experts(model, names.experts)
        _move_buffers(model, device)
        return cls(model=model, blocks=find_blocks(model), names=names, dtype=dtype, device=device)

    def block_targets(self, index: int) -> tuple[str, ...]:
        """Returns the module names of a block's checkpoint tensors."""
        prefix = f"{self.blocks.path(index)}."
        return tuple(name for name in self.names.source_of if name.startswith(prefix))

    def outer_targets(self) -> tuple[str, ...]:
        """Returns the module names of all tensors outside the blocks."""
        prefix = f"{self.blocks.prefix}."
        return tuple(name for name in self.names.source_of if not name.startswith(prefix))

    def embedding_targets(self) -> tuple[str, ...]:
        """Returns what runs before the first block: everything outside the blocks but an untied head."""
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped in transformers
        paths = [path for path, module in self.model.named_modules() if module is head]
        return tuple(
            name for name in self.outer_targets() if not any(name.startswith(f"{path}.") for path in paths if path)
        )

    def head(self) -> OutputHead:
        """Returns the output head; raises ModelRefusedError where the embedding is kept in the head's tensor."""
        module = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped in transformers
        path = next(path for path, found in self.model.named_modules() if found is module)
        target = f"{path}.weight"
        if target in self.names.tied.values():
            raise ModelRefusedError(
                ModelProblem.UNSUPPORTED_ARCHITECTURE,
                f"The checkpoint stores the embedding as {self.names.source_of[target]}, the head's tensor.",
                "Set lm_head to false.",
            )
        source_of = self.names.source_of
        return OutputHead(
            path=path,
            stored_name=source_of.get(target, target).removesuffix(".weight"),
            module=module,
            weight=source_of[self.names.tied.get(target, target)],
            bias=source_of.get(f"{path}.bias"),
        )

    def embedding(self) -> InputEmbedding:
        """Returns the input embedding; raises ModelRefusedError where it is more than a table of its own."""
        module = self.model.get_input_embeddings()
        path = next(path for path, found in self.model.named_modules() if found is module)
        stored = self.names.source_of.get(f"{path}.weight")
        if type(module) is not nn.Embedding or stored is None:
            raise ModelRefusedError(
                ModelProblem.UNSUPPORTED_ARCHITECTURE,
                f"The input embedding is a {type(module).__name__}, which is read back as a plain table of its own.",
                "Set embeddings to false.",
            )
        return InputEmbedding(path=path, stored_name=stored.removesuffix(".weight"))

    @span(Work.LOAD)
    def load(self, source: TensorSource, targets: Iterable[str]) -> None:
        """Puts real tensors in place, in the skeleton's dtype and on its device; from pinned memory without a wait."""
        for target in targets:
            tensor = source.tensor(self.names.source_of[target])
            _place(self.model, target, tensor.to(device=self.device, dtype=self.dtype, non_blocking=True))
        self._tie()

    def drop(self, targets: Iterable[str]) -> None:
        """Frees the tensors again."""
        state = dict(self.model.named_parameters(remove_duplicate=False)) | dict(self.model.named_buffers())
        for target in targets:
            if target in state:
                _place(self.model, target, torch.empty_like(state[target], device="meta"))
        self._tie()

    def _tie(self) -> None:
        for target, original in self.names.tied.items():
            owner, attribute = _owner(self.model, original)
            tied_owner, tied_attribute = _owner(self.model, target)
            tied_owner._parameters[tied_attribute] = owner._parameters[attribute]  # noqa: SLF001 - torch has no setter that shares


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                module._buffers[name] = buffer.to(device)  # noqa: SLF001 - keeps the buffer registered


def _owner(model: nn.Module, target: str) -> tuple[nn.Module, str]:
    path, _, attribute = target.rpartition(".")
    return model.get_submodule(path), attribute


def _place(model: nn.Module, target: str, tensor: torch.Tensor) -> None:
    module, attribute = _owner(model, target)
    if attribute in module._parameters:  # noqa: SLF001 - a parameter on the meta device cannot be written in place
        setattr(module, attribute, nn.Parameter(tensor, requires_grad=False))
    else:
        module._buffers[attribute] = tensor  # noqa: SLF001 - keeps the buffer registered
