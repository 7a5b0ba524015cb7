"""Runs the parts of a block that only pass over its activations without large tensors in between.

A page of fresh memory costs more than the few numbers that such a part computes for it: a norm of 2,048 tokens of
width 2,048 fills five tensors of 16 MB on its way to one of 8 MB. The plain root-mean-square norm of bfloat16 tokens is
a kernel of its own, other norms run on some rows at a time, and the gate of a feed-forward network is multiplied where
it lies, in one pass with its activation where that can be looked up; `rotary` has queries and keys. What a class
computes is seen on a few numbers, never listed; one that computes anything else is left as it is.

Legend: N tokens, I in_features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from inspect import signature
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import SiLUActivation

from core.device import CPU
from core.kernels.compiled import trouble
from core.model.rotary import rotating_forward

PART_NUMBERS: Final = 1 << 17
"""What a part of a norm holds: half a megabyte in float32, which the second-level cache has room for."""
MIN_ROWS: Final = 32
WHOLE_NUMBERS: Final = 1 << 21
"""Below so many, copies in float32 come from memory that is at hand, and parts gain nothing; see `environment`."""

LOOKED_UP_NUMBERS: Final = 1 << 19
"""From so many on, looking values of an activation up is worth a table of them all."""

Forward = Callable[..., torch.Tensor]
Activation = Callable[[torch.Tensor], torch.Tensor]

_SAMPLE = (6, 8)
_NORM_SAMPLE = (16, 96)
_EPSILONS = ("variance_epsilon", "eps")
_NORM_EPSILON = 1e-5
_MOST_DIFFERENT = 0.01


def spare_intermediates(model: nn.Module) -> None:
    """Gives norms, gated feed-forward networks and rotating attention of a model their thrifty forward."""
    for module in model.modules():
        if _is_norm(module):
            module.forward = partial(_norm, module)
        elif _is_gated(module):
            module.forward = partial(_gate_in_place, module)
        elif (rotating := rotating_forward(type(module).forward)) is not None:
            module.forward = partial(rotating, module)


@contextmanager
def sparing_intermediates(model: nn.Module) -> Iterator[None]:
    """Lends a model in memory these forwards for a while."""
    own = {module: module.__dict__.get("forward") for module in model.modules()}
    spare_intermediates(model)
    try:
        yield
    finally:
        for module, forward in own.items():
            if forward is not None:
                module.forward = forward
            else:
                module.__dict__.pop("forward", None)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module can be what scales each token for itself, by its name and its one vector of weights."""
    weights = dict(module.named_parameters())
    return type(module).__name__.endswith("Norm") and [*weights] == ["weight"] and weights["weight"].dim() == 1


def _is_gated(module: nn.Module) -> bool:
    act_fn = dict(module.named_children()).get("act_fn")
    make_act: Callable[[], Any] = type(act_fn)
    return act_fn is not None and _is_plainly_gated(type(module).forward, make_act)


