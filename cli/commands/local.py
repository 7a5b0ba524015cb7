"""`bitmill run` and `bitmill eval`: the engine on this machine, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.calibration_text import WORDS, CalibrationSource
from cli.options import (
    BudgetOptions,
    CalibrationOptions,
    FormatOption,
    JsonOption,
    QuantizationOptions,
    TargetOption,
    takes_options,
)
from core.configs import DEFAULT_FORMATS


@takes_options
def run(
    quantization: QuantizationOptions,
    calibration: CalibrationOptions,
    budget: BudgetOptions,
    src: Annotated[Path, typer.Option("--src", help="Model folder: config.json, tokenizer, safetensors.")],
    dst: Annotated[Path, typer.Option("--dst", help="Folder of the artifact; it must not exist yet.")],
    calib: Annotated[
        str | None,
        typer.Option("--calib", metavar="FILE|hub:NAME|self", help=WORDS, show_default="built-in text"),
    ] = None,
    target: TargetOption = None,
    formats: FormatOption = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep <dst>.work, the finished blocks.")] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="auto|cpu|cuda|cuda:N|mps",
            help="Where blocks run and are solved; of several, as in cuda:0,cuda:1, each takes a part of the batches.",
        ),
    ] = "auto",
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time went, and keep it as profile.json in the artifact.")
    ] = False,
    activation_memory: Annotated[
        str | None,
        typer.Option(
            "--activation-memory",
            metavar="SIZE",
            help="What calibration batches may hold in memory, such as 2GB; the rest goes to disk or is run again.",
            show_default="BITMILL_ACTIVATION_MEMORY, else half of what is free",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Quantize a model folder right here, block by block, with the memory of one block.

    Ctrl-C stops after the batch under way and keeps every finished block: the same command goes on from there.
    """
    from cli.local_run import LocalRun, run_local
    from cli.settings import activation_memory_bytes

    run_local(
        LocalRun(
            src=src,
            dst=dst,
            source=CalibrationSource(calib),
            quantization=quantization,
            calibration=calibration,
            budget=budget,
            targets=tuple(str(name) for name in target or ()),
            formats=tuple(formats or DEFAULT_FORMATS),
            keep_work=keep_work,
            profile=profile,
            device=device,
            activation_memory=activation_memory_bytes(activation_memory),
        ),
        as_json=json_output,
    )


def evaluate(
    model: Annotated[Path, typer.Option("--model", help="Float model folder.", exists=True, file_okay=False)],
    text: Annotated[
        Path | None, typer.Option("--text", help="Text or JSONL.", show_default="built-in evaluation text")
    ] = None,
    artifact: Annotated[
        list[Path] | None,
        typer.Option("--artifact", help="Artifact to compare with it; give several.", exists=True, file_okay=False),
    ] = None,
    nf4: Annotated[
        bool, typer.Option("--nf4", help="Compare with bitsandbytes' NF4 of the model as well; needs bitmill[nf4].")
    ] = False,
    seq_len: Annotated[int, typer.Option("--seq-len", min=16, help="Tokens per window.")] = 512,
    max_windows: Annotated[int, typer.Option("--max-windows", min=1, help="Windows measured at most.")] = 64,
    json_output: JsonOption = False,
) -> None:
    """Measure how near artifacts are to their float model on a text: perplexity, KL divergence, top-1 agreement."""
    from cli.local_eval import run_eval

    run_eval(
        model=model,
        artifacts=artifact or [],
        nf4=nf4,
        text=text,
        seq_len=seq_len,
        max_windows=max_windows,
        as_json=json_output,
    )
