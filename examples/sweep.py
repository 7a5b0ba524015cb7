"""Quantizes one model to several bits and group sizes in one batch, and plots size against perplexity.

python examples/sweep.py MODEL --bits 3 4 8 --group-sizes 32 64 --out pareto

Prints the table of the batch, and writes OUT.png and OUT.svg. On the Pareto front are the artifacts that no other one
beats in both size and perplexity, which each job's worker measures on held-out text (`evaluate`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from client import POLL_SECONDS, UNFINISHED, answer, connect, model_of, post
from matplotlib.figure import Figure

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Point:
    """One artifact."""

    label: str
    megabytes: float
    perplexity: float


def run_batch(client: httpx.Client, model: str, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Submits every config on the model and returns the batch's table once all of its jobs are over."""
    request = {"name": "bits by group size", "models": [model_of(model)], "configs": configs}
    path = f"/v1/batches/{post(client, '/v1/batches', request)['id']}"
    while True:
        batch = answer(client.get(path))
        if not any(batch["states"].get(state) for state in UNFINISHED):
            return batch["table"]
        time.sleep(POLL_SECONDS)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other one beats in both size and perplexity, smallest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.megabytes, point.perplexity)):
        if not front or point.perplexity < front[-1].perplexity:
            front.append(point)
    return front


def plot(points: Sequence[Point], perplexity_float: float, title: str) -> Figure:
    """Returns the picture: every artifact as a dot, the front as a line, the float model's perplexity as a level."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(points)
    axes.axhline(perplexity_float, color="0.6", linestyle=":", label="float model")
    axes.step(
        [point.megabytes for point in front],
        [point.perplexity for point in front],
        where="post",
        label="Pareto front",
    )
    axes.scatter([point.megabytes for point in points], [point.perplexity for point in points], zorder=3)
    for point in points:
        axes.annotate(point.label, (point.megabytes, point.perplexity), xytext=(5, 4), textcoords="offset points")
    axes.set(title=title, xlabel="artifact, MB", ylabel="perplexity, held-out text")
    axes.legend()
    return figure


def line_of(row: dict[str, Any]) -> str:
    """Returns a line of the printed table; of a job that did not succeed, what ended it."""
    size, quality = "", row["error"] or row["state"]
    if row["state"] == "succeeded":
        size = f"{row['artifact_bytes'] / MEGABYTE:.1f} MB"
        quality = f"{row['evaluation']['perplexity_quantized']:.3f}"
    return f"{row['bits']} bits, group {row['group_size']:<6}{size:>12}  {quality}"


def point_of(row: dict[str, Any]) -> Point:
    """Returns a finished job as a dot."""
    label = f"{row['bits']}/{row['group_size']}"
    return Point(label, row["artifact_bytes"] / MEGABYTE, row["evaluation"]["perplexity_quantized"])


def save(figure: Figure, out: Path) -> None:
    """Writes OUT.png and OUT.svg."""
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text, which search and screen readers find
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(out.with_name(out.name + suffix), dpi=150)


def main() -> None:
    """Runs the sweep; exits with 1 where a job failed, after the picture of the others."""
    parser = argparse.ArgumentParser(description="Sweep bits and group sizes through one batch.")
    parser.add_argument("model", help="hub id, or a folder that the service can read")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4, 8])
    parser.add_argument("--group-sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--samples", type=int, default=32, help="calibration windows")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens per window")
    parser.add_argument("--out", type=Path, default=Path("pareto"))
    options = parser.parse_args()
    draw = {"samples": options.samples, "seq_len": options.seq_len}
    configs = [
        {"bits": bits, "group_size": group_size, "evaluate": True, "calibration": draw}
        for bits, group_size in product(options.bits, options.group_sizes)
    ]
    with connect() as client:
        table = run_batch(client, options.model, configs)
    print("\n".join(line_of(row) for row in table))
    done = [row for row in table if row["state"] == "succeeded"]
    if done:
        level = done[0]["evaluation"]["perplexity_float"]
        save(plot([point_of(row) for row in done], level, f"{done[0]['model']}: bits/group size"), options.out)
    if len(done) < len(table):
        raise SystemExit(f"{len(table) - len(done)} of {len(table)} jobs did not succeed.")


if __name__ == "__main__":
    main()