def _norm(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    whole: Forward = partial(type(module).forward, module)
    dtypes = {x.dtype, module.weight.dtype}
    usual = x.device.type == "cpu" and dtypes == {torch.bfloat16} and x.is_contiguous() and x.numel()
    if usual and not torch.is_grad_enabled() and trouble() is None:
        epsilon = next((name for name in _EPSILONS if isinstance(getattr(module, name, None), float)), None)
        if epsilon is not None and _is_plain_norm(type(module).forward, epsilon):
            return _norm_rows(x, module.weight, getattr(module, epsilon))
    return _norm_in_parts(whole, x)


def _norm_rows(x: torch.Tensor, weight_I: Any, epsilon: float) -> torch.Tensor:  # noqa: ANN401 - modules are untyped
    from core.kernels.numba_norm import norm_rows  # noqa: PLC0415 - Numba may be missing

    return norm_rows(x.view(-1, x.shape[-1]), weight_I, epsilon).view(x.shape)


@cache
def _is_plain_norm(forward: Forward, epsilon: str) -> bool:
    """Whether a class's forward is weight · x / sqrt(mean x² + epsilon), rounded as our kernel rounds."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(_NORM_SAMPLE[1], generator=generator, device=CPU).bfloat16()
    x = torch.randn(_NORM_SAMPLE, generator=generator, device=CPU)
    # Rows of very different size: some are of the order of epsilon, where it shows.
    x = (x * torch.logspace(-3, 1, _NORM_SAMPLE[0], device=CPU)[:, None]).bfloat16()
    try:
        own = forward(SimpleNamespace(weight=weight, **{epsilon: _NORM_EPSILON}), x)
    except Exception:  # noqa: BLE001 - a forward that needs anything else is another one
        return False
    ours = _norm_rows(x, weight, _NORM_EPSILON)
    if own.dtype is not ours.dtype or own.shape != ours.shape:
        return False
    apart = (own.view(torch.int16).int() - ours.view(torch.int16).int()).abs()
    return int(apart.max()) <= 1 and float((apart != 0).float().mean()) <= _MOST_DIFFERENT


def _norm_in_parts(whole: Forward, x: torch.Tensor) -> torch.Tensor:
    rows = max(MIN_ROWS, PART_NUMBERS // max(x.shape[-1], 1))
    # Experts' inputs carry the numbers of their tokens, which no norm stands in front of.
    if torch.is_grad_enabled() or x.numel() < WHOLE_NUMBERS or not x.is_contiguous():
        return whole(x)
    x_NI = x.view(-1, x.shape[-1])
    first = whole(x_NI[:rows])
    out_NI = first.new_empty(x_NI.shape)
    out_NI[:rows] = first
    for start in range(rows, x_NI.shape[0], rows):
        out_NI[start : start + rows] = whole(x_NI[start : start + rows])
    return out_NI.view(x.shape)


@cache
def _is_plainly_gated(forward: Forward, make_act: Callable[[], Any]) -> bool:
    """Whether a class's forward computes down(act(gate x) · up x) and nothing else, seen on a few numbers."""
    if len(signature(forward).parameters) != len(("self", "x")):
        return False
    generator = torch.Generator().manual_seed(0)
    x, gate, up, down = (torch.randn(_SAMPLE, generator=generator, device=CPU).bfloat16() for _ in range(4))
    try:
        stand_in = SimpleNamespace(
            gate_proj=lambda x: x @ gate.T,
            up_proj=lambda x: x @ up.T,
            down_proj=lambda inner: inner @ down,
            act_fn=make_act(),
        )
        own = forward(stand_in, x)
    except Exception:  # noqa: BLE001 - a forward that needs anything else is another one
        return False
    return torch.equal(own, stand_in.down_proj(gated(stand_in, x)))


def _gate_in_place(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled():
        return type(module).forward(module, x)  # type: ignore[no-any-return]  # modules are untyped
    return module.down_proj(gated(module, x))  # type: ignore[no-any-return,operator]  # modules are untyped


def gated(module: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - a module, or what stands in for one
    """Returns act(gate x) · up x in the memory of gate x; for passes without gradients."""
    inner = module.gate_proj(x)
    if _is_looked_up(module.act_fn, inner):
        return _look_up_gate(module.act_fn, inner, module.up_proj(x))
    silu = isinstance(module.act_fn, nn.SiLU | SiLUActivation)
    inner = functional.silu(inner, inplace=True) if silu else module.act_fn(inner)
    return inner.mul_(module.up_proj(x))


def _is_looked_up(act_fn: Activation, inner: torch.Tensor) -> bool:
    """Whether a table of an activation's values serves: one of many bfloat16 numbers on the CPU, each for itself."""
    make_act: Callable[[], Activation] = type(act_fn)
    usual = inner.dtype is torch.bfloat16 and inner.device.type == "cpu" and inner.is_contiguous()
    return usual and inner.numel() >= LOOKED_UP_NUMBERS and trouble() is None and _is_pointwise(make_act)


@cache
def _is_pointwise(make_act: Callable[[], Activation]) -> bool:
    """Whether a class of activations makes of each number what it makes of it alone, bit by bit; seen on some."""
    from core.kernels.numba_gate import every_number  # noqa: PLC0415 - Numba may be missing

    x = torch.randn(_NORM_SAMPLE, generator=torch.Generator().manual_seed(0), device=CPU).bfloat16()
    places = x.view(torch.int16).int() & 0xFFFF
    try:
        act = make_act()
        return torch.equal(act(x), act(every_number())[places])
    except Exception:  # noqa: BLE001 - one that needs anything else is not such a class
        return False


def _look_up_gate(act_fn: Activation, inner: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    from core.kernels import numba_gate  # noqa: PLC0415 - Numba may be missing

    numba_gate.gate(inner, up.contiguous(), act_fn(numba_gate.every_number()))
    return inner
