"""Turns a model folder into the facts that a run is planned on, or refuses it; reads config.json and headers only.

Blocks are found by structure: the numbered list of modules that holds most of the weights. Standard library only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.errors import InvalidConfigError, ModelProblem, ModelRefusedError
from core.preflight.architectures import (
    CONV1D_MODEL_TYPES,
    EXPERT_MODEL_TYPES,
    NUMBERED_EXPERT,
    SCALED_EMBEDDING_MODEL_TYPES,
)
from core.preflight.model_config import ConfigFacts, already_quantized, read_config
from core.preflight.model_files import check_folder, check_tokenizer, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from core.configs import QuantizationConfig
    from core.preflight.safetensors_header import TensorFacts

FLOAT_DTYPES = frozenset({"float64", "float32", "float16", "bfloat16"})
PACKED_ENDINGS = (".qweight", ".qzeros", ".weight_packed", ".weight_scale_inv", ".absmax", ".quant_map")

# Routers choose experts; they stay in float, and so do experts that are stored as one tensor.
ROUTER_NAMES = frozenset({"gate", "router", "shared_expert_gate"})
EXPERTS_PART = ".experts."

MATRIX_DIMENSIONS = 2

HEAD_ENDINGS = ("lm_head.weight", "embed_out.weight")
TIED_HEAD = "lm_head"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known about a model without its weights.

    parameters: stored values, a tied head once. dtype: the one that most bytes are in. tensors: by stored name.
    linears: the 2-D weights inside the blocks, name without `.weight` to (out_features, in_features).
    block_prefix: what stands before the block's number. experts: of the block that has most, 0 in a dense model.
    fused_experts: stored tensors that hold several experts, which stay in float.
    max_positions: longest sequence that config.json allows, None where it is silent. head: the output head's name and
    (out_features, in_features), as a linear; of a tied one, which has no tensor of its own, the name that it gets.
    embedding: the input embedding's name and (width, vocabulary), as a linear from one-hot tokens; None where the
    checkpoint keeps it in the head's tensor.
    """

    architecture: str
    model_type: str
    blocks: int
    block_prefix: str
    hidden_size: int
    parameters: int
    total_bytes: int
    dtype: str
    tensors: Mapping[str, TensorFacts]
    linears: Mapping[str, tuple[int, int]]
    tied_head: bool
    experts: int
    fused_experts: int
    max_positions: int | None
    head: tuple[str, tuple[int, int]] | None = None
    embedding: tuple[str, tuple[int, int]] | None = None

    @property
    def calibrated(self) -> dict[str, tuple[int, int]]:
        """Returns the linears that have a Hessian: all but an embedding, whose inputs are token numbers."""
        name = None if self.embedding is None else self.embedding[0]
        return {linear: shape for linear, shape in self.linears.items() if linear != name}

    def planned(self, config: QuantizationConfig) -> ModelFacts:
        """Returns the facts with head and embedding among the linears if the config quantizes them.

        Raises InvalidConfigError where there is none to quantize.
        """
        linears = dict(self.linears)
        if config.lm_head:
            if self.head is None:
                raise InvalidConfigError("lm_head", True, "the weights hold neither a head nor an embedding", "false")  # noqa: FBT003 - the value that was given
            linears |= dict([self.head])
        if config.embeddings:
            linears |= dict([self._packable_embedding(config)])
        return replace(self, linears=linears)

    def _packable_embedding(self, config: QuantizationConfig) -> tuple[str, tuple[int, int]]:
        allowed = "false"
        if self.embedding is None:
            reason = "the weights hold no embedding of its own"
        elif self.model_type in SCALED_EMBEDDING_MODEL_TYPES:
            reason = f"{self.model_type} multiplies what it looks up, and packed embeddings are read without that"
        elif self.tied_head and (self.head is None or not config.lm_head or not config.for_linear(self.head[0])):
            reason, allowed = "the output head shares its tensor and would stay in float", "true with lm_head, or false"
        else:
            return self.embedding
        raise InvalidConfigError("embeddings", True, reason, allowed)  # noqa: FBT003 - the value that was given


def inspect_source(source_dir: Path) -> ModelFacts:
    """Returns the facts of a model folder.

    Raises ModelRefusedError with the problem that was met first: folder and forbidden files, config.json, tokenizer,
    weights. Nothing of the folder is executed, and no more than headers is read.
    """
    check_folder(source_dir)
    config = read_config(source_dir)
    check_tokenizer(source_dir)
    tensors = read_tensors(source_dir)
    _refuse_packed(tensors)
    _refuse_unknown_experts(config.model_type, tensors)
    prefix, blocks = _find_blocks(tensors)
    _check_blocks(config, prefix, blocks)
    linears = _linears(tensors, prefix, transposed=config.model_type in CONV1D_MODEL_TYPES)
    return ModelFacts(
        architecture=config.architecture,
        model_type=config.model_type,
        blocks=len(blocks),
        block_prefix=prefix,
        hidden_size=config.hidden_size or _embedding_width(tensors, prefix),
        parameters=sum(tensor.elements for tensor in tensors.values()),
        total_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        dtype=_main_dtype(tensors),
        tensors=tensors,
        linears=linears,
        tied_head=_has_tied_head(config, tensors),
        experts=1 + max((int(found[1]) for found in map(NUMBERED_EXPERT.search, linears) if found), default=-1),
        fused_experts=sum(_is_fused(name) for name in tensors),
        max_positions=config.max_positions,
        head=_head(tensors, prefix),
        embedding=_embedding(tensors, prefix),
    )


