"""The step behind the last block, where the config asks for it: the output head, on what the last norm hands over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from core.errors import RunStoppedError
from core.model.activations import HiddenStates
from core.model.capture import CapturedBatch, head_inputs
from core.model.skeleton import OutputHead
from core.quantizers.dispatch import quantizer_for
from core.quantizers.outer import HeadBatch, OuterTask, head_statistics, quantize_outer
from core.steps.recording import FinishedBlock, Recorder
from core.steps.run import OpenRun


def quantize_output_head(
    run: OpenRun, recorder: Recorder, head: OutputHead, captured: list[CapturedBatch], hidden: list[HiddenStates]
) -> None:
    """Solves the head and hands it to the recorder as one more block. hidden: what leaves the last block."""
    started = time.perf_counter()
    index = len(run.skeleton.blocks.modules)
    part = run.request.config.for_linear(head.stored_name)
    assert part is not None  # noqa: S101 - a head that stays in float is none of the records'
    task = OuterTask(
        index=index,
        name=head.path,
        quantizer=quantizer_for(part),
        on_event=run.request.walk.on_event,
        beat=partial(_stop_if_asked, run),
    )
    statistics = head_statistics(task.quantizer, _batches(run, head, captured, hidden))
    reader = run.request.reader
    W_OI = reader.tensor(head.weight).to(device=run.skeleton.device, dtype=run.skeleton.dtype)
    solved = quantize_outer(task, W_OI, statistics)
    bias = None if head.bias is None else reader.tensor(head.bias)
    recorder.record(
        FinishedBlock(
            index=index,
            packing=run.records.outer_packing(head, solved, bias),
            rows=run.records.rows(index, solved),
            seconds=time.perf_counter() - started,
            leaving={},
        )
    )


def _batches(
    run: OpenRun, head: OutputHead, captured: list[CapturedBatch], hidden: list[HiddenStates]
) -> Iterator[HeadBatch]:
    """Yields what the head is fed with, batch by batch; everything around the blocks but the head is loaded."""
    skeleton = run.skeleton
    outer = skeleton.embedding_targets()
    if captured:
        skeleton.load(run.request.reader, outer)
    for tokens, batch, states in zip(run.request.token_batches, captured, hidden, strict=True):
        _stop_if_asked(run)
        feed = partial(head_inputs, skeleton.model, skeleton.blocks.modules, head.module, ((), {"input_ids": tokens}))
        beside = None if states.float_path is None else feed(states.float_path.to(skeleton.device))
        inputs = feed(states.quantized.to(skeleton.device))
        yield HeadBatch(inputs=inputs, token_mask=batch.token_mask, float_inputs=beside)
    skeleton.drop(outer)


def _stop_if_asked(run: OpenRun) -> None:
    if run.request.walk.should_stop():
        raise RunStoppedError(len(run.skeleton.blocks.modules))
