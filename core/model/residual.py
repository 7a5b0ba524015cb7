"""Finds which of a block's linears write into the residual stream, and where the stream can be seen before they do.

Found by running the block once, never listed: `b = a + y` must hold bit by bit for the linear's output y, the input a
of one module and the input b of another, or the block's output. A scaled or normalized sum is no such place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn


def discover_streams(
    block: nn.Module, linears: Mapping[str, nn.Module], run: Callable[[], torch.Tensor]
) -> dict[str, str]:
    """Runs the block once; returns, by path, the linears that write into a stream and a module that reads it before."""
    entered: dict[str, torch.Tensor] = {}
    left: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, path=path: _keep_first(entered, path, args))
        for path, module in block.named_modules()
        if path
    ]
    handles += [
        module.register_forward_hook(lambda _, _args, output, name=name: _keep_first(left, name, (output,)))
        for name, module in linears.items()
    ]
    try:
        output = run()
    finally:
        for handle in handles:
            handle.remove()
    sums = [*entered.values(), output]
    return {
        name: path
        for name, y in left.items()
        for path, a in entered.items()
        if a.shape == y.shape and any(b.shape == y.shape and torch.equal(b, a + y) for b in sums)
    }


def _keep_first(kept: dict[str, torch.Tensor], path: str, values: tuple[object, ...]) -> None:
    if path not in kept and values and isinstance(values[0], torch.Tensor):
        kept[path] = values[0]
