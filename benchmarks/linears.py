"""What does each option do to single linears? Losses on held-out calibration tokens, far less noisy than perplexity.

    python benchmarks/linears.py --text wiki.valid.txt [--bits 3] [--blocks 6] [--model DIR]

Walks the first blocks, the float model beside every batch, and solves each linear once per variant from the same
statistics. Printed per kind of linear: the mean over blocks of E|W x0 - W_hat x|² - E|W x0 - W x|² on tokens that were
not solved with, in percent of E|W x|²; x0 is the float model's input, x the quantized one's. Negative: better than the
float weights on the quantized model's inputs. The walk goes on with the first variant's weights.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import torch
from bench_model import first_model
from bench_text import load_bench_text

from core.calibration.windows import draw_windows
from core.configs import CalibrationConfig, GPTQConfig
from core.evaluation.loading import load_model, load_tokenizer
from core.events import Event, LinearQuantized
from core.model.capture import capture
from core.model.structure import find_blocks
from core.quantizers.base import BaseQuantizer, SolvedLinear
from core.quantizers.block import BlockWalk, block_batches
from core.quantizers.gptq import GPTQQuantizer, PreparedInputs
from core.solver.hessian import InputStatistics
from core.solver.loss import TargetLoss, quadratic_loss
from core.solver.target import wanted_change
from store.settings import settings_from_env

CALIBRATION = CalibrationConfig(samples=32, seq_len=512, seed=0)
WINDOWS_PER_BATCH = 4

VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "order act_group_aware": {"order": "act_group_aware"},
    "order natural": {"order": "natural"},
    "order desc_act (gathers)": {"order": "desc_act"},
    "order auto": {"order": "auto"},
    "refine_rounds 0": {"refine_rounds": 0},
    "refine_rounds 1": {"refine_rounds": 1},
    "refine_rounds 2": {"refine_rounds": 2},
    "refine_rounds 4": {"refine_rounds": 4},
    "unsigned scales": {"signed_scales": False},
    "scale_search hessian": {"scale_search": "hessian"},
    "scale_search minmax": {"scale_search": "minmax"},
    "damp_percent 0.01": {"damp_percent": 0.01},
    "damp_percent 0.1": {"damp_percent": 0.1},
    "alpha 0.5, damp 0.05": {"mismatch_alpha": 0.5, "mismatch_damp": 0.05},
    "alpha 0.75, damp 0.3": {"mismatch_alpha": 0.75, "mismatch_damp": 0.3},
    "alpha 1, damp 0.05": {"mismatch_alpha": 1.0, "mismatch_damp": 0.05},
    "alpha 1, damp 0.2": {"mismatch_alpha": 1.0, "mismatch_damp": 0.2},
    "alpha 1, damp 0.5": {"mismatch_alpha": 1.0, "mismatch_damp": 0.5},
    "best": {"order": "auto", "refine_rounds": 4},
}


class _Compared(BaseQuantizer[tuple[InputStatistics, list[PreparedInputs | None]]]):
    """Solves a linear by every variant; notes losses and processor seconds, keeps the first variant's weight."""

    needs_calibration: ClassVar[bool] = True
    carries_float_path = True
    float_path_every = 1
    holds_out = True

    def __init__(self, bits: int, group_size: int) -> None:
        self._quantizers = {
            name: GPTQQuantizer(GPTQConfig(bits=bits, group_size=group_size, **options))  # type: ignore[arg-type]
            for name, options in VARIANTS.items()
        }
        self.solved: list[dict[str, float]] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def prepare(self, statistics: InputStatistics | None) -> tuple[InputStatistics, list[PreparedInputs | None]]:
        if statistics is None:
            raise SystemExit("A linear that no token reaches cannot be compared.")
        prepared = []
        for name, quantizer in self._quantizers.items():
            started = time.process_time()
            # What a set is prepared from becomes the quantizer's.
            prepared.append(quantizer.prepare(copy.deepcopy(statistics)))
            self.seconds[name] += time.process_time() - started
        return statistics, prepared

    def convert(
        self, W_OI: torch.Tensor, prepared: tuple[InputStatistics, list[PreparedInputs | None]]
    ) -> SolvedLinear:
        statistics, each = prepared
        judges = statistics.held_out or statistics
        W_OI = W_OI.float()
        energy = quadratic_loss(W_OI, judges.hessian_II)
        wanted_OI = None if judges.mismatch is None else wanted_change(W_OI, judges.mismatch, alpha=1.0, beta=0.0)
        solved, losses = {}, {}
        for (name, quantizer), inputs in zip(self._quantizers.items(), each, strict=True):
            started = time.process_time()
            solved[name] = quantizer.convert(W_OI, inputs)
            self.seconds[name] += time.process_time() - started
            losses[name] = TargetLoss(W_OI, judges.hessian_II, wanted_OI).of(solved[name].weight.dequantize()) / energy
        self.solved.append(losses)
        return next(iter(solved.values()))


def main() -> int:
    """Prints the table; returns the exit status."""
    options = _options()
    text = load_bench_text(options.text)
    folder = options.model or first_model(settings_from_env().cache_dir)
    model = load_model(folder).to(torch.bfloat16)
    tokens_NT = draw_windows(text.calibration, load_tokenizer(folder), CALIBRATION).tokens_NT
    compared = _Compared(options.bits, options.group_size)
    names: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, LinearQuantized):
            names.append(event.linear.rpartition(".")[2])

    with torch.no_grad():
        walk = BlockWalk(quantizer=compared, on_event=note, should_stop=lambda: False)
        blocks = find_blocks(model)
        calls = [((), {"input_ids": batch}) for batch in tokens_NT.split(WINDOWS_PER_BATCH)]
        captured, entering = capture(model, blocks.modules, calls, lambda _: None)
        hidden = walk.entering(entering)
        for index, block in enumerate(blocks.modules[: options.blocks]):
            walked = walk.quantize(index, block, block_batches(captured, hidden, index))
            hidden = walked.outputs
    print(f"{folder.name}, {options.bits} bits, group size {options.group_size}, blocks 0 to {options.blocks - 1}")
    _print_table(compared, names)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, help="the bench text; default: the built-in one")
    parser.add_argument("--model", type=Path, help="a model folder; default: SmolLM2-135M-Instruct, made on first use")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6, help="blocks that are walked")
    return parser.parse_args()


def _print_table(compared: _Compared, names: list[str]) -> None:
    kinds = list(dict.fromkeys(names))
    print(f"{'variant':<26}{''.join(f'{kind:>12}' for kind in kinds)}{'cpu s':>9}")
    for variant in VARIANTS:
        means = []
        for kind in kinds:
            losses = [row[variant] for row, name in zip(compared.solved, names, strict=True) if name == kind]
            means.append(f"{100 * sum(losses) / len(losses):>12.3f}")
        print(f"{variant:<26}{''.join(means)}{compared.seconds[variant]:>9.1f}")


if __name__ == "__main__":
    sys.exit(main())
