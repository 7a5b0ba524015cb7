"""Quantizes a folder with GPTQModel's defaults. Run by `benchmarks/bench_peers.py` in GPTQModel's own environment."""

from __future__ import annotations

import sys

import torch
from arguments import parse_arguments
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

# Windows per forward pass: the same 2,048 tokens that Bitmill passes at a time.
TOKENS_PER_BATCH = 2048


def main() -> int:
    """Writes the artifact; returns the exit status."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # Its own order by groups is on by default, and refused for a group as wide as the linear.
    plain = {} if arguments.group_size > 0 else {"act_group_aware": False}
    config = QuantizeConfig(bits=arguments.bits, group_size=arguments.group_size, sym=True, device="cpu", **plain)
    model = GPTQModel.load(str(arguments.src), config)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in arguments.tokens]
    batch_size = max(1, TOKENS_PER_BATCH // len(arguments.tokens[0]))
    model.quantize(rows, batch_size=batch_size, backend=BACKEND.AUTO)
    model.save(str(arguments.dst))
    return 0


if __name__ == "__main__":
    sys.exit(main())
