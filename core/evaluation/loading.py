"""Loads a model folder for measuring: a float checkpoint, or one of our artifacts with its linears dequantized.

The reference that other loaders are compared with: no packed kernel, every weight is a float matrix. It holds the whole
model in memory and runs no code from the folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from core.checkpoint.reader import CheckpointReader
from core.errors import ArtifactInvalidError, ModelProblem, ModelRefusedError
from core.formats.gptq import SUFFIXES, V1, V2, from_gptq_tensors
from core.model.skeleton import Skeleton
from core.preflight.model_config import CONFIG_FILE, read_json_object, refuse_code

if TYPE_CHECKING:
    from pathlib import Path

PACKED, *_OTHERS = SUFFIXES
GENERATION_FILE = "generation_config.json"


def load_model(model_dir: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns the model in evaluation mode on the CPU, every linear a float matrix of `dtype`.

    Raises ModelRefusedError where the folder is no decoder with safetensors weights, ArtifactInvalidError where it is
    quantized in a way that is not ours to read or its tensors do not belong together.
    """
    refuse_code(model_dir)
    quantization = read_json_object(model_dir / CONFIG_FILE).get("quantization_config")
    with CheckpointReader(model_dir) as reader:
        source = reader if quantization is None else DequantizedSource.open(reader, quantization)
        skeleton = Skeleton.open(model_dir, source)
        if isinstance(source, DequantizedSource):
            source = source.with_transposed(_conv1d_weights(skeleton))
        skeleton.load(source, skeleton.names.source_of)
    model = skeleton.model
    torch.nn.Module.to(model, dtype=dtype)
    if (model_dir / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(model_dir)
    return model


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DequantizedSource:
    """A checkpoint of packed linears, seen as the float checkpoint that it stands for.

    transposed: stored names of weights whose module keeps them as [in, out].
    """

    reader: CheckpointReader
    bits: int
    group_size: int
    sym: bool
    version: str
    transposed: frozenset[str] = frozenset()

    @classmethod
    def open(cls, reader: CheckpointReader, quantization: object) -> Self:
        """Reads the grid from config.json's `quantization_config`; raises ArtifactInvalidError where it is not GPTQ."""
        match quantization:
            case {
                "quant_method": "gptq",
                "bits": int(bits),
                "group_size": int(group_size),
                "sym": bool(sym),
                "checkpoint_format": str(version),
            } if version in {V1, V2}:
                return cls(reader=reader, bits=bits, group_size=group_size, sym=sym, version=version)
        raise ArtifactInvalidError(CONFIG_FILE, f"quantization_config is no GPTQ grid: {json.dumps(quantization)}.")

    def with_transposed(self, names: frozenset[str]) -> DequantizedSource:
        """Returns the source with these weights given as [in, out]."""
        return replace(self, transposed=names)

    def names(self) -> tuple[str, ...]:
        """Returns the names of the float checkpoint: one `weight` in place of each linear's packed tensors."""
        packed = {f"{prefix}.{suffix}" for prefix in self._linears() for suffix in SUFFIXES}
        kept = [name for name in self.reader.names() if name not in packed]
        return tuple(sorted([*kept, *(f"{prefix}.weight" for prefix in self._linears())]))

    def tensor(self, name: str) -> torch.Tensor:
        """Returns one tensor of the float checkpoint; a linear's weight in float32."""
        prefix = name.removesuffix(".weight")
        if f"{prefix}.{PACKED}" not in self.reader:
            return self.reader.tensor(name)
        names = (f"{prefix}.{suffix}" for suffix in SUFFIXES)
        # An absent one is left out here and named by the format, which knows what it needs.
        tensors = self.reader.tensors(name for name in names if name in self.reader)
        weight = from_gptq_tensors(
            prefix, tensors, bits=self.bits, group_size=self.group_size, sym=self.sym, version=self.version
        )
        W_OI = weight.dequantize()
        return W_OI.T if name in self.transposed else W_OI

    def _linears(self) -> list[str]:
        return [name.removesuffix(f".{PACKED}") for name in self.reader.names() if name.endswith(f".{PACKED}")]


def _conv1d_weights(skeleton: Skeleton) -> frozenset[str]:
    modules: dict[str, Any] = dict(skeleton.model.named_modules())
    return frozenset(
        skeleton.names.source_of[f"{path}.weight"]
        for path, module in modules.items()
        if isinstance(module, Conv1D) and f"{path}.weight" in skeleton.names.source_of
    )
