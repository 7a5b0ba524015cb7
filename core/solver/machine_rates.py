"""Measures what one core of this machine does in a second, once per machine and version, in well under a second.

The kinds are those that a run's time is estimated from, see `core.preflight.duration`. One core, since a product on all
of them waits for the slowest: where other work goes on, its share of a moment says nothing of the next hour.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from core.blocking import UPDATE_COLUMNS
from core.environment import use_threads
from core.preflight.rates import MachineRates, known_rates, rates_file
from core.profile import Work
from core.solver import kernels
from core.solver.multiplication import times_transposed
from core.solver.products import RowPacker

# Each try is about a millisecond: shorter than a time slice, so that the best of them had a core to itself.
_WIDTH: Final = 512
_ELEMENTS: Final = 2**20
_HASHED_BYTES: Final = 2**20
_NUMBERS: Final = 20_000
_TRIES: Final = 15


def machine_rates(cache_dir: Path) -> MachineRates:
    """Returns the rates of this machine; measures and keeps them where nobody has."""
    known = known_rates(cache_dir)
    if known is not None:
        return known
    rates = measure_rates()
    file = rates_file(cache_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{secrets.token_hex(4)}.tmp")
    beside.write_text(json.dumps(asdict(rates)), "utf-8")
    beside.replace(file)
    return rates


def measure_rates() -> MachineRates:
    """Returns the rates of the CPU, each the best of some tries: what else runs here only makes it slower."""
    cores = torch.get_num_threads()
    left, right = (torch.ones(_WIDTH, _WIDTH) for _ in range(2))
    short, sum_II = left.bfloat16(), torch.zeros(_WIDTH, _WIDTH)
    W_OC, U_CC = torch.ones(_WIDTH, UPDATE_COLUMNS), torch.eye(UPDATE_COLUMNS)
    ones_OC, many, data = torch.ones_like(W_OC), torch.ones(_ELEMENTS), bytes(_HASHED_BYTES)
    packer, products, steps = RowPacker(), 2.0 * _WIDTH**3, float(_WIDTH) * UPDATE_COLUMNS**2
    with _one_thread():
        return MachineRates(
            cores=cores,
            float32_products=_rate(products, lambda: times_transposed(left, right, Work.OTHER)),
            bfloat16_products=_rate(products, lambda: torch.nn.functional.linear(short, short)),
            grams=_rate(float(_WIDTH) ** 3, lambda: _add_gram(packer, short, sum_II)),
            solved_steps=_rate(steps, lambda: kernels.solve_columns(W_OC, U_CC, ones_OC, ones_OC, 1)),
            memory_bytes=_rate(2.0 * many.nbytes, lambda: many.add_(1.0)),
            hashed_bytes=_rate(len(data), lambda: hashlib.sha256(data)),
            numbers=_rate(_NUMBERS, lambda: sum(number for number in range(_NUMBERS))),
        )


def _add_gram(packer: RowPacker, X_NI: torch.Tensor, sum_II: torch.Tensor) -> None:
    for _, rows in packer.parts(X_NI):
        rows.add_gram(sum_II)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    use_threads(1)
    try:
        yield
    finally:
        use_threads(threads)


def _rate(amount: float, work: Callable[[], object]) -> float:
    work()
    best = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return amount / best
