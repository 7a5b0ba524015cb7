"""Rotates queries and keys by a kernel of our own where a model's function does nothing but that.

Attention modules of transformers call a function of their file by its name. Their forward is run as it is, with another
function under that name for this module alone. What a function computes is seen on a few numbers, never listed;
partial, interleaved and other rotations are left to the function that the model brings.

Legend: B sequences, N tokens, H query heads, K key heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import FunctionType
from typing import Any, Final

import torch

from core.device import CPU
from core.kernels.compiled import trouble

NAME: Final = "apply_rotary_pos_emb"
_TOKENS, _WIDTH, _HEADS = 5, 8, 3

Pair = tuple[torch.Tensor, torch.Tensor]
Rotation = Callable[..., Pair]


@cache
def rotating_forward(forward: Callable[..., Any]) -> Callable[..., Any] | None:
    """Returns a class's forward that rotates by our kernel where it may; None where it calls no such function."""
    if not isinstance(forward, FunctionType) or NAME not in forward.__code__.co_names:
        return None
    own = forward.__globals__.get(NAME)
    if not callable(own):
        return None
    named = {**forward.__globals__, NAME: partial(_rotated, own)}
    ours = FunctionType(forward.__code__, named, forward.__name__, forward.__defaults__, forward.__closure__)
    ours.__kwdefaults__ = forward.__kwdefaults__
    return ours


def _rotated(
    own: Rotation, query: torch.Tensor, key: torch.Tensor, *positions: torch.Tensor, **options: object
) -> Pair:
    usual = len(positions) == len(("cos", "sin")) and not options and not torch.is_grad_enabled()
    if usual and _fit(query, key, *positions) and trouble() is None and _is_plain(own):
        return _by_kernel(query, key, *positions)
    return own(query, key, *positions, **options)


def _fit(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    """Whether these are bfloat16 heads [B, H, N, D] and [B, K, N, D] on the CPU, and positions [B or 1, N, D]."""
    if query.dim() != key.dim() or query.dim() != len("BHND") or not query.numel() or not key.numel():
        return False
    batch, _, tokens, width = query.shape
    shapes = {(1, tokens, width), (batch, tokens, width)}
    same = key.shape[0] == batch and key.shape[2:] == query.shape[2:] and cos.shape == sin.shape
    kinds = {(tensor.dtype, tensor.device.type) for tensor in (query, key, cos, sin)}
    return same and tuple(cos.shape) in shapes and width % 2 == 0 and kinds == {(torch.bfloat16, "cpu")}


def _by_kernel(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Pair:
    from core.kernels.numba_rotary import rotate  # noqa: PLC0415 - Numba may be missing

    return rotate(query, cos, sin), rotate(key, cos, sin)


@cache
def _is_plain(own: Rotation) -> bool:
    """Whether a function computes x · cos + rotate_half(x) · sin of both, bit by bit as our kernel does."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, _HEADS, _TOKENS, _WIDTH), (2, 1, _TOKENS, _WIDTH), *((2, _TOKENS, _WIDTH) for _ in range(2)))
    operands = [torch.randn(shape, generator=generator, device=CPU).bfloat16() for shape in shapes]
    try:
        query, key = own(*operands)
    except Exception:  # noqa: BLE001 - a function that needs anything else is another one
        return False
    ours = _by_kernel(*operands)
    return torch.equal(query, ours[0]) and torch.equal(key, ours[1])
