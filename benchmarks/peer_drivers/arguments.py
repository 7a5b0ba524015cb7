"""What every driver is told: the same model, tokens, grid and threads. Standard library only."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arguments:
    """tokens: windows of token ids, all of one length. iterations: of auto-round, per block."""

    src: Path
    dst: Path
    tokens: list[list[int]]
    bits: int
    group_size: int
    threads: int
    iterations: int


def parse_arguments() -> Arguments:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--src", type=Path, required=True)
    parser.add_argument("--dst", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="a JSON file of windows of token ids")
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--iterations", type=int, default=20)
    given = parser.parse_args()
    return Arguments(
        src=given.src,
        dst=given.dst,
        tokens=json.loads(given.tokens.read_text("utf-8")),
        bits=given.bits,
        group_size=given.group_size,
        threads=given.threads,
        iterations=given.iterations,
    )
