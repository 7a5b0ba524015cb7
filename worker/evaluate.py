"""The child's evaluation stage: how near the artifact, and NF4 beside it, are to the float model; whether it speaks.

It brings core's parts together; every number comes from core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from core.calibration.builtin import builtin_text
from core.calibration.windows import consecutive_windows
from core.environment import peak_rss_bytes
from core.errors import InsufficientResourcesError, MissingPackageError
from core.evaluation.evidence import add_evidence
from core.evaluation.fidelity import Fidelity, compare_models
from core.evaluation.loading import load_tokenizer
from core.evaluation.nf4 import NF4
from core.evaluation.sample import Samples, refuse_degenerate, sample_both
from core.events import Event, Stage, StageAdvanced, WarningRaised
from core.preflight.resources import check_memory, generation_bytes
from core.preflight.source import ModelFacts
from worker.faults import FaultPoint

SEQ_LEN = 512
WINDOWS = 16


def evaluate(
    model_dir: Path,
    artifact_dir: Path,
    facts: ModelFacts,
    on_event: Callable[[Event], None],
    *,
    with_nf4: bool,
    on_fault: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Returns the job's evaluation, plain JSON values, and adds it to the artifact's cards.

    on_event is told of every step and may raise to stop, on_fault of the places where a test may end this process.
    with_nf4: NF4 is measured too, in a pass of its own. Raises ArtifactDegenerateError where the artifact no longer
    speaks though the float model does.
    """
    seq_len = min(SEQ_LEN, facts.max_positions or SEQ_LEN)
    windows = consecutive_windows(builtin_text("evaluation"), load_tokenizer(model_dir), seq_len, WINDOWS)

    def advance(done: int, total: int) -> None:
        on_event(StageAdvanced(stage=Stage.EVALUATING, done=done, total=total))

    nf4 = _nf4(model_dir) if with_nf4 else None
    others: list[Path | NF4] = [artifact_dir, *([nf4] if isinstance(nf4, NF4) else [])]
    fidelity, *beside = compare_models(model_dir, others, windows.tokens_NT, advance)
    samples = _samples(model_dir, artifact_dir, facts, on_event)
    on_fault(FaultPoint.EVALUATED)
    add_evidence(artifact_dir, _evidence(fidelity, samples), on_fault=on_fault)
    return {
        "text": "builtin:evaluation",
        "seq_len": windows.seq_len,
        "windows_sha256": windows.sha256,
        **asdict(fidelity),
        "perplexity_ratio": fidelity.perplexity_ratio,
        "bytes_float": facts.total_bytes,
        "bytes_quantized": sum(file.stat().st_size for file in artifact_dir.glob("*.safetensors")),
        "peak_rss_bytes": peak_rss_bytes(),
        "sample": None if samples is None else _sample_values(samples),
        "nf4": None if nf4 is None else _nf4_values(nf4, beside),
    }


def _nf4(model_dir: Path) -> NF4 | MissingPackageError:
    """Returns the float model in NF4, or what a worker lacks for it: an extra that no job depends on."""
    try:
        return NF4(model_dir)
    except MissingPackageError as error:
        return error


def _nf4_values(nf4: NF4 | MissingPackageError, measured: Sequence[Fidelity]) -> dict[str, Any]:
    if isinstance(nf4, MissingPackageError):
        return {"missing": str(nf4)}
    [fidelity] = measured
    return {
        "perplexity": fidelity.perplexity_quantized,
        "perplexity_ratio": fidelity.perplexity_ratio,
        "kl_divergence": fidelity.kl_divergence,
        "top1_agreement": fidelity.top1_agreement,
        "bytes": nf4.weight_bytes(),
    }


def _samples(
    model_dir: Path, artifact_dir: Path, facts: ModelFacts, on_event: Callable[[Event], None]
) -> Samples | None:
    """Returns both models' answers, None with a warning where a whole model does not fit in memory."""
    try:
        check_memory(generation_bytes(facts))
    except InsufficientResourcesError as error:
        on_event(WarningRaised(code="no_sample", message=f"The models were not asked to answer a prompt: {error}"))
        return None
    samples = sample_both(model_dir, artifact_dir, getattr(torch, facts.dtype))
    refuse_degenerate(samples)
    return samples


def _sample_values(samples: Samples) -> dict[str, Any]:
    """decode: how fast tokens came, on packed weights where torch has a kernel for them, else expanded to float."""
    packed = samples.packed
    return {
        "prompt": samples.prompt,
        "float": samples.before.text,
        "quantized": samples.after.text,
        "decode": {
            "kernel": "expanded" if packed is None else packed.kernel,
            "device": "cpu",
            "tokens_per_second_float": round(samples.before.tokens_per_second, 2),
            "tokens_per_second_quantized": round((packed or samples.after).tokens_per_second, 2),
            "resident_bytes": None if packed is None else packed.resident_bytes,
        },
    }


def _evidence(fidelity: Fidelity, samples: Samples | None) -> dict[str, str]:
    """Returns the rows of the card; no times, so that equal runs write equal cards."""
    rows = {
        "perplexity": (
            f"{fidelity.perplexity_quantized:.3f}, float {fidelity.perplexity_float:.3f} "
            f"(x {fidelity.perplexity_ratio:.4f}), on {fidelity.tokens:,} tokens of built-in text"
        ),
        "KL divergence from the float model": f"{fidelity.kl_divergence:.5f} nats per token",
        "same likeliest next token": f"{fidelity.top1_agreement:.2%}",
    }
    if samples is not None:
        rows["asked"] = samples.prompt
        rows["float model's answer"] = samples.before.text
        rows["this model's answer"] = samples.after.text
    return rows
