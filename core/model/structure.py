"""Finds decoder blocks and the linears in them by structure: the repeated module list, and what is linear inside it.

No family is named. Linear means `nn.Linear`, or transformers' `Conv1D`, which stores its weight as [in, out].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.source import ROUTER_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The decoder blocks of a model. prefix: module path of their list, such as `model.layers`."""

    prefix: str
    modules: tuple[nn.Module, ...]

    def path(self, index: int) -> str:
        """Returns the module path of one block."""
        return f"{self.prefix}.{index}"


def find_blocks(model: nn.Module) -> Blocks:
    """Returns the module list that holds most of the model's parameters in equal blocks with linears inside.

    Raises ModelRefusedError where there is none.
    """
    lists = [(path, module) for path, module in model.named_modules() if _is_block_list(module)]
    outermost = [
        (path, module)
        for path, module in lists
        if not any(path.startswith(f"{other}.") for other, _ in lists if other != path)
    ]
    if not outermost:
        raise ModelRefusedError(
            ModelProblem.UNSUPPORTED_ARCHITECTURE,
            f"{type(model).__name__} holds no list of equal blocks with linear layers.",
            "Use a decoder language model.",
        )
    prefix, blocks = max(outermost, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return Blocks(prefix=prefix, modules=tuple(blocks.children()))


def find_linears(block: nn.Module) -> dict[str, nn.Module]:
    """Returns the linears of a block by their path inside it, in the order in which the block registers them.

    Routers are left out: which experts a token reaches is decided in float.
    """
    return {
        path: module
        for path, module in block.named_modules()
        if is_linear(module) and path.rpartition(".")[2] not in ROUTER_NAMES
    }


def is_linear(module: nn.Module) -> bool:
    """Whether the module multiplies its input by one weight matrix."""
    return isinstance(module, (nn.Linear, Conv1D))


def linear_weight(module: nn.Module) -> torch.Tensor:
    """Returns the weight as [out, in], whatever the module stores; a view, not a copy."""
    weight = module.get_parameter("weight")
    return weight.T if isinstance(module, Conv1D) else weight


def set_linear_weight(module: nn.Module, W_OI: torch.Tensor) -> None:
    """Overwrites the weight with an [out, in] matrix, in the module's own layout and dtype."""
    with torch.no_grad():
        linear_weight(module).copy_(W_OI)


def in_features(module: nn.Module) -> int:
    """Returns the width of the linear's input."""
    return linear_weight(module).shape[1]


def structure_key(linears: Mapping[str, nn.Module]) -> tuple[tuple[str, torch.Size], ...]:
    """Returns what two blocks share when they are built alike: names and shapes of their linears."""
    return tuple((name, linear_weight(module).shape) for name, module in linears.items())


def _is_block_list(module: nn.Module) -> bool:
    children = list(module.children())
    return (
        isinstance(module, nn.ModuleList)
        and bool(children)
        and len({type(child) for child in children}) == 1
        and any(is_linear(part) for part in children[0].modules())
    )
