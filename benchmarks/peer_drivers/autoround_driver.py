"""Quantizes a folder with auto-round. Run by `benchmarks/bench_peers.py` in auto-round's own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from arguments import parse_arguments
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    """Writes the artifact; returns the exit status."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    rows = [{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))} for row in arguments.tokens]
    rounder = AutoRound(
        AutoModelForCausalLM.from_pretrained(arguments.src, dtype="auto"),
        AutoTokenizer.from_pretrained(arguments.src),
        bits=arguments.bits,
        group_size=arguments.group_size,
        sym=True,
        iters=arguments.iterations,
        dataset=torch.utils.data.DataLoader(rows, batch_size=None),
        nsamples=len(rows),
        seqlen=len(arguments.tokens[0]),
        batch_size=4,
        device_map="cpu",
    )
    rounder.quantize_and_save(str(arguments.dst), format="auto_gptq")
    _settle(arguments.dst)
    return 0


def _settle(dst: Path) -> None:
    """Moves what lies in a folder of auto-round's own naming up to `dst`, and names the layout in config.json."""
    (made,) = dst.iterdir()
    for file in made.iterdir():
        file.rename(dst / file.name)
    made.rmdir()
    config = json.loads((dst / "config.json").read_text("utf-8"))
    config["quantization_config"]["checkpoint_format"] = "gptq"
    (dst / "config.json").write_text(json.dumps(config, indent=2), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
