"""In which pieces the solver works, for itself and for the estimate of its time; standard library only."""

from __future__ import annotations

from typing import Final

UPDATE_COLUMNS: Final = 128
"""Columns that are solved or refined between two products: a row's part of them stays in the nearest cache."""
LEAF_COLUMNS: Final = 192
"""Up to this width torch's own factorization is as fast as products are."""
