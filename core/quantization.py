"""Quantizes a model in memory: `prepare`, run it on calibration data, `convert`.

The same walk and solver as the disk-to-disk pipeline; the algorithm is chosen by the type of the config. PT2EConfig
goes on from there: it exports the quantized model and quantizes its activations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from core.configs import PT2EConfig, QuantizationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError, InvalidConfigError, MissingPackageError
from core.model.activations import HiddenStates
from core.model.attention import attending_blockwise
from core.model.capture import CapturedBatch, ModelCall, capture, head_inputs
from core.model.experts import Feed, fused_modules, set_feed, split_experts
from core.model.intermediates import sparing_intermediates
from core.model.modules import QuantizedLinear
from core.model.structure import Blocks, find_blocks, linear_weight
from core.quantizers.block import BlockWalk, block_batches
from core.quantizers.dispatch import PerLinear, quantizer_for
from core.quantizers.outer import HeadBatch, OuterTask, head_statistics, quantize_outer
from core.quantizers.task import SolvedBlock

_ATTRIBUTE = "_bitmill_preparation"


@dataclass(slots=True, kw_only=True)
class _Preparation:
    """What `prepare` leaves on the model for `convert`: the config and the arguments of every call since."""

    config: QuantizationConfig
    calls: list[ModelCall] = field(default_factory=list)
    hook: RemovableHandle | None = None


def prepare(
    model: nn.Module,
    config: QuantizationConfig | PT2EConfig,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    inplace: bool = True,  # noqa: FBT001, FBT002 - the interface that such tools share
) -> nn.Module:
    """Makes the model remember the inputs of every call until `convert`; the calls are the calibration data.

    args, kwargs: one example call that is made at once (token ids; an attention_mask marks padding, which is left out).
    Only inputs are kept, so further calls cost no memory beyond theirs. inplace=False works on a deep copy.
    PT2EConfig takes a model that `convert` quantized and returns a graph of the example call, which must be given and
    whose shapes the graph keeps; inplace=True then leaves float linears with the quantized values in the given model.
    Returns the prepared model. Raises ModelRefusedError where the model has no blocks of linears, MissingPackageError
    where PT2EConfig lacks torchao, InvalidConfigError where it cannot take the weights' grid.
    """
    model = model if inplace else copy.deepcopy(model)
    if isinstance(config, PT2EConfig):
        return _prepare_exported(model, config, args, kwargs)
    find_blocks(model)
    _release(model)
    preparation = _Preparation(config=config)

    def remember(_module: nn.Module, call_args: tuple[Any, ...], call_kwargs: dict[str, Any]) -> None:
        preparation.calls.append((_detached(call_args), _detached(call_kwargs)))

    preparation.hook = model.register_forward_pre_hook(remember, with_kwargs=True)
    setattr(model, _ATTRIBUTE, preparation)
    if args is not None or kwargs is not None:
        with torch.no_grad():
            model(*(args or ()), **(kwargs or {}))
    return model


def convert(
    model: nn.Module,
    config: QuantizationConfig | None = None,
    inplace: bool = True,  # noqa: FBT001, FBT002 - the interface that such tools share
) -> nn.Module:
    """Quantizes the linears of every block and replaces them by `QuantizedLinear` modules.

    Patterns of `config.dynamic` are matched with module paths, which most checkpoints' names are too.

    config: another config than the one given to `prepare`; a model that was never prepared needs one, and it must be
    of a method without calibration. Returns the quantized model, without any trace of `prepare`.
    Raises CalibrationRefusedError where the method needs calibration calls and none were made, NumericalError.
    A graph that was prepared with PT2EConfig becomes a graph with quantized activations, and takes no other config.
    """
    model = model if inplace else copy.deepcopy(model)
    if isinstance(model, GraphModule):
        return _convert_exported(model, config)
    preparation = _release(model)
    chosen = config or (preparation.config if preparation else None)
    if chosen is None:
        raise _no_calls("The model was not prepared and no config was given.")
    if chosen.embeddings:
        raise InvalidConfigError("embeddings", True, "embeddings are packed in a folder only", "false")  # noqa: FBT003 - the value that was given
    quantizer = quantizer_for(chosen)
    calls = preparation.calls if preparation else []
    if quantizer.needs_calibration and not calls:
        raise _no_calls("No call was made between prepare and convert.")
    split_experts(model, fused_modules(model))
    set_feed(model, Feed.ALL if quantizer.feeds_all_experts else Feed.ROUTED)
    blocks, per_linear = find_blocks(model), PerLinear()
    walk = BlockWalk(
        quantizer=quantizer,
        on_event=lambda _: None,
        should_stop=lambda: False,
        choose=lambda index, name: per_linear.of(chosen.for_linear(f"{blocks.path(index)}.{name}")),
    )
    was_training = model.training
    model.eval()
    with torch.no_grad(), attending_blockwise(model), sparing_intermediates(model):
        used = calls if quantizer.needs_calibration else []
        captured, hidden = _walk(model, walk, used)
        if chosen.lm_head:
            _convert_head(model, blocks, chosen, list(zip(used, captured, hidden, strict=True)))
    set_feed(model, Feed.ROUTED)
    return model.train(was_training)


def _walk(model: nn.Module, walk: BlockWalk, calls: list[ModelCall]) -> tuple[list[CapturedBatch], list[HiddenStates]]:
    """Quantizes all blocks; returns what was captured and what leaves the last one."""
    blocks = find_blocks(model)
    captured, entering = capture(model, blocks.modules, calls, lambda _: None)
    hidden = walk.entering(entering)
    for index, block in enumerate(blocks.modules):
        solved = walk.quantize(index, block, block_batches(captured, hidden, index))
        hidden = solved.outputs
        _replace_linears(blocks, index, solved)
    return captured, hidden


def _convert_head(
    model: nn.Module,
    blocks: Blocks,
    config: QuantizationConfig,
    batches: list[tuple[ModelCall, CapturedBatch, HiddenStates]],
) -> None:
    """Quantizes the output head and takes it from the embedding that it may be tied to."""
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]  # untyped in transformers
    path = next(path for path, module in model.named_modules() if module is head)
    part = config.for_linear(path)
    if part is None:
        return

    def fed() -> Iterator[HeadBatch]:
        for call, batch, states in batches:
            run = partial(head_inputs, model, blocks.modules, head, call)
            beside = None if states.float_path is None else run(states.float_path)
            yield HeadBatch(inputs=run(states.quantized), token_mask=batch.token_mask, float_inputs=beside)

    task = OuterTask(index=len(blocks.modules), name=path, quantizer=quantizer_for(part), on_event=lambda _: None)
    solved = quantize_outer(task, linear_weight(head).detach(), head_statistics(task.quantizer, fed()))
    parent, _, attribute = path.rpartition(".")
    quantized = QuantizedLinear(solved.linears[path].weight, getattr(head, "bias", None))
    setattr(model.get_submodule(parent), attribute, quantized)
    model.config.tie_word_embeddings = False  # type: ignore[union-attr]  # untyped in transformers


def _replace_linears(blocks: Blocks, index: int, solved: SolvedBlock) -> None:
    block = blocks.modules[index]
    for name, linear in solved.linears.items():
        path, _, attribute = name.rpartition(".")
        bias = getattr(block.get_submodule(name), "bias", None)
        setattr(block.get_submodule(path), attribute, QuantizedLinear(linear.weight, bias))


def _prepare_exported(
    model: nn.Module, config: PT2EConfig, args: tuple[Any, ...] | None, kwargs: Mapping[str, Any] | None
) -> nn.Module:
    if args is None and kwargs is None:
        raise InvalidConfigError("args", None, "a model is exported as it runs on an example", "the args of one call")
    with _needs_torchao():
        from core.quantizers.pt2e import prepare_exported  # noqa: PLC0415 - the rest runs without torchao
    return prepare_exported(model, config, args or (), kwargs or {})


def _convert_exported(model: GraphModule, config: QuantizationConfig | None) -> nn.Module:
    if config is not None:
        raise InvalidConfigError("config", type(config).__name__, "a graph keeps the config of its prepare", "None")
    with _needs_torchao():
        from core.quantizers.pt2e import convert_exported  # noqa: PLC0415 - see above
    return convert_exported(model)


@contextmanager
def _needs_torchao() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "torchao":
            raise
        raise MissingPackageError("PT2EConfig", "torchao", "pt2e") from error


def _release(model: nn.Module) -> _Preparation | None:
    preparation: _Preparation | None = getattr(model, _ATTRIBUTE, None)
    if preparation is not None:
        delattr(model, _ATTRIBUTE)
        if preparation.hook is not None:
            preparation.hook.remove()
    return preparation


def _detached(value: Any) -> Any:  # noqa: ANN401 - a tree of whatever a model is called with
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if type(value) in {tuple, list}:
        return type(value)(_detached(item) for item in value)
    return value


def _no_calls(detail: str) -> CalibrationRefusedError:
    return CalibrationRefusedError(
        CalibrationProblem.EMPTY,
        detail,
        "Call prepare(model, config), run the model on calibration data, then convert.",
    )
