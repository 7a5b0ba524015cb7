"""Takes a mixture of experts apart: one linear per expert and projection where transformers holds two 3-D parameters.

The forward is the same: the router stays as it is, and each expert sees the tokens that it sends there. A linear's
input carries the numbers of its tokens, so that whoever listens to it knows which tokens came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers.integrations.moe import _default_apply_gate

from core.model.intermediates import gated

PROJECTIONS: Final = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""The linears that each fused parameter holds, one below the other along its out_features."""

_ROWS: Final = "token_rows"


class Feed(Enum):
    """Which tokens an expert computes. What leaves the experts is the same in all three."""

    ROUTED = auto()
    """Those that the router sends."""
    ALL = auto()
    """Every token, for the statistics of its inputs; all experts share one input tensor."""
    EACH = auto()
    """Every token, each expert in a tensor of its own, to find out what it shares with nobody."""


class Expert(nn.Module):
    """One gated feed-forward network: down(act(gate x) · up x)."""

    def __init__(self, hidden: int, intermediate: int, act_fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)
        self.act_fn = act_fn

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Returns [tokens, hidden]. rows: the tokens' numbers; None where x holds every token."""
        mark_rows(x, rows)
        inner = self.act_fn(self.gate_proj(x)) * self.up_proj(x) if torch.is_grad_enabled() else gated(self, x)
        mark_rows(inner, rows)
        return self.down_proj(inner)  # type: ignore[no-any-return]  # modules are untyped


class SplitExperts(nn.ModuleList):
    """Stands in for a fused experts module: same call, same result up to float rounding. feed: see `Feed`."""

    def __init__(self, experts: list[Expert]) -> None:
        super().__init__(experts)
        self.feed = Feed.ROUTED

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Returns the weighted sum of the experts' outputs [tokens, hidden]; index and weights are [tokens, k]."""
        mixed = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            rows, places = torch.where(top_k_index == number)
            if len(rows) or self.feed is not Feed.ROUTED:
                outputs = self._outputs(expert, hidden_states, rows) * top_k_weights[rows, places, None]
                mixed.index_add_(0, rows, outputs.to(mixed.dtype))
        return mixed

    def _outputs(self, expert: nn.Module, hidden_states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if self.feed is Feed.ROUTED:
            return expert(hidden_states[rows], rows)  # type: ignore[no-any-return]  # modules are untyped
        every = expert(hidden_states if self.feed is Feed.ALL else hidden_states.clone())
        return every[rows]  # type: ignore[no-any-return]


def is_fused(module: nn.Module) -> bool:
    """Whether the module is a mixture of plain gated experts in two 3-D parameters, [E, 2·I, H] and [E, H, I]."""
    plain = ("has_bias", "is_transposed", "has_post_expert_norm")
    return (
        {name: parameter.dim() for name, parameter in module.named_parameters()} == dict.fromkeys(PROJECTIONS, 3)
        and all(getattr(module, name, None) is False for name in plain)
        and getattr(module, "is_concatenated", False) is True
        and getattr(type(module), "_apply_gate", None) is _default_apply_gate
    )


def fused_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the experts that `split_experts` takes apart, by module path."""
    return {path: module for path, module in model.named_modules() if is_fused(module)}


def split_experts(model: nn.Module, paths: Iterable[str]) -> None:
    """Replaces fused experts modules; the linears' weights are views of their parameters, or on the meta device."""
    for path in paths:
        module = model.get_submodule(path)
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, _split(module).train(module.training))


def set_feed(model: nn.Module, feed: Feed) -> None:
    """Says which tokens the model's experts compute from now on."""
    for module in _split_modules(model):
        module.feed = feed


@contextmanager
def each_expert_reached(block: nn.Module) -> Iterator[None]:
    """Makes every routed expert of a block compute every token, apart from the others, while the context is open."""
    routed = [module for module in _split_modules(block) if module.feed is Feed.ROUTED]
    for module in routed:
        module.feed = Feed.EACH
    try:
        yield
    finally:
        for module in routed:
            module.feed = Feed.ROUTED


def aligned_inputs(
    X: torch.Tensor, token_mask: torch.Tensor | None, float_X: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]]:
    """Yields a linear's inputs with the mask and the float model's inputs of the very same tokens.

    Of a linear that sees every token that is one part. An expert's tokens are picked from the mask, and come in two
    parts: those that the float model's router sent to the same expert, and the others, without a float input.
    """
    rows = token_rows(X)
    if rows is None:
        yield X, token_mask, float_X
        return
    mask = None if token_mask is None else token_mask.reshape(-1)[rows]
    if float_X is None:
        yield X, mask, None
        return
    float_rows = getattr(float_X, _ROWS)
    shared = torch.isin(rows, float_rows)
    # Rows are in ascending order on both paths, so what they share is too.
    for part, beside in ((shared, float_X[torch.isin(float_rows, rows)]), (~shared, None)):
        if bool(part.any()):
            yield X[part], None if mask is None else mask[part], beside


def token_rows(x: torch.Tensor) -> torch.Tensor | None:
    """Returns the numbers of the tokens in an expert's input; None for an input that holds every token."""
    rows: torch.Tensor | None = getattr(x, _ROWS, None)
    return rows


def mark_rows(x: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Leaves the tokens' numbers on the tensor: a hook on a linear sees its input and nothing else."""
    if rows is not None:
        setattr(x, _ROWS, rows)


def _split(fused: nn.Module) -> SplitExperts:
    gate_up_EOI, down_EOI = fused.get_parameter("gate_up_proj"), fused.get_parameter("down_proj")
    hidden, intermediate = down_EOI.shape[1:]
    experts = []
    for gate_up_OI, down_OI in zip(gate_up_EOI, down_EOI, strict=True):
        with init_empty_weights():
            expert = Expert(hidden, intermediate, fused.act_fn)  # type: ignore[arg-type]  # modules are untyped
        gate_OI, up_OI = gate_up_OI.detach().chunk(2)
        for name, weight in (("gate_proj", gate_OI), ("up_proj", up_OI), ("down_proj", down_OI.detach())):
            linear = expert.get_submodule(name)
            linear.weight = nn.Parameter(weight, requires_grad=False)
        experts.append(expert)
    return SplitExperts(experts)


def _split_modules(model: nn.Module) -> Iterator[SplitExperts]:
    return (module for module in model.modules() if isinstance(module, SplitExperts))
