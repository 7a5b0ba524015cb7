"""Finds, by trying, which operation in a block can take over a power-of-two scale of each input of a linear.

A norm or a linear in front may do: multiplying its output by 2^e and the columns behind it by 2^-e leaves every number
of the block as it is, bit by bit. No family is named: rows of each candidate are scaled and what arrives is compared.

Legend: I inputs of a set of linears, R rows (outputs) of the operation in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from core.model.input_sets import InputSets
from core.model.structure import is_linear, linear_weight

# Rows are told apart by their exponents, one digit of the row's number at a time.
DIGITS = 8
LOWEST_EXPONENT = -4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """producer: path of the operation in front. rows_I: the row of it that each input is a multiple of, int64."""

    producer: str
    rows_I: torch.Tensor  # noqa: N815 - shapes live in names


Folds = Mapping[tuple[str, ...], Fold]


def discover_folds(
    block: nn.Module, linears: Mapping[str, nn.Module], input_sets: InputSets, run: Callable[[], torch.Tensor]
) -> Folds:
    """Runs the block some dozen times on one batch; the block's weights are as they were afterwards.

    linears: those that can change their columns; a producer among them must have no bias.
    """
    probe = _Probe(linears, input_sets, run)
    folds: dict[tuple[str, ...], Fold] = {}
    for path, module in _producers(block, linears):
        for names, rows_I in probe.rows(module).items():
            if names not in folds and probe.changes_nothing(module, names, rows_I):
                folds[names] = Fold(producer=path, rows_I=rows_I)
    return folds


def scale_rows(module: nn.Module, exponents_R: torch.Tensor) -> None:
    """Multiplies what the module puts out by 2^exponent, row by row, in place."""
    for parameter in module.parameters(recurse=False):
        matrix = linear_weight(module) if is_linear(module) and parameter.dim() > 1 else parameter
        matrix.data.copy_(
            torch.ldexp(matrix.T, exponents_R).T if matrix.dim() > 1 else torch.ldexp(matrix, exponents_R)
        )


def _producers(block: nn.Module, linears: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yields norms, then linears without a bias, whose rounding to float16 would have to be repeated exactly."""
    for path, module in block.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 1:
            yield path, module
    for path, module in linears.items():
        if getattr(module, "bias", None) is None:
            yield path, module


class _Probe:
    """One batch's way through the block, undisturbed and with the rows of one module scaled."""

    def __init__(
        self, linears: Mapping[str, nn.Module], input_sets: InputSets, run: Callable[[], torch.Tensor]
    ) -> None:
        self._linears, self._sets, self._run = linears, input_sets, run
        self._inputs, self._output = self._pass()

    def rows(self, module: nn.Module) -> dict[tuple[str, ...], torch.Tensor]:
        """Returns, for each set whose every input is a multiple of one row of the module, that row."""
        count = _rows_of(module)
        number_R = torch.arange(count, device=_device_of(module))
        found: dict[tuple[str, ...], torch.Tensor] = {}
        unit = 1
        while unit == 1 or (found and unit < count):
            exponents_R = (number_R // unit) % DIGITS + LOWEST_EXPONENT
            with _scaled(module, exponents_R):
                inputs, _ = self._pass()
            digits = {names: self._digits(names, X) for names, X in inputs.items() if unit == 1 or names in found}
            found = {
                names: found.get(names, torch.zeros_like(digit_I)) + unit * digit_I
                for names, digit_I in digits.items()
                if digit_I is not None
            }
            unit *= DIGITS
        return {names: rows_I for names, rows_I in found.items() if int(rows_I.max()) < count}

    def changes_nothing(self, module: nn.Module, names: tuple[str, ...], rows_I: torch.Tensor) -> bool:
        """Whether scaled rows and columns scaled against them leave the block's output as it is: none else reads it."""
        exponents_R = torch.arange(_rows_of(module), device=_device_of(module)) % 5 - 2
        kept = {name: linear_weight(self._linears[name]).clone() for name in names}
        try:
            for name in names:
                weight = linear_weight(self._linears[name])
                weight.data.copy_(torch.ldexp(weight, -exponents_R[rows_I]))
            with _scaled(module, exponents_R):
                return torch.equal(self._pass()[1], self._output)
        finally:
            for name, weight in kept.items():
                linear_weight(self._linears[name]).data.copy_(weight)

    def _digits(self, names: tuple[str, ...], X: torch.Tensor) -> torch.Tensor | None:
        """Returns the digit that each input's exponent spells; None where an input is no such multiple."""
        before_NI, after_NI = (part.reshape(-1, part.shape[-1]).float() for part in (self._inputs[names], X))
        largest_1I = before_NI.abs().argmax(dim=0, keepdim=True)
        ratio_I = (after_NI.gather(0, largest_1I) / before_NI.gather(0, largest_1I))[0]
        if not bool((ratio_I > 0).all()) or not bool(torch.isfinite(ratio_I).all()):
            return None
        exponents_I = torch.log2(ratio_I).round().long()
        digits_I = exponents_I - LOWEST_EXPONENT
        inside = bool(((digits_I >= 0) & (digits_I < DIGITS)).all())
        untouched = bool((exponents_I == 0).all())
        exact = torch.equal(torch.ldexp(before_NI, exponents_I), after_NI)
        return digits_I if inside and exact and not untouched else None

    def _pass(self) -> tuple[dict[tuple[str, ...], torch.Tensor], torch.Tensor]:
        inputs: dict[tuple[str, ...], torch.Tensor] = {}

        def keep(names: tuple[str, ...]) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
            return lambda _module, args: inputs.__setitem__(names, args[0].clone())

        handles = [self._linears[names[0]].register_forward_pre_hook(keep(names)) for names in self._sets]
        try:
            output = self._run()
        finally:
            for handle in handles:
                handle.remove()
        return inputs, output


def _rows_of(module: nn.Module) -> int:
    return linear_weight(module).shape[0] if is_linear(module) else module.get_parameter("weight").shape[0]


def _device_of(module: nn.Module) -> torch.device:
    return module.get_parameter("weight").device


@contextmanager
def _scaled(module: nn.Module, exponents_R: torch.Tensor) -> Iterator[None]:
    kept = [(parameter, parameter.detach().clone()) for parameter in module.parameters(recurse=False)]
    scale_rows(module, exponents_R)
    try:
        yield
    finally:
        for parameter, values in kept:
            parameter.data.copy_(values)
