"""The two models of the bench: SmolLM2-135M-Instruct, and the same trained a little further.

The published weights once sat on a 4-bit grid, which flatters a scale search; after some steps of training they no
longer do, so the second model's figures count more.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from cli.demo_model import prepare_smollm2
from core.calibration.windows import consecutive_windows
from core.evaluation.loading import load_model, load_tokenizer

STEPS = 80
WINDOWS_PER_STEP = 4
SEQ_LEN = 512
LEARNING_RATE = 1e-4
SEED = 0


def first_model(cache_dir: Path) -> Path:
    """Returns the folder of SmolLM2-135M-Instruct, made on first use."""
    return prepare_smollm2(cache_dir, print)


def second_model(cache_dir: Path, calibration: list[str], steps: int = STEPS) -> Path:
    """Returns the fine-tuned folder, made on first use (about 8 minutes on 2 cores); it depends on the text."""
    digest = hashlib.sha256("\0".join(calibration).encode()).hexdigest()[:12]
    folder = cache_dir / "models" / f"SmolLM2-135M-finetuned-{steps}-{digest}"
    if not folder.is_dir():
        _fine_tune(first_model(cache_dir), folder, calibration, steps)
    return folder


def _fine_tune(source_dir: Path, folder: Path, documents: list[str], steps: int) -> None:
    tokens_NT = consecutive_windows(documents, load_tokenizer(source_dir), SEQ_LEN).tokens_NT
    model = load_model(source_dir)
    model.requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    draw = random.Random(SEED)  # noqa: S311 - a reproducible draw, not a secret
    model.train()
    for step in range(1, steps + 1):
        rows = draw.sample(range(len(tokens_NT)), WINDOWS_PER_STEP)
        loss = _train_step(model, optimizer, tokens_NT[rows])
        print(f"fine-tuning: step {step} of {steps}, loss {loss:.3f}", flush=True)
    _save(model.eval(), source_dir, folder)


def _train_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, tokens_NT: torch.Tensor) -> float:
    """One window at a time, which needs a quarter of the memory of all four at once and gives the same gradient.

    The products run in bfloat16, at half the time; weights, gradients and the optimizer's state are float32.
    """
    total = 0.0
    for tokens_T in tokens_NT:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=tokens_T[None], labels=tokens_T[None]).loss / len(tokens_NT)
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _save(model: PreTrainedModel, source_dir: Path, folder: Path) -> None:
    """Writes the folder under another name first, so that a broken-off run leaves no half model behind."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy2(source_dir / name, partial / name)
    partial.rename(folder)