def _refuse_packed(tensors: Mapping[str, TensorFacts]) -> None:
    for name, tensor in tensors.items():
        if name.endswith(PACKED_ENDINGS):
            raise already_quantized(f"it stores {name}")
        if name.endswith(".weight") and tensor.dtype not in FLOAT_DTYPES:
            raise already_quantized(f"{name} is stored as {tensor.dtype}")


def _refuse_unknown_experts(model_type: str, tensors: Mapping[str, TensorFacts]) -> None:
    if model_type in EXPERT_MODEL_TYPES:
        return
    for name in tensors:
        if NUMBERED_EXPERT.search(name):
            raise ModelRefusedError(
                ModelProblem.UNSUPPORTED_ARCHITECTURE,
                f"{name} is the weight of one of many experts, which are not known for model_type {model_type!r}.",
                f"Give a dense model or one of {', '.join(sorted(EXPERT_MODEL_TYPES))}.",
            )


def _is_fused(name: str) -> bool:
    """Whether a stored tensor holds several experts."""
    return EXPERTS_PART in name and not NUMBERED_EXPERT.search(name)


def _find_blocks(tensors: Mapping[str, TensorFacts]) -> tuple[str, list[int]]:
    """Returns the prefix whose numbered modules hold the most bytes, and their numbers in order."""
    bytes_of: Counter[str] = Counter()
    numbers: dict[str, set[int]] = {}
    for name, tensor in tensors.items():
        numbered = _numbered(name)
        if numbered:
            prefix, number = numbered
            bytes_of[prefix] += tensor.nbytes
            numbers.setdefault(prefix, set()).add(number)
    if not bytes_of:
        raise ModelRefusedError(
            ModelProblem.UNSUPPORTED_ARCHITECTURE,
            "The weights hold no numbered list of decoder blocks.",
            "Give a decoder-only text model.",
        )
    prefix = max(sorted(bytes_of), key=lambda candidate: bytes_of[candidate])
    return prefix, sorted(numbers[prefix])


def _numbered(name: str) -> tuple[str, int] | None:
    """Returns what stands before the first number in a name (with its dot), and that number."""
    parts = name.split(".")
    for position, part in enumerate(parts[:-1]):
        if part.isdecimal():
            return "".join(f"{before}." for before in parts[:position]), int(part)
    return None


def _check_blocks(config: ConfigFacts, prefix: str, blocks: list[int]) -> None:
    expected = len(blocks) if config.blocks is None else config.blocks
    if blocks == list(range(expected)):
        return
    raise ModelRefusedError(
        ModelProblem.WEIGHTS_MISSING,
        f"config.json tells of {expected} blocks, the weights hold {len(blocks)} under {prefix!r}.",
        "Download the model again.",
    )


def _linears(tensors: Mapping[str, TensorFacts], prefix: str, *, transposed: bool) -> dict[str, tuple[int, int]]:
    linears = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if (
            module != name
            and name.startswith(prefix)
            and len(tensor.shape) == MATRIX_DIMENSIONS
            and module.rpartition(".")[2] not in ROUTER_NAMES
            and not _is_fused(name)
        ):
            first, second = tensor.shape
            linears[module] = (second, first) if transposed else (first, second)
    return linears


def _embedding_width(tensors: Mapping[str, TensorFacts], prefix: str) -> int:
    """Returns the width of the largest matrix outside the blocks, which is the embedding (or the head, as wide)."""
    matrices = _matrices_outside(tensors, prefix)
    if not matrices:
        raise ModelRefusedError(
            ModelProblem.WEIGHTS_MISSING, "The weights hold no embedding.", "Download the model again."
        )
    return matrices[_largest(matrices)][1]


def _matrices_outside(tensors: Mapping[str, TensorFacts], prefix: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all matrices outside the blocks."""
    return {
        name: tensor.shape
        for name, tensor in tensors.items()
        if not name.startswith(prefix) and len(tensor.shape) == MATRIX_DIMENSIONS
    }


def _largest(matrices: Mapping[str, tuple[int, ...]]) -> str:
    return max(matrices, key=lambda name: matrices[name][0] * matrices[name][1])


def _head(tensors: Mapping[str, TensorFacts], prefix: str) -> tuple[str, tuple[int, int]] | None:
    """Returns the stored head, or the largest matrix outside the blocks, the embedding, which it is tied to."""
    outside = _matrices_outside(tensors, prefix)
    stored = next((name for name in outside if name.endswith(HEAD_ENDINGS)), None)
    if stored is not None:
        rows, columns = outside[stored]
        return stored.removesuffix(".weight"), (rows, columns)
    if not outside:
        return None
    rows, columns = outside[_largest(outside)]
    return TIED_HEAD, (rows, columns)


def _embedding(tensors: Mapping[str, TensorFacts], prefix: str) -> tuple[str, tuple[int, int]] | None:
    """Returns the largest matrix outside the blocks that is no head, its sides exchanged."""
    matrices = {
        name: shape for name, shape in _matrices_outside(tensors, prefix).items() if not name.endswith(HEAD_ENDINGS)
    }
    if not matrices:
        return None
    name = _largest(matrices)
    vocabulary, width = matrices[name]
    return name.removesuffix(".weight"), (width, vocabulary)


def _main_dtype(tensors: Mapping[str, TensorFacts]) -> str:
    bytes_of: Counter[str] = Counter()
    for tensor in tensors.values():
        bytes_of[tensor.dtype] += tensor.nbytes
    return bytes_of.most_common(1)[0][0]


def _has_tied_head(config: ConfigFacts, tensors: Mapping[str, TensorFacts]) -> bool:
    stored = any(name.endswith(HEAD_ENDINGS) for name in tensors)
    return not stored if config.tied_head is None else config.tied_head
