"""What refinement changes of some columns of a weight, as views of the whole: the kernels write where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedColumns:
    """Columns of one group, float32. difference_OC: weights less targets. moved_O: rows that any move has changed.

    codes_OC are whole numbers; zeros_O and scales_O are those of the group.
    """

    codes_OC: torch.Tensor  # noqa: N815 - shapes live in names
    difference_OC: torch.Tensor  # noqa: N815
    zeros_O: torch.Tensor  # noqa: N815
    scales_O: torch.Tensor  # noqa: N815
    moved_O: torch.Tensor  # noqa: N815

    @property
    def levels_OC(self) -> torch.Tensor:  # noqa: N802 - shapes live in names
        """Returns what a scale is multiplied by."""
        return self.codes_OC - self.zeros_O[:, None]

    def part(self, columns: slice) -> RefinedColumns:
        """Returns some of the columns."""
        return RefinedColumns(
            codes_OC=self.codes_OC[:, columns],
            difference_OC=self.difference_OC[:, columns],
            zeros_O=self.zeros_O,
            scales_O=self.scales_O,
            moved_O=self.moved_O,
        )
