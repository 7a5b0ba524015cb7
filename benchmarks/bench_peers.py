"""Runs other quantizers on the bench's tokens, each in an environment of its own that `make peers` builds.

A driver is a whole process: imports, loading and writing are timed with the work, as they are for `bitmill run`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from process_tree import Usage, measure

ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".venv-peers"
DRIVERS = Path(__file__).resolve().parent / "peer_drivers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One other quantizer. options: for its driver. environment: variables that it needs on this machine."""

    name: str
    title: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """Returns the interpreter of its environment; raises SystemExit where it was not built."""
        python = ENVIRONMENTS / self.name / "bin" / "python"
        if not python.exists():
            raise SystemExit(f"{self.title} is not installed here: run `make peers` first.")
        return python


def known_peers(threads: int, iterations: int = 20) -> dict[str, Peer]:
    """Returns the peers by name; `threads` each, `iterations` of auto-round per block."""
    peers = (
        # Its own default is a worker per four cores, none on a machine with fewer.
        Peer(
            name="gptqmodel",
            title="GPTQModel 7.7.0",
            environment={"GPTQMODEL_CPU_WORKERS": str(threads)},
        ),
        Peer(name="llmcompressor", title="llm-compressor 0.14.0.1"),
        Peer(
            name="autoround",
            title=f"auto-round 0.15.1 ({iterations} iterations)",
            options=("--iterations", str(iterations)),
        ),
    )
    return {peer.name: peer for peer in peers}


def write_tokens(tokens_NT: torch.Tensor, file: Path) -> Path:
    """Writes the calibration windows in the form that the drivers read."""
    file.write_text(json.dumps(tokens_NT.tolist()), encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTask:
    """What every peer is given. tokens: the file that `write_tokens` wrote."""

    tokens: Path
    bits: int
    group_size: int
    threads: int


def run_peer(peer: Peer, task: PeerTask, model: Path, dst: Path) -> Usage:
    """Quantizes `model` into `dst` and returns what it took; raises SystemExit where the peer fails."""
    grid = ["--bits", str(task.bits), "--group-size", str(task.group_size), "--tokens", str(task.tokens)]
    command = [str(peer.python), str(DRIVERS / f"{peer.name}_driver.py"), "--src", str(model), "--dst", str(dst)]
    shared = {"OMP_NUM_THREADS": str(task.threads), "HF_HUB_OFFLINE": "1"}
    return measure(
        [*command, *grid, "--threads", str(task.threads), *peer.options],
        env={**os.environ, **shared, **peer.environment},
        cwd=dst.parent,  # some leave logs where they stand
    )
