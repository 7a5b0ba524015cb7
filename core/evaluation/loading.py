"""Loads a model folder for measuring: a float checkpoint, or one of our artifacts with its linears dequantized.

The reference that other loaders are compared with: no packed kernel, every weight is a float matrix. It holds the whole
model in memory and runs no code from the folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from core.checkpoint.reader import CheckpointReader
from core.errors import ArtifactInvalidError, InvalidConfigError, ModelProblem, ModelRefusedError
from core.formats import compressed_tensors
from core.formats.gptq import SUFFIXES, V1, V2, from_gptq_tensors
from core.formats.quantize_config import grid_for
from core.model.skeleton import Skeleton
from core.preflight.model_config import CONFIG_FILE, read_json_object, refuse_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from core.weights import QuantizedWeight

GENERATION_FILE = "generation_config.json"


def load_model(model_dir: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the model in evaluation mode on the CPU, every linear a float matrix of `dtype`.

    Raises ModelRefusedError where the folder is no decoder with safetensors weights, ArtifactInvalidError where it is
    quantized in a way that is not ours to read or its tensors do not belong together.
    """
    with CheckpointReader(model_dir) as reader:
        skeleton, source = open_weights(model_dir, reader)
        skeleton.load(source, skeleton.names.source_of)
    model = skeleton.model
    torch.nn.Module.to(model, dtype=dtype)
    if (model_dir / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(model_dir)
    return model


def open_weights(
    model_dir: Path, reader: CheckpointReader, dtype: torch.dtype = torch.float32
) -> tuple[Skeleton, WeightSource]:
    """Returns the model without weights and where its weights come from; raises as `load_model`."""
    refuse_code(model_dir)
    quantization = read_json_object(model_dir / CONFIG_FILE).get("quantization_config")
    if quantization is None:
        return Skeleton.open(model_dir, reader, dtype), reader
    source = DequantizedSource.open(reader, quantization)
    skeleton = Skeleton.open(model_dir, source, dtype)
    return skeleton, source.with_transposed(_transposed_weights(skeleton))


def load_tokenizer(model_dir: Path) -> PreTrainedTokenizerBase:
    """Returns the folder's tokenizer; raises ModelRefusedError (TOKENIZER_MISSING) where it cannot be built."""
    refuse_code(model_dir)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model_dir, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelRefusedError(
            ModelProblem.TOKENIZER_MISSING,
            f"The tokenizer of {model_dir.name!r} cannot be loaded ({error}).",
            "Add the tokenizer files of the original model.",
        ) from error
    return tokenizer


WeightSource: TypeAlias = "CheckpointReader | DequantizedSource"


class Layout(Protocol):
    """How an artifact stores its linears. suffixes: the tensors of one, the first of which every linear has."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Returns the endings of a linear's tensors."""

    def weight(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> QuantizedWeight:
        """Returns a linear from its tensors; raises ArtifactInvalidError where they do not belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQLayout:
    """The GPTQ checkpoint layout. quantization: config.json's `quantization_config`."""

    quantization: Mapping[str, Any]
    version: str
    suffixes: tuple[str, ...] = SUFFIXES

    def weight(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> QuantizedWeight:
        """Returns a linear."""
        try:
            grid = grid_for(self.quantization, prefix)
        except InvalidConfigError as error:
            raise ArtifactInvalidError(CONFIG_FILE, str(error)) from error
        if grid is None:
            raise ArtifactInvalidError(prefix, "packed, though dynamic leaves it in float.")
        return from_gptq_tensors(
            prefix, tensors, bits=grid.bits, group_size=grid.group_size, sym=grid.sym, version=self.version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedLayout:
    """The `pack-quantized` layout of compressed-tensors. groups: the `config_groups` of its config."""

    groups: object
    suffixes: tuple[str, ...] = compressed_tensors.SUFFIXES

    def weight(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> QuantizedWeight:
        """Returns a linear."""
        grid = compressed_tensors.grid_of(self.groups, prefix)
        return compressed_tensors.from_compressed_tensors(prefix, tensors, grid)


def layout_of(quantization: object) -> Layout:
    """Returns the layout that config.json's `quantization_config` names; raises ArtifactInvalidError for others."""
    match quantization:
        case {
            "quant_method": "gptq",
            "bits": int(bits),
            "group_size": int(group_size),
            "sym": bool(sym),
            "checkpoint_format": str(version),
            **rest,
        } if version in {V1, V2}:
            grid = {"bits": bits, "group_size": group_size, "sym": sym, "dynamic": rest.get("dynamic")}
            return GPTQLayout(quantization=grid, version=version)
        case {"quant_method": compressed_tensors.METHOD, "format": compressed_tensors.LAYOUT, "config_groups": groups}:
            return CompressedLayout(groups=groups)
    raise ArtifactInvalidError(CONFIG_FILE, f"quantization_config is no layout of ours: {json.dumps(quantization)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DequantizedSource:
    """A checkpoint of packed linears, seen as the float checkpoint that it stands for.

    transposed: stored names of weights whose module keeps them as [in, out].
    """

    reader: CheckpointReader
    layout: Layout
    transposed: frozenset[str] = frozenset()

    @classmethod
    def open(cls, reader: CheckpointReader, quantization: object) -> Self:
        """Reads the layout from `quantization_config`; raises ArtifactInvalidError where it is not ours."""
        return cls(reader=reader, layout=layout_of(quantization))

    def with_transposed(self, names: frozenset[str]) -> DequantizedSource:
        """Returns the source with these weights given as [in, out]."""
        return replace(self, transposed=names)

    def names(self) -> tuple[str, ...]:
        """Returns the names of the float checkpoint: one `weight` in place of each linear's packed tensors."""
        packed = {f"{prefix}.{suffix}" for prefix in self.linears() for suffix in self.layout.suffixes}
        kept = [name for name in self.reader.names() if name not in packed]
        return tuple(sorted([*kept, *(f"{prefix}.weight" for prefix in self.linears())]))

    def tensor(self, name: str) -> torch.Tensor:
        """Returns one tensor of the float checkpoint; a linear's weight in float32."""
        prefix = name.removesuffix(".weight")
        if f"{prefix}.{self.layout.suffixes[0]}" not in self.reader:
            return self.reader.tensor(name)
        W_OI = self.linear(prefix).dequantize()
        return W_OI.T if name in self.transposed else W_OI

    def linear(self, prefix: str) -> QuantizedWeight:
        """Returns one of `linears` as it is packed."""
        names = [f"{prefix}.{suffix}" for suffix in self.layout.suffixes]
        # An absent one is left out here and named by the format, which knows what it needs.
        return self.layout.weight(prefix, self.reader.tensors(part for part in names if part in self.reader))

    def linears(self) -> list[str]:
        """Returns the stored prefixes of the packed linears."""
        ending = f".{self.layout.suffixes[0]}"
        return [name.removesuffix(ending) for name in self.reader.names() if name.endswith(ending)]


def _transposed_weights(skeleton: Skeleton) -> frozenset[str]:
    """Returns the stored weights whose modules keep the inputs, or tokens, as rows."""
    modules: dict[str, Any] = dict(skeleton.model.named_modules())
    return frozenset(
        skeleton.names.source_of[f"{path}.weight"]
        for path, module in modules.items()
        if isinstance(module, (Conv1D, torch.nn.Embedding)) and f"{path}.weight" in skeleton.names.source_of
    )
