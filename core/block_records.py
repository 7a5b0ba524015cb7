"""A solved block as the work folder records it, tensors under the checkpoint's names and lines of the report, and back.

It knows which stored tensor belongs to which linear; it neither solves nor writes files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from core.checkpoint.reader import CheckpointReader
from core.configs import QuantizationConfig
from core.formats.gptq import check_packable, checkpoint_format, from_gptq_tensors, to_gptq_tensors
from core.model.activations import HiddenStates, Keep
from core.model.skeleton import InputEmbedding, OutputHead, Skeleton
from core.model.structure import find_linears, linear_weight, set_linear_weight
from core.preflight.architectures import NUMBERED_EXPERT
from core.profile import Work, span
from core.quantizers.task import SolvedBlock
from core.report import LinearReport
from core.weights import QuantizedWeight


@dataclass(frozen=True, slots=True, kw_only=True)
class _Linear:
    """A linear that is quantized. name: inside its block; stored_name: in the checkpoint."""

    name: str
    stored_name: str
    module: nn.Module
    config: QuantizationConfig


@dataclass(frozen=True, slots=True)
class _Part:
    """A solved linear under its stored name."""

    name: str
    weight: QuantizedWeight
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """A solved block's tensors in the making. It holds all that it needs, so that the block may be dropped meanwhile.

    version: of the checkpoint's format. changed: float tensors by stored name, with the dtype that they are stored in.
    """

    parts: Sequence[_Part]
    version: str
    changed: Mapping[str, tuple[torch.Tensor, torch.dtype]] = field(default_factory=dict)

    @span(Work.PACK)
    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the tensors by stored name, on the CPU."""
        packed: dict[str, torch.Tensor] = {}
        for part in self.parts:
            packed |= to_gptq_tensors(part.name, part.weight, part.bias, version=self.version)
        return packed | {name: tensor.to(dtype=dtype, device="cpu") for name, (tensor, dtype) in self.changed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecords:
    """One model's blocks under one config. source: the checkpoint, for the dtypes of what stays in float."""

    skeleton: Skeleton
    config: QuantizationConfig
    source: CheckpointReader

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Returns (out_features, in_features) of every linear by its stored name; refuses what cannot be packed."""
        found = {}
        for index in range(len(self.skeleton.blocks.modules)):
            for linear in self._linears(index):
                out_features, in_features = linear_weight(linear.module).shape
                check_packable(out_features, in_features, linear.config.bits)
                found[linear.stored_name] = (out_features, in_features)
        if self.head is not None:
            out_features, in_features = linear_weight(self.head.module).shape
            found[self.head.stored_name] = (out_features, in_features)
        if self.embedding is not None:
            vocabulary, width = self.skeleton.model.get_parameter(f"{self.embedding.path}.weight").shape
            found[self.embedding.stored_name] = (width, vocabulary)
        return found

    @property
    def head(self) -> OutputHead | None:
        """Returns the output head; None where it stays in float."""
        if not self.config.lm_head:
            return None
        head = self.skeleton.head()
        return head if self.config.for_linear(head.stored_name) else None

    @property
    def embedding(self) -> InputEmbedding | None:
        """Returns the input embedding; None where it stays in float."""
        if not self.config.embeddings:
            return None
        embedding = self.skeleton.embedding()
        return embedding if self.config.for_linear(embedding.stored_name) else None

    def outer_packing(
        self, outer: OutputHead | InputEmbedding, solved: SolvedBlock, bias: torch.Tensor | None = None
    ) -> Packing:
        """Returns what makes the packed tensors of a solved head or embedding."""
        part = _Part(outer.stored_name, solved.linears[outer.path].weight, bias)
        return Packing(parts=[part], version=self._version)

    def config_of(self, index: int, name: str) -> QuantizationConfig | None:
        """Returns the config of one linear of a block; None where it stays in float."""
        return self.config.for_linear(self._stored_name(index, name))

    def packing(self, index: int, solved: SolvedBlock) -> Packing:
        """Returns what makes a solved block's tensors: the packed ones, and the float ones that changed."""
        linears = find_linears(self.skeleton.blocks.modules[index])
        parts = [
            _Part(self._stored_name(index, name), linear.weight, getattr(linears[name], "bias", None))
            for name, linear in solved.linears.items()
        ]
        changed = {}
        for path, tensor in solved.changed.items():
            stored_name = self.skeleton.names.source_of[f"{self.skeleton.blocks.path(index)}.{path}"]
            changed[stored_name] = (tensor.detach(), self.source.dtype(stored_name))
        return Packing(parts=parts, version=self._version, changed=changed)

    def rows(self, index: int, solved: SolvedBlock) -> list[dict[str, Any]]:
        """Returns a solved block's lines of the report."""
        return [
            LinearReport(
                block=index,
                name=self._reported_name(index, name),
                bits=linear.weight.bits,
                group_size=linear.weight.group_size,
                loss=linear.loss,
                relative_loss=linear.relative_loss,
                tokens=linear.tokens,
                damp_percent=linear.damp_percent,
                order=linear.order,
                refined=linear.refined,
                channel_alpha=linear.channel_alpha,
                seconds=solved.seconds[name],
                warnings=linear.warnings,
            ).to_dict()
            for name, linear in solved.linears.items()
        ]

    def restore(self, index: int, packed: Mapping[str, torch.Tensor]) -> None:
        """Puts a recorded block's quantized weights, and the float tensors that changed, into the loaded block."""
        for linear in self._linears(index):
            weight = from_gptq_tensors(
                linear.stored_name,
                packed,
                bits=linear.config.bits,
                group_size=linear.config.group_size,
                sym=linear.config.sym,
                version=self._version,
            )
            set_linear_weight(linear.module, weight.dequantize(self.skeleton.dtype))
        biases = {f"{linear.stored_name}.bias" for linear in self._linears(index)}
        for target in self.skeleton.block_targets(index):
            stored_name = self.skeleton.names.source_of[target]
            if stored_name in packed and stored_name not in biases:
                self.skeleton.model.get_parameter(target).data.copy_(packed[stored_name])

    def consumed(self) -> Iterator[str]:
        """Yields the source tensors that solved linears replace: weights, and biases where there are any."""
        for index in range(len(self.skeleton.blocks.modules)):
            for linear in self._linears(index):
                for parameter in ("weight", "bias"):
                    target = f"{self.skeleton.blocks.path(index)}.{linear.name}.{parameter}"
                    if target in self.skeleton.names.source_of:
                        yield self.skeleton.names.source_of[target]
        if self.head is not None:
            targets = (f"{self.head.path}.{parameter}" for parameter in ("weight", "bias"))
            source_of = self.skeleton.names.source_of
            yield from (source_of[target] for target in targets if target in source_of)
        if self.embedding is not None:
            yield f"{self.embedding.stored_name}.weight"

    def stored_ties(self) -> dict[str, str]:
        """Returns stored tensors that the model ties to another stored one, by that one's name."""
        source_of = self.skeleton.names.source_of
        declared: Mapping[str, str] = self.skeleton.model.all_tied_weights_keys or {}
        return {
            source_of[target]: source_of[original]
            for target, original in declared.items()
            if target in source_of and original in source_of
        }

    @property
    def _version(self) -> str:
        """One version for the whole checkpoint: the second as soon as one linear may need it."""
        return checkpoint_format(sym=self.config.always_sym)

    def _linears(self, index: int) -> Iterator[_Linear]:
        """Yields the linears of a block that are quantized."""
        for name, module in find_linears(self.skeleton.blocks.modules[index]).items():
            config = self.config_of(index, name)
            if config is not None:
                stored_name = self._stored_name(index, name)
                yield _Linear(name=name, stored_name=stored_name, module=module, config=config)

    def _reported_name(self, index: int, name: str) -> str:
        if index < len(self.skeleton.blocks.modules):
            return self._stored_name(index, name)
        outer = (part for part in (self.head, self.embedding) if part is not None)
        return next(part.stored_name for part in outer if part.path == name)

    def _stored_name(self, index: int, name: str) -> str:
        """Returns a linear's name in the checkpoint, without `.weight`."""
        target = f"{self.skeleton.blocks.path(index)}.{name}.weight"
        return self.skeleton.names.source_of[target].removesuffix(".weight")


def starved_experts(rows: Iterable[Mapping[str, Any]], shapes: Mapping[str, tuple[int, int]]) -> dict[int, str]:
    """Returns a sentence for each block, by number, that has experts with fewer tokens than inputs.

    rows: lines of the report. Blocks whose linears have no token at all were quantized without calibration.
    """
    tokens: Counter[int] = Counter()
    missing: dict[int, dict[str, int]] = {}
    seen: dict[int, dict[str, int]] = {}
    for row in rows:
        block, name, count = row["block"], row["name"], row["tokens"]
        tokens[block] += count
        expert = NUMBERED_EXPERT.search(name)
        if expert:
            path, short = name[: expert.end()], max(0, shapes[name][1] - count)
            missing.setdefault(block, {})[path] = max(short, missing.get(block, {}).get(path, 0))
            seen.setdefault(block, {})[path] = min(count, seen.get(block, {}).get(path, count))
    return {
        block: _starved_text(block, sum(map(bool, of_block.values())), sorted(seen[block].values()))
        for block, of_block in missing.items()
        if tokens[block] and any(of_block.values())
    }


def _starved_text(block: int, starved: int, tokens: Sequence[int]) -> str:
    return (
        f"Block {block}: {starved} of {len(tokens)} experts got fewer calibration tokens than they have inputs "
        f"(fewest {tokens[0]:,}, median {tokens[len(tokens) // 2]:,}). "
        "Give more calibration text, or set feed_all_experts."
    )


class StoredStates(Mapping[str, torch.Tensor]):
    """The hidden states of all batches under the names that `restored_states` reads; each is fetched when asked for."""

    def __init__(self, hidden: Sequence[HiddenStates]) -> None:
        """Takes the states of all batches, in order."""
        self._named: dict[str, Callable[[], torch.Tensor]] = {}
        for number, states in enumerate(one.another() for one in hidden):
            self._named[f"{number}.quantized"] = partial(getattr, states, "quantized")
            if states.has_float_path:
                self._named[f"{number}.float"] = states.float_states

    def __getitem__(self, name: str) -> torch.Tensor:
        """Returns one tensor."""
        return self._named[name]()

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self._named)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._named)


def restored_states(stored: Mapping[str, torch.Tensor], keeps: Sequence[Keep]) -> list[HiddenStates]:
    """Returns what was stored of the batches, put away by each one's `keep`."""
    restored = []
    for number, keep in enumerate(keeps):
        beside = stored.get(f"{number}.float")
        restored.append(
            HiddenStates(
                quantized=keep(stored[f"{number}.quantized"]), float_path=None if beside is None else keep(beside)
            )
        )
    return restored
