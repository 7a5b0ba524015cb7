"""Quantizes a folder with llm-compressor's GPTQ. Run by `benchmarks/bench_peers.py` in its own environment."""

from __future__ import annotations

import sys

import torch
from arguments import parse_arguments
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    """Writes the artifact; returns the exit status."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.src)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in arguments.tokens]
    oneshot(
        model=AutoModelForCausalLM.from_pretrained(arguments.src, dtype="auto"),
        tokenizer=tokenizer,
        dataset=Dataset.from_list(rows),
        recipe=GPTQModifier(
            config_groups={"group_0": _scheme(arguments.bits, arguments.group_size)}, ignore=["lm_head"]
        ),
        num_calibration_samples=len(rows),
        max_seq_length=len(rows[0]["input_ids"]),
        batch_size=max(1, 2048 // len(rows[0]["input_ids"])),
        shuffle_calibration_samples=False,
        output_dir=str(arguments.dst),
    )
    return 0


def _scheme(bits: int, group_size: int) -> dict[str, object]:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "actorder": "static"}
    if group_size == -1:
        return {"targets": ["Linear"], "weights": {**weights, "strategy": "channel"}}
    return {"targets": ["Linear"], "weights": {**weights, "strategy": "group", "group_size": group_size}}


if __name__ == "__main__":
    sys.exit(main())
