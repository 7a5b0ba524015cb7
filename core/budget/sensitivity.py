"""How much the model's output minds a change of each linear's outputs, and what feeds each linear: one backward sweep.

A small change δ of a linear's output moves the model's next-token distributions by a KL divergence of about
½ E[(g·δ)²], with g the gradient of log p(y) for a y drawn from the model itself: the Fisher information. Gradients come
block by block, from the last to the first, each run again from the hidden states that entered it; those lie on disk, so
that memory holds one block and one window.

Legend: T tokens of one window, O out_features, I in_features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core.model.capture import CapturedBatch, capture
from core.model.input_sets import InputSets, discover_input_sets
from core.model.skeleton import Skeleton, TensorSource
from core.model.structure import find_linears, in_features, linear_weight
from core.solver.hessian import HessianAccumulator

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSensitivity:
    """One float block. hessian_II: by the first linear of each input set. row_weight_O: mean over tokens of g_o²/2.

    The block's weights are loaded; linears go by their names in it.
    """

    index: int
    linears: Mapping[str, nn.Module]
    sets: InputSets
    hessian_II: Mapping[str, torch.Tensor]  # noqa: N815 - shapes live in names
    row_weight_O: Mapping[str, torch.Tensor]  # noqa: N815


@dataclass(slots=True, kw_only=True)
class Sweep:
    """The sweep over one model. tokens_NT: windows; advance: called after every unit of work, may raise to stop."""

    skeleton: Skeleton
    source: TensorSource
    tokens_NT: torch.Tensor  # noqa: N815
    scratch: Path
    advance: Callable[[], None]
    _captured: list[CapturedBatch] = field(default_factory=list)
    _tuples: bool = False

    @property
    def steps(self) -> int:
        """Returns how often `advance` will be called."""
        return 2 * len(self.skeleton.blocks.modules) + 1

    def blocks(self) -> Iterator[BlockSensitivity]:
        """Yields every block from the last to the first; what was yielded is valid until the next."""
        leaving = self._forward()
        gradients = self._head_gradients(leaving)
        self.advance()
        for index in reversed(range(len(self.skeleton.blocks.modules))):
            targets = self.skeleton.block_targets(index)
            self.skeleton.load(self.source, targets)
            measured, gradients = self._backward(index, gradients)
            yield measured
            self.skeleton.drop(targets)
            self._file(index).unlink()
            self.advance()

    def _forward(self) -> list[torch.Tensor]:
        """Runs the float model and keeps what enters each block on disk; returns what leaves the last."""
        skeleton, modules = self.skeleton, self.skeleton.blocks.modules
        embedding = skeleton.embedding_targets()
        skeleton.load(self.source, embedding)
        calls = [((), {"input_ids": tokens}) for tokens in torch.split(self.tokens_NT, 1)]
        self._captured, hidden = capture(skeleton.model, modules, calls, lambda _: None)
        skeleton.drop(embedding)
        for index, block in enumerate(modules):
            save_file({str(number): states.contiguous() for number, states in enumerate(hidden)}, self._file(index))
            targets = skeleton.block_targets(index)
            skeleton.load(self.source, targets)
            with _noted_kind(block) as kinds:
                hidden = [
                    batch.arguments[index].call(block, states)
                    for batch, states in zip(self._captured, hidden, strict=True)
                ]
            self._tuples = kinds[-1]
            skeleton.drop(targets)
            self.advance()
        return hidden

    def _head_gradients(self, leaving: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the gradient of Σ_t log p(y_t) by what leaves the last block, y drawn from the model, seeded."""
        targets = self.skeleton.outer_targets()
        self.skeleton.load(self.source, targets)
        generator = torch.Generator().manual_seed(SEED)
        gradients = []
        for tokens_1T, states in zip(torch.split(self.tokens_NT, 1), leaving, strict=True):
            leaf = states.detach().clone().requires_grad_()
            with torch.enable_grad(), self._only_the_end(leaf):
                logits_TV = self.skeleton.model(input_ids=tokens_1T, use_cache=False).logits[0].float()
                log_p_TV = torch.log_softmax(logits_TV, dim=-1)
                drawn_T1 = torch.multinomial(log_p_TV.detach().exp(), 1, generator=generator)
                log_p_TV.gather(1, drawn_T1).sum().backward()  # type: ignore[no-untyped-call]  # torch's
            gradients.append(_gradient(leaf))
        self.skeleton.drop(targets)
        return gradients

    @contextmanager
    def _only_the_end(self, states: torch.Tensor) -> Iterator[None]:
        """Makes the last block answer with these hidden states and the others with nothing of their own."""
        *others, last = self.skeleton.blocks.modules

        def pass_on(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands in for any block's forward
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            return (hidden,) if self._tuples else hidden

        for block in others:
            block.forward = pass_on
        last.forward = lambda *_, **__: (states,) if self._tuples else states
        try:
            yield
        finally:
            for block in self.skeleton.blocks.modules:
                del block.forward

    def _backward(self, index: int, gradients: Sequence[torch.Tensor]) -> tuple[BlockSensitivity, list[torch.Tensor]]:
        """Returns the block's figures and the gradients by what entered it."""
        block = self.skeleton.blocks.modules[index]
        entering = load_file(self._file(index))
        linears = find_linears(block)
        first = self._captured[0].arguments[index]
        sets = discover_input_sets(linears, lambda: first.call(block, entering["0"]))
        notes = _Notes(linears, sets)
        before = []
        for number, (batch, gradient) in enumerate(zip(self._captured, gradients, strict=True)):
            leaf = entering[str(number)].requires_grad_()
            with torch.enable_grad(), notes.taken():
                batch.arguments[index].call(block, leaf).backward(gradient)  # type: ignore[no-untyped-call]  # torch's
            before.append(_gradient(leaf))
        measured = BlockSensitivity(
            index=index,
            linears=linears,
            sets=sets,
            hessian_II={name: collector.finish().hessian_II for name, collector in notes.collectors.items()},
            row_weight_O={name: total_O / (2 * self.tokens_NT.numel()) for name, total_O in notes.squares_O.items()},
        )
        return measured, before

    def _file(self, index: int) -> Path:
        return self.scratch / f"entering-{index:05d}.safetensors"


class _Notes:
    """Takes down, while a block runs forward and back, inputs of sets and squared gradients of outputs."""

    def __init__(self, linears: Mapping[str, nn.Module], sets: InputSets) -> None:
        self._linears = linears
        device = next(iter(linears.values())).get_parameter("weight").device
        self.collectors = {names[0]: HessianAccumulator(in_features(linears[names[0]]), device) for names in sets}
        self.squares_O = {name: torch.zeros(linear_weight(module).shape[0]) for name, module in linears.items()}

    @contextmanager
    def taken(self) -> Iterator[None]:
        handles = [module.register_forward_hook(self._hook(name)) for name, module in self._linears.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
        collector = self.collectors.get(name)

        def note(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if collector is not None:
                collector.add(args[0].detach())
            output.register_hook(lambda gradient: self._add(name, gradient))  # type: ignore[no-untyped-call]  # torch's

        return note

    def _add(self, name: str, gradient: torch.Tensor) -> None:
        self.squares_O[name] += gradient.reshape(-1, gradient.shape[-1]).float().square().sum(dim=0)


@contextmanager
def _noted_kind(block: nn.Module) -> Iterator[list[bool]]:
    """Yields a list of whether each of the block's answers was a tuple."""
    kinds: list[bool] = []
    handle = block.register_forward_hook(lambda _, __, output: kinds.append(isinstance(output, tuple)))
    try:
        yield kinds
    finally:
        handle.remove()


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
