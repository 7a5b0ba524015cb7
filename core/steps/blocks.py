"""The third step: block after block is loaded, solved, recorded and dropped."""

from __future__ import annotations

import time

from core.block_records import starved_experts, stored_states
from core.environment import rss_bytes
from core.events import BlockQuantized, WarningRaised
from core.model.capture import CapturedBatch
from core.model.suspend import HiddenStates
from core.quantizers.block import SolvedBlock, block_batches
from core.steps.run import OpenRun


def quantize_blocks(run: OpenRun, captured: list[CapturedBatch], hidden: list[HiddenStates]) -> list[HiddenStates]:
    """Solves every block that the manifest does not hold yet; returns what leaves the last."""
    for index in range(run.manifest.blocks_done, len(run.skeleton.blocks.modules)):
        started = time.perf_counter()
        solved = _solve_block(run, index, captured, hidden)
        hidden = solved.outputs
        _record(run, index, solved, keep_states=bool(captured))
        run.skeleton.drop(run.skeleton.block_targets(index))
        announce(run, index, started)
    return hidden


def announce(run: OpenRun, index: int, started: float) -> None:
    """Tells that a block is recorded. started: when its work began, by `time.perf_counter`."""
    run.request.walk.on_event(
        BlockQuantized(
            block=index,
            blocks_total=run.total,
            seconds=time.perf_counter() - started,
            rss_bytes=rss_bytes(),
            sha256=run.manifest.block_sha256(index),
        )
    )


def _solve_block(run: OpenRun, index: int, captured: list[CapturedBatch], hidden: list[HiddenStates]) -> SolvedBlock:
    run.skeleton.load(run.request.reader, run.skeleton.block_targets(index))
    batches = block_batches(captured, hidden, index)
    return run.request.walk.quantize(index, run.skeleton.blocks.modules[index], batches)


def _record(run: OpenRun, index: int, solved: SolvedBlock, *, keep_states: bool) -> None:
    rows = run.records.rows(index, solved)
    for block, message in starved_experts(rows, run.shapes).items():
        run.request.walk.on_event(WarningRaised(code="starved_experts", message=message, block=block))
    run.manifest.record_block(index, run.records.tensors(index, solved), rows)
    if keep_states and index + 1 < run.total:
        run.manifest.save_activations(index + 1, stored_states(solved.outputs))
