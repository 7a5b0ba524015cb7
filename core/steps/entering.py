"""The second step: calibration text becomes what enters the first open block."""

from __future__ import annotations

from torch import nn

from core.block_records import restored_states
from core.checkpoint.prefetch import ReadAhead
from core.errors import RunStoppedError
from core.events import Stage, StageAdvanced
from core.model.activations import HiddenStates
from core.model.capture import CapturedBatch, capture
from core.quantizers.block import block_batches
from core.quantizers.replica import BlockBatch
from core.steps.blocks import load_block
from core.steps.embedding import PackedEmbedding
from core.steps.run import OpenRun


def capture_batches(
    run: OpenRun, packed: PackedEmbedding | None = None
) -> tuple[list[CapturedBatch], list[HiddenStates]]:
    """Runs the embedding on every batch and learns what the model hands to each block.

    packed: the embedding on its grid, with which the quantized path begins; the float path begins with the float one.
    """
    request = run.request
    batches = request.token_batches

    def advance(done: int) -> None:
        if request.walk.should_stop():
            raise RunStoppedError(run.resumed)
        request.walk.on_event(StageAdvanced(stage=Stage.CALIBRATING, done=done, total=len(batches)))

    embedding = run.skeleton.embedding_targets()
    run.skeleton.load(request.reader, embedding)
    calls = [((), {"input_ids": tokens}) for tokens in batches]
    model, blocks = run.skeleton.model, run.skeleton.blocks.modules
    captured, states = capture(model, blocks, calls, advance)
    floats = None
    if packed is not None:
        model.get_input_embeddings().weight = nn.Parameter(packed.weight_VO, requires_grad=False)
        floats = states
        captured, states = capture(model, blocks, calls, lambda _: None)
    run.skeleton.drop(embedding)
    return captured, request.walk.entering(states, floats)


def entering_states(
    run: OpenRun, weights: ReadAhead, captured: list[CapturedBatch], hidden: list[HiddenStates]
) -> list[HiddenStates]:
    """Returns what enters the first open block: saved states, or those of block 0 run through the finished ones."""
    done = run.manifest.blocks_done
    if done == 0 or not captured:
        return hidden
    saved = run.manifest.load_activations(done)
    if saved is not None:
        homes = run.request.walk.team.homes(len(captured))
        return restored_states(saved, [home.keep for home in homes])
    for index in range(done):
        hidden = _pass_finished(run, weights, index, block_batches(captured, hidden, index))
    return hidden


def _pass_finished(run: OpenRun, weights: ReadAhead, index: int, batches: list[BlockBatch]) -> list[HiddenStates]:
    """Runs a finished block, with its float weights where that path is carried, then with its quantized ones."""
    walk, skeleton = run.request.walk, run.skeleton
    block = skeleton.blocks.modules[index]
    load_block(run, weights, index)
    beside = walk.forward_float(block, batches)
    run.records.restore(index, run.manifest.block_tensors(index))
    states = walk.forward(block, batches)
    skeleton.drop(skeleton.block_targets(index))
    return walk.kept(states, beside)
