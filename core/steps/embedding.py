"""The step in front of the blocks, where the config asks for it: the input embedding goes on its grid.

It is solved before the first block, which is then solved for what a loader looks up, and recorded behind everything
else: a run that resumes solves it again, to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from core.errors import RunStoppedError
from core.events import Event
from core.quantizers.embedding import EmbeddingQuantizer, token_counts
from core.quantizers.outer import OuterTask, quantize_outer
from core.quantizers.task import SolvedBlock
from core.steps.recording import FinishedBlock, Recorder
from core.steps.run import OpenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedEmbedding:
    """The embedding on its grid. weight_VO: [vocabulary, width], what a loader looks up, in the engine's dtype.

    events: what is told when it is recorded.
    """

    solved: SolvedBlock
    weight_VO: torch.Tensor  # noqa: N815 - shapes live in names
    events: Sequence[Event]
    seconds: float


def solve_embedding(run: OpenRun) -> PackedEmbedding | None:
    """Returns the embedding on its grid; None where it stays in float."""
    embedding = run.records.embedding
    if embedding is None:
        return None
    started = time.perf_counter()
    part = run.request.config.for_linear(embedding.stored_name)
    assert part is not None  # noqa: S101 - an embedding that stays in float is none of the records'
    weight_VO = run.request.reader.tensor(f"{embedding.stored_name}.weight")
    W_OV = weight_VO.to(device=run.skeleton.device, dtype=run.skeleton.dtype).T
    calibration = run.request.calibration
    counts_V = None if calibration is None else token_counts(calibration.tokens_NT.to(W_OV.device), W_OV.shape[1])
    events: list[Event] = []
    task = OuterTask(
        index=run.embedding_index,
        name=embedding.path,
        quantizer=EmbeddingQuantizer(part, counts_V),
        on_event=events.append,
        beat=partial(_stop_if_asked, run, run.resumed),
    )
    solved = quantize_outer(task, W_OV, None)
    weight = solved.linears[embedding.path].weight
    return PackedEmbedding(
        solved=solved,
        weight_VO=weight.dequantize(run.skeleton.dtype).T.contiguous(),
        events=events,
        seconds=time.perf_counter() - started,
    )


def record_embedding(run: OpenRun, recorder: Recorder, packed: PackedEmbedding) -> None:
    """Hands the embedding to the recorder as the last block, and tells of it."""
    embedding, index = run.records.embedding, run.embedding_index
    assert embedding is not None  # noqa: S101 - it was solved
    recorder.settle()
    _stop_if_asked(run, index)
    for event in packed.events:
        run.request.walk.on_event(event)
    recorder.record(
        FinishedBlock(
            index=index,
            packing=run.records.outer_packing(embedding, packed.solved),
            rows=run.records.rows(index, packed.solved),
            seconds=packed.seconds,
            leaving={},
        )
    )


def _stop_if_asked(run: OpenRun, blocks_done: int) -> None:
    if run.request.walk.should_stop():
        raise RunStoppedError(blocks_done)
