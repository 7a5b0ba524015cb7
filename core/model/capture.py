"""Records what a model passes to each of its blocks, by running the model with the blocks replaced by recorders.

Masks, position embeddings and whatever else a family hands down come from the model's own call and are never rebuilt by
hand. Recorders pass the hidden states through, so a capture costs the embedding and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from core.errors import ModelProblem, ModelRefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockArguments:
    """What a block is called with besides the hidden states, which come first or as `hidden_states`."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    hidden_by_name: bool

    def call(self, block: Callable[..., Any], hidden: torch.Tensor) -> torch.Tensor:
        """Runs the block and returns the hidden states that leave it."""
        if self.hidden_by_name:
            output = block(*self.args, hidden_states=hidden, **self.kwargs)
        else:
            output = block(hidden, *self.args, **self.kwargs)
        states: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return states

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> BlockArguments:
        """Returns the same arguments with every tensor in them changed."""
        return BlockArguments(
            args=_mapped(self.args, change),
            kwargs=_mapped(dict(self.kwargs), change),
            hidden_by_name=self.hidden_by_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedBatch:
    """One model call: each block's arguments besides the hidden states; token_mask [B, T] is False at padding."""

    arguments: tuple[BlockArguments, ...]
    token_mask: torch.Tensor | None


ModelCall = tuple[tuple[Any, ...], Mapping[str, Any]]


class _CaptureCompleteError(Exception):
    """Ends the model's forward when the last block was reached; nothing behind it is needed."""


class _ChangedBetweenBlocksError(Exception):
    """The model did something to the hidden states between two blocks, or unpacks a tuple."""


def capture(
    model: nn.Module, blocks: Sequence[nn.Module], calls: Iterable[ModelCall], on_batch: Callable[[int], None]
) -> tuple[list[CapturedBatch], list[torch.Tensor]]:
    """Runs the model on each call up to its first block; the parts before the blocks must hold real weights.

    Returns, per call, what the blocks are called with and the hidden states [B, T, hidden] that enter the first.
    on_batch gets the count so far. Raises ModelRefusedError where the model changes hidden states between its blocks.
    """
    shared = _SharedTensors()
    captured: list[CapturedBatch] = []
    entering: list[torch.Tensor] = []
    for args, kwargs in calls:
        batch, hidden = _capture_call(model, blocks, args, kwargs, shared)
        captured.append(batch)
        entering.append(hidden)
        on_batch(len(captured))
    return captured, entering


def _capture_call(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    shared: _SharedTensors,
) -> tuple[CapturedBatch, torch.Tensor]:
    for as_tuple in (False, True):
        recording = _Recording(blocks, as_tuple=as_tuple)
        try:
            with recording:
                model(*args, **{**kwargs, "use_cache": False})
        except _CaptureCompleteError:
            arguments = tuple(arguments.mapped(shared.canonical) for arguments in recording.arguments)
            return CapturedBatch(arguments=arguments, token_mask=_token_mask(kwargs)), recording.first_hidden
        except _ChangedBetweenBlocksError:
            continue
    raise ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"{type(model).__name__} changes its hidden states between blocks.",
        "This kind of decoder cannot be quantized block by block.",
    )


def head_inputs(
    model: nn.Module, blocks: Sequence[nn.Module], head: nn.Module, call: ModelCall, leaving: torch.Tensor
) -> torch.Tensor:
    """Returns what the output head is fed with [B, T, I] where `leaving` [B, T, hidden] leaves the last block.

    Everything outside the blocks but the head must hold real weights.
    """
    args, kwargs = call
    seen: list[torch.Tensor] = []

    def stop(_module: nn.Module, head_args: tuple[torch.Tensor, ...]) -> None:
        seen.append(head_args[0])
        raise _CaptureCompleteError

    hook = head.register_forward_pre_hook(stop)
    try:
        for as_tuple in (False, True):
            try:
                with _Recording(blocks, as_tuple=as_tuple, leaving=leaving):
                    model(*args, **{**kwargs, "use_cache": False})
            except _CaptureCompleteError:
                if seen[-1].shape[:-1] == leaving.shape[:-1]:
                    return seen[-1]
            except _ChangedBetweenBlocksError:
                continue
    finally:
        hook.remove()
    raise ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"{type(model).__name__} does not hand the states that leave its last block to its head.",
        "Set lm_head to false.",
    )


def logits_behind(
    model: nn.Module, blocks: Sequence[nn.Module], call: ModelCall, leaving: torch.Tensor
) -> torch.Tensor:
    """Returns the model's logits [B, T, V] where `leaving` [B, T, hidden] leaves the last block.

    Everything outside the blocks must hold real weights.
    """
    args, kwargs = call
    for as_tuple in (False, True):
        try:
            with _Recording(blocks, as_tuple=as_tuple, leaving=leaving):
                logits: torch.Tensor = model(*args, **{**kwargs, "use_cache": False}).logits
        except _ChangedBetweenBlocksError:
            continue
        if logits.shape[:-1] == leaving.shape[:-1]:
            return logits
    raise ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"{type(model).__name__} does not hand the states that leave its last block to its head.",
        "Set evaluate to false.",
    )


class _Recording:
    """Replaces the blocks' forward while the context is open.

    The last block ends the call; where `leaving` is given, that leaves it instead and the call goes on.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, as_tuple: bool, leaving: torch.Tensor | None = None) -> None:
        self._blocks = blocks
        self._as_tuple = as_tuple
        self._leaving = leaving
        self.arguments: list[BlockArguments] = []
        self.first_hidden = torch.empty(0, device="meta")  # stands in until the first block is called
        self._passed_on: torch.Tensor | None = None

    def __enter__(self) -> None:
        for block in self._blocks:
            block.forward = self._record

    def __exit__(self, *_: object) -> None:
        for block in self._blocks:
            del block.forward

    def _record(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands in for any block's forward
        by_name = "hidden_states" in kwargs
        hidden = kwargs.pop("hidden_states") if by_name else args[0]
        rest = args if by_name else args[1:]
        if self._passed_on is None:
            self.first_hidden = hidden.detach().clone()
        elif hidden is not self._passed_on:
            raise _ChangedBetweenBlocksError
        self._passed_on = hidden
        self.arguments.append(BlockArguments(args=rest, kwargs=kwargs, hidden_by_name=by_name))
        if len(self.arguments) == len(self._blocks):
            if self._leaving is None:
                raise _CaptureCompleteError
            hidden = self._leaving
        return (hidden,) if self._as_tuple else hidden


class _SharedTensors:
    """Keeps one copy of equal tensors: every batch of the same shape gets the same mask and position embeddings."""

    def __init__(self) -> None:
        self._known: dict[tuple[torch.Size, torch.dtype], list[torch.Tensor]] = {}

    def canonical(self, tensor: torch.Tensor) -> torch.Tensor:
        known = self._known.setdefault((tensor.shape, tensor.dtype), [])
        for candidate in known:
            if candidate is tensor or torch.equal(candidate, tensor):
                return candidate
        known.append(tensor.detach())
        return known[-1]


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:  # noqa: ANN401 - a tree of whatever blocks are called with
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if type(value) in {tuple, list}:
        return type(value)(_mapped(item, change) for item in value)
    return value


def _token_mask(kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    mask = kwargs.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2 or bool((mask != 0).all()):  # noqa: PLR2004 - [B, T]
        return None
    return mask != 0
