"""The third step: block after block is loaded, solved, handed to the recorder and dropped."""

from __future__ import annotations

import time

from core.block_records import StoredStates, starved_experts
from core.checkpoint.prefetch import ReadAhead
from core.environment import return_code_pages
from core.events import WarningRaised
from core.model.activations import HiddenStates
from core.model.capture import CapturedBatch
from core.quantizers.block import block_batches
from core.quantizers.task import SolvedBlock
from core.steps.recording import FinishedBlock, Recorder
from core.steps.run import OpenRun


def quantize_blocks(
    run: OpenRun,
    weights: ReadAhead,
    recorder: Recorder,
    captured: list[CapturedBatch],
    hidden: list[HiddenStates],
) -> list[HiddenStates]:
    """Solves every block that the manifest does not hold yet; returns what leaves the last, if the head needs it.

    hidden: what enters the first of them. The list is left empty: its memory would be missed by every block.
    """
    states = hidden.copy()
    hidden.clear()
    for index in range(run.manifest.blocks_done, len(run.skeleton.blocks.modules)):
        started = time.perf_counter()
        return_code_pages()
        load_block(run, weights, index)
        batches = block_batches(captured, states, index)
        block, needed = run.skeleton.blocks.modules[index], index + 1 < run.total
        solved = run.request.walk.quantize(index, block, batches, outputs=needed)
        states = solved.outputs
        keeps_states = bool(captured) and needed
        recorder.record(_finished(run, index, solved, time.perf_counter() - started, keeps_states=keeps_states))
        run.skeleton.drop(run.skeleton.block_targets(index))
    return states


def load_block(run: OpenRun, weights: ReadAhead, index: int) -> None:
    """Loads a block, and lets the next one be read meanwhile."""
    skeleton = run.skeleton
    skeleton.load(weights, skeleton.block_targets(index))
    if index + 1 < len(skeleton.blocks.modules):
        weights.announce(skeleton.names.source_of[target] for target in skeleton.block_targets(index + 1))


def _finished(run: OpenRun, index: int, solved: SolvedBlock, seconds: float, *, keeps_states: bool) -> FinishedBlock:
    rows = run.records.rows(index, solved)
    for block, message in starved_experts(rows, run.shapes).items():
        run.request.walk.on_event(WarningRaised(code="starved_experts", message=message, block=block))
    return FinishedBlock(
        index=index,
        packing=run.records.packing(index, solved),
        rows=rows,
        seconds=seconds,
        leaving=StoredStates(solved.outputs) if keeps_states else {},
    )
