"""Adds up H = mean over tokens of x xᵀ for one input set, batch by batch, the upper triangle only.

Legend: N tokens of one batch, I in_features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.solver.division import Divisor
from core.solver.products import FloatRows, PackedRows, RowPacker

MIRROR_COLUMNS = 512


class Mismatch:
    """What the inputs have to do with the float model's, over the tokens for which both are known.

    difference_II: mean of x (x0 - x)ᵀ, with x0 the float model's input. drift_OI: mean of (r0 - r) xᵀ, r0 and r the
    residual streams that the linear's output is added to; None where it is added to none, or where nothing was noted
    of them. It owns its matrices, since the widest linear's are large: whoever is done with them lets them go.
    """

    def __init__(
        self, difference_II: torch.Tensor, hessian_II: torch.Tensor, drift_OI: torch.Tensor | None = None
    ) -> None:
        """hessian_II: mean of x xᵀ over the same tokens; its memory becomes that of the factor."""
        self.difference_II = difference_II
        self.drift_OI = drift_OI
        self._matrix_II = hessian_II
        self._damp: float | None = None
        self._divisor: Divisor | None = None

    def divisor(self, damp: float) -> Divisor | None:
        """Returns what divides by H+λI; None where that has no Cholesky factor.

        damp is λ as a fraction of the mean of H's diagonal, and always the same one: ValueError on another.
        """
        if self._damp is None:
            self._damp = damp
            diagonal_I = self._matrix_II.diagonal()
            diagonal_I += damp * float(diagonal_I.mean())
            self._divisor = Divisor.of(self._matrix_II)
        if damp != self._damp:
            raise ValueError(f"the Hessian was factorized under {self._damp:g} already")
        return self._divisor

    def release(self) -> None:
        """Lets go of everything."""
        empty = self.difference_II.new_empty(0)
        self.difference_II, self._matrix_II, self.drift_OI, self._divisor = empty, empty, None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """What the solver knows of a linear's inputs.

    hessian_II: float32 [I, I], symmetric, mean over tokens. tokens: rows that were added. dead_inputs: inputs that
    were 0 in every row. dropped_rows: rows left out because they held a value that is not finite. mismatch: None where
    no float path was carried along. held_out: the same of tokens that are in none of these; None where none were kept.
    """

    hessian_II: torch.Tensor  # noqa: N815
    tokens: int
    dead_inputs: int
    dropped_rows: int
    mismatch: Mismatch | None = None
    held_out: InputStatistics | None = None


class HessianAccumulator:
    """Collects the inputs of one input set; holds one or three I x I matrices and nothing of the inputs themselves."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        """Starts at zero."""
        self._alone = _Sum(in_features, device)
        self._paired: _Sum | None = None
        self._crossed_II: torch.Tensor | None = None
        self._drift_OI: torch.Tensor | None = None
        self._dropped_rows = torch.zeros((), dtype=torch.int64, device=device)
        self._packer = RowPacker()
        self._finished: InputStatistics | None = None

    def add(
        self,
        X: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        float_X: torch.Tensor | None = None,
        drift: torch.Tensor | None = None,
    ) -> None:
        """Adds inputs of any leading shape [..., I]; token_mask, of that shape, is False where a row is padding.

        float_X: the float model's inputs of the same tokens. drift [..., O]: float minus quantized residual stream at
        these tokens, given with all of a linear's float inputs or with none.
        """
        X_NI = X.reshape(-1, X.shape[-1])
        beside = [None if rows is None else rows.reshape(-1, rows.shape[-1]) for rows in (float_X, drift)]
        known = token_mask is not None and token_mask.numel() == X_NI.shape[0]
        mask_N = token_mask.reshape(-1) if known and token_mask is not None else None
        sums = self._alone if float_X is None else self._sums_beside()
        for part in self._packer.slices(X_NI):
            own, *others = (None if rows is None else rows[part] for rows in (mask_N, *beside))
            self._add_part(sums, X_NI[part], own, others)

    def _add_part(
        self, sums: _Sum, X_NI: torch.Tensor, mask_N: torch.Tensor | None, beside: list[torch.Tensor | None]
    ) -> None:
        """beside: the float model's inputs and the drift of these tokens, None where there is none."""
        rows: FloatRows | PackedRows | None = self._packer.moderate_rows(X_NI) if mask_N is None else None
        if rows is None:
            counting = self._counting(X_NI, mask_N)
            sums.tokens += counting.tokens
            rows = self._packer.rows(counting.of(X_NI))
            beside = [None if other is None else counting.of(other) for other in beside]
        else:
            sums.tokens += X_NI.shape[0]
        rows.add_gram(sums.upper_II)
        float_NI, drift_NO = beside
        if float_NI is not None and self._crossed_II is not None:
            rows.add_crossed(self._crossed_II, float_NI)
        if float_NI is not None and drift_NO is not None:
            self._add_drift(rows, drift_NO, X_NI.shape[1])

    def _sums_beside(self) -> _Sum:
        """Returns the sum of what the float path runs beside, and makes sure of the one that crosses it."""
        if self._paired is None:
            in_features = self._alone.upper_II.shape[0]
            self._paired = _Sum(in_features, self._dropped_rows.device)
            self._crossed_II = torch.zeros_like(self._paired.upper_II)
        return self._paired

    def of_batch(self, _number: int) -> HessianAccumulator:
        """Returns where a batch's inputs are added: here, whatever its number."""
        return self

    def take(self, other: HessianAccumulator) -> None:
        """Adds another's sums, wherever they lie, to these; neither may be finished, and the other is used up."""
        self._alone.take(other._alone)
        self._dropped_rows += other._dropped_rows.to(self._dropped_rows.device)
        if other._paired is not None:
            if self._paired is None:
                self._paired = _Sum(other._paired.upper_II.shape[0], self._dropped_rows.device)
            self._paired.take(other._paired)
        self._crossed_II = self._with(self._crossed_II, other._crossed_II)
        self._drift_OI = self._with(self._drift_OI, other._drift_OI)

    def _with(self, own: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
        """Returns the sum of what is there of both."""
        if other is None:
            return own
        here = other.to(self._dropped_rows.device)
        return here if own is None else own.add_(here)

    def finish(self) -> InputStatistics:
        """Returns the statistics, the same ones each time; the accumulator's memory passes to them."""
        if self._finished is None:
            self._finished = self._finish()
        return self._finished

    def _finish(self) -> InputStatistics:
        self._packer = RowPacker()
        mismatch = self._mismatch()
        hessian_II = self._alone.mean()
        return InputStatistics(
            hessian_II=hessian_II,
            tokens=int(self._alone.tokens),
            dead_inputs=int((hessian_II.diagonal() == 0).sum()),
            dropped_rows=int(self._dropped_rows),
            mismatch=mismatch,
        )

    def _mismatch(self) -> Mismatch | None:
        """Adds what was paired to the rest, and hands its memory over; None where nothing was."""
        paired, crossed_II, drift_OI = self._paired, self._crossed_II, self._drift_OI
        if paired is None or crossed_II is None:
            return None
        self._paired = self._crossed_II = self._drift_OI = None
        self._alone.take(paired)
        tokens = max(int(paired.tokens), 1)
        hessian_II = paired.mean()
        return Mismatch(
            difference_II=crossed_II.div_(tokens).sub_(hessian_II),
            hessian_II=hessian_II,
            drift_OI=None if drift_OI is None else drift_OI.div_(tokens),
        )

    def _add_drift(self, rows: FloatRows | PackedRows, drift_NO: torch.Tensor, in_features: int) -> None:
        if self._drift_OI is None:
            shape = (drift_NO.shape[1], in_features)
            self._drift_OI = torch.zeros(shape, dtype=torch.float32, device=drift_NO.device)
        rows.add_cross(self._drift_OI, drift_NO)

    def _counting(self, X_NI: torch.Tensor, mask_N: torch.Tensor | None) -> Counting:
        """Returns the rows that count: those that are no padding and hold finite values."""
        counts_N = torch.isfinite(X_NI.sum(dim=1))
        self._dropped_rows += (~counts_N).sum()
        if mask_N is not None:
            counts_N &= mask_N
        return Counting(counts_N, selects=X_NI.device.type == "cpu")


class Counting:
    """Which rows of a batch count. tokens: how many, a number that stays on the device.

    Who asks another device for a number waits until it has done all that it was told to. There the other rows become
    zeros, which add nothing to a sum; only the CPU can say at once which rows are left over.
    """

    def __init__(self, counts_N: torch.Tensor, *, selects: bool) -> None:
        """selects: whether rows are left out, else they become zeros."""
        self.tokens = counts_N.sum()
        self._counts_N = counts_N
        self._selects = selects
        self._all = selects and bool(counts_N.all())

    def of(self, rows_NJ: torch.Tensor) -> torch.Tensor:
        """Returns rows of the same tokens with nothing left in them of those that do not count."""
        if self._all:
            return rows_NJ
        if self._selects:
            return rows_NJ[self._counts_N]
        return rows_NJ.masked_fill(~self._counts_N[:, None], 0)


class _Sum:
    """Σ x xᵀ, the upper triangle only, and the number of its tokens, which stays on the device."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.upper_II = torch.zeros(in_features, in_features, dtype=torch.float32, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)

    def take(self, other: _Sum) -> None:
        self.upper_II += other.upper_II.to(self.upper_II.device)
        self.tokens += other.tokens.to(self.tokens.device)

    def mean(self) -> torch.Tensor:
        """Returns the whole symmetric mean in the sum's memory: the widest linear's is too large to have twice."""
        mean_II = self.upper_II.div_(max(int(self.tokens), 1))
        for start in range(0, mean_II.shape[0], MIRROR_COLUMNS):
            stop = start + MIRROR_COLUMNS
            corner = torch.triu(mean_II[start:stop, start:stop])
            mean_II[start:stop, start:stop] = corner + torch.triu(corner, diagonal=1).T
            mean_II[stop:, start:stop] = mean_II[start:stop, stop:].T
        return mean_II
